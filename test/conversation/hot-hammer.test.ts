import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { fillScript } from "../../src/conversation/hot/redis-copy-scripts.ts";
import type { Database, SqlRow } from "../../src/infra/database.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { freshRedis } from "../support/fresh.ts";
import { believing, type HotInstance, openAgain, openTruth, startHot } from "./hot-parts.ts";

const IDS = ["a", "b", "c"];

/** The real database, whose answers are heard of a little later, so that much can happen between. */
function dawdling(database: Database): Database {
  return {
    ...database,
    async query<Row extends SqlRow>(sql: string, params?: Parameters<Database["query"]>[1]) {
      const rows = await database.query<Row>(sql, params);
      for (let turns = Math.floor(Math.random() * 20); turns > 0; turns--) await turn();
      return rows;
    },
  };
}

/** The real Redis, with a bug: copies are stored without a look at what is there. */
function careless(redis: Redis): Redis {
  return Object.create(redis, {
    run: {
      value: async (...[script, keys, args]: Parameters<Redis["run"]>) => {
        if (script !== fillScript) return redis.run(script, keys, args);
        for (let at = 0; at < keys.length; at += 2) {
          const copy = args[3 + (at / 2) * 5 + 2];
          if (copy !== undefined && copy !== "") await redis.command("set", keys[at] ?? "", copy);
        }
        return [Date.now(), ...keys.filter((_, at) => at % 2 === 0).map(() => 0)];
      },
    },
  });
}

/** Readers, writers and those who ask; each answer is held against all that was known before it was asked for. */
async function hammer(instances: readonly HotInstance[], writes: number): Promise<{ reads: number; faults: string[] }> {
  const floor = new Map<string, number>();
  const faults: string[] = [];
  let reads = 0;
  let writing = instances.length * 2;
  const idOf = () => IDS[Math.floor(Math.random() * IDS.length)] ?? "";
  const know = (id: string, version: number) => floor.set(id, Math.max(version, floor.get(id) ?? 0));

  async function write(one: HotInstance, name: string): Promise<void> {
    for (let at = 0; at < writes; at++) {
      const id = idOf();
      const outcome = await (at % 3 === 0 ? one.append(id, `${name}-${at}`) : one.save(id, at));
      if (outcome.kind === "done") know(id, outcome.held.version);
      await turn();
    }
    writing--;
  }

  async function read(one: HotInstance, name: string): Promise<void> {
    while (writing > 0) {
      const id = idOf();
      const least = floor.get(id) ?? 0;
      const { what, layer } = await one.get(id);
      const version = what?.held.version ?? 0;
      if (version < least) faults.push(`${name}: ${id} is ${version} in ${layer}, and ${least} was known before`);
      know(id, version);
      reads++;
      if (layer === "redis") hits++;
      await turn();
    }
  }

  let hits = 0;
  await Promise.all(
    instances.flatMap((one, at) => [
      ...[0, 1].map((each) => write(one, `writer ${at}.${each}`)),
      ...[0, 1, 2].map((each) => read(one, `reader ${at}.${each}`)),
    ]),
  );
  expect(hits).toBeGreaterThan(0);
  return { reads, faults };
}

async function setup(wrap: (redis: Redis) => Redis): Promise<readonly HotInstance[]> {
  const { where } = await openTruth("postgres");
  const redisUrl = await freshRedis();
  const instances = await Promise.all(
    [0, 1].map(() => startHot({ database: dawdling(openAgain(where)), redisUrl, wrap })),
  );
  await believing(...instances);
  return instances;
}

describe("many readers and writers on two instances", () => {
  it("never see a version go back while Redis is well", async () => {
    const instances = await setup((redis) => redis);
    const { reads, faults } = await hammer(instances, 150);
    expect(faults).toEqual([]);
    expect(reads).toBeGreaterThan(100);
  });

  it("would see it if copies were stored without comparing stamps", async () => {
    const instances = await setup(careless);
    const found: string[] = [];
    for (let round = 0; round < 20 && found.length === 0; round++) found.push(...(await hammer(instances, 50)).faults);
    expect(found.length).toBeGreaterThan(0);
  });
});

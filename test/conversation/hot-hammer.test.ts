import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { fillScript } from "../../src/conversation/hot/redis-copy-scripts.ts";
import type { Database, SqlRow } from "../../src/infra/database.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { freshRedis } from "../support/fresh.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { believing, type HotInstance, keyOf, openAgain, openTruth, startHot } from "./hot-parts.ts";

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

interface Seen {
  readonly reads: number;
  readonly hits: number;
  readonly faults: readonly string[];
}

/**
 * Readers and writers; each answer is held against what was known before it was asked for: to anybody, or, while Redis fails, to
 * the instance that answers.
 */
async function hammer(instances: readonly HotInstance[], writes: number, known: "anywhere" | "here"): Promise<Seen> {
  const floors = new Map<string, number>();
  const faults: string[] = [];
  let [reads, hits] = [0, 0];
  let writing = instances.length * 2;
  const idOf = () => IDS[Math.floor(Math.random() * IDS.length)] ?? "";
  const floorOf = (one: HotInstance, id: string) => `${known === "here" ? instances.indexOf(one) : ""}/${id}`;
  const know = (floor: string, version: number) => floors.set(floor, Math.max(version, floors.get(floor) ?? 0));

  async function write(one: HotInstance, name: string): Promise<void> {
    for (let at = 0; at < writes; at++) {
      const id = idOf();
      const outcome = await (at % 3 === 0 ? one.append(id, `${name}-${at}`) : one.save(id, at));
      if (outcome.kind === "done") know(floorOf(one, id), outcome.held.version);
      await turn();
    }
    writing--;
  }

  async function read(one: HotInstance, name: string): Promise<void> {
    while (writing > 0) {
      const id = idOf();
      const floor = floorOf(one, id);
      const least = floors.get(floor) ?? 0;
      const { what, layer } = await one.get(id);
      const version = what?.held.version ?? 0;
      if (version < least) faults.push(`${name}: ${id} is ${version} in ${layer}, and ${least} was known before`);
      know(floor, version);
      reads++;
      if (layer === "redis") hits++;
      await turn();
    }
  }

  await Promise.all(
    instances.flatMap((one, at) => [
      ...[0, 1].map((each) => write(one, `writer ${at}.${each}`)),
      ...[0, 1, 2].map((each) => read(one, `reader ${at}.${each}`)),
    ]),
  );
  return { reads, hits, faults };
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
    const { reads, hits, faults } = await hammer(instances, 150, "anywhere");
    expect(faults).toEqual([]);
    expect(reads).toBeGreaterThan(100);
    expect(hits).toBeGreaterThan(0);
  });

  it("would see it if copies were stored without comparing stamps", async () => {
    const instances = await setup(careless);
    const found: string[] = [];
    for (let round = 0; round < 20 && found.length === 0; round++) {
      found.push(...(await hammer(instances, 50, "anywhere")).faults);
    }
    expect(found.length).toBeGreaterThan(0);
  });

  it("never see an instance go back while Redis is killed, frozen, flushed and brought back with old data", async () => {
    const { where, database } = await openTruth("postgres");
    await using server = await startRedis({ args: ["--save", "1 1"] });
    const given = { redisUrl: server.url, commandTimeoutMs: 250, resetTimeoutMs: 200, sweepMs: 50, documents: true };
    const start = () => startHot({ ...given, database: openAgain(where) });
    const instances = [await start(), await start()];
    await believing(...instances);
    const flush = async (how: string) => {
      await until(() => instances[0]?.redis.command(how), { what: how });
    };
    let isOver = false;
    const harm = async () => {
      for (let turns = 0; !isOver; turns++) {
        if (turns % 3 === 0) await flush("flushall");
        if (turns % 3 === 1) {
          await flush("save");
          await server.kill();
          await server.restart();
        }
        if (turns % 3 === 2) {
          server.pause();
          await until(() => instances.every(({ redis }) => !redis.connected), { what: "the freeze to be felt" });
          server.resume();
        }
        await until(() => isOver || instances.every(({ copies }) => copies.condition().believed), { what: "healing" });
        await until(async () => isOver || (await instances[0]?.copies.read(keyOf("a"))), { what: "a copy" });
      }
    };
    const harmed = harm();
    const { faults } = await hammer(instances, 300, "here");
    isOver = true;
    await harmed;
    expect(faults).toEqual([]);
    const next = await start();
    await until(() => instances.every(({ breaker }) => breaker.state === "closed"), { what: "the breakers to close" });
    await believing(...instances, next);
    const rows = await database.query<{ id: string; version: number; unhealed: number }>(
      "SELECT id, version, unhealed FROM conversation ORDER BY id",
    );
    expect(rows.map(({ id, unhealed }) => [id, unhealed])).toEqual(IDS.map((id) => [id, 0]));
    for (const one of [...instances, next]) {
      for (const { id, version } of rows) expect((await one.get(id)).what?.held.version).toBe(version);
    }
  });
});

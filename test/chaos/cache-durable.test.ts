import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { CallFailed, createCacheClient } from "../support/cache-client.ts";
import { type PostgresServer, startPostgres } from "../support/postgres-server.ts";
import { until } from "../support/until.ts";
import { durableConfig, healed, readBack, type Setup, startRegisters, startSetup, tell } from "./outage.ts";

/*
 * Promises of a durable namespace over Redis and Postgres: whatever is killed or restarted, an acknowledged write is in SQL, and no
 * hot copy is older than SQL once all is well again. Without Postgres, hot copies are served and marked degraded, and writes fail
 * with UNAVAILABLE and a hint to come back.
 */

const seed = 20_260_714;
const { method } = CacheService;

let parts: AsyncDisposableStack;
let postgres: PostgresServer;
let setup: Setup;
let database: string;
beforeAll(async () => {
  parts = new AsyncDisposableStack();
  postgres = parts.use(await startPostgres());
  database = await postgres.createDatabase();
  const env = { DATABASE_URL: database, HOLDFAST_CONFIG: durableConfig(parts), DATABASE_CONNECT_TIMEOUT: "500ms" };
  setup = parts.use(await startSetup("cluster", env));
});
afterAll(() => parts.disposeAsync());

/** What SQL holds, read past every layer of the server. */
async function truth(namespace: string): Promise<Map<string, number>> {
  const client = new pg.Client({ connectionString: database });
  await client.connect();
  try {
    const { rows } = await client.query<{ key: string; value: Buffer }>(
      "SELECT key, value FROM cache_entry WHERE namespace = $1 AND deleted = 0",
      [namespace],
    );
    return new Map(rows.map(({ key, value }) => [key, Number(value.toString("utf8"))]));
  } finally {
    await client.end();
  }
}

const faults: { name: string; mayFail: boolean; happen: () => Promise<void> }[] = [
  {
    name: "an instance is killed between writes, and started again",
    mayFail: true,
    happen: async () => {
      const [one] = setup.instances;
      await one?.kill();
      await one?.restart();
    },
  },
  {
    name: "Redis is killed, and comes back with its data",
    mayFail: false,
    happen: async () => {
      await setup.redis.kill();
      await delay(1_000);
      await setup.redis.restart();
    },
  },
  {
    name: "Redis is frozen",
    mayFail: false,
    happen: async () => {
      setup.redis.pause();
      await delay(1_500);
      setup.redis.resume();
    },
  },
  {
    name: "Postgres is killed, and started again",
    mayFail: true,
    happen: async () => {
      await postgres.kill();
      await delay(500);
      await postgres.restart();
    },
  },
  {
    name: "Redis is killed, then an instance, and both are started again",
    mayFail: true,
    happen: async () => {
      const [one] = setup.instances;
      await setup.redis.kill();
      await delay(300);
      await one?.kill();
      await setup.redis.restart();
      await one?.restart();
    },
  },
];

/** Every instance has found SQL again, and no longer leaves it alone. */
async function truthInUse(namespace: string): Promise<void> {
  for (const { grpcAddress } of setup.instances) {
    using client = createCacheClient(grpcAddress);
    const stores = () =>
      client.put(namespace, "probe", "probe").then(
        () => true,
        (error: unknown) => {
          if (error instanceof CallFailed && error.code === "UNAVAILABLE") return false;
          throw error;
        },
      );
    await until(stores, { what: "SQL to be used again", timeoutMs: 30_000 });
  }
}

describe("a durable namespace, under load", () => {
  it.each(faults)("keeps every acknowledged write when $name", async ({ name, mayFail, happen }) => {
    const namespace = `truth-${faults.findIndex((fault) => fault.name === name)}`;
    await healed(setup);
    const job = { namespace, keys: 20, writers: 3, readers: 2, medley: !mayFail, seed, pauseMs: 3 };
    const loads = await startRegisters(setup.instances, job);
    await happen();
    await healed(setup);
    await truthInUse(namespace);
    await delay(300);
    const reports = await Promise.all(loads.map((load) => load.stop()));
    await healed(setup);
    const after = await readBack(setup.instances, namespace, reports);
    console.log(tell(`seed ${seed}, durable, ${name}`, reports, after));

    const failures = reports.flatMap((report) => report.failures);
    if (!mayFail) expect(failures).toEqual([]);
    else expect(failures.filter((failure) => !/: (UNAVAILABLE|DEADLINE_EXCEEDED) /.test(failure))).toEqual([]);
    expect(reports.flatMap(({ account }) => account.examples)).toEqual([]);
    expect(after).toMatchObject({ examples: [], holes: 0 });
    const rows = await truth(namespace);
    const lost = [...after.acknowledged].filter(([key, { number }]) => (rows.get(key) ?? 0) < number);
    expect(lost).toEqual([]);
    // Nobody writes any more: what Redis holds is exactly what SQL holds.
    using client = createCacheClient(setup.instances[0]?.grpcAddress ?? "");
    for (const [key, number] of rows) {
      if (after.acknowledged.has(key)) expect(await client.text(namespace, key, true)).toBe(String(number));
    }
  });
});

describe("a durable namespace without Postgres", () => {
  it("serves hot copies, marked degraded, and refuses writes with UNAVAILABLE and when to come back", async () => {
    const namespace = "truth-gone";
    await healed(setup);
    using one = createCacheClient(setup.instances[0]?.grpcAddress ?? "");
    using two = createCacheClient(setup.instances[1]?.grpcAddress ?? "");
    for (const key of ["a", "b"]) await one.put(namespace, key, "kept");
    await one.put("default", "c", "hot");
    await postgres.kill();
    try {
      const failure = await one.put(namespace, "a", "refused").catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(CallFailed);
      expect(failure).toMatchObject({ code: "UNAVAILABLE", hasRetryInfo: true });
      // Both instances learn of it sooner or later, the second although nobody writes there.
      for (const client of [one, two]) {
        const read = () => client.call(method.get, { namespace, key: "b", bypassL1: true });
        await until(async () => (await read()).degraded, { what: "the answer to be marked degraded" });
        const answer = await read();
        expect(answer.reply.entry?.value?.kind.value).toBe("kept");
      }
      // Nothing says that this key is absent: only SQL could.
      const unknown = await one.call(method.get, { namespace, key: "never-set" }).catch((error: unknown) => error);
      expect(unknown).toMatchObject({ code: "UNAVAILABLE", hasRetryInfo: true });
      // What is not durable needs no SQL.
      expect((await one.put("default", "c", "still written")).degraded).toBe(false);
      expect(await two.text("default", "c", true)).toBe("still written");
    } finally {
      await postgres.restart();
    }
    const again = async () => (await one.put(namespace, "a", "again").catch(() => undefined))?.reply.version;
    await until(again, { what: "writes to be taken again" });
    for (const client of [one, two]) {
      expect(await client.text(namespace, "a", true)).toBe("again");
      const calm = async () => !(await client.call(method.get, { namespace, key: "b", bypassL1: true })).degraded;
      await until(calm, { what: "answers to be no longer marked" });
    }
  });
});

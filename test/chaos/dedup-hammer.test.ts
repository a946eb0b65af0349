import { setTimeout as delay } from "node:timers/promises";
import { Redis } from "ioredis";
import { expect, it } from "vitest";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { type Patch, plantBug } from "../support/planted-bug.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { FAULTS, type Fault, faultsIn } from "./dedup-checker.ts";
import { type HammerReport, LEASE_MS, startHammer } from "./dedup-load.ts";
import { SETTINGS } from "./outage.ts";

/*
 * Promises: whatever happens to Redis and to instances, each claim has exactly one first, nobody takes over before a lease ended, what is
 * done is done once until it is forgotten, and nobody is told of what is forgotten.
 */

const INSTANCES = 3;
const RACERS = 100;

interface Scene {
  readonly redis: RedisServer;
  readonly instances: readonly HoldfastProcess[];
}

async function flush({ url }: RedisServer): Promise<void> {
  const client = new Redis(url, { lazyConnect: true, retryStrategy: () => null });
  try {
    await client.connect();
    await client.flushall();
  } finally {
    client.disconnect();
  }
}

async function harm({ redis, instances }: Scene): Promise<void> {
  await delay(1_500);
  await flush(redis);
  await delay(1_000);
  redis.pause();
  await delay(1_500);
  redis.resume();
  await delay(1_500);
  // It comes back with all that it had.
  await redis.kill();
  await delay(500);
  await redis.restart();
  await delay(1_500);
  await instances[1]?.kill();
  await instances[1]?.restart();
  await delay(1_000);
  await flush(redis);
  await delay(500);
}

async function run(during: (scene: Scene) => Promise<void>, things: number, root?: string): Promise<HammerReport> {
  await using redis = await startRedis({ args: ["--appendonly", "yes"] });
  const settings = {
    ...SETTINGS,
    HOLDFAST_LOG_LEVEL: "info",
    REDIS_URL: redis.url,
    DATABASE_URL: await freshDatabase(),
  };
  await using parts = new AsyncDisposableStack();
  const start = async () => parts.use(await startHoldfast(settings, root));
  const instances = await Promise.all(Array.from({ length: INSTANCES }, start));
  const hammer = startHammer({ addresses: instances.map(({ grpcAddress }) => grpcAddress), things, racers: RACERS });
  await during({ redis, instances }).finally(hammer.end);
  return await hammer.report();
}

function told({ history, races, copied, failures }: HammerReport): Record<Fault, number> {
  const faults = faultsIn(history, LEASE_MS);
  const counts = FAULTS.map((fault): [Fault, number] => [fault, faults.filter((one) => one.fault === fault).length]);
  const firsts = history.filter(({ kind }) => kind === "first").length;
  console.log(
    `${races} races, ${firsts} times first, ${copied} duplicates from copies, ${failures} calls failed;`,
    faults[0],
  );
  return Object.fromEntries(counts) as Record<Fault, number>;
}

const NONE = Object.fromEntries(FAULTS.map((fault) => [fault, 0]));

it("claims have one first each while Redis is flushed, frozen and killed and an instance is killed", async () => {
  const report = await run(harm, 4);
  expect(told(report)).toEqual(NONE);
  expect(report.races).toBeGreaterThan(4);
  expect(report.copied).toBeGreaterThan(RACERS);
  expect(report.failures).toBeGreaterThan(0);
}, 120_000);

const MOST_RUNS = 6;

const PLANTED: readonly { readonly bug: string; readonly patches: readonly Patch[]; readonly found: Fault }[] = [
  {
    bug: "forgets what is done and leaves its copy",
    patches: [{ file: "src/dedup/dedup.ts", text: "await copies.forget(order.id, order.token);", instead: "" }],
    found: "duplicate of what is forgotten",
  },
  {
    bug: "lets the slower of two who insert the same claim have it",
    patches: [
      {
        file: "src/dedup/truth/sql-rows.ts",
        text: "DO NOTHING RETURNING token",
        instead: "DO UPDATE SET token = excluded.token RETURNING token",
      },
    ],
    found: "taken over early",
  },
];

it.each(PLANTED)("the run fails on a server that $bug", { timeout: 120_000 }, async ({ patches, found }) => {
  using copy = plantBug(patches);
  // A race has to happen to be found: on a machine that is busy with something else it may take more than one run.
  let times = 0;
  for (let runs = 0; runs < MOST_RUNS && times === 0; runs++) {
    times = told(await run(() => delay(1_500), 2, copy.path))[found];
  }
  expect(times).toBeGreaterThan(0);
});

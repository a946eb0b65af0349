import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { startRedisSentinel } from "../support/redis-sentinel.ts";
import {
  COMMAND_TIMEOUT_MS,
  countUnhealed,
  healed,
  readBack,
  SETTINGS,
  SLACK_MS,
  startRegisters,
  tell,
} from "./outage.ts";

/*
 * Promises: no call fails and none waits longer than the command timeout while Sentinels make a replica the primary, or while a
 * master of a Redis Cluster is gone; and all is healed afterwards. What the lost primary had not passed on to its replica is
 * Redis's to lose: the account tells how much that was, and no more is promised here.
 */

const seed = 20_260_715;

async function run(name: string, redisUrl: string, happen: () => Promise<void>, end: () => Promise<void>) {
  await using parts = new AsyncDisposableStack();
  const env = { ...SETTINGS, HOLDFAST_LOG_LEVEL: "info", REDIS_URL: redisUrl, DATABASE_URL: await freshDatabase() };
  const instances = [parts.use(await startHoldfast(env)), parts.use(await startHoldfast(env))];
  const setup = { instances, unhealed: () => countUnhealed(instances) };
  await healed(setup);
  const job = { namespace: "failover", keys: 20, writers: 2, readers: 1, medley: true, seed, pauseMs: 10 };
  const loads = await startRegisters(instances, job);
  await happen();
  await delay(1_000);
  await end();
  await healed(setup);
  await delay(300);
  const reports = await Promise.all(loads.map((load) => load.stop()));
  await healed(setup);
  const after = await readBack(instances, "failover", reports);
  console.log(tell(`seed ${seed}, ${name}`, reports, after));
  expect(reports.flatMap(({ failures }) => failures)).toEqual([]);
  for (const { slowestMs, slowest } of reports) {
    expect(slowestMs, slowest).toBeLessThan(COMMAND_TIMEOUT_MS + SLACK_MS);
  }
  expect(reports.some(({ degraded }) => degraded > 0)).toBe(true);
  return { reports, after };
}

it("a primary is killed, and Sentinels put its replica in its place", async () => {
  await using group = await startRedisSentinel();
  const hosts = group.sentinels.map(({ host, port }) => `${host}:${port}`).join(",");
  await run(
    "Sentinel failover",
    `redis-sentinel://${hosts}/${group.name}`,
    () => group.primary.kill(),
    async () => {},
  );
});

it("a master of a Redis Cluster is killed, and comes back empty", async () => {
  await using cluster = await startRedisCluster();
  const [, lost] = cluster.nodes;
  if (lost === undefined) throw new Error("no second master");
  const hosts = cluster.nodes.map(({ port }) => `127.0.0.1:${port}`).join(",");
  const { reports, after } = await run(
    "a cluster's master killed",
    `redis-cluster://${hosts}`,
    () => lost.kill(),
    () => lost.restart(),
  );
  expect(reports.flatMap(({ account }) => account.examples)).toEqual([]);
  expect(after.examples).toEqual([]);
});

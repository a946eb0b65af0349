import { expect, it } from "vitest";
import { LockAuthority } from "../../src/gen/holdfast/v1/lock_pb.js";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { releaseOrder, renewOrder, takeOrder } from "./authorities.ts";
import { type FailoversOptions, type OpenFailover, type OpenFailovers, openFailovers } from "./failover-authorities.ts";
import { granted } from "./suite/parts.ts";

/* Promises: Postgres decides when an instance does not reach Redis, and Redis again when all do; and it does not go to and fro. */

const PACE = { checkMs: 10, unwellChecks: 3, wellChecks: 5, patientChecks: 1_000_000 };
const TTL_MS = 1_000;
/** All leases of that length are over by then, and the time after them. */
const LONG_MS = TTL_MS + 10_000;

/** Two instances, each with a way of its own to the same Redis. */
async function openWithWays(parts: AsyncDisposableStack, options: FailoversOptions = {}) {
  const redis = parts.use(await startRedis());
  const ways = [parts.use(await startTcpProxy(redis.port)), parts.use(await startTcpProxy(redis.port))] as const;
  const urls = ways.map(({ port }) => `redis://127.0.0.1:${port}`);
  const opened = parts.use(await openFailovers({ urls, pace: PACE, commandTimeoutMs: 200, ...options }));
  const [one, other = one] = opened.instances;
  return { redis, ways, opened, one, other };
}

async function decides(kind: LockAuthority, { instances }: OpenFailovers): Promise<void> {
  const all = () => instances.every(({ authority }) => authority.kind === kind);
  await until(all, { what: `${LockAuthority[kind]} to decide` });
}

/** So often it looks whether it reaches Redis, from now on. */
async function checked(times: number, instance: OpenFailover): Promise<void> {
  const before = instance.checks;
  await until(() => instance.checks >= before + times, { what: `${times} checks` });
}

it("Postgres decides while Redis is killed, and Redis again when it is back with nothing", async () => {
  await using parts = new AsyncDisposableStack();
  const { redis, opened, one, other } = await openWithWays(parts);
  const first = await granted(one.authority, "nightly", { ttlMs: TTL_MS });
  await redis.kill();
  await decides(LockAuthority.POSTGRES, opened);
  opened.time.move(LONG_MS);
  const second = await granted(other.authority, "nightly", { ttlMs: TTL_MS });
  expect(second.grant.token).toBeGreaterThan(first.grant.token);
  await other.authority.release(releaseOrder(second.grant));
  await redis.restart();
  await decides(LockAuthority.REDIS, opened);
  const third = await until(() => granted(one.authority, "nightly", { ttlMs: TTL_MS }), { what: "Redis to be used" });
  expect(third.grant.token).toBeGreaterThan(second.grant.token);
});

it("Postgres decides while Redis is frozen, and nobody while Postgres is away too", async () => {
  await using parts = new AsyncDisposableStack();
  const { redis, opened, one, other } = await openWithWays(parts);
  const { grant } = await granted(one.authority, "nightly", { ttlMs: TTL_MS });
  for (const instance of opened.instances) instance.reachesSql = false;
  redis.pause();
  await checked(PACE.unwellChecks + 1, one);
  opened.time.move(LONG_MS);
  for (const { authority } of opened.instances) {
    const unavailable = { kind: "unavailable", reason: "LOCK_AUTHORITY_UNAVAILABLE" };
    await expect(authority.take(takeOrder("other"))).rejects.toMatchObject(unavailable);
    await expect(authority.renew(renewOrder(grant))).rejects.toMatchObject(unavailable);
    await expect(authority.look("nightly")).rejects.toMatchObject(unavailable);
  }
  for (const instance of opened.instances) instance.reachesSql = true;
  await decides(LockAuthority.POSTGRES, opened);
  const next = await until(() => granted(other.authority, "nightly", { ttlMs: TTL_MS }), { what: "Postgres to grant" });
  expect(next.grant.token).toBeGreaterThan(grant.token);
  redis.resume();
});

it("one instance that is cut off from Redis makes Postgres decide for all, once, until it reaches Redis again", async () => {
  await using parts = new AsyncDisposableStack();
  const { ways, opened, one, other } = await openWithWays(parts);
  const { sinceEpoch } = one.reigns.head;
  ways[1].cut();
  await decides(LockAuthority.POSTGRES, opened);
  await checked(5 * PACE.wellChecks, one);
  // The time after which a complaint lapses, unless it is repeated.
  for (let moves = 0; moves < 4; moves++) {
    opened.time.move(30_000);
    await checked(2, other);
  }
  expect(await one.heads.read()).toMatchObject({ mode: "postgres", sinceEpoch: sinceEpoch + 1 });
  ways[1].restore();
  await decides(LockAuthority.REDIS, opened);
  expect(one.reigns.head.sinceEpoch).toBe(sinceEpoch + 2);
});

it("an instance that reaches Redis a check too late complains of nothing", async () => {
  await using parts = new AsyncDisposableStack();
  const { ways, opened, one } = await openWithWays(parts, { pace: { ...PACE, unwellChecks: 1_000_000 } });
  const before = await one.heads.read();
  ways[0].cut();
  await checked(20, one);
  ways[0].restore();
  await checked(20, one);
  expect(await one.heads.read()).toMatchObject({ mode: "redis", sinceEpoch: before.sinceEpoch });
  await decides(LockAuthority.REDIS, opened);
});

it("Postgres does not take over for a moment without Redis while a lease runs for long", async () => {
  await using parts = new AsyncDisposableStack();
  const { redis, opened, one } = await openWithWays(parts);
  const { grant } = await granted(one.authority, "nightly", { ttlMs: 3_600_000 });
  redis.pause();
  await checked(3 * PACE.unwellChecks, one);
  redis.resume();
  const renewed = await until(() => one.authority.renew(renewOrder(grant)), { what: "Redis to be reached again" });
  expect(renewed).toMatchObject({ kind: "renewed" });
  expect((await one.heads.read()).mode).toBe("redis");
  await decides(LockAuthority.REDIS, opened);
});

it("the complaint of an instance that has ended lapses", async () => {
  await using opened = await openFailovers({ pace: PACE });
  const [one, other] = opened.instances;
  await other?.fallback.complain();
  await opened.changeTo("postgres");
  await checked(3 * PACE.wellChecks, one);
  expect(await one.heads.read()).toMatchObject({ mode: "postgres" });
  opened.time.move(60_001);
  await decides(LockAuthority.REDIS, opened);
});

/** Postgres decides and has a lease, and nobody complains of Redis any more. */
async function heldByPostgres(opened: OpenFailovers) {
  const [one, other = one] = opened.instances;
  await other.fallback.complain();
  await opened.changeTo("postgres");
  const { grant } = await granted(one.authority, "nightly", { ttlMs: 3_600_000 });
  await other.fallback.withdraw();
  return { one, grant };
}

it("Redis decides again in a moment in which no lock is held", async () => {
  await using opened = await openFailovers({ pace: PACE });
  const { one, grant } = await heldByPostgres(opened);
  await checked(5 * PACE.wellChecks, one);
  expect(one.authority.kind).toBe(LockAuthority.POSTGRES);
  await one.authority.release(releaseOrder(grant));
  await decides(LockAuthority.REDIS, opened);
  expect((await granted(one.authority, "nightly")).grant.token).toBeGreaterThan(grant.token);
});

it("Redis decides again after long though locks are held, and then their leases are waited out", async () => {
  await using opened = await openFailovers({ pace: { ...PACE, patientChecks: 10 } });
  const { one, grant } = await heldByPostgres(opened);
  await decides(LockAuthority.REDIS, opened);
  const changing = { reason: "LOCK_AUTHORITY_CHANGING" };
  await expect(one.authority.take(takeOrder("other"))).rejects.toMatchObject(changing);
  opened.time.move(3_600_000);
  const next = await until(() => granted(one.authority, "nightly"), { what: "Redis to grant" });
  expect(next.grant.token).toBeGreaterThan(grant.token);
});

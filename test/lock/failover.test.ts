import { describe, expect, it } from "vitest";
import { LockAuthority, LockTokenState } from "../../src/gen/holdfast/v1/lock_pb.js";
import type { Redis } from "../../src/infra/redis.ts";
import type { Authority } from "../../src/lock/authority/authority.ts";
import { GRANTS_PER_EPOCH } from "../../src/lock/record/token.ts";
import { stateOf } from "../../src/lock/rpc/read-rpcs.ts";
import { until } from "../support/until.ts";
import { named, releaseOrder, renewOrder, takeOrder } from "./authorities.ts";
import { type OpenFailover, type OpenFailovers, openFailovers } from "./failover-authorities.ts";
import { withRun } from "./spoilt-redis.ts";
import { granted } from "./suite/parts.ts";

const CHANGING = { kind: "unavailable", reason: "LOCK_AUTHORITY_CHANGING" };
const UNAVAILABLE = { kind: "unavailable", reason: "LOCK_AUTHORITY_UNAVAILABLE" };
const TRUST_MS = 3_000;
const TTL_MS = 30_000;

function both({ instances }: OpenFailovers): readonly [OpenFailover, OpenFailover] {
  const [one, other] = instances;
  return [one, other ?? expect.unreachable("there is one instance only")];
}

/** Everything that an authority is asked. */
async function expectRefused(authority: Authority, grant: { name: string; token: number }, why: object): Promise<void> {
  for (const ask of [
    () => authority.take(takeOrder("other")),
    () => authority.renew(renewOrder(grant)),
    () => authority.release(releaseOrder(grant)),
    () => authority.look(grant.name),
    () => authority.list({ prefix: "", owner: undefined, mayUse: () => true, limit: 1, after: undefined }),
    () => authority.remember("other", named("r"), "text"),
  ]) {
    await expect(ask()).rejects.toMatchObject(why);
  }
}

/** Answers of Redis to takes are held up from when `isHolding` is set until `release`. */
function holdingAnswers() {
  const gate = Promise.withResolvers<void>();
  const holding = { isOn: false, held: 0, release: gate.resolve };
  const spoil = (redis: Redis): Redis =>
    withRun(redis, async (script, keys, args) => {
      const reply = await redis.run(script, keys, args);
      if (!holding.isOn || script.name !== "lock-take") return reply;
      holding.held++;
      await gate.promise;
      return reply;
    });
  return { holding, spoil };
}

describe("a change from Redis to Postgres", () => {
  it("grants nothing before every lease that Redis may have granted is over, and then larger tokens", async () => {
    await using opened = await openFailovers();
    const { time } = opened;
    const [one, other] = both(opened);
    const { grant } = await granted(one.authority, "nightly", { ttlMs: TTL_MS });
    expect([one.authority.kind, other.authority.kind]).toEqual([LockAuthority.REDIS, LockAuthority.REDIS]);
    time.move(1_000);
    await granted(other.authority, "weekly", { ttlMs: TTL_MS });
    await opened.changeTo("postgres");
    expect([one.authority.kind, other.authority.kind]).toEqual([LockAuthority.POSTGRES, LockAuthority.POSTGRES]);
    for (const { authority } of opened.instances) await expectRefused(authority, grant, CHANGING);
    time.move(TTL_MS - 1_000);
    const refused: unknown = await one.authority.take(takeOrder("weekly")).catch((error: unknown) => error);
    expect(refused).toMatchObject({ ...CHANGING, retryAfterMs: expect.any(Number) });
    time.move(1_000 + TRUST_MS);
    const next = await granted(one.authority, "weekly");
    expect(Math.floor(next.grant.token / GRANTS_PER_EPOCH)).toBeGreaterThan(Math.floor(grant.token / GRANTS_PER_EPOCH));
    expect(await other.authority.take(takeOrder("weekly"))).toMatchObject({ kind: "held" });
    expect(await other.authority.renew(renewOrder(grant))).toMatchObject({ kind: "over" });
  });

  it("waits for leases that may still run, and not for a long one of before", async () => {
    await using opened = await openFailovers();
    const [one] = both(opened);
    await granted(one.authority, "long", { ttlMs: 3_600_000 });
    // What was asked for lately is announced ahead, a little longer than needed.
    const isOver = async () => {
      opened.time.move(3_600_000);
      await one.reigns.look();
      return one.reigns.head.busyMs === 0;
    };
    await until(isOver, { what: "the long lease to be over" });
    await granted(one.authority, "short", { ttlMs: 1_000 });
    await opened.changeTo("postgres");
    expect(one.reigns.head.quietMs).toBeLessThanOrEqual(1_000 + 2 * TRUST_MS);
    expect(one.reigns.head.quietMs).toBeGreaterThan(900);
  });

  it("waits for what a renewal made longer, by its own word or by that of the grant", async () => {
    await using opened = await openFailovers();
    const { time } = opened;
    const [one, other] = both(opened);
    const { grant } = await granted(one.authority, "nightly", { ttlMs: TTL_MS });
    // It tells of no lease any more, and so this is left to who renews.
    one.reachesSql = false;
    time.move(TTL_MS - 5_000);
    await until(() => other.authority.renew(renewOrder(grant)), { what: "SQL to be read again" });
    const { busyMs } = await other.heads.read();
    expect(busyMs).toBeGreaterThan(TTL_MS - 1_000);
    await other.authority.renew(renewOrder(grant, { ttlMs: 2 * TTL_MS }));
    await other.heads.become("postgres");
    expect((await other.heads.read()).quietMs).toBeGreaterThan(2 * TTL_MS - 1_000);
  });

  it("is announced before a lease is granted, or there is none", async () => {
    await using opened = await openFailovers();
    const [one, other] = both(opened);
    await granted(one.authority, "nightly", { ttlMs: TTL_MS });
    one.reachesSql = false;
    await expect(one.authority.take(takeOrder("weekly", { ttlMs: 10 * TTL_MS }))).rejects.toMatchObject(UNAVAILABLE);
    expect(await one.authority.take(takeOrder("hourly", { ttlMs: 1_000 }))).toMatchObject({ kind: "granted" });
    // Nobody has taken it for nothing.
    expect(await other.authority.take(takeOrder("weekly"))).toMatchObject({ kind: "granted" });
  });

  it("makes nobody believe what Redis answered before it, and the lock is given back", async () => {
    const { holding, spoil } = holdingAnswers();
    await using opened = await openFailovers({ spoil, commandTimeoutMs: 60_000 });
    const [one, other] = both(opened);
    await granted(other.authority, "weekly", { ttlMs: TTL_MS });
    holding.isOn = true;
    const late = one.authority.take(takeOrder("nightly", { ttlMs: TTL_MS })).catch((error: unknown) => error);
    await until(() => holding.held === 1, { what: "Redis to have granted it" });
    await opened.changeTo("postgres");
    holding.isOn = false;
    holding.release();
    expect(await late).toMatchObject(CHANGING);
    opened.time.move(TTL_MS + 2 * TRUST_MS);
    expect(await other.authority.take(takeOrder("nightly"))).toMatchObject({ kind: "granted" });
  });

  it("makes nobody believe what Redis answered before it, also when Redis decides again since", async () => {
    const { holding, spoil } = holdingAnswers();
    await using opened = await openFailovers({ spoil, commandTimeoutMs: 60_000 });
    const [one, other] = both(opened);
    const asked = { ttlMs: 3_600_000 };
    await granted(other.authority, "weekly", asked);
    holding.isOn = true;
    const late = one.authority.take(takeOrder("nightly", asked)).catch((error: unknown) => error);
    await until(() => holding.held === 1, { what: "Redis to have granted it" });
    await opened.changeTo("postgres");
    opened.time.move(3_600_000 + 2 * TRUST_MS);
    await granted(other.authority, "nightly", { ttlMs: 1_000 });
    opened.time.move(1_000);
    await opened.changeTo("redis");
    holding.isOn = false;
    holding.release();
    expect(await late).toMatchObject(CHANGING);
  });
});

describe("an instance that SQL does not tell who decides", () => {
  it("grants, renews and frees nothing after three seconds, until it is told again", async () => {
    await using opened = await openFailovers();
    const [one, other] = both(opened);
    const { grant } = await granted(one.authority, "nightly", { ttlMs: 3_600_000 });
    one.reachesSql = false;
    expect(await one.authority.renew(renewOrder(grant, { ttlMs: 1_000 }))).toMatchObject({ kind: "renewed" });
    opened.time.move(TRUST_MS + 1);
    await expectRefused(one.authority, grant, UNAVAILABLE);
    await until(() => other.authority.renew(renewOrder(grant)), { what: "the other instance to be told" });
    one.reachesSql = true;
    const renewed = await until(() => one.authority.renew(renewOrder(grant)), { what: "this one to be told" });
    expect(renewed).toMatchObject({ kind: "renewed" });
  });

  it("believes no answer of Redis that comes after that, and gives back what it was granted", async () => {
    const { holding, spoil } = holdingAnswers();
    await using opened = await openFailovers({ spoil, commandTimeoutMs: 60_000 });
    const [one, other] = both(opened);
    await granted(one.authority, "weekly", { ttlMs: 3_600_000 });
    holding.isOn = true;
    const late = one.authority.take(takeOrder("nightly", { ttlMs: 60_000 })).catch((error: unknown) => error);
    await until(() => holding.held === 1, { what: "Redis to have granted it" });
    one.reachesSql = false;
    opened.time.move(TRUST_MS + 1);
    holding.isOn = false;
    holding.release();
    expect(await late).toMatchObject(UNAVAILABLE);
    await until(() => granted(other.authority, "nightly"), { what: "it to be given back" });
  });
});

describe("an instance whose machine was suspended", () => {
  it("grants nothing by what it knew before", async () => {
    await using opened = await openFailovers();
    const [one, other] = both(opened);
    await granted(one.authority, "nightly", { ttlMs: TTL_MS });
    one.reachesSql = false;
    await other.heads.become("postgres");
    opened.time.suspend(TTL_MS + 2 * TRUST_MS);
    await expect(one.authority.take(takeOrder("weekly", { ttlMs: 1_000 }))).rejects.toMatchObject(UNAVAILABLE);
  });

  it("grants no lease beyond what it announced before, however short the time was", async () => {
    await using opened = await openFailovers();
    const [one, other] = both(opened);
    await granted(one.authority, "nightly", { ttlMs: TTL_MS });
    one.reachesSql = false;
    const { quietMs } = await other.heads.become("postgres");
    expect(quietMs).toBeGreaterThan(TTL_MS);
    // What it knew before is believed still, but nothing more can be announced.
    const suspendedMs = 1_000;
    opened.time.suspend(suspendedMs);
    const tooLong = takeOrder("weekly", { ttlMs: quietMs - suspendedMs + 500 });
    await expect(one.authority.take(tooLong)).rejects.toMatchObject(UNAVAILABLE);
  });

  it("announces anew how long its leases last", async () => {
    await using opened = await openFailovers();
    const [one] = both(opened);
    await granted(one.authority, "nightly", { ttlMs: TTL_MS });
    opened.time.suspend(3_600_000);
    await until(() => granted(one.authority, "weekly", { ttlMs: TTL_MS }), { what: "SQL to be read again" });
    expect((await one.heads.read()).busyMs).toBeGreaterThan(TTL_MS - 1_000);
  });
});

describe("a change back to Redis", () => {
  it("waits for the leases that Postgres granted, and tokens grow there and back", async () => {
    await using opened = await openFailovers();
    const { time, changeTo } = opened;
    const [one, other] = both(opened);
    const tokens = [(await granted(one.authority, "nightly", { ttlMs: 1_000 })).grant.token];
    await changeTo("postgres");
    time.move(1_000 + 2 * TRUST_MS);
    tokens.push((await granted(other.authority, "nightly", { ttlMs: TTL_MS })).grant.token);
    time.move(10_000);
    await changeTo("redis");
    await expectRefused(one.authority, { name: "nightly", token: tokens[1] ?? 0 }, CHANGING);
    time.move(TTL_MS - 10_000);
    const next = await until(() => granted(one.authority, "nightly", { ttlMs: 1_000 }), { what: "Redis to decide" });
    expect(one.authority.kind).toBe(LockAuthority.REDIS);
    tokens.push(next.grant.token);
    await changeTo("postgres");
    time.move(1_000 + 2 * TRUST_MS);
    tokens.push((await granted(one.authority, "nightly")).grant.token);
    const epochs = tokens.map((token) => Math.floor(token / GRANTS_PER_EPOCH));
    expect(epochs).toEqual([...new Set(epochs)].sort((a, b) => a - b));
  });

  it("brings no lease of before back to life, though the clock of Redis has stood still", async () => {
    await using opened = await openFailovers({ isRedisSlow: true });
    const { time, changeTo } = opened;
    const [one, other] = both(opened);
    const order = takeOrder("nightly", { ttlMs: TTL_MS, request: named("r") });
    const taken = await one.authority.take(order);
    const old = taken.kind === "granted" ? taken.lease.grant : expect.unreachable("it is free");
    await changeTo("postgres");
    time.move(TTL_MS + 2 * TRUST_MS);
    const { grant } = await granted(other.authority, "nightly");
    await other.authority.release(releaseOrder(grant));
    await changeTo("redis");
    expect(await one.authority.renew(renewOrder(old))).toMatchObject({ kind: "over", cause: "expired" });
    await expect(one.authority.take(order)).rejects.toMatchObject({ reason: "LOCK_ATTEMPT_OVER" });
    const { lease, lastToken } = await one.authority.look("nightly");
    expect(lease).toBeUndefined();
    expect(lastToken).toBeGreaterThan(grant.token);
    // Nobody was granted it.
    expect(stateOf(lastToken, { lease, lastToken })).toBe(LockTokenState.UNKNOWN);
    const all = { prefix: "", owner: undefined, mayUse: () => true, limit: 10, after: undefined };
    expect((await one.authority.list(all)).leases).toEqual([]);
  });
});

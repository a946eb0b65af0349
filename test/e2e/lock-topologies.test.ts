import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import {
  LockAuthority,
  LockLost_Cause,
  LockOutcome,
  LockService,
  LockTokenState,
} from "../../src/gen/holdfast/v1/lock_pb.js";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { CallFailed, createLockClient, inMs, type LockClient, ms } from "../support/lock-client.ts";
import { startRedis } from "../support/redis-server.ts";
import { type TopologyCase, topologyCases } from "../support/topologies.ts";
import { until } from "../support/until.ts";

/*
 * Promises: the whole of LockService answers alike, through real servers, in every topology and over every kind of Redis; what one
 * instance grants, the other respects, and who waits on one is woken by what happens on the other.
 */

const { method } = LockService;
const CAUSE = LockLost_Cause;

const withRedlock: Pick<TopologyCase, "name" | "instances" | "start"> = {
  name: "sql-only, decided by Redlock over three masters",
  instances: 2,
  start: async (parts) => {
    const masters = await Promise.all([startRedis(), startRedis(), startRedis()]);
    for (const master of masters) parts.use(master);
    return {
      ...{ DATABASE_URL: await freshDatabase(), LOCK_AUTHORITY: "redlock" },
      LOCK_REDLOCK_URLS: masters.map(({ url }) => url).join(","),
    };
  },
};

let names = 0;
const newName = () => `tests/${++names}`;

describe.each([...topologyCases, withRedlock])("locks: $name", ({ instances, start }) => {
  const parts = new AsyncDisposableStack();
  let one: LockClient;
  let other: LockClient;
  /** Of the other instance where conversations are shared. */
  let writing: LockClient;
  let httpUrl = "";

  beforeAll(async () => {
    const env = await start(parts);
    const servers = [];
    for (let n = 0; n < instances; n++) servers.push(parts.use(await startHoldfast(env)));
    httpUrl = servers[0]?.httpUrl ?? "";
    one = parts.use(createLockClient(servers[0]?.grpcAddress ?? ""));
    other = parts.use(createLockClient(servers.at(-1)?.grpcAddress ?? ""));
    writing = "DATABASE_URL" in env ? other : one;
    for (const client of [one, other]) {
      await until(async () => (await client.call(method.get, { name: "warm" })).reply, { what: "locks to be decided" });
    }
  });
  afterAll(() => parts.disposeAsync());

  it("grants a free lock with all that is known of it", async () => {
    const name = newName();
    const taken = await one.acquire(name, { ttl: ms(20_000), owner: "me", purpose: "to see" });
    expect(taken.outcome).toBe(LockOutcome.ACQUIRED);
    expect(taken.lock).toMatchObject({ name, owner: "me", purpose: "to see", caller: "anonymous", renewals: 0n });
    expect(inMs(taken.validFor)).toBeLessThan(20_000);
    expect(inMs(taken.validFor)).toBeGreaterThan(0);
    const seen = (await other.call(method.get, { name })).reply;
    expect(seen.lock).toEqual(taken.lock);
    expect(seen).toMatchObject({ lastToken: taken.lock?.fencingToken, authority: taken.authority, waiters: 0 });
  });

  it("names who decides in the health report", async () => {
    const { authority } = (await one.call(method.get, { name: "warm" })).reply;
    const kind = LockAuthority[authority]?.toLowerCase();
    const component = async () => {
      const report: unknown = await (await fetch(`${httpUrl}/health`)).json();
      return typeof report === "object" && report !== null && "components" in report ? report.components : undefined;
    };
    const expected = expect.objectContaining({ name: "lock", kind, state: "HEALTH_STATE_HEALTHY" });
    await vi.waitFor(async () => expect(await component()).toContainEqual(expected), { timeout: 30_000 });
  });

  it("tells who holds a lock that is not free", async () => {
    const name = newName();
    const token = await one.take(name, { owner: "the first" });
    const refused = await other.acquire(name, { waitTimeout: ms(0) });
    expect(refused.outcome).toBe(LockOutcome.HELD);
    expect(refused.lock).toBeUndefined();
    expect(refused.holder).toMatchObject({ owner: "the first", fencingToken: token });
  });

  it("gives each grant a larger token", async () => {
    const name = newName();
    const first = await one.take(name);
    expect(await one.release(name, first)).toBe(true);
    const second = await other.take(name);
    expect(second).toBeGreaterThan(first);
    expect(await one.release(name, first)).toBe(false);
    expect((await one.call(method.get, { name })).reply.lock?.fencingToken).toBe(second);
  });

  it("wakes who waits on another instance when the lock is released", async () => {
    const name = newName();
    const token = await one.take(name);
    // Without a message it would ask again after 5 seconds, too late.
    const waiting = other.acquire(name, { waitTimeout: ms(4_000) });
    await until(async () => (await other.call(method.get, { name })).reply.waiters === 1, { what: "the waiter" });
    await one.release(name, token);
    expect((await waiting).lock?.fencingToken).toBeGreaterThan(token);
  });

  it("renews a lease that lasts, and none that is over", async () => {
    const name = newName();
    const token = await one.take(name);
    const renewed = (await other.call(method.renew, { name, fencingToken: token, ttl: ms(60_000) })).reply;
    expect(renewed).toMatchObject({ renewed: true, lock: { renewals: 1n } });
    expect(inMs(renewed.validFor)).toBeGreaterThan(30_000);
    await one.release(name, token);
    const late = (await other.call(method.renew, { name, fencingToken: token })).reply;
    expect(late).toMatchObject({ renewed: false });
    expect(late.holder).toBeUndefined();
  });

  it("gives a retry the grant of its first attempt, and nothing once that is over", async () => {
    const name = newName();
    const request = { requestId: "attempt", owner: "me" };
    const token = await one.take(name, request);
    expect(await other.take(name, request)).toBe(token);
    const reused = await other.take(name, { ...request, owner: "you" }).catch((error: unknown) => error);
    expect(reused).toBeInstanceOf(CallFailed);
    expect(reused).toMatchObject({ code: "FAILED_PRECONDITION", reason: "REQUEST_ID_REUSED" });
    await one.release(name, token);
    const over = await other.take(name, request).catch((error: unknown) => error);
    expect(over).toMatchObject({ code: "ABORTED", reason: "LOCK_ATTEMPT_OVER" });
  });

  it("says what a token is worth", async () => {
    const name = newName();
    const state = async (fencingToken: bigint) =>
      (await other.call(method.checkToken, { name, fencingToken })).reply.state;
    expect(await state(1n)).toBe(LockTokenState.UNKNOWN);
    const first = await one.take(name);
    expect(await state(first)).toBe(LockTokenState.CURRENT);
    expect(await state(first + 1n)).toBe(LockTokenState.UNKNOWN);
    expect(await state(2n ** 64n - 1n)).toBe(LockTokenState.UNKNOWN);
    await one.release(name, first);
    expect(await state(first)).toBe(LockTokenState.ENDED);
    const second = await one.take(name);
    expect(await state(first)).toBe(LockTokenState.STALE);
    expect(await state(second)).toBe(LockTokenState.CURRENT);
  });

  it("keeps a holder who comes too late from writing, and tells nobody else so", async () => {
    const [lock, id] = [newName(), newName()];
    const { save, get } = ConversationStateService.method;
    const write = (client: LockClient, by: string, token: bigint) =>
      client.call(save, { id, state: { by }, fencing: { lock, token } });
    const failure = (write: Promise<unknown>) => write.catch((error: unknown) => error);
    const first = await one.take(lock, { ttl: ms(100) });
    await write(one, "the first", first);
    await write(writing, "the first", first);
    // The first is paused past its lease, and does not know it.
    const taken = await other.acquire(lock, { waitTimeout: ms(30_000) });
    const second = taken.lock?.fencingToken ?? 0n;
    await write(one, "the first, which nobody has followed so far", first);
    await write(writing, "the second", second);
    for (const client of [one, writing]) {
      expect(await failure(write(client, "the first", first))).toMatchObject({
        ...{ code: "FAILED_PRECONDITION", reason: "FENCING_TOKEN_STALE" },
      });
    }
    expect(await failure(write(one, "nobody", second + 1n))).toMatchObject({
      ...{ code: "FAILED_PRECONDITION", reason: "FENCING_TOKEN_UNKNOWN" },
    });
    expect((await one.call(get, { id })).reply.conversation?.state).toEqual({ by: "the second" });
    await write(one, "the second", second);
    const metrics = await (await fetch(`${httpUrl}/metrics`)).text();
    const counted = metrics
      .split("\n")
      .flatMap((line) => /^holdfast_fencing_refused_total(.*) [1-9]/.exec(line)?.[1] ?? []);
    const label = (reason: string) => `{service="${ConversationStateService.typeName}",reason="${reason}"}`;
    expect(counted).toEqual([label("FENCING_TOKEN_STALE"), label("FENCING_TOKEN_UNKNOWN")]);
  });

  it("lists the locks that are held, by prefix and owner, page by page", async () => {
    const prefix = `listed-${newName()}/`;
    const all = ["a", "b", "c", "d", "e"].map((end) => prefix + end);
    for (const [at, name] of all.entries()) await one.take(name, { owner: at < 2 ? "me" : "you" });
    const released = await one.take(`${prefix}f`);
    await one.release(`${prefix}f`, released);
    const found: string[] = [];
    for (let pageToken = ""; ; ) {
      const { reply } = await other.call(method.list, { prefix, pageSize: 2, pageToken });
      found.push(...reply.locks.map(({ name }) => name));
      pageToken = reply.nextPageToken;
      if (pageToken === "") break;
    }
    expect([...new Set(found)].sort()).toEqual(all);
    const mine = (await other.call(method.list, { prefix, owner: "me" })).reply;
    expect(mine.locks.map(({ name }) => name).sort()).toEqual(all.slice(0, 2));
  });

  it("holds a lock while its stream lives, and gives it to the next who waits", async () => {
    const name = newName();
    using first = one.hold(name, { ttl: ms(1_000), owner: "first" });
    const acquired = await first.event("acquired");
    const token = acquired.lock?.fencingToken ?? 0n;
    expect(acquired.lock).toMatchObject({ name, owner: "first" });
    using second = other.hold(name, { owner: "second" });
    expect(await second.event("waiting")).toMatchObject({ position: 1, holder: { fencingToken: token } });
    expect((await first.event("renewed")).renewals).toBe(1n);
    first.cancel();
    const next = await second.event("acquired");
    expect(next.lock?.fencingToken).toBeGreaterThan(token);
    expect(second.cases).toEqual(["waiting", "acquired"]);
  });

  it("says that a Hold which would not wait did not get the lock", async () => {
    const name = newName();
    await one.take(name, { owner: "me" });
    using held = other.hold(name, { waitTimeout: ms(0) });
    expect(await held.ended).toBeUndefined();
    expect(held.cases).toEqual(["notAcquired"]);
    expect(held.events[0]?.event.value).toMatchObject({ holder: { owner: "me" } });
  });

  it("tells a Hold at once that its lock was taken away, with an audit record of it", async () => {
    const name = newName();
    using held = one.hold(name, { ttl: ms(3_600_000) });
    const token = (await held.event("acquired")).lock?.fencingToken;
    const forced = (await other.call(method.forceRelease, { name, reason: "stuck" })).reply;
    expect(forced).toMatchObject({ released: true, lock: { name, fencingToken: token } });
    expect((await held.event("lost")).cause).toBe(CAUSE.FORCED);
    expect(await held.ended).toBeUndefined();
    expect((await one.call(method.checkToken, { name, fencingToken: token ?? 0n })).reply.state).toBe(
      LockTokenState.ENDED,
    );
  });

  it("tells a Hold at once that its token was released", async () => {
    const name = newName();
    using held = one.hold(name, { ttl: ms(3_600_000) });
    const token = (await held.event("acquired")).lock?.fencingToken ?? 0n;
    expect(await other.release(name, token)).toBe(true);
    expect((await held.event("lost")).cause).toBe(CAUSE.RELEASED);
  });

  it("goes on with a grant in another stream, and tells the one before", async () => {
    const name = newName();
    using before = one.hold(name, { ttl: ms(3_600_000) });
    const token = (await before.event("acquired")).lock?.fencingToken ?? 0n;
    using after = other.hold(name, { resumeToken: token });
    expect((await after.event("acquired")).lock).toMatchObject({ fencingToken: token, renewals: 1n });
    expect((await before.event("lost")).cause).toBe(CAUSE.TAKEN_OVER);
    await before.ended;
    // The stream that lost it has nothing to give back.
    expect((await other.call(method.checkToken, { name, fencingToken: token })).reply.state).toBe(
      LockTokenState.CURRENT,
    );
    using late = one.hold(name, { resumeToken: token - 1n });
    expect((await late.event("lost")).cause).toBe(CAUSE.EXPIRED);
    expect(await late.ended).toBeUndefined();
  });
});

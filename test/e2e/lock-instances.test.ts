import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { LockLost_Cause, LockService, LockTokenState } from "../../src/gen/holdfast/v1/lock_pb.js";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { createLockClient, inMs, type LockClient, ms } from "../support/lock-client.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

/*
 * Promises: an instance that is told to stop hands over the locks that it keeps by streams, to be gone on with elsewhere with the same
 * token and without a gap; one that is killed keeps nobody waiting longer than its leases last; a client that is gone gives back.
 */

const { method } = LockService;

const authorities: readonly [string, () => Promise<Record<string, string>>][] = [
  ["Postgres", async () => ({ DATABASE_URL: await freshDatabase() })],
  ["Redis", async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() })],
];

describe.each(authorities)("locks of two instances over %s", (_, envOf) => {
  let parts: AsyncDisposableStack;
  let servers: HoldfastProcess[];
  let one: LockClient;
  let other: LockClient;

  beforeEach(async () => {
    parts = new AsyncDisposableStack();
    const env = await envOf();
    servers = await Promise.all([startHoldfast(env), startHoldfast(env)]);
    for (const server of servers) parts.use(server);
    [one, other] = servers.map(({ grpcAddress }) => parts.use(createLockClient(grpcAddress))) as [
      LockClient,
      LockClient,
    ];
    for (const client of [one, other]) {
      await until(async () => (await client.call(method.get, { name: "warm" })).reply, { what: "locks to be decided" });
    }
  });
  afterEach(() => parts.disposeAsync());

  const waiters = async (client: LockClient, name: string) => (await client.call(method.get, { name })).reply.waiters;

  it("are handed over by a drain, with the same token and nobody in between", async () => {
    const held = one.hold("batch", { ttl: ms(20_000), owner: "worker" });
    const { lock } = await held.event("acquired");
    const token = lock?.fencingToken ?? 0n;
    const waiting = other.hold("batch", { owner: "next" });
    await waiting.event("waiting");
    const stopping = servers[0]?.stop();
    const handover = await held.event("handover");
    expect(handover.resumeToken).toBe(token);
    expect(inMs(handover.validFor)).toBeGreaterThan(10_000);
    expect(await held.ended).toMatchObject({ code: "UNAVAILABLE", reason: "SERVER_DRAINING", hasRetryInfo: true });
    const resumed = other.hold("batch", { ttl: ms(20_000), resumeToken: handover.resumeToken });
    expect((await resumed.event("acquired")).lock).toMatchObject({ fencingToken: token, owner: "worker" });
    await stopping;
    expect((await other.call(method.checkToken, { name: "batch", fencingToken: token })).reply.state).toBe(
      LockTokenState.CURRENT,
    );
    expect(waiting.cases).not.toContain("acquired");
    resumed.cancel();
    expect((await waiting.event("acquired")).lock?.fencingToken).toBeGreaterThan(token);
  });

  it("send away who waits when the server drains, at once", async () => {
    await other.take("batch");
    const waiting = one.hold("batch");
    await waiting.event("waiting");
    const acquiring = one.acquire("batch", { waitTimeout: ms(15_000) }).catch((error: unknown) => error);
    await until(async () => (await waiters(one, "batch")) === 2, { what: "both to wait" });
    const stopping = servers[0]?.stop();
    expect(await acquiring).toMatchObject({ code: "UNAVAILABLE", reason: "SERVER_DRAINING" });
    expect(await waiting.ended).toMatchObject({ code: "UNAVAILABLE", reason: "SERVER_DRAINING", hasRetryInfo: true });
    expect(waiting.cases).toEqual(["waiting"]);
    await stopping;
  });

  it("go to the next who waits when the connection of a client that holds one breaks", async () => {
    const proxy = parts.use(await startTcpProxy(Number(servers[0]?.grpcAddress.split(":")[1])));
    const client = parts.use(createLockClient(`127.0.0.1:${proxy.port}`));
    const held = client.hold("batch", { ttl: ms(3_600_000) });
    const token = (await held.event("acquired")).lock?.fencingToken ?? 0n;
    const next = other.acquire("batch", { waitTimeout: ms(15_000) });
    await until(async () => (await waiters(other, "batch")) === 1, { what: "the next to wait" });
    proxy.cut();
    expect((await next).lock?.fencingToken).toBeGreaterThan(token);
  });

  it("of an instance that is killed can be gone on with, or run out", async () => {
    const [resumable, lost] = [one.hold("resumable", { ttl: ms(3_600_000) }), one.hold("lost", { ttl: ms(1_000) })];
    const token = (await resumable.event("acquired")).lock?.fencingToken ?? 0n;
    const before = (await lost.event("acquired")).lock?.fencingToken ?? 0n;
    const next = other.acquire("lost", { waitTimeout: ms(15_000) });
    await until(async () => (await waiters(other, "lost")) === 1, { what: "the next to wait" });
    await servers[0]?.kill();
    const resumed = other.hold("resumable", { resumeToken: token });
    expect((await resumed.event("acquired")).lock?.fencingToken).toBe(token);
    expect((await next).lock?.fencingToken).toBeGreaterThan(before);
    const late = other.hold("lost", { resumeToken: before });
    expect((await late.event("lost")).cause).toBe(LockLost_Cause.EXPIRED);
  });

  it("of an instance that was frozen for longer than the lease are told as lost when it wakes, and it writes nothing", async () => {
    const { save, get } = ConversationStateService.method;
    const write = (client: LockClient, by: string, token = 0n) =>
      client.call(save, { id: "c", state: { by }, fencing: { lock: "batch", token } });
    const held = one.hold("batch", { ttl: ms(1_000) });
    const first = (await held.event("acquired")).lock?.fencingToken;
    await write(one, "the first", first);
    const next = other.acquire("batch", { waitTimeout: ms(15_000) });
    await until(async () => (await waiters(other, "batch")) === 1, { what: "the next to wait" });
    servers[0]?.pause();
    // It knows this token for the newest, and is asked while it is frozen.
    const late = write(one, "the first, late", first).catch((error: unknown) => error);
    await write(other, "the next", (await next).lock?.fencingToken);
    servers[0]?.resume();
    expect(await late).toMatchObject({ code: "FAILED_PRECONDITION", reason: "FENCING_TOKEN_STALE" });
    expect((await other.call(get, { id: "c" })).reply.conversation?.state).toEqual({ by: "the next" });
    expect((await held.event("lost")).cause).toBe(LockLost_Cause.EXPIRED);
    const { lock } = (await other.call(method.get, { name: "batch" })).reply;
    expect(lock?.fencingToken).toBe((await next).lock?.fencingToken);
  });
});

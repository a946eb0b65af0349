import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DedupOutcome, DedupService, DedupState } from "../../src/gen/holdfast/v1/dedup_pb.js";
import { gauge } from "../support/bad-caller.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { CallFailed, createRpcClient, type RpcClient } from "../support/rpc-client.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

const { method } = DedupService;
const { FIRST, DUPLICATE, IN_PROGRESS } = DedupOutcome;
const keyOf = (value: string) => ({ kind: { case: "key" as const, value } });
const text = (value: string) => ({ kind: { case: "text" as const, value } });

const topologies: readonly [name: string, sql: string, env: () => Promise<Record<string, string>>][] = [
  ["embedded", "sqlite", async () => ({})],
  ["single", "sqlite", async () => ({ REDIS_URL: await freshRedis() })],
  ["cluster", "postgres", async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() })],
  ["sql-only", "postgres", async () => ({ DATABASE_URL: await freshDatabase() })],
];

/** Claims and completes, and returns the token. */
async function done(client: RpcClient, key: string, result: string): Promise<bigint> {
  const { reply } = await client.call(method.claim, { id: keyOf(key) });
  expect(reply.outcome).toBe(FIRST);
  const { claimToken } = reply;
  await client.call(method.complete, { id: keyOf(key), claimToken, result: text(result) });
  return claimToken;
}

describe.each(topologies)("deduplication, %s", (name, sql, envOf) => {
  let server: HoldfastProcess;
  let client: RpcClient;
  beforeAll(async () => {
    server = await startHoldfast({ ...(await envOf()), DEDUP_SWEEP_INTERVAL: "200ms" });
    client = createRpcClient(server.grpcAddress);
  });
  afterAll(async () => {
    client[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  it("has one caller do the work and gives the others its result, also after a restart", async () => {
    const id = keyOf("work");
    const first = await client.call(method.claim, { id, owner: "one" });
    expect(first).toMatchObject({
      reply: { outcome: FIRST, attempt: 1, owner: "one" },
      servedBy: sql,
      degraded: false,
    });
    expect(first.reply.leaseRemaining).toMatchObject({ seconds: 60n });
    const second = await client.call(method.claim, { id });
    expect(second.reply).toMatchObject({ outcome: IN_PROGRESS, claimToken: 0n, owner: "one" });
    expect(second.reply.leaseExpireTime).toEqual(first.reply.leaseExpireTime);
    const { claimToken } = first.reply;
    const completed = await client.call(method.complete, { id, claimToken, result: text("done") });
    expect(completed.reply).toMatchObject({ completed: true });
    await server.restart();
    const duplicate = { outcome: DUPLICATE, result: text("done"), claimToken: 0n, owner: "one" };
    // The connection is dialled anew.
    const third = await until(() => client.call(method.claim, { id }), { what: "an answer after the restart" });
    expect(third.reply).toMatchObject(duplicate);
    expect(third.reply.expireTime).toEqual(completed.reply.expireTime);
    expect(third.reply.leaseExpireTime).toBeUndefined();
    const { claim } = (await client.call(method.get, { id })).reply;
    expect(claim).toMatchObject({ state: DedupState.COMPLETED, claimToken, result: text("done"), resultBytes: 4 });
  });

  it("answers duplicates from Redis where there is one", async () => {
    await done(client, "copied", "of Redis");
    const layer = name === "single" || name === "cluster" ? "redis" : sql;
    await until(async () => (await client.call(method.claim, { id: keyOf("copied") })).servedBy === layer, {
      what: `an answer of ${layer}`,
    });
    const { reply, degraded } = await client.call(method.claim, { id: keyOf("copied") });
    expect({ reply, degraded }).toMatchObject({
      reply: { outcome: DUPLICATE, result: text("of Redis") },
      degraded: false,
    });
  });

  it("forgets what is released, and removes what is over its time", async () => {
    const claimToken = await done(client, "again", "once");
    const release = { id: keyOf("again"), claimToken };
    expect((await client.call(method.release, release)).reply.released).toBe(false);
    expect((await client.call(method.release, { ...release, forgetCompleted: true })).reply.released).toBe(true);
    expect((await client.call(method.claim, { id: keyOf("again") })).reply.outcome).toBe(FIRST);
    const before = await gauge(server.httpUrl, "holdfast_dedup_removed_total");
    await client.call(method.claim, { id: keyOf("short"), completed: true, ttl: { seconds: 1n } });
    await until(async () => (await gauge(server.httpUrl, "holdfast_dedup_removed_total")) > before, {
      what: "the removal of a claim",
    });
    expect((await client.call(method.get, { id: keyOf("short") })).reply.claim).toBeUndefined();
  });
});

describe("deduplication while SQL is away", () => {
  it("tells what Redis knows to be done, marked degraded, and nobody that he is the first", async () => {
    const url = new URL(await freshDatabase());
    await using proxy: TcpProxy = await startTcpProxy(Number(url.port));
    url.port = String(proxy.port);
    const env = { REDIS_URL: await freshRedis(), DATABASE_URL: url.href };
    await using server = await startHoldfast(env);
    using client = createRpcClient(server.grpcAddress);
    await done(client, "known", "result");
    const ask = (key: string) => client.call(method.claim, { id: keyOf(key) });
    await until(async () => (await ask("known")).servedBy === "redis", { what: "a copy" });
    proxy.cut();
    const known = await until(async () => (await ask("known").then((it) => it.degraded && it)) || undefined, {
      what: "a degraded answer",
    });
    expect(known).toMatchObject({ reply: { outcome: DUPLICATE, result: text("result") }, servedBy: "redis" });
    const failure = await ask("unknown").catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(CallFailed);
    expect(failure).toMatchObject({ code: "UNAVAILABLE", reason: "SQL_UNAVAILABLE", hasRetryInfo: true });
    proxy.restore();
    await until(async () => (await ask("unknown")).reply.outcome === FIRST, { what: "SQL" });
    await until(async () => !(await ask("known")).degraded, { what: "an answer that is not degraded" });
  });
});

describe("deduplication beside a Redis Cluster", () => {
  it("has copies on whichever server their keys are, and forgets them there", async () => {
    await using cluster = await startRedisCluster();
    await using server = await startHoldfast({
      REDIS_URL: String(cluster.urls[0]).replace("redis:", "redis-cluster:"),
    });
    using client = createRpcClient(server.grpcAddress);
    for (let at = 0; at < 8; at++) {
      const key = `spread-${at}`;
      const claimToken = await done(client, key, "r");
      const ask = () => client.call(method.claim, { id: keyOf(key) });
      await until(async () => (await ask()).servedBy === "redis", { what: `a copy of ${key}` });
      await client.call(method.release, { id: keyOf(key), claimToken, forgetCompleted: true });
      expect((await ask()).reply.outcome).toBe(FIRST);
    }
  });
});

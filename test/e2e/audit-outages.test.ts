import { expect, it } from "vitest";
import { AuditDurability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { CallFailed, createAuditClient, unnamed } from "../support/audit-client.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startRedisSentinel } from "../support/redis-sentinel.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

const { JOURNALED, QUEUED, ARCHIVED } = AuditDurability;

/** A Postgres that the test can take away. */
async function severableDatabase(parts: AsyncDisposableStack) {
  const database = new URL(await freshDatabase());
  const proxy = parts.use(await startTcpProxy(Number(database.port)));
  database.port = String(proxy.port);
  return { proxy, url: database.href };
}

async function metric(httpUrl: string, name: string): Promise<number> {
  const page = await (await fetch(`${httpUrl}/metrics`)).text();
  const found = new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, "m").exec(page);
  if (found === null) throw new Error(`there is no metric ${name}`);
  return Number(found[1]);
}

async function failureOf(work: Promise<unknown>): Promise<CallFailed> {
  try {
    await work;
  } catch (error) {
    if (error instanceof CallFailed) return error;
    throw error;
  }
  throw new Error("the call did not fail");
}

it("keeps Redis within its limit, shows what waits there, and goes on in the journal until that is full, too", async () => {
  await using parts = new AsyncDisposableStack();
  const redis = parts.use(await startRedis());
  const { proxy, url } = await severableDatabase(parts);
  const server = parts.use(
    await startHoldfast({
      REDIS_URL: redis.url,
      DATABASE_URL: url,
      AUDIT_STREAM_MAX_LENGTH: "1000",
      AUDIT_JOURNAL_MAX_BYTES: "1MiB",
    }),
  );
  const audit = parts.use(createAuditClient(server.grpcAddress));
  await until(async () => (await audit.append(unnamed({ actor: "warm", action: "a" })))[0]?.durability === QUEUED, {
    what: "Redis to be in use",
  });
  await until(async () => (await audit.list()).length > 0, { what: "an empty queue" });
  proxy.cut();
  const hundred = Array.from({ length: 100 }, () => ({ entry: { actor: "flood", action: "a" } }));
  const acked: string[] = [];
  const reached = new Set<number>();
  await until(
    async () => {
      const acks = await audit.append(hundred);
      for (const { id, durability } of acks) {
        acked.push(id);
        reached.add(durability);
      }
      return reached.has(JOURNALED);
    },
    { what: "the queue to be full", intervalMs: 0 },
  );
  expect(reached).toEqual(new Set([QUEUED, JOURNALED]));
  expect(await until(() => metric(server.httpUrl, "holdfast_audit_stream_records"), { what: "the gauge" })).toBe(1000);
  expect(await metric(server.httpUrl, "holdfast_audit_stream_bytes")).toBeGreaterThan(10_000);
  expect(await metric(server.httpUrl, "holdfast_audit_journal_only_records")).toBeGreaterThan(0);
  const large = { entry: { actor: "flood", action: "a", attributes: { text: "x".repeat(100_000) } } };
  const full = await until(
    async () => {
      try {
        for (const { id } of await audit.append([large])) acked.push(id);
        return undefined;
      } catch (error) {
        return error instanceof CallFailed ? error : undefined;
      }
    },
    { what: "the journal to be full", intervalMs: 0 },
  );
  expect(full).toMatchObject({ code: "UNAVAILABLE", reason: "JOURNAL_FULL", hasRetryInfo: true });
  expect(await failureOf(audit.append([large], { minDurability: ARCHIVED }))).toMatchObject({
    code: "UNAVAILABLE",
    reason: "DURABILITY_NOT_REACHED",
    hasRetryInfo: true,
  });
  proxy.restore();
  const held = await until(() => audit.list({ actors: ["flood"] }), { what: "SQL to answer", timeoutMs: 60_000 });
  expect(held.map(({ id }) => id)).toEqual(expect.arrayContaining(acked));
  await until(async () => (await metric(server.httpUrl, "holdfast_audit_stream_records")) === 0, {
    what: "an empty queue",
  });
  await until(async () => (await audit.append([large]))[0]?.durability === QUEUED, { what: "room again" });
});

it("loses nothing when a Sentinel promotes a replica that lacks what was acknowledged", async () => {
  await using parts = new AsyncDisposableStack();
  const group = parts.use(await startRedisSentinel());
  const { proxy, url } = await severableDatabase(parts);
  const sentinels = group.sentinels.map(({ host, port }) => `${host}:${port}`).join(",");
  const env = { REDIS_URL: `redis-sentinel://${sentinels}/${group.name}/1`, DATABASE_URL: url };
  const server = parts.use(await startHoldfast({ ...env, CIRCUIT_BREAKER_RESET_TIMEOUT: "1000" }));
  const audit = parts.use(createAuditClient(server.grpcAddress));
  await until(async () => (await audit.append(unnamed({ actor: "warm", action: "a" })))[0]?.durability === QUEUED, {
    what: "Redis to be in use",
  });
  proxy.cut();
  // The replica does not hear of these.
  group.replica.pause();
  const acks = await audit.append(unnamed({ actor: "acked", action: "a" }, { actor: "acked", action: "b" }));
  expect(acks.map(({ durability }) => durability)).toEqual([QUEUED, QUEUED]);
  await group.primary.kill();
  group.replica.resume();
  proxy.restore();
  const held = await until(
    async () => {
      const found = await audit.list({ actors: ["acked"] });
      return found.length > 0 ? found : undefined;
    },
    { what: "what was acknowledged", timeoutMs: 60_000 },
  );
  expect(held?.map(({ id }) => id).toSorted()).toEqual(acks.map(({ id }) => id).toSorted());
  await until(async () => (await audit.append(unnamed({ actor: "after", action: "a" })))[0]?.durability === QUEUED, {
    what: "the promoted replica to be in use",
    timeoutMs: 60_000,
  });
  expect(await audit.list({ actors: ["acked"] })).toHaveLength(2);
});

it("refuses an identity that was used while Redis was away, and knows its retry, when Redis is back", async () => {
  await using redis = await startRedis();
  await using server = await startHoldfast({ REDIS_URL: redis.url, CIRCUIT_BREAKER_RESET_TIMEOUT: "200" });
  using audit = createAuditClient(server.grpcAddress);
  const append = (sequence: bigint, actor: string, options = {}) =>
    audit.append([{ sequence, entry: { actor, action: "a" } }], { producer: "p", ...options });
  await until(async () => (await append(1n, "first"))[0]?.durability === QUEUED, { what: "Redis to be in use" });
  await redis.kill();
  expect(await until(() => append(3n, "during"), { what: "an ack" })).toMatchObject([{ durability: ARCHIVED }]);
  await redis.restart();
  await until(async () => (await append(2n, "between"))[0]?.durability !== JOURNALED && redisIsUsed(), {
    what: "Redis to be in use again",
  });
  expect(await failureOf(append(3n, "another"))).toMatchObject({ code: "ALREADY_EXISTS", reason: "IDENTITY_REUSED" });
  expect(await append(3n, "during")).toMatchObject([{ duplicate: true }]);
  // The same when it was not Redis that was away, but the caller who wanted more.
  await append(5n, "wanted", { minDurability: ARCHIVED });
  expect(await failureOf(append(5n, "another"))).toMatchObject({ code: "ALREADY_EXISTS", reason: "IDENTITY_REUSED" });
  const held = await audit.list({ producers: ["p"] });
  expect(held.map(({ sequence, entry }) => `${sequence} ${entry?.actor}`).toSorted()).toEqual([
    "1 first",
    "2 between",
    "3 during",
    "5 wanted",
  ]);

  async function redisIsUsed(): Promise<boolean> {
    return (await audit.append(unnamed({ actor: "probe", action: "a" })))[0]?.durability === QUEUED;
  }
});

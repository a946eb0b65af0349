import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { HealthService } from "../../src/gen/holdfast/v1/health_pb.js";
import { RateLimitBasis, RateLimitService } from "../../src/gen/holdfast/v1/rate_limit_pb.js";
import { startHoldfast } from "../support/holdfast-process.ts";
import { plantBug } from "../support/planted-bug.ts";
import { createRateLimitClient, limit, type RateLimitClient } from "../support/ratelimit-client.ts";
import { LIMIT, RULES, startHammer, violations } from "../support/ratelimit-hammer.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

/*
 * Promises: instances never let more through than a limit says, together, while they all are hammered; without Redis every call is
 * answered, and the answers say by what.
 */

const { method } = RateLimitService;
const INSTANCES = 2;

interface Open extends AsyncDisposable {
  readonly redis: RedisServer;
  readonly clients: readonly RateLimitClient[];
}

async function open(env: Record<string, string> = {}, root?: string): Promise<Open> {
  await using parts = new AsyncDisposableStack();
  // What it said it counted is there again after it was killed.
  const redis = parts.use(await startRedis({ args: ["--appendonly", "yes", "--appendfsync", "always"] }));
  const directory = parts.adopt(scratchDirectory("rules"), (it) => it.remove());
  const file = join(directory.path, "holdfast.yaml");
  writeFileSync(file, RULES);
  const settings = { REDIS_URL: redis.url, HOLDFAST_CONFIG: file, CIRCUIT_BREAKER_RESET_TIMEOUT: "200", ...env };
  const clients: RateLimitClient[] = [];
  for (let n = 0; n < INSTANCES; n++) {
    const server = parts.use(await startHoldfast(settings, root));
    clients.push(parts.use(createRateLimitClient(server.grpcAddress)));
  }
  const kept = parts.move();
  const opened = { redis, clients, [Symbol.asyncDispose]: () => kept.disposeAsync() };
  await isShared(opened);
  return opened;
}

async function basisOf(client: RateLimitClient): Promise<RateLimitBasis | undefined> {
  const { reply } = await client.call(method.peek, { descriptors: [limit("fixed", "basis")] });
  return reply.statuses[0]?.basis;
}

async function isShared({ clients }: Open): Promise<void> {
  const all = async () => (await Promise.all(clients.map(basisOf))).every((basis) => basis === RateLimitBasis.SHARED);
  await until(all, { what: "all instances to count in Redis" });
}

/** Whom an instance has never seen it cannot share with. */
async function seeEachOther({ clients }: Open): Promise<void> {
  for (const client of clients) {
    const all = async () =>
      (await client.call(HealthService.method.report, {})).reply.report?.instances.length === INSTANCES;
    await until(all, { what: "the instances to see each other" });
  }
}

/** What is answered without Redis, by each of its instances. */
async function answerByFallback(clients: readonly RateLimitClient[]): Promise<void> {
  const all = async (basis: RateLimitBasis) => (await Promise.all(clients.map(basisOf))).every((one) => one === basis);
  await until(() => all(RateLimitBasis.LOCAL_SHARE), { what: "both to count by themselves" });
  for (const client of clients) {
    const { reply, degraded, servedBy } = await client.call(method.check, {
      descriptors: [limit("open", "k"), limit("open", "k"), limit("fixed", "share")],
    });
    expect({ degraded, servedBy }).toEqual({ degraded: true, servedBy: "l1" });
    expect(reply.allowed).toBe(true);
    expect(reply.statuses[0]).toMatchObject({ basis: RateLimitBasis.FALLBACK_OPEN, limit: 1n, remaining: 1n });
    expect(reply.statuses[2]).toMatchObject({ basis: RateLimitBasis.LOCAL_SHARE, limit: BigInt(LIMIT / INSTANCES) });
    const closed = (await client.check("closed", "k")).reply;
    expect(closed).toMatchObject({ allowed: false, deniedBy: "closed", degraded: true });
    expect(closed.statuses[0]).toMatchObject({ basis: RateLimitBasis.FALLBACK_CLOSED, remaining: 0n });
    expect(closed.retryAfter).toBeDefined();
    const both = { descriptors: [limit("closed", "k"), limit("bucket", "untouched")] };
    expect((await client.check("", "", both)).reply).toMatchObject({ allowed: false, deniedBy: "closed" });
    const untouched = (await client.call(method.peek, { descriptors: [limit("bucket", "untouched")] })).reply;
    expect(untouched.statuses[0]?.remaining).toBe(untouched.statuses[0]?.limit);
    const reset = client.call(method.reset, { descriptors: [limit("fixed", "k")] });
    await expect(reset).rejects.toMatchObject({ code: "UNAVAILABLE", reason: "REDIS_UNAVAILABLE" });
  }
}

describe("two instances that share a Redis", () => {
  it("let exactly as much through as a limit says", async () => {
    await using opened = await open();
    const calls = Array.from({ length: 4 * LIMIT }, (_, n) => opened.clients[n % INSTANCES]?.check("whole", "k"));
    const answers = await Promise.all(calls);
    expect(answers.filter((answer) => answer?.reply.allowed).length).toBe(LIMIT);
  });

  it("never let more through in any window, and never give more slots at once", async () => {
    await using opened = await open();
    const hammer = startHammer(opened.clients, "calm");
    const enough = async () => (await passed(opened, "calm")) >= 4;
    await until(enough, { what: "several windows to be full" });
    const account = await hammer.stop();
    expect(violations(account, INSTANCES)).toEqual([]);
    expect(account.denied).toBeGreaterThan(0);
    expect(account.mostHeld).toBeGreaterThan(0);
  });

  it("are caught when they count apart", async () => {
    const text = 'return namespace === "default" ? "ratelimit:"';
    const instead = `return namespace === "default" ? \`ratelimit:\${process.pid}:\``;
    const bug = plantBug([{ file: "src/ratelimit/redis.ts", text, instead }]);
    try {
      await using opened = await open({}, bug.path);
      const hammer = startHammer(opened.clients, "planted");
      await until(async () => (await passed(opened, "planted")) >= 4, { what: "several windows to be full" });
      expect(violations(await hammer.stop(), INSTANCES)).not.toEqual([]);
    } finally {
      bug.remove();
    }
  });

  it("answer every call while it is killed and while it is frozen, each by its share, and never let more through", async () => {
    await using opened = await open();
    const { redis, clients } = opened;
    await seeEachOther(opened);
    const hammer = startHammer(clients, "outage");
    await until(async () => (await passed(opened, "outage")) >= 2, { what: "some windows to be full" });
    await redis.kill();
    await answerByFallback(clients);
    await redis.restart();
    await isShared(opened);
    redis.pause();
    await answerByFallback(clients);
    redis.resume();
    await isShared(opened);
    const account = await hammer.stop();
    expect(violations(account, INSTANCES)).toEqual([]);
    const counters = new Set(account.passes.map(({ counter }) => counter));
    expect(counters).toEqual(new Set(["shared", "instance 0", "instance 1"]));
  });

  it("leave a lease of their own to whoever gave it, and the shared ones to Redis", async () => {
    await using opened = await open();
    const { redis, clients } = opened;
    const [one, other] = clients;
    if (one === undefined || other === undefined) throw new Error("two were started");
    const take = async (client: RateLimitClient) =>
      (await client.call(method.acquireConcurrency, { descriptors: [limit("jobs", "leases")] })).reply;
    const shared = (await take(one)).lease?.id ?? "";
    await redis.kill();
    await until(async () => (await basisOf(one)) === RateLimitBasis.LOCAL_SHARE, { what: "Redis to be missed" });
    const own = (await take(one)).lease?.id ?? "";
    const renewed = await one.call(method.acquireConcurrency, { leaseId: own });
    expect(renewed).toMatchObject({ degraded: true, reply: { allowed: true, degraded: true, lease: { id: own } } });
    expect((await other.call(method.acquireConcurrency, { leaseId: own })).reply.allowed).toBe(false);
    const away = { code: "UNAVAILABLE", reason: "REDIS_UNAVAILABLE", hasRetryInfo: true };
    await expect(one.call(method.acquireConcurrency, { leaseId: shared })).rejects.toMatchObject(away);
    await expect(one.call(method.returnConcurrency, { leaseId: shared })).rejects.toMatchObject(away);
    expect((await one.call(method.returnConcurrency, { leaseId: own })).reply.returned).toBe(true);
    await redis.restart();
    await isShared(opened);
    expect((await other.call(method.returnConcurrency, { leaseId: shared })).reply.returned).toBe(true);
  });
});

describe("while Redis is frozen and the breaker open", () => {
  it("nothing waits for it", async () => {
    // Whoever waits for Redis waits a minute, and the client gives up before.
    await using opened = await open({ REDIS_COMMAND_TIMEOUT: "60s", CIRCUIT_BREAKER_RESET_TIMEOUT: "1h" });
    const { redis, clients } = opened;
    await redis.kill();
    const missed = async () =>
      (await Promise.all(clients.map(basisOf))).every((basis) => basis === RateLimitBasis.LOCAL_SHARE);
    await until(missed, { what: "Redis to be missed" });
    for (let n = 0; n < 10; n++) await Promise.all(clients.map(basisOf));
    await redis.restart();
    // Before the instances go, which would wait for it.
    await using _ = { [Symbol.asyncDispose]: async () => redis.resume() };
    redis.pause();
    const answers = await Promise.all(clients.flatMap((client) => [1, 2, 3, 4].map(() => client.check("fixed", "k"))));
    expect(answers.map(({ degraded }) => degraded)).toEqual(answers.map(() => true));
  });
});

describe("while Redis is frozen and the breaker not yet open", () => {
  it("those who had asked it wait once, and nobody after them", async () => {
    // If each call waited as the first does, all of them would take longer than a test may.
    const patient = { REDIS_COMMAND_TIMEOUT: "2s", CIRCUIT_BREAKER_FAILURE_THRESHOLD: "10000" };
    await using opened = await open(patient);
    const { redis, clients } = opened;
    await using _ = { [Symbol.asyncDispose]: async () => redis.resume() };
    redis.pause();
    for (let n = 0; n < 100; n++) {
      const answers = await Promise.all(clients.map((client) => client.check("fixed", `k ${n}`)));
      expect(answers.map(({ degraded }) => degraded)).toEqual([true, true]);
    }
  });
});

const windowsSeen = new WeakMap<Open, Set<bigint>>();

/** How many windows were seen to be full. */
async function passed(opened: Open, key: string): Promise<number> {
  const seen = windowsSeen.get(opened) ?? new Set();
  windowsSeen.set(opened, seen);
  const [client] = opened.clients;
  const reply = await client?.call(method.peek, { descriptors: [limit("fixed", key)] });
  const status = reply?.reply.statuses[0];
  if (status?.remaining === 0n) {
    seen.add((status.resetTime?.seconds ?? 0n) * 10n + BigInt(Math.floor((status.resetTime?.nanos ?? 0) / 1e8)));
  }
  return seen.size;
}

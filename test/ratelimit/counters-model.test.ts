import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createRedis, parseRedisUrl } from "../../src/infra/redis.ts";
import { slotOf } from "../../src/infra/redis-slot.ts";
import type { Ask, Counters } from "../../src/ratelimit/counters.ts";
import { createMemoryCounters } from "../../src/ratelimit/memory.ts";
import { createRedisCounters } from "../../src/ratelimit/redis.ts";
import { denialOf } from "../../src/ratelimit/replies.ts";
import type { Rule } from "../../src/ratelimit/rule.ts";
import { freshRedis } from "../support/fresh.ts";
import { movedClock } from "../support/moved-clock.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { until } from "../support/until.ts";
import { ruleOf } from "./rules.ts";

/*
 * Promises: the script for Redis, on one server and on a cluster, decides number for number as the rules in TypeScript do, whatever
 * is asked in whatever order, and whatever the clock does.
 */

const clock = movedClock();
const nowUs = () => Math.floor(clock.now() * 1_000);
const parts = new AsyncDisposableStack();
const stores = new Map<string, Counters>();
let ports: readonly number[] = [];
const clusterUrl = () => `redis-cluster://${ports.map((port) => `127.0.0.1:${port}`).join(",")}`;

function openRedis(url: string, commandTimeoutMs = 30_000) {
  const parsed = parseRedisUrl(url);
  if (typeof parsed === "string") throw new Error(parsed);
  const settings = { mode: "single", nodes: [], commandTimeoutMs, connectTimeoutMs: 5_000 } as const;
  return parts.adopt(createRedis({ ...settings, ...parsed }), (it) => it.close());
}

beforeAll(async () => {
  const { nodes } = parts.use(await startRedisCluster());
  ports = nodes.map(({ port }) => port);
  const cluster = openRedis(clusterUrl());
  cluster.connect();
  await until(() => cluster.connected, { what: "the cluster to be reached" });
  stores.set("memory", createMemoryCounters({ clock, graceMs: Number.POSITIVE_INFINITY }));
  stores.set("redis", createRedisCounters({ redis: openRedis(await freshRedis()), nowUs }));
  stores.set("cluster", createRedisCounters({ redis: cluster, nowUs }));
});
afterAll(() => parts.disposeAsync());

const small = fc.integer({ min: 1, max: 6 });
const sizes = fc.oneof(
  { weight: 3, arbitrary: fc.record({ limit: small, burst: small, periodUs: fc.constantFrom(1_000_000, 7_000) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      limit: fc.integer({ min: 1, max: 1_000_000_000_000 }),
      burst: fc.integer({ min: 1, max: 1_000_000_000_000 }),
      periodUs: fc.integer({ min: 1, max: 366 * 86_400_000 }).map((ms) => ms * 1_000),
    }),
  },
);
const rateRule = fc
  .record({
    sizes,
    algorithm: fc.constantFrom("fixed_window", "sliding_window", "token_bucket"),
    shadow: fc.integer({ min: 0, max: 4 }).map((n) => n === 0),
    name: fc.constantFrom("r", "a:b"),
    inline: fc.boolean(),
  })
  .map(({ sizes: { limit, burst, periodUs }, algorithm, ...more }): Rule => {
    return ruleOf(algorithm, limit, { periodUs, burst: algorithm === "token_bucket" ? burst : limit, ...more });
  });
const slotRule = fc
  .record({ limit: small, shadow: fc.integer({ min: 0, max: 4 }).map((n) => n === 0) })
  .map(({ limit, shadow }) => ruleOf("concurrency", limit, { shadow, name: "slots" }));

const key = fc.constantFrom("k", "ü:{1}\n");
const cost = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 4 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 1_000_000_000_000 }) },
);
const rateAsks = asksOf(rateRule, cost);
const slotAsks = asksOf(slotRule, fc.integer({ min: 1, max: 4 }));

function asksOf(rule: fc.Arbitrary<Rule>, costs: fc.Arbitrary<number>): fc.Arbitrary<Ask[]> {
  const ask = fc.record({ rule, key, cost: costs });
  return fc.array(ask, { minLength: 1, maxLength: 4 }).map((asks) => {
    // One limit that is named twice in a call has one rule: the service sees to that.
    const rules = new Map<string, Rule>();
    return asks.map((one) => {
      const name = `${one.rule.name} ${one.rule.inline} ${one.rule.algorithm}`;
      rules.set(name, rules.get(name) ?? one.rule);
      return { ...one, rule: rules.get(name) ?? one.rule };
    });
  });
}

const pauseUs = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 1_500_000 }));
/** Whether the call names itself, and is made a second time. */
const request = fc.boolean();
const ttlMs = fc.constantFrom(1_000, 3_000, 60_000);
/** Seconds that few leases survive, and moments within windows; now and then the clock is put back. */
const move = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 0, max: 2_000 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 400 * 86_400_000 }) },
  { weight: 1, arbitrary: fc.integer({ min: -800, max: 0 }) },
  { weight: 1, arbitrary: fc.integer({ min: -90_000_000, max: -800 }) },
);
const operation = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("check" as const),
      asks: rateAsks,
      charge: fc.constantFrom("if_allowed" as const, "if_allowed" as const, "always" as const),
      request,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("peek" as const), asks: fc.oneof(rateAsks, slotAsks) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("refund" as const),
      asks: rateAsks,
      age: fc.option(fc.integer({ min: 0, max: 3_000_000 }), { nil: undefined }),
      request,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("reset" as const), asks: fc.oneof(rateAsks, slotAsks) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("acquire" as const), asks: slotAsks, ttlMs, request }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("renew" as const), which: fc.nat(5), ttlMs }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("return" as const), which: fc.nat(5) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: move }) },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

let run = 0;
const start = clock.now();

function perform(store: Counters, namespace: string, step: Operation, leases: string[], n: number): Promise<unknown> {
  const named = (retried: boolean) => (retried ? { id: `request-${n}`, meaning: "the same" } : undefined);
  switch (step.kind) {
    case "check":
      return store.check(namespace, step.asks, step.charge, named(step.request));
    case "peek":
      return store.check(namespace, step.asks, "never", undefined);
    case "refund": {
      const asks = step.asks.map((ask) => ({ ...ask, cost: Math.max(1, ask.cost) }));
      const at = step.age === undefined ? undefined : nowUs() - step.age;
      return store.refund(namespace, asks, at, named(step.request));
    }
    case "reset":
      return store.reset(namespace, step.asks);
    case "acquire":
      return store.acquire(namespace, step.asks, {
        leaseId: `lease-${n}`,
        ttlMs: step.ttlMs,
        asks: `asks ${n}`,
        request: named(step.request),
      });
    case "renew":
      return store.renew(namespace, leases[step.which] ?? "none", step.ttlMs);
    case "return":
      return store.giveBack(namespace, leases[step.which] ?? "none");
    case "wait":
      return Promise.resolve(undefined);
  }
}

/** Slots that were not had are tried for again. */
function isRemembered({ kind }: Operation, answer: unknown): boolean {
  return kind !== "acquire" || (answer as { allowed: boolean }).allowed;
}

/** A lease of a second, which is over by then: whoever asks again must not go by it. */
function hasEnded(answer: unknown): boolean {
  const { lease } = answer as { lease?: { expiresAt: number } };
  return lease !== undefined && lease.expiresAt <= nowUs();
}

it("in Redis, in a cluster and in memory every answer is the same", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 30 }), async (steps) => {
      const namespace = `run-${++run}`;
      clock.move(start - clock.now());
      const leases: string[] = [];
      for (const [n, step] of steps.entries()) {
        if (step.kind === "wait") clock.move(step.ms);
        const make = () => Promise.all([...stores.values()].map((one) => perform(one, namespace, step, leases, n)));
        const answers = await make();
        if ("request" in step && step.request && isRemembered(step, answers[0])) {
          clock.move(999);
          expect(await make()).toEqual(answers);
          clock.move(1);
          if (!hasEnded(answers[0])) expect(await make()).toEqual(answers);
          else {
            const [again, ...others] = await make();
            for (const other of others) expect({ step, answer: other }).toEqual({ step, answer: again });
            expect(again).not.toEqual(answers[0]);
          }
        }
        for (const [i, name] of [...stores.keys()].entries()) {
          expect({ name, step, answer: answers[i] }).toEqual({ name, step, answer: answers[0] });
        }
        if (step.kind === "acquire") leases.push(`lease-${n}`);
      }
    }),
    { numRuns: 300 },
  );
});

it("a call that was denied is allowed exactly when it was told, whatever it asks for and whatever was asked before", async () => {
  let us = 0;
  const counters = createRedisCounters({ redis: openRedis(await freshRedis()), nowUs: () => us });
  // Few counters, so that most of what is asked for was used before.
  const few = asksOf(
    rateRule.map((rule) => ({ ...rule, name: "r", inline: false })),
    fc.integer({ min: 0, max: 4 }),
  );
  const calls = fc.array(
    fc.record({ asks: few, charge: fc.constantFrom("if_allowed" as const, "always" as const), pauseUs }),
    { minLength: 3, maxLength: 10 },
  );
  let denials = 0;
  await fc.assert(
    fc.asyncProperty(calls, few, async (before, asks) => {
      const namespace = `exact-${++run}`;
      us = 1_763_000_000_000_000;
      for (const call of before) {
        await counters.check(namespace, call.asks, call.charge, undefined);
        us += call.pauseUs;
      }
      const verdict = await counters.check(namespace, asks, "if_allowed", undefined);
      const { retryAfter } = denialOf(asks, verdict);
      if (retryAfter === undefined || us + retryAfter >= 9e15) return;
      denials++;
      const isAllowed = async () => (await counters.check(namespace, asks, "never", undefined)).allowed;
      us += retryAfter - 1;
      expect(await isAllowed()).toBe(false);
      us += 1;
      expect(await isAllowed()).toBe(true);
    }),
    { numRuns: 300 },
  );
  expect(denials).toBeGreaterThan(20);
});

it("what somebody else wrote in the place of a counter counts as nothing, and costs no other call its answer", async () => {
  const redis = openRedis(await freshRedis());
  const counters = createRedisCounters({ redis });
  const rules = [
    ruleOf("fixed_window", 5),
    ruleOf("concurrency", 5),
    ruleOf("sliding_window", 5),
    ruleOf("concurrency", 5, { name: "b" }),
  ];
  const asks = rules.map((rule) => ({ rule, key: "k", cost: 1 }));
  await redis.command("set", "ratelimit:rule:k:fixed", "1 2 3 4 5");
  await redis.command("set", "ratelimit:rule:k:slots", "1");
  await redis.command("rpush", "ratelimit:rule:k:sliding", "1");
  await redis.command("hset", "ratelimit:b:k:slots", "1", "1");
  const verdicts = await Promise.all(asks.map((ask) => counters.check("default", [ask], "never", undefined)));
  expect(verdicts.map(({ standings }) => standings[0]?.remaining)).toEqual([5, 5, 5, 5]);
  expect(
    await counters.check(
      "default",
      asks.filter(({ rule }) => rule.algorithm !== "concurrency"),
      "if_allowed",
      undefined,
    ),
  ).toMatchObject({ standings: [{ remaining: 4 }, { remaining: 4 }] });
});

it.each([1, 3])(
  "of hundreds of leases of up to %d slots each it is told alike when enough of them have ended",
  async (most) => {
    const held = ruleOf("concurrency", 1_000, { name: `most ${most}` });
    let taken = 0;
    for (let n = 0; n < 250; n++) {
      const ask = { rule: held, key: "k", cost: 1 + (n % most) };
      taken += ask.cost;
      const order = { leaseId: `many-${n}`, ttlMs: 60_000 + ((n * 7_919) % 250) * 100, asks: "", request: undefined };
      await Promise.all([...stores.values()].map((store) => store.acquire("many", [ask], order)));
    }
    for (const [limit, cost] of [
      [1, 1],
      [taken, 1],
      [taken, 120],
      [taken, taken],
      [taken - 7, 150],
      [130, 1],
      [130, 130],
      [241, 1],
      [taken, 240],
    ]) {
      const asks = [{ rule: { ...held, limit: limit ?? 0, burst: limit ?? 0 }, key: "k", cost: cost ?? 0 }];
      const told = [...stores.values()].map((store) => store.check("many", asks, "never", undefined));
      const [first, ...others] = (await Promise.all(told)).map(({ standings }) => standings);
      expect(first?.[0]?.waitUs).toBeGreaterThan(50_000_000);
      for (const other of others) expect(other).toEqual(first);
    }
  },
);

it("whatever is asked, nothing stays in Redis for ever", async () => {
  const redis = openRedis(await freshRedis());
  const counters = createRedisCounters({ redis });
  const leases: string[] = [];
  for (const [n, step] of fc.sample(operation, 500).entries()) {
    await perform(counters, "ends", step, leases, n);
    if (step.kind === "acquire") leases.unshift(`lease-${n}`);
  }
  const { keys } = await redis.scan("*", "0", 10_000);
  expect(keys.length).toBeGreaterThan(10);
  const ends = await Promise.all(keys.map(async (name) => ({ name, ms: Number(await redis.command("pttl", name)) })));
  expect(ends.filter(({ ms }) => ms === -1)).toEqual([]);
});

/** Moves the slot of a namespace to another node of the cluster, in two halves. */
async function moveSlot(namespace: string) {
  const nodes = ports.map((port) => ({ port, redis: openRedis(`redis://127.0.0.1:${port}`) }));
  const slot = slotOf(`{${namespace}}`);
  const sizes = await Promise.all(nodes.map(({ redis }) => redis.command("cluster", "countkeysinslot", slot)));
  const [from, to] = [nodes[sizes.findIndex((size) => Number(size) > 0)], nodes[sizes.indexOf(0)]];
  if (from === undefined || to === undefined) throw new Error(`no node has keys of ${namespace}`);
  const [fromId, toId] = [await from.redis.command("cluster", "myid"), await to.redis.command("cluster", "myid")];
  await to.redis.command("cluster", "setslot", slot, "importing", String(fromId));
  await from.redis.command("cluster", "setslot", slot, "migrating", String(toId));
  const found = await from.redis.command("cluster", "getkeysinslot", slot, 1_000);
  const keys = Array.isArray(found) ? found.map(String) : [];
  const migrate = (some: readonly string[]) =>
    from.redis.command("migrate", "127.0.0.1", to.port, "", 0, 5_000, "keys", ...some);
  return {
    keys,
    migrate,
    async finish(rest: readonly string[]) {
      await migrate(rest);
      for (const { redis } of [to, from, ...nodes])
        await redis.command("cluster", "setslot", slot, "node", String(toId));
    },
  };
}

const jobs: Ask = { rule: ruleOf("concurrency", 2, { name: "jobs" }), key: "k", cost: 1 };
const hosts: Ask = { rule: ruleOf("concurrency", 2, { name: "hosts" }), key: "k", cost: 2 };

it.each(["!lease:a", "jobs:k", "hosts:k"])(
  "while a slot moves and %s has gone ahead, a lease is changed whole or not at all",
  async (ahead) => {
    const namespace = `moving.${slotOf(ahead)}`;
    const redis = openRedis(clusterUrl(), 400);
    const counters = createRedisCounters({ redis, nowUs });
    redis.connect();
    await until(() => redis.connected, { what: "the cluster to be reached" });
    const order = { ttlMs: 60_000, asks: "", request: undefined };
    const taken = await counters.acquire(namespace, [jobs, hosts], { ...order, leaseId: "a" });
    await counters.acquire(namespace, [jobs], { ...order, leaseId: "b" });
    const { keys, migrate, finish } = await moveSlot(namespace);
    const gone = keys.filter((name) => name.includes(`}:${ahead}`));
    expect(gone.length).toBe(1);
    await migrate(gone);
    const moving = { reason: "REDIS_UNAVAILABLE", message: expect.stringContaining("is being moved") };
    await expect(counters.renew(namespace, "a", 90_000)).rejects.toMatchObject(moving);
    await expect(counters.giveBack(namespace, "a")).rejects.toMatchObject(moving);
    await finish(keys.filter((name) => !gone.includes(name)));
    const peek = async () => (await counters.check(namespace, [jobs, hosts], "never", undefined)).standings;
    expect(await peek()).toMatchObject([{ remaining: 0 }, { remaining: 0, resetAt: taken.lease?.expiresAt }]);
    expect((await counters.renew(namespace, "a", 90_000))?.lease.expiresAt).toBe(nowUs() + 90_000_000);
    expect(await counters.giveBack(namespace, "a")).toBe(true);
    expect(await peek()).toMatchObject([{ remaining: 1 }, { remaining: 2 }]);
    await counters.reset(namespace, [jobs]);
    expect(await counters.renew(namespace, "b", 90_000)).toBeUndefined();
  },
);

it("while a slot moves, calls with a single limit go on where their key is, though they were sent together", async () => {
  const namespace = "moving.single";
  const redis = openRedis(clusterUrl(), 2_000);
  const counters = createRedisCounters({ redis, nowUs });
  redis.connect();
  await until(() => redis.connected, { what: "the cluster to be reached" });
  const limit = (key: string): Ask => ({ rule: ruleOf("fixed_window", 9, { periodUs: 86_400_000_000 }), key, cost: 2 });
  const check = (key: string) => counters.check(namespace, [limit(key)], "if_allowed", undefined);
  await Promise.all([check("ahead"), check("behind")]);
  const { keys, migrate, finish } = await moveSlot(namespace);
  const gone = keys.filter((name) => name.includes("ahead"));
  await migrate(gone);
  const verdicts = await Promise.all([check("ahead"), check("behind"), check("new")]);
  expect(verdicts.map(({ standings }) => standings[0]?.remaining)).toEqual([5, 5, 7]);
  const refunds = await Promise.all(
    ["ahead", "behind"].map((key) => counters.refund(namespace, [limit(key)], undefined, undefined)),
  );
  expect(refunds.map(({ standings }) => standings[0]?.remaining)).toEqual([7, 7]);
  await finish(keys.filter((name) => !gone.includes(name)));
  expect((await check("new")).standings).toMatchObject([{ remaining: 5 }]);
});

import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createMemoryStore } from "../../src/cache/memory.ts";
import { type Draft, isFresh } from "../../src/cache/record.ts";
import { createRedisStore } from "../../src/cache/redis.ts";
import { createSqlStore } from "../../src/cache/sql.ts";
import type { CacheStore } from "../../src/cache/store.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { freshRedis } from "../support/fresh.ts";
import { movedClock } from "../support/moved-clock.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { announcer, openRedis, silent } from "./instance.ts";
import { type Condition, createStoreModel, type StoreModel } from "./store-model.ts";

const MINUTE = 60_000;
const clock = movedClock();
/** Each event of a run has its own thousand of moments, so that what happens within it is after all before it. */
const MOMENTS = 1_000;
let moment = clock.now() * 1_000;
const newStamp = () => ++moment;
function nextEvent(): number {
  moment += MOMENTS - (moment % MOMENTS);
  return moment;
}

const parts = new AsyncDisposableStack();
const stores = new Map<string, CacheStore>();
beforeAll(async () => {
  const redis = parts.adopt(openRedis(await freshRedis(), 30_000), (it) => it.close());
  const directory = parts.adopt(scratchDirectory("model"), (it) => it.remove());
  const database = parts.adopt(openSqlite({ path: join(directory.path, "cache.db") }), (it) => it.close());
  await migrate(database, migrations);
  stores.set("redis", createRedisStore({ redis, announcer, clock, newStamp }));
  stores.set("sqlite", createSqlStore({ database, announcer: undefined, clock, newStamp }));
  stores.set("memory", createMemoryStore({ clock, newStamp, maxBytes: 100_000_000, log: silent }));
});
afterAll(() => parts.disposeAsync());

const key = fc.constantFrom("a", "b", "c");
const tags = fc.subarray(["x", "y"]);
const ttl = fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined });
/** How far behind the clock of the writer is. */
const behind = fc.constantFrom(0, 0, 0, MOMENTS, 20 * MOMENTS);
const put = { key, tags, ttl, behind, deleted: fc.boolean() };

const operation = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("set"), ...put, deleted: fc.constant(false) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("set"), ...put, deleted: fc.constant(true) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("copy"), ...put, since: fc.boolean() }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("swap"),
      ...put,
      seen: fc.constantFrom("current", "none", "other"),
      orAbsent: fc.boolean(),
      since: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("lease"), key }) },
  // Never a tombstone: only the durable store puts one under a lease, and keeps the place until the value has followed.
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant("fill"), ...put, deleted: fc.constant(false), which: fc.nat(3) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("invalidate"), tags }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("move"), minutes: fc.integer({ min: -2, max: 4 }) }) },
);

type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

interface Lease {
  readonly key: string;
  readonly token: string;
  readonly seen: number;
  readonly grantedAt: number;
}

let runs = 0;

async function play(operations: readonly Operation[]): Promise<void> {
  const namespace = `run${runs++}`;
  const model = createStoreModel();
  const leases: Lease[] = [];
  for (const [step, one] of operations.entries()) {
    const before = nextEvent();
    const at = nextEvent();
    const wanted = expectedOf(one, step, before, at, model, leases);
    for (const [name, store] of stores) {
      const given = await wanted.ask(store, namespace);
      expect(given, `${name} at step ${step}: ${JSON.stringify(one)}`).toEqual(wanted.answer);
    }
    for (const [name, store] of stores) {
      const read = await store.read(namespace, ["a", "b", "c"]);
      const now = clock.now();
      const texts = read.map(({ record, valid }) =>
        record !== undefined && valid && isFresh(record, now) ? record.value.data : undefined,
      );
      const told = `${name} after step ${step}: ${JSON.stringify(one)}`;
      expect(texts, told).toEqual(["a", "b", "c"].map((which) => model.value(which, now)));
      expect(
        read.map(({ record }) => record?.version ?? 0),
        told,
      ).toEqual(["a", "b", "c"].map(model.version));
      const listed = await store.list(namespace, "", 10, undefined);
      expect(listed.keys.map((info) => info.key).sort(), told).toEqual(model.keys(now));
    }
  }
}

interface Expected {
  readonly answer: unknown;
  ask(store: CacheStore, namespace: string): Promise<unknown>;
}

/** What the model answers, and how to ask a store the same. */
function expectedOf(
  one: Operation,
  step: number,
  before: number,
  at: number,
  model: StoreModel,
  leases: Lease[],
): Expected {
  switch (one.kind) {
    case "move":
      clock.move(one.minutes * MINUTE);
      return { answer: undefined, ask: async () => undefined };
    case "invalidate":
      model.invalidate(one.tags, at);
      return {
        answer: undefined,
        async ask(store, namespace) {
          await store.invalidate(namespace, one.tags, at);
        },
      };
    case "lease": {
      const lease = { key: one.key, token: `token ${step}`, seen: model.version(one.key), grantedAt: at };
      leases.unshift(lease);
      return {
        answer: model.lease(one.key, lease.token),
        // Longer than all moves of a run together, because Redis ends it by its own clock.
        ask: async (store, namespace) =>
          (await store.acquireLease(namespace, one.key, lease.token, clock.now() + 10_000 * MINUTE)).granted,
      };
    }
    default: {
      const condition = conditionOf(one, before, model, leases);
      const target = one.kind === "fill" ? (leases[one.which]?.key ?? one.key) : one.key;
      const expiresAt = one.ttl === undefined ? undefined : clock.now() + one.ttl * MINUTE;
      const record: Draft = {
        version: at - one.behind,
        deleted: one.deleted,
        value: { data: one.deleted ? "" : `text ${step}`, contentType: "" },
        createdAt: clock.now(),
        expiresAt,
        // Long enough for no store to forget it during a run.
        staleUntil: clock.now() + 10_000 * MINUTE,
        tags: one.tags,
      };
      const { version, deleted, tags: carried } = record;
      const proposal = { key: target, version, deleted, text: `text ${step}`, tags: carried, expiresAt };
      return {
        answer: model.write(proposal, condition, at),
        async ask(store, namespace) {
          const write = { key: target, draft: record, guard: condition, announce: "no" } as const;
          const [result] = await store.write(namespace, [write]);
          return result?.stored ? result.version : result?.why;
        },
      };
    }
  }
}

function conditionOf(
  one: Extract<Operation, { kind: "set" | "copy" | "swap" | "fill" }>,
  before: number,
  model: StoreModel,
  leases: readonly Lease[],
): Condition {
  switch (one.kind) {
    case "set":
      return { kind: "none" };
    case "copy":
      return one.since ? { kind: "newer", grantedAt: before - 2.5 * MOMENTS } : { kind: "newer" };
    case "swap": {
      const current = model.version(one.key);
      const seen = one.seen === "current" ? current : one.seen === "none" ? 0 : current + 7;
      const { orAbsent } = one;
      const since = one.since ? { grantedAt: before - 2.5 * MOMENTS } : {};
      return { kind: "version", seen, orAbsent, ...since };
    }
    case "fill": {
      const lease = leases[one.which];
      if (lease === undefined) return { kind: "lease", token: "nobody's", seen: 0, grantedAt: before };
      return { kind: "lease", token: lease.token, seen: lease.seen, grantedAt: lease.grantedAt };
    }
  }
}

it("memory, Redis and SQLite answer any sequence of operations as the model does", async () => {
  const numRuns = Number(process.env.HOLDFAST_MODEL_RUNS ?? 120);
  await fc.assert(fc.asyncProperty(fc.array(operation, { minLength: 1, maxLength: 40 }), play), { numRuns });
});

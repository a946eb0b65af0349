import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RequestIdReusedError } from "../../src/infra/named-request.ts";
import type { Taken } from "../../src/lock/authority/authority.ts";
import { LockAttemptOverError } from "../../src/lock/failures.ts";
import {
  decideRelease,
  decideRenew,
  decideTake,
  isWanted,
  MOST_STREAK,
  type ReleaseOrder,
  type RenewOrder,
  type TakeOrder,
  WANTED_MS,
  YIELD_MS,
} from "../../src/lock/record/decide.ts";
import { type Grant, isLive, type LockRecord, RETRIED } from "../../src/lock/record/grant.ts";
import { named, releaseOrder, renewOrder, takeOrder } from "./authorities.ts";
import { type OpenRedisAuthorities, openRedisAuthorities } from "./redis-authorities.ts";
import { type ScriptBug, withBugs } from "./spoilt-redis.ts";

const TTLS = [100, 5_000, 60_000];
/** Around everything that the rules wait for. */
const WAITS = [0, 0, 0, 1, YIELD_MS - 1, YIELD_MS, 100, WANTED_MS / 4, WANTED_MS / 4 + 1, WANTED_MS, 60_000];

const wait = fc.constantFrom(...WAITS);
const instance = fc.constantFrom("i1", "i1", "i2", "i3");
const stream = fc.constantFrom("", "", "s1", "s2");
const keeper = fc.constantFrom(undefined, undefined, "", "s1", "s2", RETRIED);
const request = fc.constantFrom(undefined, undefined, undefined, named("r1"), named("r2"), named("r1", "Other"));

const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      ...{ kind: fc.constant("take" as const), wait, instance, stream, request },
      ...{ waits: fc.boolean(), ttlMs: fc.constantFrom(...TTLS) },
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      ...{ kind: fc.constant("renew" as const), wait, instance, keeper, isStale: fc.nat(6).map((n) => n === 0) },
      ...{ ttlMs: fc.constantFrom(undefined, ...TTLS), heir: fc.constantFrom(undefined, undefined, "s1", "s2") },
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      ...{ kind: fc.constant("release" as const), wait, keeper, isStale: fc.nat(6).map((n) => n === 0) },
      ...{ end: fc.constantFrom("released" as const, "forced" as const), undo: fc.nat(3).map((n) => n === 0) },
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("look" as const), wait }) },
  // As often as it takes for an instance to have had its share.
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("again and again" as const), wait, instance }) },
);
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

/** One lock in Redis, and beside it what the rules make of the same. */
class Pair {
  readonly #opened: OpenRedisAuthorities;
  readonly #name: string;
  readonly #attempts = new Map<string, string>();
  #record: LockRecord | undefined;
  #announced = 0;
  readonly time: { now: number };

  constructor(opened: OpenRedisAuthorities, name: string, time: { now: number }) {
    this.#opened = opened;
    this.#name = name;
    this.time = time;
  }

  async carryOut(one: Step): Promise<void> {
    this.time.now += one.wait;
    if (one.kind === "take") await this.#take(takeOrder(this.#name, { ...one, ...ids(one) }));
    else if (one.kind === "renew") await this.#renew(one);
    else if (one.kind === "release") await this.#release(one);
    else if (one.kind === "look") await this.#look();
    else await this.#takeTurns(one.instance);
    expect(await this.#kept()).toEqual(this.#record);
  }

  get #authority() {
    return this.#opened.instances[0].authority;
  }

  get #token(): number {
    return this.#record?.grant.token ?? 0;
  }

  async #takeTurns(instanceId: string): Promise<void> {
    for (let time = 0; time < MOST_STREAK; time++) {
      await this.#take(takeOrder(this.#name, { instanceId, waits: true }));
      await this.#release({ keeper: undefined, isStale: false, end: "released", undo: false });
    }
  }

  async #take(order: TakeOrder): Promise<void> {
    const { request: asked } = order;
    const known = asked && this.#attempts.get(asked.id);
    const real = await settled(this.#authority.take(order));
    const token = real.kind === "granted" ? real.lease.grant.token : 0;
    if (asked !== undefined && known !== undefined && known !== asked.meaning) {
      expect(real).toEqual({ kind: "refused", why: "REQUEST_ID_REUSED" });
      return;
    }
    const decision = decideTake(this.#record, order, known !== undefined, this.time.now, token);
    if (decision.kind === "yield") expect(real).toEqual(decision);
    else if (decision.kind === "attempt_over") expect(real).toEqual({ kind: "refused", why: "LOCK_ATTEMPT_OVER" });
    else if (decision.kind === "request_reused") expect(real).toEqual({ kind: "refused", why: "REQUEST_ID_REUSED" });
    else {
      const before = this.#token;
      this.#record = decision.record;
      const lease = this.#lease();
      if (decision.kind === "held") expect(real).toEqual({ kind: "held", holder: lease });
      else {
        expect(real).toEqual({ kind: "granted", lease });
        if (this.#token !== before) expect(this.#token).toBeGreaterThan(before);
        if (asked !== undefined) this.#attempts.set(asked.id, asked.meaning);
      }
    }
  }

  async #renew(one: Pick<Step & { kind: "renew" }, "keeper" | "isStale" | "ttlMs" | "heir" | "instance">) {
    const token = this.#token - (one.isStale ? 1 : 0);
    const heir = one.heir === undefined ? undefined : { streamId: one.heir, instanceId: one.instance };
    const order: RenewOrder = renewOrder({ name: this.#name, token }, { ttlMs: one.ttlMs, streamId: one.keeper, heir });
    const real = await this.#authority.renew(order);
    const decision = decideRenew(this.#record, order, this.time.now);
    if (decision.kind === "over") expect(real).toEqual({ ...decision, holder: this.#lease() });
    else {
      this.#record = decision.record;
      expect(real).toEqual({ kind: "renewed", lease: this.#lease() });
    }
  }

  async #release(one: Pick<Step & { kind: "release" }, "keeper" | "isStale" | "end" | "undo">): Promise<void> {
    const token = this.#token - (one.isStale ? 1 : 0);
    const given = { end: one.end, streamId: one.keeper, undo: one.undo };
    const order: ReleaseOrder = releaseOrder({ name: this.#name, token }, given);
    const lease = this.#lease();
    const real = await this.#authority.release(order);
    const after = decideRelease(this.#record, order, this.time.now);
    expect(real).toEqual({ released: after !== undefined, lease });
    if (after === undefined) return;
    this.#record = after;
    if (order.undo) this.#attempts.delete(after.grant.requestId);
    if (isWanted(after, this.time.now)) this.#announced++;
  }

  async #look(): Promise<void> {
    expect(await this.#authority.look(this.#name)).toEqual({ lease: this.#lease(), lastToken: this.#token });
  }

  #lease() {
    const grant = this.#record?.grant;
    if (grant === undefined || !isLive(grant, this.time.now)) return undefined;
    return { grant, remainingMs: grant.expireMs - this.time.now };
  }

  async announced(): Promise<void> {
    const { redis, announced } = this.#opened.instances[0];
    await redis.ping();
    await expect.poll(() => announced.filter((name) => name === this.#name).length).toBe(this.#announced);
  }

  /** What Redis keeps of the lock. */
  async #kept(): Promise<LockRecord | undefined> {
    const values = await this.#opened.instances[0].redis.command(
      "eval",
      KEPT,
      1,
      `holdfast:lock:{p00}:r:${this.#name}`,
    );
    if (!Array.isArray(values)) return undefined;
    const text = (at: number) => String(values[at]);
    const number = (at: number) => Number(values[at]);
    const [owner = "", purpose = "", caller = ""]: readonly string[] = JSON.parse(text(1));
    return {
      grant: {
        ...{ name: this.#name, token: number(0), owner, purpose, caller },
        ...{ instanceId: text(2), streamId: text(3), requestId: text(4), requestMeaning: text(5) },
        ...{ ttlMs: number(6), acquireMs: number(7), expireMs: number(8), renewals: number(9) },
        ...endOf(text(15)),
      },
      ...{ streak: number(10), wantedUntilMs: number(11), rival: text(12), rivalUntilMs: number(13) },
    };
  }
}

function endOf(text: string): Pick<Grant, "end" | "endMs"> {
  const end = ({ h: "", r: "released", f: "forced" } as const)[text.charAt(0)];
  if (end === undefined) throw new Error(`ended by ${text}`);
  return { end, endMs: Number(text.slice(1)) };
}

const KEPT = `
local record = redis.call('GET', KEYS[1])
if not record then return false end
local _, values = cmsgpack.unpack_one(record, 14)
for at, value in ipairs(values) do
  if type(value) == 'number' then values[at] = string.format('%.0f', value) end
end
values[16] = string.sub(record, 1, 14)
return values
`;

function ids(one: Step & { kind: "take" }): Partial<TakeOrder> {
  return { instanceId: one.instance, streamId: one.stream };
}

/** What it is refused with counts as an answer. */
async function settled(taking: Promise<Taken>): Promise<Taken | { readonly kind: "refused"; readonly why: string }> {
  try {
    return await taking;
  } catch (error) {
    if (!(error instanceof LockAttemptOverError || error instanceof RequestIdReusedError)) throw error;
    return { kind: "refused", why: error.reason };
  }
}

async function expectRules(runs: number, bugs: readonly ScriptBug[] = []): Promise<void> {
  const time = { now: 1_000_000 };
  await using opened = await openRedisAuthorities({ nowMs: () => time.now, spoil: withBugs(bugs) });
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async (steps) => {
      const pair = new Pair(opened, `lock/${run++}`, time);
      for (const one of steps) await pair.carryOut(one);
      await pair.announced();
    }),
    // Whoever looks for a bug wants the shortest way to it; whoever planted it knows it.
    { numRuns: runs, endOnFailure: bugs.length > 0 },
  );
}

/** Several locks at a time, so that what is asked of them comes to Redis in common. */
async function expectRulesTogether(runs: number, bugs: readonly ScriptBug[] = []): Promise<void> {
  const time = { now: 1_000_000 };
  await using opened = await openRedisAuthorities({ nowMs: () => time.now, spoil: withBugs(bugs) });
  const stepsOfLocks = fc.array(fc.array(step, { minLength: 3, maxLength: 8 }), { minLength: 4, maxLength: 12 });
  let run = 0;
  await fc.assert(
    fc.asyncProperty(stepsOfLocks, async (all) => {
      run++;
      time.now += WANTED_MS;
      const pairs = all.map((steps, at) => ({ steps, pair: new Pair(opened, `run-${run}/${at}`, time) }));
      const carryOut = async ({ steps, pair }: (typeof pairs)[number]) => {
        for (const one of steps) await pair.carryOut({ ...one, wait: 0 });
      };
      const ended = await Promise.allSettled(pairs.map(carryOut));
      for (const one of ended) if (one.status === "rejected") throw one.reason;
    }),
    { numRuns: runs, endOnFailure: bugs.length > 0 },
  );
}

describe("the scripts of locks in Redis", () => {
  it("do what the rules say, whatever is asked and whenever", async () => {
    await expectRules(100);
  });

  it.each<ScriptBug>([
    { script: "lock-take", text: "expire > now", instead: "expire >= now" },
    { script: "lock-take", text: "isAgain and streak + 1 or 1", instead: "streak and streak + 1 or 1" },
    { script: "lock-renew", text: "math.max(expire, now + (tonumber(ARGV[5]) or ttl))", instead: "now + ttl" },
  ])("are caught with a bug in $script: $instead for $text", async (bug) => {
    await expect(expectRules(600, [bug])).rejects.toThrow("Property failed");
  });

  it("do so for each of many locks that are asked for at once", async () => {
    await expectRulesTogether(30);
  });

  it.each<ScriptBug>([
    { script: "lock-take", text: "at, key = at + 2, key + 1", instead: "at = at + 2" },
    { script: "lock-take", text: "keeper, at = ARGV[at], at + 1", instead: "keeper = ARGV[at]" },
    { script: "lock-release", text: "attempts, key = KEYS[key], key + 1", instead: "attempts = KEYS[key]" },
  ])("are caught when one order of $script is taken for another: $instead", async (bug) => {
    await expect(expectRulesTogether(100, [bug])).rejects.toThrow("Property failed");
  });
});

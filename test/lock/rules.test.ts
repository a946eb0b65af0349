import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  decideRelease,
  decideRenew,
  decideTake,
  isWanted,
  MOST_STREAK,
  type TakeDecision,
  type TakeOrder,
} from "../../src/lock/record/decide.ts";
import type { LockRecord } from "../../src/lock/record/grant.ts";
import { GRANTS_PER_EPOCH, MOST_EPOCHS, tokenAfter } from "../../src/lock/record/token.ts";
import { named, releaseOrder, renewOrder, takeOrder } from "./authorities.ts";
import { LockModel } from "./rules-model.ts";

const step = fc.record({
  kind: fc.constantFrom(
    ...(["take", "take", "take", "release", "release", "renew", "inherit", "undo", "rounds"] as const),
  ),
  instance: fc.constantFrom("a", "a", "a", "a", "a", "b", "c"),
  attempt: fc.constantFrom("", "", "", "r1", "r2"),
  waits: fc.boolean(),
  ttlMs: fc.constantFrom(100, 3_000, 30_000),
  stream: fc.constantFrom(undefined, "", "s1"),
  isNewest: fc.integer({ min: 0, max: 9 }).map((number) => number > 0),
  passMs: fc.constantFrom(0, 0, 0, 0, 1, 30, 99, 100, 2_499, 2_501, 7_000, 12_000),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

type Rules = {
  readonly take: typeof decideTake;
  readonly renew: typeof decideRenew;
  readonly release: typeof decideRelease;
};
const RULES: Rules = { take: decideTake, renew: decideRenew, release: decideRelease };

/** Applies the rules to a record as an authority does, and checks each answer by the model. */
class Bench {
  readonly #rules: Rules;
  readonly #model = new LockModel();
  #record: LockRecord | undefined;

  constructor(rules: Rules) {
    this.#rules = rules;
  }

  carryOut(one: Step): void {
    this.#model.pass(one.passMs);
    if (one.kind === "rounds") {
      const round: Step = { ...one, attempt: "", stream: undefined, isNewest: true, passMs: 0 };
      // So often that an instance has had its share.
      for (let count = 0; count <= MOST_STREAK; count++) {
        this.carryOut({ ...round, kind: "take" });
        this.carryOut({ ...round, kind: "release" });
      }
      return;
    }
    if (one.kind === "take") this.#take(one);
    else if (one.kind === "renew" || one.kind === "inherit") this.#renew(one);
    else this.#release(one);
    this.#compare();
  }

  #take({ instance, attempt, waits, ttlMs }: Step): void {
    const model = this.#model;
    const request = attempt === "" ? undefined : named(attempt);
    const order: TakeOrder = takeOrder("lock", { instanceId: instance, request, waits, ttlMs, streamId: "" });
    const may = model.takes(instance, attempt);
    const wasGranted = model.attemptsTaken.has(attempt) || (attempt !== "" && model.lease?.attempt === attempt);
    const token = tokenAfter(this.#record?.grant.token ?? 0, 1);
    const decision = this.#rules.take(this.#record, order, wasGranted, model.nowMs, token);
    expect(may).toContain(kindOf(decision, token));
    if (decision.kind === "granted") {
      const { grant } = decision.record;
      this.#record = decision.record;
      if (grant.token === token) {
        expect(token).toBeGreaterThan(model.lastToken);
        model.granted({ token, instance, attempt, ttlMs, keeper: "" });
      } else if (model.lease?.keeper === "") model.lease.keeper = "retried";
    } else if (decision.kind === "held") {
      this.#record = decision.record;
      if (waits) model.waits(instance);
    }
  }

  #renew({ kind, instance, stream, isNewest, ttlMs }: Step): void {
    const { lease, lastToken } = this.#model;
    const token = isNewest ? lastToken : lastToken - 1;
    const heir = kind === "inherit" ? { streamId: stream ?? "s2", instanceId: instance } : undefined;
    const order = renewOrder({ name: "lock", token }, { ttlMs, heir, streamId: heir ? undefined : stream });
    const decision = this.#rules.renew(this.#record, order, this.#model.nowMs);
    const isKeeper = heir !== undefined || stream === undefined || stream === lease?.keeper;
    expect(decision.kind).toBe(lease?.token === token && isKeeper ? "renewed" : "over");
    if (decision.kind === "over" || lease === undefined) return;
    this.#record = decision.record;
    lease.untilMs = Math.max(lease.untilMs, this.#model.nowMs + ttlMs);
    if (heir) this.#model.inherited(heir.instanceId, heir.streamId);
  }

  #release({ kind, stream, isNewest }: Step): void {
    const { lease, lastToken, wanted } = this.#model;
    const token = isNewest ? lastToken : lastToken - 1;
    const undo = kind === "undo";
    const streamId = undo ? "" : stream;
    const after = this.#rules.release(
      this.#record,
      releaseOrder({ name: "lock", token }, { streamId, undo }),
      this.#model.nowMs,
    );
    const isKeeper = streamId === undefined || streamId === lease?.keeper;
    expect(after !== undefined).toBe(lease?.token === token && isKeeper);
    if (after === undefined) return;
    this.#record = after;
    if (wanted.must) expect(isWanted(after, this.#model.nowMs)).toBe(true);
    if (!wanted.may) expect(isWanted(after, this.#model.nowMs)).toBe(false);
    this.#model.release(undo);
  }

  #compare(): void {
    const { lease } = this.#model;
    if (lease === undefined || this.#record === undefined) return;
    const { grant } = this.#record;
    expect([grant.token, grant.expireMs, grant.streamId]).toEqual([lease.token, lease.untilMs, lease.keeper]);
  }
}

function kindOf(decision: TakeDecision, token: number): string {
  return decision.kind === "granted" && decision.record.grant.token !== token ? "granted again" : decision.kind;
}

/** `seed`: a run that is the same each time, and ends with the first mistake. */
function check(rules: Rules, seed?: number): void {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 120, size: "max" }), (steps) => {
      const bench = new Bench(rules);
      for (const one of steps) bench.carryOut(one);
    }),
    { numRuns: 400, ...(seed !== undefined && { seed, endOnFailure: true }) },
  );
}

describe("the rules of a lock", () => {
  it("keep what the contract promises, whatever is asked and whenever", () => {
    check(RULES);
  });

  const bugs: Readonly<Record<string, Partial<Rules>>> = {
    "grants what is held": {
      take: (record, order, ...rest) =>
        order.ttlMs === 100 && !order.waits
          ? decideTake(undefined, order, ...rest)
          : decideTake(record, order, ...rest),
    },
    "grants an attempt twice": { take: (record, order, _, ...rest) => decideTake(record, order, false, ...rest) },
    "never yields": {
      take: (record, ...rest) => decideTake(record && { ...record, streak: 0 }, ...rest),
    },
    "yields to who went long ago": {
      take: (record, ...rest) => decideTake(record && { ...record, rivalUntilMs: Number.MAX_SAFE_INTEGER }, ...rest),
    },
    "forgets who waits": {
      take: (record, order, ...rest) => decideTake(record, { ...order, waits: false }, ...rest),
    },
    "renews what is over": {
      renew: (record, order, nowMs) => decideRenew(record, order, Math.min(nowMs, (record?.grant.expireMs ?? 1) - 1)),
    },
    "makes a lease shorter": {
      renew: (record, order, nowMs) => {
        const decision = decideRenew(record, order, nowMs);
        if (decision.kind === "over") return decision;
        const grant = { ...decision.record.grant, expireMs: nowMs + (order.ttlMs ?? 0) };
        return { kind: "renewed", record: { ...decision.record, grant } };
      },
    },
    "renews for a stream that is over": {
      renew: (record, order, nowMs) => decideRenew(record, { ...order, streamId: undefined }, nowMs),
    },
    "releases whatever is held": {
      release: (record, order, nowMs) => decideRelease(record, { ...order, token: record?.grant.token ?? 0 }, nowMs),
    },
    "gives back what a retry has": {
      release: (record, order, nowMs) => decideRelease(record, { ...order, streamId: undefined, undo: false }, nowMs),
    },
  };
  it.each(Object.entries(bugs))("would be caught if one %s", (_, bug) => {
    expect(() => check({ ...RULES, ...bug }, 1)).toThrow("Property failed");
  });
});

describe("a fencing token", () => {
  it("is larger than the one before, and than all of the epochs before", () => {
    const epoch = fc.integer({ min: 1, max: MOST_EPOCHS - 1 });
    fc.assert(
      fc.property(fc.array(epoch, { minLength: 1 }), (epochs) => {
        let last = 0;
        for (const one of epochs.toSorted((a, b) => a - b)) {
          const token = tokenAfter(last, one);
          expect(token).toBeGreaterThan(last);
          expect(Math.floor(token / GRANTS_PER_EPOCH)).toBe(one);
          expect(Number.isSafeInteger(token)).toBe(true);
          last = token;
        }
      }),
    );
  });

  it("does not go back when an epoch before is named", () => {
    expect(tokenAfter(tokenAfter(0, 9), 3)).toBe(tokenAfter(0, 9) + 1);
  });
});

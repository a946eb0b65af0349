import fc from "fast-check";
import { expect } from "vitest";
import { Failure } from "../../src/infra/failure.ts";
import type { Authority, Lease } from "../../src/lock/authority/authority.ts";
import { MOST_STREAK } from "../../src/lock/record/decide.ts";
import { named, type OpenAuthorities, releaseOrder, renewOrder, takeOrder } from "./authorities.ts";
import { createReferenceAuthority } from "./reference-authority.ts";

/** What may be asked. `grant`: which of the grants so far, counted from the newest. */
const step = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant("take" as const), request: fc.integer({ min: 0, max: 5 }), who: who() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("renew" as const), grant: newest(), stream: stream(), who: who() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant("inherit" as const), grant: newest(), stream: stream(), who: who() }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("release" as const), grant: newest(), stream: stream(), who: who() }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("undo" as const), grant: newest(), who: who() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("look" as const), who: who() }) },
);
const NEVER_GRANTED = 2 ** 50;

type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function who() {
  return fc.record({ instance: fc.nat(2), name: fc.nat(1), waits: fc.boolean() });
}

function newest() {
  return fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(3) });
}

function stream() {
  return fc.constantFrom(undefined, "", "s0", "s1");
}

/**
 * Asks the authority and the rules for the same, and expects the same answers. No lease runs out meanwhile, and no instance has
 * a lock so often that it has to yield: what depends on the time is tested for itself.
 */
export async function expectAsRules({ instances }: OpenAuthorities, runs = 25): Promise<void> {
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 2 * MOST_STREAK - 2 }), async (steps) => {
      run++;
      const pair = new Pair(
        instances.map(({ authority }) => authority),
        `run-${run}`,
      );
      for (const one of steps) await pair.carryOut(one);
    }),
    { numRuns: runs },
  );
}

type Answer = { readonly kind: string; readonly lease?: Lease | undefined; readonly more?: unknown };

/** An authority beside the rules. */
class Pair {
  readonly #real: readonly Authority[];
  readonly #rules = createReferenceAuthority(() => 1_000_000);
  readonly #prefix: string;
  /** The tokens of what the rules granted, as the authority granted them. */
  readonly #tokens = new Map<number, number>();
  #takes = 0;

  constructor(real: readonly Authority[], prefix: string) {
    this.#real = real;
    this.#prefix = prefix;
  }

  async carryOut(one: Step): Promise<void> {
    const real = this.#real[one.who.instance % this.#real.length];
    if (real === undefined) throw new Error("there is no instance");
    const name = `${this.#prefix}/${one.who.name}`;
    const wanted = await answerOf(() => this.#ask(this.#rules, one, name, (token) => token));
    const got = await answerOf(() => this.#ask(real, one, name, (token) => this.#tokens.get(token) ?? token));
    if (one.kind === "take") this.#takes++;
    this.#learn(one, wanted, got);
    expect(this.#plain(got, (token) => token)).toEqual(
      this.#plain(wanted, (token) => this.#tokens.get(token) ?? token),
    );
  }

  /** The first time that the rules name a token, the authority's has to be larger than all before. */
  #learn(one: Step, wanted: Answer, got: Answer): void {
    const token = wanted.lease?.grant.token;
    const mine = got.lease?.grant.token;
    if (one.kind !== "take" || wanted.kind !== "granted" || token === undefined || this.#tokens.has(token)) return;
    if (mine === undefined) return;
    const name = wanted.lease?.grant.name;
    for (const [known, before] of this.#tokens)
      if (this.#nameOf.get(known) === name) expect(mine).toBeGreaterThan(before);
    this.#tokens.set(token, mine);
    if (name !== undefined) this.#nameOf.set(token, name);
  }

  readonly #nameOf = new Map<number, string>();

  async #ask(authority: Authority, one: Step, name: string, tokenOf: (token: number) => number): Promise<Answer> {
    const instanceId = `i${one.who.instance}`;
    switch (one.kind) {
      case "take": {
        const streamId = one.request === 0 ? `s${one.who.instance}` : "";
        // Ids 4 and 5 name the same request as 1 and 2, with something else in it.
        const request =
          one.request === 0 ? undefined : named(`r${one.request % 3}`, one.request > 3 ? "other" : "take");
        const order = { owner: `o${this.#takes}`, instanceId, streamId, request, waits: one.who.waits };
        const taken = await authority.take(takeOrder(name, order));
        if (taken.kind === "yield") return { kind: "yield" };
        return { kind: taken.kind, lease: taken.kind === "granted" ? taken.lease : taken.holder };
      }
      case "renew":
      case "inherit": {
        const grant = this.#grant(name, one.grant, tokenOf);
        const heir = { streamId: one.stream ?? "s2", instanceId };
        const order = one.kind === "renew" ? { streamId: one.stream } : { heir };
        const renewed = await authority.renew(renewOrder(grant, { ...order, ttlMs: 60_000 }));
        if (renewed.kind === "renewed") return renewed;
        return { kind: "over", lease: renewed.holder, more: renewed.cause };
      }
      case "release":
      case "undo": {
        const grant = this.#grant(name, one.grant, tokenOf);
        const order = one.kind === "undo" ? { undo: true, streamId: "" } : { streamId: one.stream };
        const { released, lease } = await authority.release(releaseOrder(grant, order));
        return { kind: `released: ${released}`, lease };
      }
      case "look": {
        const { lease, lastToken } = await authority.look(name);
        return { kind: "look", lease, more: lastToken === 0 };
      }
    }
  }

  #grant(name: string, fromNewest: number, tokenOf: (token: number) => number) {
    const granted = [...this.#tokens.keys()].filter((token) => this.#nameOf.get(token) === name);
    const token = granted.at(-1 - fromNewest);
    return { name, token: token === undefined ? NEVER_GRANTED : tokenOf(token) };
  }

  #plain({ kind, lease, more }: Answer, tokenOf: (token: number) => number) {
    if (lease === undefined) return { kind, more };
    const { owner, instanceId, streamId, requestId, renewals, ttlMs, name, token } = lease.grant;
    return { kind, more, name, token: tokenOf(token), owner, instanceId, streamId, requestId, renewals, ttlMs };
  }
}

async function answerOf(ask: () => Promise<Answer>): Promise<Answer> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof Failure && error.kind !== "unavailable") return { kind: error.reason };
    throw error;
  }
}

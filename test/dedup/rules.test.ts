import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Claim, stateOf } from "../../src/dedup/record/claim.ts";
import { decideClaim, decideComplete, decideRelease } from "../../src/dedup/record/decide.ts";
import { claimOrder, completeOrder, idOf, releaseOrder } from "./truths.ts";

const id = idOf("a");

/** What callers were told, so far as the next answer depends on it; kept apart from the rules, in other words. */
interface Told {
  /** The newest first one, until nothing is to be known of it. */
  token: number;
  requestId: string;
  leaseEndMs: number;
  forgetMs: number;
  stands: "at work" | "done" | "given up" | "nothing";
  doneAtOnce: boolean;
  attempts: number;
}

type Step =
  | {
      readonly kind: "claim";
      readonly lease: number;
      readonly ttl: number;
      readonly atOnce: boolean;
      readonly by: number;
    }
  | { readonly kind: "complete" | "release" | "forget"; readonly token: "newest" | "older"; readonly ttl: number }
  | { readonly kind: "wait"; readonly ms: number };

const spans = fc.integer({ min: 1, max: 20 });
const steps: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant("claim" as const),
    ...{ lease: spans, ttl: spans, atOnce: fc.boolean(), by: fc.integer({ min: 0, max: 2 }) },
  }),
  fc.record({
    kind: fc.constantFrom("complete" as const, "release" as const, "forget" as const),
    ...{ token: fc.constantFrom("newest" as const, "older" as const), ttl: spans },
  }),
  fc.record({ kind: fc.constant("wait" as const), ms: spans }),
);

/** Caller 0 does not name his calls; the others name theirs always alike. */
const requestOf = (by: number) => (by === 0 ? undefined : { id: `request-${by}`, meaning: "m" });

function play(program: readonly Step[]): void {
  let claim: Claim | undefined;
  let nowMs = 1_000;
  let tokens = 0;
  const told: Told = {
    ...{ token: 0, requestId: "", leaseEndMs: 0, forgetMs: 0, stands: "nothing", doneAtOnce: false, attempts: 0 },
  };
  for (const step of program) {
    if (step.kind === "wait") {
      nowMs += step.ms;
      if (told.forgetMs <= nowMs) told.stands = "nothing";
    } else if (step.kind === "claim") {
      const request = requestOf(step.by);
      const order = claimOrder(id, { leaseMs: step.lease, ttlMs: step.ttl, atOnce: step.atOnce, request });
      const decision = decideClaim(claim, order, nowMs, ++tokens);
      expect(decision.kind).toBe(expectedClaim(told, request?.id ?? "", nowMs));
      if (decision.kind !== "first") continue;
      claim = decision.claim;
      expect(claim.token).toBe(tokens);
      told.attempts = told.stands === "nothing" ? 1 : told.attempts + 1;
      expect(claim.attempt).toBe(told.attempts);
      told.token = tokens;
      told.requestId = request?.id ?? "";
      told.leaseEndMs = nowMs + step.lease;
      told.stands = step.atOnce ? "done" : "at work";
      told.doneAtOnce = step.atOnce;
      told.forgetMs = nowMs + (step.atOnce ? step.ttl : Math.max(step.ttl, step.lease));
    } else {
      const token = step.token === "newest" ? told.token : told.token - 1;
      const isNewest = step.token === "newest" && (told.stands === "at work" || told.stands === "done");
      if (step.kind === "complete") {
        const decision = decideComplete(claim, completeOrder(id, token, { ttlMs: step.ttl }), nowMs);
        expect(decision.kind).toBe(!isNewest ? "refused" : told.stands === "done" ? "again" : "completed");
        if (decision.kind !== "completed") continue;
        claim = decision.claim;
        told.stands = "done";
        told.doneAtOnce = false;
        told.forgetMs = nowMs + step.ttl;
      } else {
        const decision = decideRelease(claim, releaseOrder(id, token, step.kind === "forget"), nowMs);
        if (!isNewest || (told.stands === "done" && step.kind === "release")) {
          expect(decision.kind).toBe("not_there");
        } else if (told.stands === "done") {
          expect(decision.kind).toBe("forgotten");
          claim = undefined;
          told.stands = "nothing";
        } else {
          expect(decision.kind).toBe("released");
          if (decision.kind === "released") claim = decision.claim;
          told.stands = "given up";
        }
      }
    }
    const isSeen = told.stands === "at work" || told.stands === "done";
    expect(claim !== undefined && stateOf(claim, nowMs) !== undefined).toBe(isSeen);
  }
}

function expectedClaim(told: Told, requestId: string, nowMs: number): string {
  if (told.stands === "nothing" || told.stands === "given up") return "first";
  const isRetry = requestId !== "" && requestId === told.requestId;
  if (told.stands === "done") return isRetry && told.doneAtOnce ? "again" : "duplicate";
  if (isRetry) return "again";
  return told.leaseEndMs > nowMs ? "in_progress" : "first";
}

describe("the rules of claims", () => {
  it("say of every sequence of calls what the contract says", () => {
    fc.assert(
      fc.property(fc.array(steps, { maxLength: 40 }), (program) => play(program)),
      { numRuns: 2_000 },
    );
  });
});

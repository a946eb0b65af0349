import type { NamedRequest } from "../infra/named-request.ts";
import type { Ask, Charge, Counters, Refund, SlotOrder, Standing, Taken, Verdict } from "./counters.ts";
import { type LeaseAsk, leaseStandings, readLeaseAsks, writeLeaseAsks } from "./lease-asks.ts";
import type { RenewJudgement } from "./limiter.ts";
import { type Rule, shareOf } from "./rule.ts";
import type { RuleBook } from "./rule-book.ts";

export interface FallbackOptions {
  /** Counts this instance's share. */
  readonly local: Counters;
  readonly rules: Pick<RuleBook, "find">;
  /** Among how many instances a limit is shared out. */
  readonly instances: () => number;
  readonly nowUs: () => number;
}

/** What the rules say for when the shared counters cannot be reached. */
export interface FallbackLimits {
  /** `retryMs`: when they are tried again; Infinity: never. */
  check(namespace: string, asks: readonly Ask[], charge: Charge, retryMs: number): Promise<Verdict>;
  refund(namespace: string, asks: readonly Ask[], chargedAt: number | undefined, retryMs: number): Promise<Refund>;
  acquire(
    namespace: string,
    asks: readonly Ask[],
    order: Pick<SlotOrder, "leaseId" | "ttlMs">,
    retryMs: number,
  ): Promise<Taken>;
  renew(namespace: string, leaseId: string, ttlMs: number): Promise<RenewJudgement | undefined>;
  giveBack(namespace: string, leaseId: string): Promise<boolean>;
  /** Forgets what this instance counted by itself. */
  reset(namespace: string, asks: readonly Ask[]): Promise<void>;
}

const UNNAMED: NamedRequest | undefined = undefined;

export function createFallbackLimits({ local, rules, instances, nowUs }: FallbackOptions): FallbackLimits {
  // Rules are few and instances seldom change: the share of each is made once.
  let shares = new WeakMap<Rule, Rule>();
  let sharedBy = 0;
  function share(rule: Rule): Rule {
    const count = instances();
    if (count !== sharedBy) {
      shares = new WeakMap();
      sharedBy = count;
    }
    let found = shares.get(rule);
    if (found === undefined) {
      found = shareOf(rule, count);
      shares.set(rule, found);
    }
    return found;
  }

  const isCounted = ({ rule }: Ask) => rule.fallback === "local_share";
  const countedOf = (asks: readonly Ask[]) => asks.filter(isCounted).map((ask) => ({ ...ask, rule: share(ask.rule) }));
  const isClosed = (asks: readonly Ask[]) => asks.some(({ rule }) => rule.fallback === "closed" && !rule.shadow);

  /** The standings of those that are counted, with those that are not in their places. */
  function merged(asks: readonly Ask[], counted: readonly Standing[], retryMs: number): Standing[] {
    let next = 0;
    return asks.map((ask) => {
      const standing = isCounted(ask) ? counted[next++] : undefined;
      return standing === undefined ? uncounted(ask, retryMs) : ofShare(ask, standing, retryMs);
    });
  }

  return {
    async check(namespace, asks, charge, retryMs) {
      const closed = isClosed(asks);
      // Decided as one: what one rule denies is not charged to another.
      const effective = closed && charge === "if_allowed" ? "never" : charge;
      const counted = countedOf(asks);
      const none = { at: nowUs(), allowed: true, standings: [] };
      const verdict = counted.length === 0 ? none : await local.check(namespace, counted, effective, UNNAMED);
      const standings = merged(asks, verdict.standings, retryMs);
      return { at: verdict.at, allowed: verdict.allowed && !closed, standings };
    },

    async refund(namespace, asks, chargedAt, retryMs) {
      const { at, refunded, standings } = await local.refund(namespace, countedOf(asks), chargedAt, UNNAMED);
      let next = 0;
      return {
        at,
        refunded: asks.map((ask) => (isCounted(ask) ? (refunded[next++] ?? 0) : 0)),
        standings: merged(asks, standings, retryMs),
      };
    },

    async acquire(namespace, asks, { leaseId, ttlMs }, retryMs) {
      const counted = countedOf(asks);
      if (isClosed(asks)) {
        const { at, standings } = await local.check(namespace, counted, "never", UNNAMED);
        return { at, allowed: false, lease: undefined, standings: merged(asks, standings, retryMs) };
      }
      const kept = asks.map(({ rule, key, cost }): LeaseAsk => ({ rule, key, cost, basis: basisOf(rule) }));
      const order = { leaseId, ttlMs, asks: writeLeaseAsks(kept), request: UNNAMED };
      const { at, allowed, lease, standings } = await local.acquire(namespace, counted, order);
      return { at, allowed, lease, standings: merged(asks, standings, retryMs) };
    },

    async renew(namespace, leaseId, ttlMs) {
      const renewed = await local.renew(namespace, leaseId, ttlMs);
      if (renewed === undefined) return undefined;
      const asks = readLeaseAsks(renewed.asks, rules);
      const standings = leaseStandings(asks, renewed, share, (ask) => uncounted(ask, 0));
      return { at: renewed.at, allowed: true, lease: renewed.lease, asks, standings };
    },

    giveBack: (namespace, leaseId) => local.giveBack(namespace, leaseId),
    reset: (namespace, asks) => local.reset(namespace, asks),
  };
}

function basisOf({ fallback }: Rule): LeaseAsk["basis"] {
  return fallback;
}

/** What only the share is too small for may be had of the shared counters, when they are there again. */
function ofShare({ rule, cost }: Ask, standing: Standing, retryMs: number): Standing {
  const isPossible = standing.waitUs === Number.POSITIVE_INFINITY && cost <= rule.burst;
  return { ...standing, basis: "local_share", ...(isPossible && { waitUs: waitOf(retryMs) }) };
}

function waitOf(retryMs: number): number {
  return Math.max(1, retryMs * 1_000);
}

/** Of a rule that is not counted: all of it is left, or nothing. */
function uncounted({ rule }: Ask, retryMs: number): Standing {
  const { burst: limit, shadow } = rule;
  const fixed = { limit, shadow, overdrawn: 0, resetAt: undefined };
  return rule.fallback === "open"
    ? { ...fixed, waitUs: 0, remaining: limit, basis: "open" }
    : { ...fixed, waitUs: waitOf(retryMs), remaining: 0, basis: "closed" };
}

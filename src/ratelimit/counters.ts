import type { NamedRequest } from "../infra/named-request.ts";
import type { Rule } from "./rule.ts";

/** A limit that is asked about: a rule, for whom, and how much. */
export interface Ask {
  readonly rule: Rule;
  readonly key: string;
  readonly cost: number;
}

/** What a decision was made by. */
export type Basis = "shared" | "local_share" | "open" | "closed";

/** How a limit stands after a step. */
export interface Standing {
  /** Counters say "shared"; who uses them for something else says so. */
  readonly basis: Basis;
  readonly limit: number;
  readonly shadow: boolean;
  /** Microseconds until the cost would be allowed: 0 when it was, Infinity when it never can be. */
  readonly waitUs: number;
  readonly remaining: number;
  readonly overdrawn: number;
  /** Microseconds since 1970. Undefined for a concurrency limit of which nothing is taken. */
  readonly resetAt: number | undefined;
}

export interface Verdict {
  /** When it was decided, in microseconds since 1970, by the clock of the counters. */
  readonly at: number;
  readonly allowed: boolean;
  /** In the order of what was asked. */
  readonly standings: readonly Standing[];
}

/** `never` looks; `if_allowed` charges when every rule that is not a shadow has room; `always` charges past the limit. */
export type Charge = "never" | "if_allowed" | "always";

export interface Refund {
  readonly refunded: readonly number[];
  /** For a cost of 1. */
  readonly standings: readonly Standing[];
  readonly at: number;
}

export interface Lease {
  readonly id: string;
  readonly expiresAt: number;
}

/** A lease that was renewed, and what it holds: `asks` as they were given when it was taken. */
export interface Renewed {
  readonly lease: Lease;
  readonly at: number;
  readonly asks: string;
  /** For each of what it holds, in order. */
  readonly slots: readonly { readonly used: number; readonly firstEnd: number | undefined }[];
}

export interface SlotOrder {
  readonly leaseId: string;
  readonly ttlMs: number;
  /** What `renew` gives back, for who asks: the counters do not read it. */
  readonly asks: string;
  readonly request: NamedRequest | undefined;
}

/** `lease` is undefined when there was no room. */
export interface Taken extends Verdict {
  readonly lease: Lease | undefined;
}

/**
 * What was used of each limit. Every call is one atomic step: all of what is asked is decided together, and nothing else is decided
 * in between. Counters of namespaces are apart. Rejects with UnavailableError when they cannot be reached.
 */
export interface Counters {
  check(namespace: string, asks: readonly Ask[], charge: Charge, request: NamedRequest | undefined): Promise<Verdict>;
  /** `chargedAt` in microseconds since 1970; undefined: now. */
  refund(
    namespace: string,
    asks: readonly Ask[],
    chargedAt: number | undefined,
    request: NamedRequest | undefined,
  ): Promise<Refund>;
  reset(namespace: string, asks: readonly Ask[]): Promise<void>;
  acquire(namespace: string, asks: readonly Ask[], order: SlotOrder): Promise<Taken>;
  /** Undefined when the lease is over. */
  renew(namespace: string, leaseId: string, ttlMs: number): Promise<Renewed | undefined>;
  /** Whether there was a lease. */
  giveBack(namespace: string, leaseId: string): Promise<boolean>;
}

/** For how long the answer to a request that named itself is kept. */
export const REMEMBERED_MS = { check: 60_000, refund: 600_000, acquire: 600_000 } as const;

/** Names the counter of a limit in its namespace. */
export function counterName(rule: Rule, key: string): string {
  let ends = known.get(rule);
  if (ends === undefined) {
    const { name, inline, algorithm } = rule;
    // No rule has a ":" in its name as it stands here, so that no two counters are taken for one.
    ends = { before: `${inline ? "~" : ""}${name.replaceAll(":", "%3A")}:`, after: SUFFIXES[algorithm] };
    known.set(rule, ends);
  }
  return ends.before + key + ends.after;
}

const known = new WeakMap<Rule, { readonly before: string; readonly after: string }>();

/** Another algorithm counts anew. */
const SUFFIXES = {
  fixed_window: ":fixed",
  sliding_window: ":sliding",
  token_bucket: ":bucket",
  concurrency: ":slots",
} as const;

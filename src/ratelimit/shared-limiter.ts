import { randomBytes } from "node:crypto";
import { UnavailableError } from "../infra/failure.ts";
import type { Counters, Standing, Verdict } from "./counters.ts";
import { CountersUnavailableError } from "./failures.ts";
import type { FallbackLimits } from "./fallback.ts";
import { type LeaseAsk, leaseStandings, readLeaseAsks, writeLeaseAsks } from "./lease-asks.ts";
import type { Limiter } from "./limiter.ts";
import type { RuleBook } from "./rule-book.ts";

export interface SharedLimiterOptions {
  /** Undefined: there are none by configuration, and the fallback always decides. */
  readonly shared: Counters | undefined;
  /** Undefined: the counters are this process's own, and never away. */
  readonly fallback: FallbackLimits | undefined;
  /** Milliseconds until the shared counters are tried again, while they are left alone; undefined while they are not. */
  readonly leftAlone: () => number | undefined;
  readonly rules: Pick<RuleBook, "find">;
}

/** When shared counters that failed are to be asked again, if nothing else is known. */
const SOON_MS = 100;
/** Leases of the shared counters, and those that an instance gave by itself. */
const SHARED_LEASE = "s";
const LOCAL_LEASE = "l";
const newLeaseId = (kind: string) => kind + randomBytes(18).toString("base64url");

/** By the shared counters; without them at once by what each rule says. */
export function createSharedLimiter({ shared, fallback, leftAlone, rules }: SharedLimiterOptions): Limiter {
  /** What the shared counters answer, or what `instead` does when they cannot be asked. */
  async function orElse<T>(
    ask: (counters: Counters) => Promise<T>,
    instead: (retryMs: number) => Promise<T>,
  ): Promise<T> {
    if (shared === undefined) return instead(Number.POSITIVE_INFINITY);
    const wait = fallback === undefined ? undefined : leftAlone();
    if (wait !== undefined) return instead(wait);
    return ask(shared).catch((error: unknown) => insteadOf(error, instead));
  }

  async function insteadOf<T>(error: unknown, instead: (retryMs: number) => Promise<T>): Promise<T> {
    if (fallback === undefined || !(error instanceof UnavailableError)) throw error;
    return instead(leftAlone() ?? error.retryAfterMs ?? SOON_MS);
  }

  function without(): FallbackLimits {
    if (fallback === undefined) throw new Error("the counters of this process cannot be away");
    return fallback;
  }

  function unavailable(retryMs: number): CountersUnavailableError {
    const isNone = retryMs === Number.POSITIVE_INFINITY;
    return new CountersUnavailableError(
      isNone ? "this server has no Redis" : "Redis does not answer",
      isNone ? undefined : Math.max(1, Math.ceil(retryMs)),
    );
  }

  return {
    check(namespace, asks, charge, request) {
      const instead = (retryMs: number) => without().check(namespace, asks, charge, retryMs);
      const wait = shared === undefined || fallback === undefined ? undefined : leftAlone();
      // As `orElse` does, with a promise less: this is what is asked most.
      if (shared === undefined || wait !== undefined) return instead(wait ?? Number.POSITIVE_INFINITY);
      const verdict = shared.check(namespace, asks, charge, request);
      return verdict.catch((error: unknown): Promise<Verdict> => insteadOf(error, instead));
    },

    refund: (namespace, asks, chargedAt, request) =>
      orElse(
        (counters) => counters.refund(namespace, asks, chargedAt, request),
        (retryMs) => without().refund(namespace, asks, chargedAt, retryMs),
      ),

    async reset(namespace, asks) {
      await orElse(
        (counters) => counters.reset(namespace, asks),
        (retryMs) => Promise.reject(unavailable(retryMs)),
      );
      await fallback?.reset(namespace, asks);
    },

    acquire: (namespace, asks, { ttlMs, request }) =>
      orElse(
        (counters) => {
          const kept = asks.map((ask): LeaseAsk => ({ ...ask, basis: "shared" }));
          const order = { leaseId: newLeaseId(SHARED_LEASE), ttlMs, asks: writeLeaseAsks(kept), request };
          return counters.acquire(namespace, asks, order);
        },
        (retryMs) => without().acquire(namespace, asks, { leaseId: newLeaseId(LOCAL_LEASE), ttlMs }, retryMs),
      ),

    renew(namespace, leaseId, ttlMs) {
      if (leaseId.startsWith(LOCAL_LEASE) && fallback !== undefined) return fallback.renew(namespace, leaseId, ttlMs);
      if (shared === undefined) return Promise.resolve(undefined);
      return orElse(
        async (counters) => {
          const renewed = await counters.renew(namespace, leaseId, ttlMs);
          if (renewed === undefined) return undefined;
          const asks = readLeaseAsks(renewed.asks, rules);
          const standings = leaseStandings(asks, renewed, (rule) => rule, notCounted);
          return { at: renewed.at, allowed: true, lease: renewed.lease, asks, standings };
        },
        (retryMs) => Promise.reject(unavailable(retryMs)),
      );
    },

    giveBack(namespace, leaseId) {
      if (leaseId.startsWith(LOCAL_LEASE) && fallback !== undefined) return fallback.giveBack(namespace, leaseId);
      if (shared === undefined) return Promise.resolve(false);
      return orElse(
        (counters) => counters.giveBack(namespace, leaseId),
        (retryMs) => Promise.reject(unavailable(retryMs)),
      );
    },
  };
}

function notCounted({ rule }: LeaseAsk): Standing {
  throw new Error(`the shared counters do not count ${rule.name}`);
}

import { randomBytes } from "node:crypto";
import { UnavailableError } from "../infra/failure.ts";
import type { Counters, Standing } from "./counters.ts";
import { CountersUnavailableError } from "./failures.ts";
import type { FallbackLimits } from "./fallback.ts";
import { type LeaseAsk, leaseStatuses, readLeaseAsks, writeLeaseAsks } from "./lease-asks.ts";
import type { Basis, Limiter, Status } from "./limiter.ts";
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
    try {
      return await ask(shared);
    } catch (error) {
      if (fallback === undefined || !(error instanceof UnavailableError)) throw error;
      return instead(leftAlone() ?? error.retryAfterMs ?? 0);
    }
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
    check: (namespace, asks, charge, request) =>
      orElse(
        async (counters) => {
          const { at, allowed, standings } = await counters.check(namespace, asks, charge, request);
          return { at, allowed, statuses: withBasis(standings) };
        },
        (retryMs) => without().check(namespace, asks, charge, retryMs),
      ),

    refund: (namespace, asks, chargedAt, request) =>
      orElse(
        async (counters) => {
          const { refunded, standings } = await counters.refund(namespace, asks, chargedAt, request);
          return { refunded, statuses: withBasis(standings) };
        },
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
        async (counters) => {
          const kept = asks.map((ask): LeaseAsk => ({ ...ask, basis: "shared" }));
          const order = { leaseId: newLeaseId(SHARED_LEASE), ttlMs, asks: writeLeaseAsks(kept), request };
          const { at, allowed, lease, standings } = await counters.acquire(namespace, asks, order);
          return { at, allowed, lease, statuses: withBasis(standings) };
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
          const statuses = leaseStatuses(asks, renewed, (rule) => rule, notCounted);
          return { at: renewed.at, allowed: true, lease: renewed.lease, asks, statuses };
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

const SHARED: Basis = "shared";

function withBasis(standings: readonly Standing[]): Status[] {
  return standings.map((standing) => ({ ...standing, basis: SHARED }));
}

function notCounted({ rule }: LeaseAsk): Status {
  throw new Error(`the shared counters do not count ${rule.name}`);
}

import { LockAuthority } from "../gen/holdfast/v1/lock_pb.js";
import type { Metrics } from "../infra/metrics.ts";
import type { Authority, Released, Renewed } from "./authority/authority.ts";
import type { LossCause } from "./record/decide.ts";

export type TakenOutcome = "acquired" | "held" | "failed";
export type LostCause = LossCause | "authority_unavailable";

/** How locks are used, for the metrics page. The names of locks are no labels: there may be any number of them. */
export interface LockMetrics {
  /** Somebody wanted a lock. */
  wanted(outcome: TakenOutcome, afterMs: number): void;
  renewing(renewal: Promise<Renewed>): Promise<Renewed>;
  releasing(release: Promise<Released>, forced?: boolean): Promise<Released>;
  lost(cause: LostCause): void;
  handedOver(): void;
}

export interface LockMetricsParts {
  readonly metrics: Metrics;
  readonly authority: Pick<Authority, "kind" | "voters">;
  readonly waiting: () => number;
  readonly kept: () => number;
}

export const AUTHORITY_NAMES: Readonly<Record<LockAuthority, string>> = {
  [LockAuthority.UNSPECIFIED]: "none",
  [LockAuthority.SQLITE]: "sqlite",
  [LockAuthority.REDIS]: "redis",
  [LockAuthority.REDLOCK]: "redlock",
  [LockAuthority.POSTGRES]: "postgres",
};

/** From a millisecond, a free lock, to the hour that a caller may wait. */
const WAIT_BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600];

export function createLockMetrics({ metrics, authority, waiting, kept }: LockMetricsParts): LockMetrics {
  const name = (rest: string) => `holdfast_lock_${rest}`;
  const acquires = metrics.counter(name("acquires_total"), "Attempts to take a lock, by what came of them", [
    "outcome",
  ]);
  const waits = metrics.histogram(name("wait_seconds"), "How long those waited who took a lock", [], WAIT_BUCKETS);
  const renewals = metrics.counter(name("renewals_total"), "Renewals of leases, by what came of them", ["outcome"]);
  const releases = metrics.counter(name("releases_total"), "Releases of locks, by what came of them", ["outcome"]);
  const losses = metrics.counter(name("lost_total"), "Locks that a Hold stream lost, by the cause", ["cause"]);
  const handovers = metrics.counter(name("handovers_total"), "Grants of Hold streams handed over by a drain").with({});
  const deciding = metrics.gauge(name("authority"), "1 for who decides about locks", ["authority"]);
  const votes = metrics.gauge(name("master_votes"), "1 for a lock master whose vote counts", ["master"]);
  const waitingNow = metrics.gauge(name("waiting"), "Callers that wait for a lock on this instance").with({});
  const keptNow = metrics.gauge(name("holds"), "Grants that this instance keeps by Hold streams").with({});
  const waited = waits.with({});
  const taken = {
    acquired: acquires.with({ outcome: "acquired" }),
    held: acquires.with({ outcome: "held" }),
    failed: acquires.with({ outcome: "failed" }),
  };

  metrics.beforeScrape(() => {
    for (const kind of [LockAuthority.SQLITE, LockAuthority.REDIS, LockAuthority.REDLOCK, LockAuthority.POSTGRES]) {
      deciding.with({ authority: AUTHORITY_NAMES[kind] }).set(kind === authority.kind ? 1 : 0);
    }
    for (const { place, missing } of authority.voters?.lastSeen ?? []) {
      votes.with({ master: String(place) }).set(missing === undefined ? 1 : 0);
    }
    waitingNow.set(waiting());
    keptNow.set(kept());
  });

  return {
    wanted(outcome, afterMs) {
      taken[outcome].inc();
      if (outcome === "acquired") waited.observe(afterMs / 1000);
    },
    async renewing(renewal) {
      try {
        const renewed = await renewal;
        renewals.with({ outcome: renewed.kind }).inc();
        return renewed;
      } catch (error) {
        renewals.with({ outcome: "failed" }).inc();
        throw error;
      }
    },
    async releasing(release, forced = false) {
      try {
        const result = await release;
        releases.with({ outcome: result.released ? (forced ? "forced" : "released") : "over" }).inc();
        return result;
      } catch (error) {
        releases.with({ outcome: "failed" }).inc();
        throw error;
      }
    },
    lost: (cause) => losses.with({ cause }).inc(),
    handedOver: () => handovers.inc(),
  };
}

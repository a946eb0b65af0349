import { LockAuthority } from "../gen/holdfast/v1/lock_pb.js";
import type { Counter, Family, Metrics } from "../infra/metrics.ts";
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

  // Made once: each lock that is taken is released, too.
  const renewed = countedBy(renewals, ({ kind }: Renewed) => kind);
  const notRenewed = failing(renewals);
  const wasReleased = countedBy(releases, ({ released }: Released) => (released ? "released" : "over"));
  const wasForced = countedBy(releases, ({ released }: Released) => (released ? "forced" : "over"));
  const notReleased = failing(releases);

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
    renewing: (renewal) => renewal.then(renewed, notRenewed),
    releasing: (release, forced = false) => release.then(forced ? wasForced : wasReleased, notReleased),
    lost: (cause) => losses.with({ cause }).inc(),
    handedOver: () => handovers.inc(),
  };
}

type Outcomes = Family<"outcome", Counter>;

/** Counts what has come, by its outcome, and hands it on. */
function countedBy<T>(family: Outcomes, outcomeOf: (result: T) => string): (result: T) => T {
  const counters = new Map<string, Counter>();
  return (result) => {
    const outcome = outcomeOf(result);
    let counter = counters.get(outcome);
    if (counter === undefined) {
      counter = family.with({ outcome });
      counters.set(outcome, counter);
    }
    counter.inc();
    return result;
  };
}

function failing(family: Outcomes): (error: unknown) => never {
  return (error) => {
    family.with({ outcome: "failed" }).inc();
    throw error;
  };
}

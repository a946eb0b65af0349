import type { Counter, Metrics } from "../infra/metrics.ts";
import type { Copies } from "./copies/copies.ts";
import type { Answer, Dedup } from "./dedup.ts";

export interface DedupMeasures {
  /** Counts what this instance answers. */
  countCalls(dedup: Dedup): Dedup;
  /** Counts what this instance removes because it is forgotten. */
  countRemoved(removeSome: (most: number) => Promise<number>): (most: number) => Promise<number>;
}

/** How deduplication is used, for the metrics page. */
export function createDedupMetrics(metrics: Metrics, copies: Pick<Copies, "areCertain">): DedupMeasures {
  const name = (rest: string) => `holdfast_dedup_${rest}`;
  const claims = metrics.counter(name("claims_total"), "Claims by how they ended, and by what answered", [
    "outcome",
    "layer",
  ]);
  const completes = metrics.counter(name("completes_total"), "Completes by what came of them", ["outcome"]);
  const releases = metrics.counter(name("releases_total"), "Releases by whether they removed a claim", ["outcome"]);
  const removed = metrics.counter(name("removed_total"), "Claims that this instance removed after their time").with({});
  const certain = metrics.gauge(name("copies_believed"), "1 while copies in Redis are believed without asking SQL");
  const counters = new Map<string, Counter>();

  metrics.beforeScrape(() => certain.with({}).set(copies.areCertain ? 1 : 0));

  function countClaim(outcome: string, layer: "redis" | "sql"): void {
    const key = `${outcome} ${layer}`;
    const counter = counters.get(key) ?? claims.with({ outcome, layer });
    counters.set(key, counter);
    counter.inc();
  }

  return {
    countCalls: (dedup) => ({
      async claim(order) {
        const answer = await dedup.claim(order);
        countClaim(outcomeOf(answer), answer.kind === "copy" ? "redis" : "sql");
        return answer;
      },
      async complete(order) {
        const done = await dedup.complete(order);
        completes.with({ outcome: done.completed ? (done.again ? "again" : "completed") : "refused" }).inc();
        return done;
      },
      async release(order) {
        const done = await dedup.release(order);
        releases.with({ outcome: done ? "released" : "nothing" }).inc();
        return done;
      },
      get: dedup.get,
    }),
    countRemoved: (removeSome) => async (most) => {
      const count = await removeSome(most);
      removed.inc(count);
      return count;
    },
  };
}

function outcomeOf(answer: Answer): string {
  if (answer.kind === "copy") return answer.degraded ? "duplicate_degraded" : "duplicate";
  if (answer.kind !== "first") return answer.kind;
  if (answer.again) return "retry";
  return answer.claim.attempt > 1 ? "taken_over" : "first";
}

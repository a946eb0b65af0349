import type { Counter, Metrics } from "../infra/metrics.ts";
import type { Ask, Basis, Verdict } from "./counters.ts";
import type { Rule } from "./rule.ts";

/** How rate limits are used, for the metrics page. */
export interface LimitMetrics {
  /** Counts what came of each limit of a call. */
  decided(asks: readonly Ask[], verdict: Pick<Verdict, "standings">): void;
}

/** Rules beyond these share one label: rules may come and go with every reading. */
const MOST_RULES = 100;
const OUTCOMES = ["allowed", "denied", "shadow_denied"] as const;
type Outcome = (typeof OUTCOMES)[number];
type Counts = Readonly<Record<Outcome, Counter>>;

export function createLimitMetrics(metrics: Metrics, rules: () => number): LimitMetrics {
  const decisions = metrics.counter("holdfast_ratelimit_decisions_total", "Limits decided about, by what came of it", [
    "rule",
    "outcome",
  ]);
  const fallbacks = metrics.counter("holdfast_ratelimit_fallbacks_total", "Limits decided without shared counters", [
    "fallback",
  ]);
  const loaded = metrics.gauge("holdfast_ratelimit_rules", "Rules that are in force").with({});
  metrics.beforeScrape(() => loaded.set(rules()));
  const byName = new Map<string, Counts>();
  const byRule = new WeakMap<Rule, Counts>();
  const byBasis: Readonly<Record<Basis, Counter | undefined>> = {
    shared: undefined,
    local_share: fallbacks.with({ fallback: "local_share" }),
    open: fallbacks.with({ fallback: "open" }),
    closed: fallbacks.with({ fallback: "closed" }),
  };

  function countsFor(rule: Rule): Counts {
    const known = byRule.get(rule);
    if (known !== undefined) return known;
    // No rule can have such a name.
    const name = rule.inline ? "(inline)" : byName.size < MOST_RULES || byName.has(rule.name) ? rule.name : "(other)";
    let counts = byName.get(name);
    if (counts === undefined) {
      const counter = (outcome: Outcome) => decisions.with({ rule: name, outcome });
      counts = { allowed: counter("allowed"), denied: counter("denied"), shadow_denied: counter("shadow_denied") };
      byName.set(name, counts);
    }
    byRule.set(rule, counts);
    return counts;
  }

  return {
    decided(asks, { standings }) {
      for (let i = 0; i < asks.length; i++) {
        const [ask, standing] = [asks[i], standings[i]];
        if (ask === undefined || standing === undefined) continue;
        const { waitUs, shadow, basis } = standing;
        countsFor(ask.rule)[waitUs === 0 ? "allowed" : shadow ? "shadow_denied" : "denied"].inc();
        byBasis[basis]?.inc();
      }
    },
  };
}

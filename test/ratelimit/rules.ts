import type { Algorithm, Rule } from "../../src/ratelimit/rule.ts";

/** A rule with what a test does not say of it. */
export function ruleOf(algorithm: Algorithm, limit: number, more: Partial<Rule> = {}): Rule {
  return {
    name: "rule",
    algorithm,
    limit,
    periodUs: algorithm === "concurrency" ? 0 : 1_000_000,
    burst: limit,
    fallback: "local_share",
    shadow: false,
    inline: false,
    ...more,
  };
}

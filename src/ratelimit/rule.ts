/** How a rule counts. */
export type Algorithm = "fixed_window" | "sliding_window" | "token_bucket" | "concurrency";

/** What a rule does when the shared counters cannot be reached. */
export type Fallback = "local_share" | "open" | "closed";

/** What the arithmetic needs of a rule. */
export interface Numbers {
  readonly limit: number;
  /** Microseconds. 0 for concurrency. */
  readonly periodUs: number;
  /** The most that can be taken at once from a bucket; of the others, their limit. */
  readonly burst: number;
}

export interface Rule extends Numbers {
  readonly name: string;
  readonly algorithm: Algorithm;
  readonly fallback: Fallback;
  readonly shadow: boolean;
  /** Came with a request: its counters are kept apart from those of a configured rule of the same name. */
  readonly inline: boolean;
}

/** The largest limit, burst and cost. */
export const MOST_UNITS = 1_000_000_000_000;
export const PERIOD_MS = { least: 1, most: 366 * 86_400_000 } as const;
export const RULE_NAME = /^[A-Za-z0-9._:-]{1,128}$/;

/** What one of so many instances allows when each counts by itself. */
export function shareOf(rule: Rule, instances: number): Rule {
  const share = (units: number) => Math.max(1, Math.floor(units / instances));
  return { ...rule, limit: share(rule.limit), burst: share(rule.burst) };
}

import type { Rule } from "./rule.ts";

/** The configured rules, as they are now. */
export interface RuleBook {
  find(name: string): Rule | undefined;
  /** Sorted by name. */
  readonly all: readonly Rule[];
  /** When they were last read, in milliseconds since 1970. */
  readonly loadedAt: number;
  /** Puts others in their place, all at once. */
  replace(rules: readonly Rule[], loadedAt: number): void;
}

export function createRuleBook(first: readonly Rule[], loadTime: number): RuleBook {
  let all: readonly Rule[] = [];
  let byName = new Map<string, Rule>();
  let loadedAt = loadTime;

  function replace(rules: readonly Rule[], time: number): void {
    all = rules.toSorted((a, b) => (a.name < b.name ? -1 : 1));
    byName = new Map(all.map((rule) => [rule.name, rule]));
    loadedAt = time;
  }

  replace(first, loadTime);
  return {
    find: (name) => byName.get(name),
    get all() {
      return all;
    },
    get loadedAt() {
      return loadedAt;
    },
    replace,
  };
}

import { type Ask, type Basis, counterName, type Renewed, type Standing } from "./counters.ts";
import type { Rule } from "./rule.ts";
import type { RuleBook } from "./rule-book.ts";

/** One of the limits that a lease was taken with. */
export interface LeaseAsk extends Ask {
  readonly basis: Basis;
}

/** What is kept with a lease, so that whoever renews it can say how its limits stand. */
export function writeLeaseAsks(asks: readonly LeaseAsk[]): string {
  return JSON.stringify(asks);
}

/** By the rules as they are now; one that is gone is taken as it was. */
export function readLeaseAsks(text: string, rules: Pick<RuleBook, "find">): LeaseAsk[] {
  // Written above and read from where only this server writes.
  const asks = JSON.parse(text) as readonly LeaseAsk[];
  return asks.map((ask) => ({ ...ask, rule: currentRule(ask.rule, rules) }));
}

function currentRule(rule: Rule, rules: Pick<RuleBook, "find">): Rule {
  const now = rule.inline ? undefined : rules.find(rule.name);
  return now?.algorithm === "concurrency" ? now : rule;
}

/** How the limits of a lease that was renewed stand. `ruleOf`: by which rule what is counted is judged. */
export function leaseStandings(
  asks: readonly LeaseAsk[],
  { slots }: Renewed,
  ruleOf: (rule: Rule) => Rule,
  uncounted: (ask: LeaseAsk) => Standing,
): Standing[] {
  const isCounted = ({ basis }: LeaseAsk) => basis === "shared" || basis === "local_share";
  const counters = [...new Set(asks.filter(isCounted).map(({ rule, key }) => counterName(rule, key)))];
  return asks.map((ask) => {
    if (!isCounted(ask)) return uncounted(ask);
    const { used = 0, firstEnd } = slots[counters.indexOf(counterName(ask.rule, ask.key))] ?? {};
    const { limit } = ruleOf(ask.rule);
    return {
      limit,
      shadow: ask.rule.shadow,
      waitUs: 0,
      remaining: Math.max(0, limit - used),
      overdrawn: Math.max(0, used - limit),
      resetAt: firstEnd,
      basis: ask.basis,
    };
  });
}

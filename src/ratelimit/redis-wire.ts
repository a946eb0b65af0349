import type { Standing } from "./counters.ts";
import type { Algorithm, Rule } from "./rule.ts";

const NUMBERS: Readonly<Record<Algorithm, number>> = {
  fixed_window: 1,
  sliding_window: 2,
  token_bucket: 3,
  concurrency: 4,
};
const FIELDS = 6;

const heads = new WeakMap<Rule, string>();

/** A rule and how much, as the scripts read them. */
export function limitText(rule: Rule, units: number): string {
  let head = heads.get(rule);
  if (head === undefined) {
    const { algorithm, limit, periodUs, burst, shadow } = rule;
    head = `${NUMBERS[algorithm]} ${limit} ${periodUs} ${burst} ${shadow ? 1 : 0} `;
    heads.set(rule, head);
  }
  return head + units;
}

export function readNumbers(reply: string): number[] {
  return reply.split(" ").map(Number);
}

/** How limits stand, from the place where the numbers of the first begin. */
export function readStandings(numbers: readonly number[], start: number): Standing[] {
  const standings: Standing[] = [];
  for (let at = start; at + FIELDS <= numbers.length; at += FIELDS) {
    const wait = numbers[at + 2] ?? 0;
    standings.push({
      limit: numbers[at] ?? 0,
      shadow: numbers[at + 1] === 1,
      waitUs: wait < 0 ? Number.POSITIVE_INFINITY : wait,
      remaining: numbers[at + 3] ?? 0,
      overdrawn: numbers[at + 4] ?? 0,
      resetAt: numbers[at + 5] || undefined,
    });
  }
  return standings;
}

import type { Ask, Standing, Verdict } from "./counters.ts";
import type { Algorithm, Rule } from "./rule.ts";

const NUMBERS: Readonly<Record<Algorithm, number>> = {
  fixed_window: 1,
  sliding_window: 2,
  token_bucket: 3,
  concurrency: 4,
};
/** Of a limit in a text. */
const FIELDS = 6;

const written = new WeakMap<Rule, string>();

/** A rule as the scripts read it. */
function ruleText(rule: Rule): string {
  let text = written.get(rule);
  if (text === undefined) {
    const { algorithm, limit, periodUs, burst, shadow } = rule;
    text = `${NUMBERS[algorithm]} ${limit} ${periodUs} ${burst} ${shadow ? 1 : 0}`;
    written.set(rule, text);
  }
  return text;
}

/** Adds limits as the scripts read them. */
export function addLimits(args: (string | number)[], asks: readonly Ask[]): void {
  for (const { rule, cost } of asks) args.push(ruleText(rule), cost);
}

export function readNumbers(reply: string): number[] {
  return reply.split(" ").map(Number);
}

/** The answer to one of several checks, of the numbers that begin at a place in the reply. */
export function readVerdict(reply: readonly unknown[], start: number, asks: readonly Ask[]): Verdict {
  const standings: Standing[] = [];
  let at = start + 2;
  for (const { rule } of asks) {
    standings.push({
      basis: "shared",
      limit: rule.burst,
      shadow: rule.shadow,
      waitUs: waitOf(Number(reply[at])),
      remaining: Number(reply[at + 1]),
      overdrawn: Number(reply[at + 2]),
      resetAt: Number(reply[at + 3]) || undefined,
    });
    at += 4;
  }
  return { at: Number(reply[start]), allowed: reply[start + 1] === 1, standings };
}

/** So many numbers the answer to a check of so many limits has. */
export function verdictLength(limits: number): number {
  return 2 + 4 * limits;
}

/** The answer to a check that was remembered. */
export function readRemembered(reply: string): Verdict {
  const numbers = readNumbers(reply);
  return { at: numbers[0] ?? 0, allowed: numbers[1] === 1, standings: readStandings(numbers, 2) };
}

/** How limits stand, from the place where the numbers of the first begin. */
export function readStandings(numbers: readonly number[], start: number): Standing[] {
  const standings: Standing[] = [];
  for (let at = start; at + FIELDS <= numbers.length; at += FIELDS) {
    standings.push({
      basis: "shared",
      limit: numbers[at] ?? 0,
      shadow: numbers[at + 1] === 1,
      waitUs: waitOf(numbers[at + 2] ?? 0),
      remaining: numbers[at + 3] ?? 0,
      overdrawn: numbers[at + 4] ?? 0,
      resetAt: numbers[at + 5] || undefined,
    });
  }
  return standings;
}

function waitOf(wait: number): number {
  return wait < 0 ? Number.POSITIVE_INFINITY : wait;
}

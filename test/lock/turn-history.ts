import { MOST_STREAK, YIELD_MS } from "../../src/lock/record/decide.ts";
import { faultsOf, type Held } from "./lease-history.ts";

/** A grant that a caller in a line was given. Times on one monotonic clock. */
export interface TurnTaken extends Held {
  readonly kind: "taken";
  readonly instance: string;
  readonly lock: string;
  /** Which of those who joined this line it was. */
  readonly place: number;
}

/** An instance was told to wait for a grant. */
export interface TurnToldOf {
  readonly kind: "told";
  readonly instance: string;
  readonly lock: string;
  readonly token: number;
  readonly at: number;
}

/** What is wrong with the turns of one lock, in words. */
export function turnFaultsOf(turns: readonly TurnTaken[], told: readonly TurnToldOf[]): string[] {
  const inOrder = [...turns].sort((one, other) => one.token - other.token);
  return [...faultsOf(turns), ...queueFaultsOf(inOrder), ...shareFaultsOf(inOrder, told)];
}

function queueFaultsOf(turns: readonly TurnTaken[]): string[] {
  const faults: string[] = [];
  const last = new Map<string, number>();
  for (const { instance, place, token } of turns) {
    if (place < (last.get(instance) ?? 0)) faults.push(`${token} went to one who came to ${instance} later`);
    last.set(instance, Math.max(place, last.get(instance) ?? 0));
  }
  return faults;
}

/** Whoever had its share leaves the lock to another that was told to wait, for a while. */
function shareFaultsOf(turns: readonly TurnTaken[], told: readonly TurnToldOf[]): string[] {
  const faults: string[] = [];
  const waiters = Map.groupBy(told, ({ token }) => token);
  let streak = 0;
  for (const [at, turn] of turns.entries()) {
    const before = turns[at - 1];
    streak = before?.instance === turn.instance ? streak + 1 : 1;
    if (before === undefined || streak <= MOST_STREAK) continue;
    const isWaitedFor = waiters
      .get(before.token)
      ?.some((one) => one.instance !== turn.instance && one.at < before.until);
    if (isWaitedFor && turn.from < before.until + YIELD_MS)
      faults.push(`${turn.instance} took ${turn.token} out of turn`);
  }
  return faults;
}

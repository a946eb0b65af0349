import { createRandom } from "./load-child.ts";

/** What is done to the servers behind, and to the instances. Each lane does one thing at a time; lanes overlap. */
export const lanes = {
  redis: ["Redis killed", "Redis restarted empty", "Redis frozen", "Redis flushed"],
  postgres: ["Postgres stopped", "Postgres killed", "Postgres frozen"],
  holdfast: ["an instance killed", "both instances killed", "an instance frozen", "an instance stopped"],
} as const;

export type Lane = keyof typeof lanes;
export type FaultKind = (typeof lanes)[Lane][number];

export interface PlannedFault {
  readonly kind: FaultKind;
  /** The calm before it. */
  readonly afterMs: number;
  /** How long it lasts. What happens in a moment lasts no longer. */
  readonly holdMs: number;
  /** A number from which a victim is chosen where there are several. */
  readonly victim: number;
}

export interface FaultTimes {
  readonly calmMs: readonly [number, number];
  readonly holdMs: readonly [number, number];
}

/**
 * The faults of a lane, without end, the same for the same seed. All of its kinds come once, in some order, before one comes again:
 * so even a short run sees each of them.
 */
export function* planFaults(
  kinds: readonly FaultKind[],
  { calmMs, holdMs }: FaultTimes,
  seed: number,
): Generator<PlannedFault, never> {
  const random = createRandom(seed);
  const between = ([least, most]: readonly [number, number]) => least + random(most - least + 1);
  for (;;) {
    for (const kind of shuffled(kinds, random)) {
      yield { kind, afterMs: between(calmMs), holdMs: between(holdMs), victim: random(1_000) };
    }
  }
}

function shuffled<T>(items: readonly T[], random: (below: number) => number): T[] {
  const rest = [...items];
  const order: T[] = [];
  while (rest.length > 0) order.push(...rest.splice(random(rest.length), 1));
  return order;
}

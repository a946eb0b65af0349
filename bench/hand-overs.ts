import { setTimeout as delay } from "node:timers/promises";

/** Takes the lock, and returns what gives it back. */
export type Locking = () => Promise<() => Promise<void>>;

export interface HandOverResult {
  readonly handOvers: number;
  /** From when a holder begins to give the lock back until the next one has it, in milliseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

/** All of them want one lock at once, and each works for a moment when it has it; then all over again. */
export async function handOvers(
  lockings: readonly Locking[],
  workMs: number,
  durationMs: number,
): Promise<HandOverResult> {
  const until = performance.now() + durationMs;
  const times: number[] = [];
  while (performance.now() < until) {
    let freedAt: number | undefined;
    await Promise.all(
      lockings.map(async (take) => {
        const release = await take();
        if (freedAt !== undefined) times.push(performance.now() - freedAt);
        await delay(workMs);
        freedAt = performance.now();
        await release();
      }),
    );
  }
  const sorted = times.sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return { handOvers: times.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}

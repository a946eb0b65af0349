import { setTimeout as delay } from "node:timers/promises";

export interface UntilOptions {
  /** What is waited for, as it should read in "Gave up waiting for ...". */
  readonly what: string;
  /** When to give up. Default 30 s: far more than any healthy run needs, so that a slow machine does not fail a test. */
  readonly timeoutMs?: number;
  /** Default 20 ms. */
  readonly intervalMs?: number;
}

/** Asks again and again until the answer is truthy, and resolves with it. A condition that throws counts as "not yet". */
export async function until<T>(condition: () => T | Promise<T>, options: UntilOptions): Promise<T> {
  const timeoutMs = options.timeoutMs ?? 30_000;
  const giveUpAt = performance.now() + timeoutMs;
  for (;;) {
    let last: unknown;
    try {
      const answer = await condition();
      if (answer) return answer;
      last = answer;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= giveUpAt) {
      const cause = last instanceof Error ? last : undefined;
      const seen = cause ? `it failed with: ${cause.message}` : `last answer: ${String(last)}`;
      throw new Error(`Gave up waiting for ${options.what} after ${timeoutMs} ms; ${seen}`, { cause });
    }
    await delay(options.intervalMs ?? 20);
  }
}

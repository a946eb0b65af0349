import { setImmediate as nextTurn } from "node:timers/promises";
import { Failure } from "./failure.ts";

/** Work that shares commits: what comes while a portion is under way waits, and goes together in the next one. */
export interface Batches<Job> {
  add(job: Job): void;
  /** Waits for what was added. */
  close(): Promise<void>;
}

export interface BatchesOptions<Job> {
  /** How many of the first jobs go together: one at least. */
  readonly portion: (queue: readonly Job[]) => number;
  /** Never rejects. Returns those that have to go again, before all others. */
  readonly process: (jobs: readonly Job[]) => Promise<readonly Job[]>;
}

/** One portion after the other, in the order in which jobs came. */
export function createBatches<Job>({ portion, process }: BatchesOptions<Job>): Batches<Job> {
  let queue: Job[] = [];
  let draining: Promise<void> | undefined;

  async function drain(): Promise<void> {
    // Whoever else calls in this turn shares the commit.
    await nextTurn();
    while (queue.length > 0) {
      const jobs = queue.slice(0, portion(queue));
      queue = queue.slice(jobs.length);
      const again = await process(jobs);
      if (again.length > 0) queue = [...again, ...queue];
    }
    draining = undefined;
  }

  return {
    add(job) {
      queue.push(job);
      draining ??= drain();
    },
    async close() {
      await draining;
    },
  };
}

/** What the database undid for reasons of its own, and says so, goes again this often. */
const ATTEMPTS = 5;

export async function repeatUndone<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      const wasUndone = error instanceof Failure && error.kind === "conflict";
      if (!wasUndone || attempt === ATTEMPTS) throw error;
    }
  }
}

import type { LoadMessage } from "./load-process.ts";

/** What a job may ask of the process it runs in. */
export interface LoadContext {
  /** Becomes true when the parent wants the account. */
  readonly stopping: boolean;
  /** Tells the parent of a moment. */
  tell(moment: string): void;
}

/** The child's side of load-process.ts: carries out the job, sends its report, and never outlives its parent. */
export async function runLoad(work: (job: unknown, context: LoadContext) => Promise<unknown>): Promise<void> {
  let stopping = false;
  process.on("message", () => {
    stopping = true;
  });
  process.on("disconnect", () => process.exit(0));
  const context: LoadContext = {
    get stopping() {
      return stopping;
    },
    tell: (told) => send({ told }),
  };
  try {
    const job: unknown = JSON.parse(process.argv[2] ?? "null");
    await sent({ report: await work(job, context) });
  } catch (error) {
    await sent({ failed: error instanceof Error ? (error.stack ?? error.message) : String(error) });
  }
  process.disconnect();
}

function send(message: LoadMessage): void {
  process.send?.(message);
}

function sent(message: LoadMessage): Promise<void> {
  return new Promise((resolve) => process.send?.(message, undefined, undefined, () => resolve()));
}

/** Small, seeded and good enough to choose keys and moments by; the same numbers on every machine. */
export function createRandom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

import { setTimeout as delay } from "node:timers/promises";
import { ApiError } from "./api.ts";

export interface PatienceOptions {
  /** How long nothing may succeed before it is given up. */
  readonly limitMs: number;
  /** The same while nothing has succeeded yet: then it may be the wrong server. */
  readonly firstLimitMs: number;
  /** Told once when trouble begins, and when it is over. */
  readonly onTrouble: (error: ApiError) => void;
  readonly onOver: () => void;
  /** Aborted when nobody wants to wait any longer: then nothing is tried again. */
  readonly signal?: AbortSignal | undefined;
}

/** Trouble with the server, as all calls of an import see it. */
export interface Patience {
  /** Something went well. */
  succeeded(): void;
  /** Waits a moment before the next attempt; throws when the error is for good, or has lasted too long. */
  failed(error: unknown): Promise<void>;
  /** Calls until it succeeds. */
  until<T>(call: () => Promise<T>): Promise<T>;
}

const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 2000;

export function createPatience({ limitMs, firstLimitMs, onTrouble, onOver, signal }: PatienceOptions): Patience {
  let since: number | undefined;
  let waitMs = FIRST_WAIT_MS;
  let everSucceeded = false;

  function succeeded(): void {
    everSucceeded = true;
    if (since !== undefined) onOver();
    since = undefined;
    waitMs = FIRST_WAIT_MS;
  }

  async function failed(error: unknown): Promise<void> {
    if (!(error instanceof ApiError) || !error.isTransient) throw error;
    if (since === undefined) {
      since = performance.now();
      onTrouble(error);
    }
    if (signal?.aborted || performance.now() - since > (everSucceeded ? limitMs : firstLimitMs)) throw error;
    await delay(waitMs);
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
  }

  return {
    succeeded,
    failed,
    async until(call) {
      for (;;) {
        try {
          const answer = await call();
          succeeded();
          return answer;
        } catch (error) {
          await failed(error);
        }
      }
    },
  };
}

import type { NoteAbsence } from "../infra/absence.ts";
import { Failure, UnavailableError } from "../infra/failure.ts";
import { type Fences, FencingTokenStaleError } from "../infra/fencing.ts";
import { isCallersMistake } from "../infra/guarded.ts";
import { RefugeAwayError } from "./healer.ts";
import type { AskedFence, CacheStore, WriteResult } from "./store.ts";

export interface FencedWritesOptions {
  readonly layer: CacheStore["layer"];
  /** To the layer, or it rejects. */
  readonly write: CacheStore["write"];
  readonly fences: Fences;
  /** Of this process's version clock. */
  readonly newStamp: () => number;
  readonly noteAbsence: NoteAbsence;
}

/** A layer that forgets fences as they come is no layer to write to under a lock. */
const MOST_QUESTIONS = 16;

/**
 * Writes under a lock to a layer that may forget: where it says that it has, SQL is asked once more for newer tokens. Nothing
 * stands in for the layer, since only there it is known which tokens came meanwhile.
 */
export function createFencedWrites(options: FencedWritesOptions): CacheStore["write"] {
  const { layer, fences, newStamp, noteAbsence } = options;

  const orFail: CacheStore["write"] = async (namespace, writes) => {
    try {
      return await options.write(namespace, writes);
    } catch (error) {
      if (isCallersMistake(error) || error instanceof RefugeAwayError) throw error;
      noteAbsence(error);
      throw new FencedWriteUnavailableError(error);
    }
  };

  return async (namespace, writes) => {
    const results: WriteResult[] = [];
    let left = writes.map((write, at) => ({ at, write }));
    for (let question = 1; ; question++) {
      const answers = await orFail(
        namespace,
        left.map(({ write }) => write),
      );
      left.forEach(({ at }, i) => {
        const answer = answers[i];
        if (answer === undefined) throw new Error("a write got no result");
        results[at] = answer;
      });
      left = left.filter(({ at }) => isForgotten(results[at]));
      const fence = left[0]?.write.fence;
      if (fence === undefined) return results;
      if (question === MOST_QUESTIONS) throw new FencedWriteUnavailableError(undefined);
      const asked = await askAgain(fence);
      if (asked instanceof FencingTokenStaleError) {
        for (const { at } of left) results[at] = { stored: false, why: "fenced", newest: asked.newest, layer };
        return results;
      }
      left = left.map(({ at, write }) => ({ at, write: { ...write, fence: asked } }));
    }
  };

  /** The error, if SQL has seen a newer token; what was stored under it already stays. */
  async function askAgain({ lock, token }: AskedFence): Promise<AskedFence | FencingTokenStaleError> {
    const askedAt = newStamp();
    try {
      await fences.raise({ lock, token });
      return { lock, token, askedAt };
    } catch (error) {
      if (error instanceof FencingTokenStaleError) return error;
      throw error;
    }
  }
}

function isForgotten(result: WriteResult | undefined): boolean {
  return result?.stored === false && result.why === "forgotten";
}

/** Whether the write was made, if it was on its way already, is not known. */
class FencedWriteUnavailableError extends UnavailableError {
  constructor(cause: unknown) {
    const retryAfterMs = cause instanceof Failure ? cause.retryAfterMs : undefined;
    super(
      "REDIS_UNAVAILABLE",
      "what is written under a lock is stored in Redis or not at all, and Redis does not answer",
      {
        ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
        cause,
      },
    );
  }
}

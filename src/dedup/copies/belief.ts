import type { NoteAbsence } from "../../infra/absence.ts";
import type { Clock } from "../../infra/clock.ts";
import { BELIEF_MS, type Head } from "./head.ts";

/** What an instance knows of the generation of the copies. */
export interface Belief {
  /** Undefined: the generation has ended, or is not known yet. */
  readonly generation: number | undefined;
  /** Whether it is certain to be that still. Looked at often, it is read again in the background. */
  readonly isCertain: boolean;
  /** The latest that it may be by the truth's clock. */
  readonly latestNowMs: number;
  /** Reads it now. Rejects when the truth does not answer. */
  renew(): Promise<void>;
}

/** How old news may be before it is read again. */
const RENEW_MS = 500;

export function createBelief(head: Head, clock: Pick<Clock, "monotonic">, noteAbsence: NoteAbsence): Belief {
  let generation: number | undefined;
  let nowMs = Number.POSITIVE_INFINITY;
  let readAt = Number.NEGATIVE_INFINITY;
  let triedAt = Number.NEGATIVE_INFINITY;
  let renewing: Promise<void> | undefined;

  async function read(): Promise<void> {
    triedAt = clock.monotonic();
    let beganAt = triedAt;
    let now = await head.read();
    if (now.generation <= 0) {
      await head.open();
      beganAt = clock.monotonic();
      now = await head.read();
    }
    generation = now.generation > 0 ? now.generation : undefined;
    nowMs = now.nowMs;
    readAt = beganAt;
  }

  function renew(): Promise<void> {
    renewing ??= read().finally(() => {
      renewing = undefined;
    });
    return renewing;
  }

  return {
    get generation() {
      return generation;
    },
    get isCertain() {
      const at = clock.monotonic();
      if (at - Math.max(readAt, triedAt) >= RENEW_MS) renew().catch(noteAbsence);
      return generation !== undefined && at - readAt < BELIEF_MS;
    },
    get latestNowMs() {
      return nowMs + clock.monotonic() - readAt;
    },
    renew,
  };
}

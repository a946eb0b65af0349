import type { NoteAbsence } from "../../infra/absence.ts";
import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import { type ConversationKey, textOf } from "../record/conversation.ts";
import { type CopiesTruth, isLive, type Whole } from "./copies-truth.ts";
import type { CopyStore } from "./copy-store.ts";
import { legacyDocument } from "./legacy-document.ts";

/** Makes the documents for programs of old, after the changes and beside them. */
export interface Documents {
  /** The document of this conversation is gone: it is to be made before long. */
  later(key: ConversationKey): void;
  readonly waiting: number;
  /** Makes those that wait, if it takes no longer than a moment. */
  close(): Promise<void>;
}

export interface DocumentsOptions {
  readonly truth: Pick<CopiesTruth, "whole">;
  readonly store: Pick<CopyStore, "fill" | "putDocument">;
  readonly reachable: () => boolean;
  readonly clock: Clock;
  readonly noteAbsence: NoteAbsence;
}

/** What an append may cost here does not grow with the conversation. */
const LIMITS = { messages: 50, bytes: 128 * 1024 } as const;
/** The document of a larger state is not made: that would hold up everyone else. */
const LARGEST_STATE = 1024 * 1024;
/** Changes that follow each other within this time have one document. */
const DELAY_MS = 50;
const PORTION = 10;
/** All of it together takes at most this share of the time. */
const SHARE = 0.1;
/** Beyond this the oldest are left out. */
const MOST = 50_000;
const AWAY_MS = 500;
const CLOSING_MS = 2_000;

export function createDocuments({ truth, store, reachable, clock, noteAbsence }: DocumentsOptions): Documents {
  const waiting = new Map<string, ConversationKey>();
  let timer: NodeJS.Timeout | undefined;
  let making: Promise<void> | undefined;
  let closed = false;

  function arm(delayMs: number): void {
    if (timer !== undefined || making !== undefined || closed) return;
    timer = setTimeout(() => {
      timer = undefined;
      making = makePortion().then((pauseMs) => {
        making = undefined;
        if (waiting.size > 0) arm(pauseMs);
      });
    }, delayMs).unref();
  }

  /** How long to leave the time to others then. */
  async function makePortion(): Promise<number> {
    const began = clock.monotonic();
    if (!reachable()) return AWAY_MS;
    for (const [text, key] of [...waiting].slice(0, PORTION)) {
      waiting.delete(text);
      try {
        await make(key);
      } catch (error) {
        noteAbsence(error);
        if (!(error instanceof UnavailableError)) continue;
        waiting.set(text, key);
        return AWAY_MS;
      }
    }
    return Math.max(DELAY_MS, (clock.monotonic() - began) * (1 / SHARE - 1));
  }

  async function make(key: ConversationKey): Promise<void> {
    const whole = await truth.whole(key, LIMITS);
    if (whole === undefined || !isLive(whole.held, clock.now() * 1000)) return;
    const document = whole.state.length > LARGEST_STATE ? undefined : legacyDocument(whole);
    if (document !== undefined && (await store.putDocument(whole.held, document))) return;
    // A change that left the state where it is may have found no copy to put itself into.
    await fill(whole);
    if (document !== undefined) await store.putDocument(whole.held, document);
  }

  async function fill(whole: Whole): Promise<void> {
    for (const result of await store.fill([whole], false)) if (result.status === "rejected") throw result.reason;
  }

  return {
    get waiting() {
      return waiting.size;
    },
    later({ collection, id }) {
      if (closed) return;
      const text = textOf({ collection, id });
      if (!waiting.has(text)) waiting.set(text, { collection, id });
      if (waiting.size > MOST) {
        for (const oldest of waiting.keys()) {
          waiting.delete(oldest);
          break;
        }
      }
      arm(DELAY_MS);
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      await making;
      const until = clock.monotonic() + CLOSING_MS;
      while (waiting.size > 0 && clock.monotonic() < until && (await makePortion()) !== AWAY_MS);
    },
  };
}

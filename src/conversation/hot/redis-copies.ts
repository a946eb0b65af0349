import { createAbsenceNotes } from "../../infra/absence.ts";
import type { Breaker } from "../../infra/breaker.ts";
import type { Clock } from "../../infra/clock.ts";
import { createGuarded, type Guarded } from "../../infra/guarded.ts";
import type { Log } from "../../infra/log.ts";
import { type Redis, RedisReplyError } from "../../infra/redis.ts";
import type { ConversationKey } from "../record/conversation.ts";
import { announceCopies } from "./announcement.ts";
import { createCopies } from "./copies.ts";
import type { CopiesTruth } from "./copies-truth.ts";
import { createDocuments } from "./documents.ts";
import { createDoubts } from "./doubts.ts";
import { createHealer } from "./healer.ts";
import type { HotCopies } from "./hot-copies.ts";
import { createPatience } from "./patience.ts";
import { createRedisCopyStore } from "./redis-copy-store.ts";

export interface RedisCopiesOptions {
  readonly redis: Redis;
  readonly breaker: Breaker;
  readonly commandTimeoutMs: number;
  readonly truth: CopiesTruth;
  /** Names the truth: copies of another one, which was there before it, are not believed. */
  readonly truthId: string;
  /** Whether to keep documents that programs of old can read beside the copies. Default: true. */
  readonly documents?: boolean;
  /** How often to look for what other instances could not tell Redis of. Default: twice a second. */
  readonly sweepMs?: number;
  readonly clock: Clock;
  readonly log: Log;
}

export interface CopiesCondition {
  /** Whether copies are believed at all: not after a loss of contact, until what was committed meanwhile is healed. */
  readonly believed: boolean;
  /** How many conversations are in doubt besides. */
  readonly doubts: number;
  /** How many documents are still to be made. */
  readonly documents: number;
}

export interface RedisCopies extends HotCopies {
  condition(): CopiesCondition;
  /** Heals what is in doubt now; for tests and operators. */
  heal(): Promise<void>;
  close(): Promise<void>;
}

const SWEEP_MS = 500;
/** So long at most does who holds the lock of all writers wait for a cover, whatever others may wait for. */
const COVER_WAIT_MS = 500;

/** Hot copies in Redis, of one instance. To be closed after the ledger, and before Redis and the database. */
export async function startRedisCopies(options: RedisCopiesOptions): Promise<RedisCopies> {
  const { redis, breaker, commandTimeoutMs, truth, truthId, sweepMs = SWEEP_MS, clock, log } = options;
  const noteAbsence = createAbsenceNotes("the hot copies", log, clock);
  const announcement = await announceCopies({ truth, clock, noteAbsence });
  const isAnswer = (error: unknown) => error instanceof RedisReplyError;
  const guarded = createGuarded(breaker, commandTimeoutMs, isAnswer);
  const guardedCover = createPatience(createGuarded(breaker, Math.min(commandTimeoutMs, COVER_WAIT_MS), isAnswer));
  const storeOptions = { redis, readTimeoutMs: commandTimeoutMs, clock, truthId };
  const store = createRedisCopyStore({ ...storeOptions, guarded, guardedCover });
  // While the breaker tries whether Redis is back, it lets nobody through but those who heal.
  const all: Guarded = (work) => work();
  const unguarded = createRedisCopyStore({ ...storeOptions, guarded: all, guardedCover: all });
  const doubts = createDoubts();
  const reachable = () => breaker.state === "closed" && redis.connected;
  const documents =
    options.documents === false
      ? undefined
      : createDocuments({ ...{ truth, store, clock, noteAbsence }, reachable: () => reachable() && !doubts.all });
  const remake = (key: ConversationKey) => documents?.later(key);
  const healer = createHealer({
    ...{ truth, store: unguarded, doubts, reachable, clock, log, sweepMs },
    onDropped: remake,
  });
  const copies = createCopies({
    ...{ store, truth, doubts, breaker, clock, noteAbsence },
    onDoubt: healer.soon,
    onCopied: remake,
  });

  function onContact(): void {
    // Whoever was away may have missed what others committed meanwhile.
    doubts.addAll();
    healer.soon();
  }

  const stopHearing = redis.onConnected(onContact);
  const stopWatching = breaker.onStateChange((state) => {
    if (state === "open") doubts.addAll();
  });
  let closed = false;
  breaker.beforeClose(async () => {
    if (!closed) await healer.heal();
  });
  redis.connect();
  if (redis.connected) onContact();

  return {
    ...copies,
    // The spread above would have frozen this at its first value.
    get away() {
      return copies.away;
    },
    condition: () => ({ believed: !doubts.all, doubts: doubts.count, documents: documents?.waiting ?? 0 }),
    heal: healer.heal,
    async close() {
      closed = true;
      stopHearing();
      stopWatching();
      await copies.settled();
      await documents?.close();
      await healer.close();
      await announcement.close();
    },
  };
}

import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { type ConversationKey, textOf } from "../record/conversation.ts";
import type { CopiesTruth } from "./copies-truth.ts";
import type { CopyStore, Stamped } from "./copy-store.ts";
import type { Doubts } from "./doubts.ts";

/** Drops copies of what was committed while Redis could not be told, so that old versions never come back. */
export interface Healer {
  /**
   * Heals everything there is when it begins, and rejects when the copies cannot be reached. When it is the truth that cannot be
   * asked, copies that are in doubt stay so. One healing runs at a time.
   */
  heal(): Promise<void>;
  /** Heals in the background, as soon as the copies can be reached. */
  soon(): void;
  close(): Promise<void>;
}

export interface HealerOptions {
  readonly truth: CopiesTruth;
  readonly store: Pick<CopyStore, "drop">;
  readonly doubts: Doubts;
  /** Whether it is worth trying on our own; while the breaker is open it is the breaker that calls. */
  readonly reachable: () => boolean;
  /** Called with what is there without a copy now. */
  readonly onDropped: (key: ConversationKey) => void;
  readonly clock: Clock;
  readonly log: Log;
  /** How often to look for what other instances left: for so long a copy of that may be believed here. */
  readonly sweepMs: number;
}

const BATCH = 500;
const SOON_MS = 20;

/** The truth failed, not what is healed. */
class TruthAwayError extends Error {}

export function createHealer(options: HealerOptions): Healer {
  const { truth, store, doubts, onDropped, clock, log } = options;
  let running: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  let isToldOf = false;
  const sweep = setInterval(inBackground, options.sweepMs).unref();

  function heal(): Promise<void> {
    running ??= healAll().finally(() => {
      running = undefined;
    });
    return running;
  }

  async function healAll(): Promise<void> {
    const round = doubts.beginHealing();
    try {
      const own = await healOwn([...round.marks.values()].map(({ key }) => key));
      const left = await healLeft();
      doubts.endHealing(round);
      if (own > 0) log.info({ conversations: own + left }, "hot copies of conversations healed");
      // An instance without Redis leaves some all the time: it is for that one to tell.
      else if (left > 0) log.debug({ conversations: left }, "hot copies healed that other instances left");
      isToldOf = false;
      // Came while this was under way.
      if (doubts.all || doubts.count > 0) soon();
    } catch (error) {
      if (!(error instanceof TruthAwayError)) throw error;
      tell(error.cause);
    }
  }

  /** In doubt here, whether or not it was committed. */
  async function healOwn(keys: readonly ConversationKey[]): Promise<number> {
    for (let at = 0; at < keys.length; at += BATCH) {
      const batch = keys.slice(at, at + BATCH);
      const found = await ofTruth(() => truth.stamps(batch));
      const stamps = new Map(found.map((one) => [textOf(one), one.stamp]));
      // Of what is not there no copy may stay.
      const newest = clock.now() * 1000;
      await store.drop(batch.map((key) => ({ ...key, stamp: stamps.get(textOf(key)) ?? newest })));
    }
    return keys.length;
  }

  async function healLeft(): Promise<number> {
    for (let healed = 0; ; ) {
      const rows = await ofTruth(() => truth.unhealed(BATCH));
      if (rows.length > 0) await healRows(rows);
      healed += rows.length;
      if (rows.length < BATCH) return healed;
    }
  }

  async function healRows(rows: readonly Stamped[]): Promise<void> {
    // If it comes no further than here, at least this instance knows.
    const marks = doubts.add(rows);
    await store.drop(rows);
    doubts.remove(marks);
    await ofTruth(() => truth.settle(rows));
    rows.forEach(onDropped);
  }

  /** Once an outage. */
  function tell(error: unknown): void {
    if (!isToldOf) log.warn({ err: error }, "hot copies of conversations not healed yet");
    isToldOf = true;
  }

  function soon(): void {
    if (timer !== undefined || closed) return;
    timer = setTimeout(() => {
      timer = undefined;
      inBackground();
    }, SOON_MS).unref();
  }

  function inBackground(): void {
    if (closed || running !== undefined || !options.reachable()) return;
    heal().catch(tell);
  }

  return {
    heal,
    soon,
    async close() {
      closed = true;
      clearInterval(sweep);
      clearTimeout(timer);
      await running?.catch(() => {});
    },
  };
}

async function ofTruth<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof UnavailableError ? new TruthAwayError(error.message, { cause: error }) : error;
  }
}

import { create } from "@bufbuild/protobuf";
import { type AuditEntry, AuditEntrySchema, AuditOutcome } from "../../gen/holdfast/v1/audit_pb.js";
import type { Clock } from "../../infra/clock.ts";
import type { SqlSession } from "../../infra/database.ts";
import type { Log } from "../../infra/log.ts";
import type { Archive } from "../archive/archive.ts";
import { open, seal } from "../record/leaf.ts";

/** The producer of the records that tell what was dropped. They are never dropped themselves. */
export const RETENTION_PRODUCER = "@retention";
const DROP_ACTION = "audit.retention.drop";

export interface RetentionSettings {
  /** Records that were accepted longer ago are dropped. Undefined: however old. */
  readonly maxAgeMs: number | undefined;
  /** Records before this many newest ones are dropped. Undefined: however many. */
  readonly maxRecords: number | undefined;
}

/** What is due to be dropped: by age, or by place. */
export interface Due {
  readonly acceptedBeforeUs: number;
  readonly beforeLeaf: number;
}

export interface DroppedRecords {
  readonly count: number;
  /** Those of them that were too old; the others were too many. */
  readonly byAge: number;
  readonly oldestAcceptUs: number;
  readonly newestAcceptUs: number;
}

/** LeafRange from `first` up to `end`, which is not among them. */
export interface LeafRange {
  readonly first: number;
  readonly end: number;
}

export interface DroppedBatch {
  readonly count: number;
  /** Where to go on; undefined: all of them were looked at. */
  readonly next: number | undefined;
}

export interface RetentionStore {
  /** The leaf at which this many newest records begin, without those of retention: else each run would make work for the next. */
  startOfNewest(records: number): Promise<number>;
  /** How many of these leaves still have a record that may ever be dropped, and of how many it is due. */
  survey(leaves: LeafRange, due: Due): Promise<{ readonly kept: number; readonly due: number }>;
  /**
   * Drops up to some hundred of the records that are due among these leaves: none that waits for a review, that a group has not
   * acked, or that is the review of a record which is kept. Notes what it dropped as not yet told.
   */
  drop(
    tx: SqlSession,
    leaves: LeafRange,
    due: Due,
  ): Promise<{ readonly count: number; readonly next: number | undefined }>;
  /** What was dropped and not yet told, by any instance; it counts as told if the transaction is committed. */
  takeUntold(tx: SqlSession): Promise<DroppedRecords | undefined>;
  /** Tidies up behind drops among these leaves. */
  tidy(leaves: LeafRange): Promise<void>;
}

export interface RetentionCondition {
  /** Since the start, by this instance. */
  readonly dropped: number;
  /** Records that were due at the last run, and were kept: they wait for a review, an ack, or the record they are the review of. */
  readonly heldBack: number;
  /** When the last run ended, in milliseconds since 1970; undefined: none has. */
  readonly lastRun: number | undefined;
  /** Why the last run failed; undefined when it did not. */
  readonly lastError: string | undefined;
}

export interface Retention {
  /** Drops all that is to be dropped now, after a run that is under way. Resolves with the number of records. */
  run(): Promise<number>;
  condition(): RetentionCondition;
  close(): Promise<void>;
}

export interface RetentionOptions {
  readonly archive: Pick<Archive, "size" | "transaction">;
  readonly store: RetentionStore;
  readonly settings: RetentionSettings;
  readonly clock: Clock;
  readonly log: Log;
  readonly everyMs?: number;
}

const EVERY_MS = 10 * 60_000;
/** So many leaves are looked at together. */
const WINDOW = 4096;

/**
 * Drops records that are too old or too many, in the order of the log, a few hundred at a time, so that nobody waits long for the
 * head of the log, which it holds meanwhile. Several instances may do so at once: each record is dropped, and told of, once. With no
 * limit set, nothing ever happens.
 */
export function startRetention(options: RetentionOptions): Retention {
  const { archive, store, settings, clock, log, everyMs = EVERY_MS } = options;
  const isOn = settings.maxAgeMs !== undefined || settings.maxRecords !== undefined;
  /** Windows in which nothing is left. */
  const emptied = new Set<number>();
  /** Whether there may be drops that the log does not tell of: of a run that was cut off, to begin with. */
  let mayOwe = true;
  let dropped = 0;
  let heldBack = 0;
  let lastRun: number | undefined;
  let lastError: string | undefined;
  let closed = false;
  let running: Promise<unknown> = Promise.resolve();

  async function dropWindow(window: LeafRange, due: Due): Promise<number> {
    let count = 0;
    let next: number | undefined = window.first;
    while (next !== undefined && !closed) {
      const leaves: LeafRange = { first: next, end: window.end };
      const batch: DroppedBatch = await archive.transaction((tx) => store.drop(tx, leaves, due));
      mayOwe ||= batch.count > 0;
      count += batch.count;
      next = batch.next;
      await nextTurn();
    }
    if (count > 0) await store.tidy(window);
    return count;
  }

  async function walk(): Promise<number> {
    const size = await archive.size();
    const due: Due = {
      acceptedBeforeUs: settings.maxAgeMs === undefined ? 0 : (clock.now() - settings.maxAgeMs) * 1000,
      beforeLeaf: settings.maxRecords === undefined ? 0 : await store.startOfNewest(settings.maxRecords),
    };
    let count = 0;
    let waiting = 0;
    for (let first = 0; first < size && !closed; first += WINDOW) {
      if (emptied.has(first)) continue;
      const window = { first, end: Math.min(first + WINDOW, size) };
      const found = await store.survey(window, due);
      // The log is nearly in the order of time: what comes after this is too young, or will have its turn later.
      if (found.kept > 0 && found.due === 0 && window.end > due.beforeLeaf) break;
      const gone = found.due === 0 ? 0 : await dropWindow(window, due);
      if (found.kept === gone && window.end === first + WINDOW) emptied.add(first);
      count += gone;
      waiting += found.due - gone;
      await nextTurn();
    }
    heldBack = waiting;
    return count;
  }

  /** Writes into the log what was dropped; exactly that, whichever instance dropped it, and also when a run was cut off. */
  async function tell(): Promise<void> {
    const told = await archive.transaction(async (tx, appender) => {
      const untold = await store.takeUntold(tx);
      if (untold === undefined) return undefined;
      const sequence = await appender.nextSequence(RETENTION_PRODUCER);
      const nowUs = Math.floor(clock.now()) * 1000;
      await appender.append([seal({ producer: RETENTION_PRODUCER, sequence }, nowUs, entryOf(untold))]);
      return untold;
    });
    mayOwe = false;
    if (told !== undefined) log.info({ ...attributesOf(told), heldBack }, "retention dropped audit records");
  }

  async function once(): Promise<number> {
    if (!isOn || closed) return 0;
    try {
      const count = await walk();
      if (mayOwe) await tell();
      dropped += count;
      lastError = undefined;
      return count;
    } catch (error) {
      lastError = error instanceof Error ? error.message : String(error);
      throw error;
    } finally {
      lastRun = clock.now();
    }
  }

  function run(): Promise<number> {
    const next = running.then(once, once);
    running = next;
    return next;
  }

  function runByItself(): void {
    run().catch((err: unknown) => log.warn({ err }, "retention could not drop audit records; it tries again"));
  }

  const timer = isOn ? setInterval(runByItself, everyMs).unref() : undefined;
  if (isOn) runByItself();

  return {
    run,
    condition: () => ({ dropped, heldBack, lastRun, lastError }),
    async close() {
      closed = true;
      clearInterval(timer);
      await running.catch(() => undefined);
    },
  };
}

/** How many records a record of retention says it dropped; 0 when it cannot be read. */
export function droppedBy(leaf: Uint8Array): number {
  let entry: AuditEntry;
  try {
    entry = open(leaf).entry;
  } catch {
    return 0;
  }
  const count = entry.action === DROP_ACTION ? entry.attributes?.count : undefined;
  return typeof count === "number" ? count : 0;
}

function entryOf(dropped: DroppedRecords) {
  return create(AuditEntrySchema, {
    actor: "holdfast",
    action: DROP_ACTION,
    outcome: AuditOutcome.SUCCESS,
    attributes: attributesOf(dropped),
  });
}

function attributesOf({ count, byAge, oldestAcceptUs, newestAcceptUs }: DroppedRecords) {
  const reason = byAge === count ? "age" : byAge === 0 ? "count" : "age and count";
  return { count, reason, oldest_accept_time: timeOf(oldestAcceptUs), newest_accept_time: timeOf(newestAcceptUs) };
}

function timeOf(us: number): string {
  return new Date(Math.floor(us / 1000)).toISOString();
}

/** SQLite answers at once, and others want to be served between two batches. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

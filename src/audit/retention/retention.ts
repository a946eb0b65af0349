import type { Clock } from "../../infra/clock.ts";
import type { SqlSession } from "../../infra/database.ts";
import type { Log } from "../../infra/log.ts";
import type { Archive } from "../archive/archive.ts";
import { seal } from "../record/leaf.ts";
import { announcementOf, type DroppedRecords, RETENTION_PRODUCER } from "./announcement.ts";
import type { LeafRange } from "./leaf-ranges.ts";

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

export interface DroppedBatch {
  /** Undefined: nothing. */
  readonly dropped: DroppedRecords | undefined;
  /** Where to go on; undefined: all of them were looked at. */
  readonly next: number | undefined;
}

/** What is in some leaves. */
export interface Survey {
  /** How many still have a record that may ever be dropped. */
  readonly kept: number;
  /** How many of those are due. */
  readonly due: number;
  /** How many of those are due by their age. */
  readonly byAge: number;
}

export interface RetentionStore {
  /** The leaf at which this many newest records begin, without those of retention: else each run would make work for the next. */
  startOfNewest(records: number): Promise<number>;
  survey(leaves: LeafRange, due: Due): Promise<Survey>;
  /**
   * Drops up to a thousand of the records that are due among these leaves: none that waits for a review, that a group has not
   * acked, or that is the review of a record which is kept.
   */
  drop(tx: SqlSession, leaves: LeafRange, due: Due): Promise<DroppedBatch>;
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
  /** How long after it has said what it is about to drop. */
  readonly graceMs?: number;
}

const DAY_MS = 86_400_000;
const EVERY_MS = 10 * 60_000;
const GRACE_MS = 30_000;
/** So many leaves are looked at together. */
const WINDOW = 4096;

/**
 * Drops records that are too old or too many, in the order of the log, up to a thousand at a time, so that nobody waits long for
 * the head of the log, which it holds meanwhile. What is dropped is announced in the log in the same transaction: no record is
 * ever gone without one that says so. Several instances may do so at once: each record is dropped, and told of, once. Before the
 * first run it says what it is about to do, and waits: a limit set by mistake is to cost nothing. With no limit set, nothing ever
 * happens.
 */
export function startRetention(options: RetentionOptions): Retention {
  const { archive, store, settings, clock, log, everyMs = EVERY_MS, graceMs = GRACE_MS } = options;
  const isOn = settings.maxAgeMs !== undefined || settings.maxRecords !== undefined;
  /** Windows in which nothing is left. */
  const emptied = new Set<number>();
  let dropped = 0;
  let heldBack = 0;
  let lastRun: number | undefined;
  let lastError: string | undefined;
  let closed = false;
  let running: Promise<unknown> = Promise.resolve();
  let timer: NodeJS.Timeout | undefined;

  async function dueNow(): Promise<Due> {
    return {
      acceptedBeforeUs: settings.maxAgeMs === undefined ? 0 : (clock.now() - settings.maxAgeMs) * 1000,
      beforeLeaf: settings.maxRecords === undefined ? 0 : await store.startOfNewest(settings.maxRecords),
    };
  }

  /** Where something is due, in order. */
  async function* windowsWithDue(due: Due) {
    const size = await archive.size();
    for (let first = 0; first < size && !closed; first += WINDOW) {
      if (emptied.has(first)) continue;
      const window: LeafRange = { first, end: Math.min(first + WINDOW, size) };
      const found = await store.survey(window, due);
      // The log is nearly in the order of time: what comes after this is too young, or will have its turn later.
      if (found.kept > 0 && found.due === 0 && window.end > due.beforeLeaf) return;
      if (found.due > 0) yield { window, found };
      else if (found.kept === 0 && window.end === first + WINDOW) emptied.add(first);
      await nextTurn();
    }
  }

  async function dropBatch(leaves: LeafRange, due: Due): Promise<DroppedBatch> {
    return await archive.transaction(async (tx, appender) => {
      const batch = await store.drop(tx, leaves, due);
      if (batch.dropped !== undefined) {
        const sequence = await appender.nextSequence(RETENTION_PRODUCER);
        const nowUs = Math.floor(clock.now()) * 1000;
        await appender.append([seal({ producer: RETENTION_PRODUCER, sequence }, nowUs, announcementOf(batch.dropped))]);
      }
      return batch;
    });
  }

  async function dropWindow(window: LeafRange, due: Due): Promise<number> {
    let count = 0;
    let next: number | undefined = window.first;
    while (next !== undefined && !closed) {
      const batch: DroppedBatch = await dropBatch({ first: next, end: window.end }, due);
      const gone = batch.dropped?.leaves.length ?? 0;
      count += gone;
      dropped += gone;
      next = batch.next;
      await nextTurn();
    }
    if (count > 0) await store.tidy(window);
    return count;
  }

  async function walk(): Promise<number> {
    let count = 0;
    let waiting = 0;
    const due = await dueNow();
    for await (const { window, found } of windowsWithDue(due)) {
      const gone = await dropWindow(window, due);
      if (found.kept === gone && window.end - window.first === WINDOW) emptied.add(window.first);
      count += gone;
      waiting += found.due - gone;
    }
    heldBack = waiting;
    return count;
  }

  async function once(): Promise<number> {
    if (!isOn || closed) return 0;
    try {
      const count = await walk();
      if (count > 0) log.info({ count, heldBack }, "retention dropped audit records");
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

  async function foretell(): Promise<void> {
    let [records, byAge] = [0, 0];
    for await (const { found } of windowsWithDue(await dueNow())) {
      records += found.due;
      byAge += found.byAge;
    }
    if (records === 0 || closed) return;
    const reasons = [
      ...(byAge > 0 ? [`${byAge} older than AUDIT_RETENTION_AGE (${(settings.maxAgeMs ?? 0) / DAY_MS}d)`] : []),
      ...(records > byAge ? [`${records - byAge} beyond AUDIT_RETENTION_COUNT (${settings.maxRecords})`] : []),
    ];
    log.warn(
      { records, byAge, graceMs },
      `in ${graceMs / 1000} s retention drops up to ${records} audit records, for good: ${reasons.join(", ")}; stop the server before that to keep them`,
    );
  }

  async function begin(): Promise<void> {
    let next = begin;
    try {
      await foretell();
      next = async () => {
        timer = setInterval(runByItself, everyMs).unref();
        runByItself();
      };
    } catch (err) {
      log.warn({ err }, "retention could not look for audit records that are due; it tries again before it drops any");
    }
    if (!closed)
      timer = setTimeout(() => {
        running = running.then(next, next);
      }, graceMs).unref();
  }

  if (isOn) running = begin();

  return {
    run,
    condition: () => ({ dropped, heldBack, lastRun, lastError }),
    async close() {
      closed = true;
      clearTimeout(timer);
      await running.catch(() => undefined);
    },
  };
}

/** SQLite answers at once, and others want to be served between two batches. */
function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

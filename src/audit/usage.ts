import type { Clock } from "../infra/clock.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import type { IntakeCounts } from "./intake/intake.ts";
import type { JournalCondition } from "./journal/journal.ts";
import type { QueueCondition } from "./queue/queue.ts";

/** What is counted elsewhere and shown here. */
export interface UsageSources {
  readonly intake: () => IntakeCounts;
  readonly journal: () => JournalCondition;
  readonly recovery: () => { readonly localOnly: number; readonly replayed: number };
  readonly archiver:
    | (() => { readonly leading: boolean; readonly archived: number; readonly foreign: number })
    | undefined;
  readonly retention: () => { readonly dropped: number };
  /** Asked every few seconds; rejects while Redis is away. */
  readonly queue: (() => Promise<QueueCondition>) | undefined;
  /** Asked every few seconds; rejects while SQL is away. */
  readonly archiveSize: () => Promise<number>;
  readonly groups: () => Promise<readonly GroupSize[]>;
}

export interface GroupSize {
  readonly name: string;
  readonly lag: number;
  readonly pending: number;
  readonly deadLetters: number;
}

export interface Usage {
  /** What the queue said when it was last asked. */
  queue(): QueueCondition;
  close(): void;
}

const SAMPLE_MS = 5_000;
const EMPTY: QueueCondition = { unarchived: 0, bytes: 0, oldestAcceptUs: undefined, foreign: 0, quarantined: 0 };

/** How the audit log is used: for the metrics page and for health. */
export function createUsage(options: {
  readonly sources: UsageSources;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}): Usage {
  const { sources, metrics, clock, log } = options;
  let queue = EMPTY;
  let size = 0;
  let groups: readonly GroupSize[] = [];

  const counter = (name: string, help: string) => metrics.counter(`holdfast_audit_${name}`, help).with({});
  const gauge = (name: string, help: string) => metrics.gauge(`holdfast_audit_${name}`, help).with({});
  const kept = metrics.counter("holdfast_audit_records_total", "Records appended, by the durability they reached", [
    "durability",
  ]);
  const [queued, archived, journaled] = ["queued", "archived", "journaled"].map((durability) =>
    kept.with({ durability }),
  );
  const duplicates = counter("duplicates_total", "Records that were held already");
  const refused = counter("refused_total", "Records refused because their identity is held with other content");
  const pastRedis = counter(
    "sync_fallbacks_total",
    "Records written straight to SQL because Redis or the journal did not take them",
  );
  const replayed = counter("replayed_total", "Journaled records that were sent again");
  const moved = counter("moved_total", "Records that this instance brought from Redis into the archive");
  const dropped = counter("retention_dropped_total", "Records that retention dropped");
  const archiveSize = gauge("archive_records", "Records in the archive, dropped ones included");
  const streamLength = gauge("stream_records", "Records in Redis that are not archived yet");
  const streamBytes = gauge("stream_bytes", "What the stream takes in Redis, as Redis estimates it");
  const foreign = gauge("foreign_entries", "Entries of the stream that are not Holdfast's, left in place");
  const unreadable = gauge("stream_quarantined", "Entries of the stream that could not be read and were put aside");
  const lag = gauge("lag_seconds", "How long the oldest record in Redis has waited for the archive");
  const leading = gauge("archiving", "1 on the instance that brings records from Redis into the archive");
  const journalBytes = gauge("journal_bytes", "Size of this instance's journal");
  const journalRecords = gauge("journal_records", "Records in this instance's journal");
  const journalOnly = gauge("journal_only_records", "Records that are in this instance's journal alone");
  const quarantined = gauge("quarantined_records", "Damaged records of this instance's journal that were set aside");
  const groupLag = metrics.gauge("holdfast_audit_group_lag", "Records a group has not been given", ["group"]);
  const groupPending = metrics.gauge("holdfast_audit_group_pending", "Deliveries of a group not settled", ["group"]);
  const groupDead = metrics.gauge("holdfast_audit_group_dead_letters", "Dead letters of a group", ["group"]);

  const counted = new Map<object, number>();
  /** Metric counters only go up; the sums they follow do, too. */
  function follow(metric: { inc(by?: number): void } | undefined, total: number): void {
    if (metric === undefined) return;
    const before = counted.get(metric) ?? 0;
    if (total > before) metric.inc(total - before);
    counted.set(metric, Math.max(total, before));
  }

  metrics.beforeScrape(() => {
    const counts = sources.intake();
    follow(queued, counts.queued);
    follow(archived, counts.archived);
    follow(journaled, counts.journaled);
    follow(duplicates, counts.duplicates);
    follow(refused, counts.refused);
    follow(pastRedis, counts.pastRedis);
    follow(replayed, sources.recovery().replayed);
    follow(dropped, sources.retention().dropped);
    const archiver = sources.archiver?.();
    follow(moved, archiver?.archived ?? 0);
    leading.set(archiver?.leading ? 1 : 0);
    archiveSize.set(size);
    streamLength.set(queue.unarchived);
    streamBytes.set(queue.bytes);
    foreign.set(queue.foreign);
    unreadable.set(queue.quarantined);
    lag.set(queue.oldestAcceptUs === undefined ? 0 : Math.max(0, clock.now() - queue.oldestAcceptUs / 1000) / 1000);
    const journal = sources.journal();
    journalBytes.set(journal.bytes);
    journalRecords.set(journal.records);
    quarantined.set(journal.quarantined);
    journalOnly.set(sources.recovery().localOnly);
    for (const { name: group, ...condition } of groups) {
      groupLag.with({ group }).set(condition.lag);
      groupPending.with({ group }).set(condition.pending);
      groupDead.with({ group }).set(condition.deadLetters);
    }
  });

  let asking = false;
  async function sample(): Promise<void> {
    if (asking) return;
    asking = true;
    try {
      await Promise.all([
        sources.queue?.().then((condition) => {
          queue = condition;
        }, away),
        sources.archiveSize().then((found) => {
          size = found;
        }, away),
        sources.groups().then((found) => {
          groups = found;
        }, away),
      ]);
    } finally {
      asking = false;
    }
  }

  /** Health says what is away; the last numbers stand meanwhile. */
  function away(error: unknown): void {
    log.debug({ err: error }, "the audit log could not be measured");
  }

  void sample();
  const timer = setInterval(() => void sample(), SAMPLE_MS).unref();
  return { queue: () => queue, close: () => clearInterval(timer) };
}

import { setTimeout as delay, setImmediate } from "node:timers/promises";
import { createBackoff } from "../../infra/backoff.ts";
import type { Clock } from "../../infra/clock.ts";
import type { Log } from "../../infra/log.ts";
import type { Archive, Prepared, PreparedRecord } from "../archive/archive.ts";
import type { Sealed } from "../record/record.ts";
import type { Backlog, Lease, Waiting } from "./backlog.ts";
import type { GiveWay } from "./give-way.ts";

export interface ArchiverOptions {
  readonly backlog: Backlog;
  readonly lease: Lease;
  readonly archive: Pick<Archive, "prepare" | "appendPrepared">;
  /** Where the archive would be in the way of what comes in. */
  readonly giveWay?: GiveWay | undefined;
  readonly clock: Clock;
  readonly log: Log;
}

/** What this instance has done since its start. */
export interface ArchiverCondition {
  /** Whether it is the one that archives. */
  readonly leading: boolean;
  /** Records that it brought from the queue into the archive. */
  readonly archived: number;
  /** Entries that it left in the stream because they are not ours. */
  readonly foreign: number;
  /** Records that could not be read; their entries were put aside. */
  readonly quarantined: number;
  /** Why it does not get on; undefined when it does. Time in milliseconds since 1970. */
  readonly lastError: { readonly message: string; readonly time: number } | undefined;
}

export interface Archiver {
  condition(): ArchiverCondition;
  /** Finishes what is at hand, and gives the lead up at once. */
  close(): Promise<void>;
}

/** What was read at once, ready to be archived. */
interface Batch {
  readonly waiting: readonly Waiting[];
  readonly records: Prepared;
}

/** How often the leader looks for what others were given and have not finished. */
const SWEEP_MS = 1_000;
/** After so many records at once there are likely to be more: they are read while these are archived. */
const MANY = 1_000;
/** Records that are prepared in one turn of the event loop. */
const TURN = 500;

/**
 * Moves records from the queue into the archive, while it leads. It takes the lead as soon as nobody has it. Whatever it was
 * doing when it lost the lead, or was frozen, may be done by another one as well: the archive keeps one of each record.
 */
export function createArchiver({ backlog, lease, archive, giveWay, clock, log }: ArchiverOptions): Archiver {
  const closing = new AbortController();
  let leading = false;
  let archived = 0;
  let foreign = 0;
  let quarantined = 0;
  let lastError: ArchiverCondition["lastError"];
  /** Records in the queue, when it was last said. */
  let left = 0;
  const backoff = createBackoff({ firstMs: 50, capMs: 2_000 });

  async function pause(ms: number): Promise<void> {
    try {
      await delay(ms, undefined, { signal: closing.signal });
    } catch {
      // It was closed meanwhile.
    }
  }

  function failed(error: unknown, what: string): void {
    const message = error instanceof Error ? error.message : String(error);
    // Once, not at each try.
    if (lastError?.message !== message) log.warn({ err: error }, what);
    lastError = { message, time: clock.now() };
  }

  function worked(): void {
    if (lastError !== undefined) log.info({}, "the archiver gets on again");
    lastError = undefined;
    backoff.reset();
  }

  /** Until the archive has them. False: the lead was lost before. */
  async function append(records: Prepared): Promise<boolean> {
    while (leading && !closing.signal.aborted) {
      try {
        await archive.appendPrepared(records, "keep");
        return true;
      } catch (error) {
        failed(error, "audit records wait in the queue: the archive does not take them");
        await pause(backoff.next());
      }
    }
    return false;
  }

  /** What can be done with a batch before it is its turn to be brought into the archive. */
  async function prepare(waiting: readonly Waiting[]): Promise<Batch> {
    const records = recordsIn(waiting);
    const prepared: PreparedRecord[] = [];
    for (let from = 0; from < records.length; from += TURN) {
      if (from > 0) await setImmediate();
      prepared.push(...archive.prepare(records.slice(from, from + TURN)));
    }
    return { waiting, records: prepared };
  }

  /** Brings what is ours into the archive. False: the lead was lost before. */
  async function bring({ waiting, records }: Batch): Promise<boolean> {
    for (const one of waiting) {
      if (one.kind === "foreign" || one.broken === undefined) continue;
      const { count, cause } = one.broken;
      log.error(
        { entry: one.entry, records: count, err: cause },
        "audit records in the queue cannot be read; their entry is put aside",
      );
    }
    return records.length === 0 || append(records);
  }

  /** Takes out of the queue what was brought into the archive. */
  async function finish({ waiting }: Batch): Promise<void> {
    left = await backlog.finish(waiting);
    worked();
    let strange = 0;
    for (const one of waiting) {
      if (one.kind === "foreign") strange++;
      else {
        archived += one.records.length;
        quarantined += one.broken?.count ?? 0;
      }
    }
    if (foreign === 0 && strange > 0) {
      log.warn(
        {},
        "the audit stream has entries that are not Holdfast's; bring them in with: holdfast import audit-stream",
      );
    }
    foreign += strange;
  }

  async function sweep(): Promise<void> {
    await backlog.open();
    while (leading && !closing.signal.aborted) {
      const batch = await prepare(await backlog.claim());
      if (batch.waiting.length === 0) return;
      if (await bring(batch)) await finish(batch);
    }
  }

  async function lead(): Promise<void> {
    let sweptAt = Number.NEGATIVE_INFINITY;
    let ahead: Promise<Batch> | undefined;
    // Redis takes one batch out while SQL takes the next one in. Should it fail, the archive knows them when they come again.
    let finishing: Promise<void> | undefined;
    try {
      while (leading && !closing.signal.aborted) {
        const isDue = clock.monotonic() - sweptAt >= SWEEP_MS;
        // What was read ahead is pending as well, and must not be taken for something left behind.
        if (isDue && ahead === undefined) {
          await finishing;
          await sweep();
          sweptAt = clock.monotonic();
        }
        const batch = await (ahead ?? backlog.read().then(prepare));
        ahead = undefined;
        const begun = clock.monotonic();
        const bringing = batch.waiting.length > 0 ? bring(batch) : false;
        if (batch.records.length >= MANY && !isDue) {
          ahead = backlog.read().then(prepare);
          // It is waited for later; that it fails meanwhile is not a failure nobody sees.
          ahead.catch(() => {});
        }
        const isBrought = await bringing;
        await finishing;
        finishing = isBrought ? finish(batch) : undefined;
        finishing?.catch(() => {});
        if (isBrought) await giveWay?.(clock.monotonic() - begun, left, closing.signal);
        if (batch.waiting.length === 0) worked();
      }
    } finally {
      // Whoever leads next claims it; but it must have arrived by then.
      await ahead?.catch(() => {});
      await finishing?.catch(() => {});
    }
  }

  /** Keeps the lead until the returned function is called, or it is lost. */
  function keepLease(): () => void {
    let heldAt = clock.monotonic();
    let over = false;
    const renew = async () => {
      const askedAt = clock.monotonic();
      try {
        if (await lease.hold()) heldAt = askedAt;
        else if (!over) leading = false;
      } catch {
        // Redis is away. The lease stands for a while; whoever reads from Redis meets the same error and reports it.
        if (!over && clock.monotonic() - heldAt >= lease.ttlMs) leading = false;
      }
    };
    const timer = setInterval(() => void renew(), lease.ttlMs / 3).unref();
    return () => {
      over = true;
      clearInterval(timer);
    };
  }

  async function run(): Promise<void> {
    while (!closing.signal.aborted) {
      let letGo = () => {};
      try {
        if (!(await lease.hold())) {
          lastError = undefined;
          await pause(lease.ttlMs / 5);
          continue;
        }
        log.info({}, "this instance archives the audit queue");
        leading = true;
        letGo = keepLease();
        await lead();
        if (!closing.signal.aborted) log.info({}, "another instance archives the audit queue");
      } catch (error) {
        failed(error, "the audit queue cannot be archived for now");
        await pause(backoff.next());
      } finally {
        letGo();
        leading = false;
      }
    }
  }

  const running = run();
  let ended: Promise<void> | undefined;

  async function end(): Promise<void> {
    closing.abort();
    await running;
    try {
      await lease.release();
    } catch (error) {
      log.debug({ err: error }, "the lease of the archiver is left to expire");
    }
    await backlog.close();
  }

  return {
    condition: () => ({ leading, archived, foreign, quarantined, lastError }),
    close: () => {
      ended ??= end();
      return ended;
    },
  };
}

function recordsIn(waiting: readonly Waiting[]): readonly Sealed[] {
  return waiting.flatMap((one) => (one.kind === "run" ? one.records : []));
}

import { createBackoff } from "../../infra/backoff.ts";
import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import type { Archive } from "../archive/archive.ts";
import type { RecordId, Sealed } from "../record/record.ts";
import { Identities } from "./held-ranges.ts";
import type { Journal, Segment } from "./journal.ts";
import { createArchiveCheck } from "./recovery-check.ts";

export interface RecoveryCondition {
  /** Records that are in the journal alone, as far as is known. */
  readonly localOnly: number;
  /** Records that were given to another tier again, since the start. */
  readonly replayed: number;
  /** Segments that wait for all of their records to be archived. */
  readonly segments: number;
  /** When the oldest of them was begun, in milliseconds since 1970. */
  readonly oldestMs: number | undefined;
  /** Why the last attempt failed; undefined when it did not. */
  readonly lastError: { readonly message: string; readonly time: number } | undefined;
}

/**
 * Sees to it that what is in the journal gets archived, and empties the journal behind that. Whatever it does may be done again:
 * the archive keeps one of each identity.
 */
export interface Recovery {
  /** These records, just journaled, have reached no other tier. */
  markLocal(records: readonly RecordId[]): void;
  /**
   * Resolves when all records that were in the journal alone at the time of the call, or may have been, are with another tier.
   * Rejects when that was tried and failed, and when the signal is aborted.
   */
  settled(signal: AbortSignal): Promise<void>;
  /** The queue may have lost records, or cannot be asked for them: what is not archived is delivered again. */
  suspectLoss(): void;
  /** A tier answers again: do not wait to try. */
  tierBack(): void;
  condition(): RecoveryCondition;
  close(): Promise<void>;
}

export interface RecoveryOptions {
  readonly journal: Journal;
  readonly archive: Pick<Archive, "countHeld" | "find">;
  /** Gives records to another tier, whichever answers. Rejects with UnavailableError when none does. */
  readonly deliver: (records: readonly Sealed[]) => Promise<void>;
  /** How long a segment may wait to be archived before its records are delivered again. */
  readonly intervalMs: number;
  readonly clock: Clock;
  readonly log: Log;
  /** How often to look what has been archived. Default 1 s. */
  readonly tickMs?: number;
  /** A segment older than this is sealed, so that it can be released. Default 5 s. */
  readonly sealAfterMs?: number;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** While the oldest segments wait for the archiver, the later ones are not worth asking about. */
const MOST_BEHIND = 4;
/** For so long after a failure, readers are told of it without another try. */
const FRESH_FAILURE_MS = 250;

export function createRecovery(options: RecoveryOptions): Recovery {
  const { journal, archive, deliver, intervalMs, clock, log, tickMs = 1_000, sealAfterMs = 5_000 } = options;
  const check = createArchiveCheck(archive);
  const backoff = createBackoff({ firstMs: 1_000, capMs: 5_000 });
  /** When segments were first seen, and when they are due to be delivered again, on the monotonic clock. */
  const seen = new WeakMap<Segment, number>();
  const due = new WeakMap<Segment, number>();
  /** Records of these may be in no other tier. */
  const suspects = new Set<Segment>();
  // An earlier run may have ended before anything was delivered.
  let lossesSuspected = 1;
  let lossesHandled = 0;
  let lossSeen = false;
  /** Records in the journal alone of which the segment is not known yet, and those of each segment. */
  let local = new Identities();
  const localOf = new Map<Segment, Identities>();
  let waiters: Waiter[] = [];
  let replayed = 0;
  let lastError: RecoveryCondition["lastError"];
  let unreadable: Error | undefined;
  let failure: { readonly error: unknown; readonly at: number } | undefined;
  let notBefore = 0;
  let wanted = false;
  let running: Promise<void> | undefined;
  let closed = false;

  const timer = setInterval(onTick, tickMs).unref();
  kick();

  function onTick(): void {
    const idle = journal.segments().length === 0 && lossesHandled === lossesSuspected && local.size === 0;
    if (!idle && clock.monotonic() >= notBefore) kick();
  }

  function kick(): void {
    if (closed) return;
    wanted = true;
    running ??= run().finally(() => {
      running = undefined;
    });
  }

  async function run(): Promise<void> {
    while (wanted && !closed) {
      wanted = false;
      const waiting = waiters;
      waiters = [];
      try {
        await walk();
        succeeded();
        for (const { resolve } of waiting) resolve();
      } catch (error) {
        failed(error);
        for (const { reject } of waiting) reject(error);
      }
    }
  }

  function succeeded(): void {
    tryAtOnce();
    lastError = unreadable && { message: unreadable.message, time: clock.now() };
  }

  function tryAtOnce(): void {
    backoff.reset();
    notBefore = 0;
    failure = undefined;
  }

  function failed(error: unknown): void {
    if (closed) return;
    const message = error instanceof Error ? error.message : String(error);
    // Every reader may make it try, and get the same answer.
    if (message !== lastError?.message) log.warn({ err: error }, "the audit journal is not emptied yet");
    lastError = { message, time: clock.now() };
    failure = { error, at: clock.monotonic() };
    notBefore = failure.at + backoff.next();
  }

  /** Goes through the segments once, the oldest first. Rejects when not all that had to be delivered could be. */
  async function walk(): Promise<void> {
    const suspected = lossesSuspected;
    const suspectAll = lossesHandled < suspected;
    const visited = new Set<Segment>();
    if (suspectAll) for (const segment of journal.segments()) suspects.add(segment);
    assignLocal();
    let problem = await visitSealed(visited);
    // Last, so that a walk which fails every time does not leave a segment every time.
    const active = journal.segments().find(({ sealed }) => !sealed);
    if (suspectAll || (active !== undefined && (localOf.has(active) || isDue(active)))) {
      await journal.rotate();
      if (suspectAll) for (const segment of journal.segments()) if (!visited.has(segment)) suspects.add(segment);
      problem = (await visitSealed(visited)) ?? problem;
    }
    // What cannot be read cannot be waited for: it stays, is tried again, and is told of. The rest is settled.
    unreadable = problem;
    lossesHandled = suspected;
  }

  /**
   * Finds the segments of the records that are in the journal alone: each that holds such an identity, for it may have come
   * twice. What is in none was damaged, which the journal has told, or was archived and released already.
   */
  function assignLocal(): void {
    for (const segment of journal.segments()) {
      const here = local.common(segment.held);
      if (here.size === 0) continue;
      here.addAll(localOf.get(segment) ?? new Identities());
      localOf.set(segment, here);
    }
    local = new Identities();
  }

  /** Rejects when no tier answers. Resolves with what else went wrong. */
  async function visitSealed(visited: Set<Segment>): Promise<Error | undefined> {
    let behind = 0;
    let problem: Error | undefined;
    for (const segment of journal.segments()) {
      if (closed) throw closing();
      if (visited.has(segment)) continue;
      if (!segment.sealed) {
        // The next walk will find it sealed. While the archiver is behind there is no use in many small ones.
        if (behind === 0 && isOld(segment)) await journal.rotate();
        continue;
      }
      visited.add(segment);
      const mustDeliver = localOf.has(segment) || suspects.has(segment) || isDue(segment);
      if (!mustDeliver && behind >= MOST_BEHIND) continue;
      try {
        const released = mustDeliver ? await bring(segment) : await releaseIfArchived(segment);
        if (!released) behind += 1;
      } catch (error) {
        if (error instanceof UnavailableError) throw error;
        // One that cannot be read must not keep the others back.
        log.error({ err: error, segment: segment.name }, "a segment of the audit journal cannot be recovered");
        problem = error instanceof Error ? error : new Error(String(error));
      }
    }
    return problem;
  }

  async function releaseIfArchived(segment: Segment): Promise<boolean> {
    const missing = await check.missing(segment);
    if (missing.size > 0) return false;
    await journal.release(segment);
    suspects.delete(segment);
    return true;
  }

  /** Delivers what may be in no other tier. Returns whether it was all archived, and the segment released. */
  async function bring(segment: Segment): Promise<boolean> {
    // Those that are in the journal alone are delivered even if the archive holds their identity: it may have been used twice,
    // and then the archive must keep the other content, too. And they do not wait for an archive that is away.
    // The same where a loss is suspected: another record may have been archived under an identity since the queue lost it.
    const alone = localOf.get(segment);
    if (lossSeen && suspects.has(segment)) await redeliver(segment, everyOne);
    else if (alone !== undefined) await redeliver(segment, alone);
    localOf.delete(segment);
    const missing = await check.missing(segment);
    if (missing.size > 0) await redeliver(segment, missing);
    suspects.delete(segment);
    due.set(segment, clock.monotonic() + intervalMs);
    return releaseIfArchived(segment);
  }

  async function redeliver(segment: Segment, which: Pick<Identities, "contains">): Promise<void> {
    let delivered = 0;
    for await (const records of journal.read(segment)) {
      const some = records.filter((record) => which.contains(record));
      if (some.length === 0) continue;
      await deliver(some);
      delivered += some.length;
      replayed += some.length;
      if (closed) throw closing();
    }
    // Damage that was found on the way is no longer held.
    check.forget(segment);
    log.info({ segment: segment.name, records: delivered }, "records of the audit journal were delivered again");
  }

  function isOld(segment: Segment): boolean {
    return clock.monotonic() - seenAt(segment) >= sealAfterMs;
  }

  function isDue(segment: Segment): boolean {
    return clock.monotonic() >= (due.get(segment) ?? seenAt(segment) + intervalMs);
  }

  function seenAt(segment: Segment): number {
    const at = seen.get(segment) ?? clock.monotonic();
    seen.set(segment, at);
    return at;
  }

  return {
    markLocal(records) {
      for (const { producer, sequence } of records) local.add(producer, sequence, sequence);
    },
    settled(signal) {
      if (lossesHandled === lossesSuspected && suspects.size === 0 && local.size === 0 && localOf.size === 0) {
        return Promise.resolve();
      }
      if (signal.aborted) return Promise.reject(signal.reason);
      // A reader more does not make it succeed.
      if (failure !== undefined && clock.monotonic() - failure.at < FRESH_FAILURE_MS)
        return Promise.reject(failure.error);
      return new Promise((resolve, reject) => {
        const onAbort = () => reject(signal.reason);
        signal.addEventListener("abort", onAbort, { once: true });
        const forget = () => signal.removeEventListener("abort", onAbort);
        waiters.push({
          resolve: () => {
            forget();
            resolve();
          },
          reject: (error) => {
            forget();
            reject(error);
          },
        });
        kick();
      });
    },
    suspectLoss() {
      lossSeen = true;
      lossesSuspected += 1;
      kick();
    },
    tierBack() {
      tryAtOnce();
      kick();
    },
    condition: () => {
      const segments = journal.segments();
      return {
        localOnly: localOf.values().reduce((sum, { count }) => sum + count, local.count),
        replayed,
        segments: segments.length,
        oldestMs: segments[0]?.createdMs,
        lastError,
      };
    },
    async close() {
      closed = true;
      clearInterval(timer);
      await running;
      for (const { reject } of waiters.splice(0)) reject(closing());
    },
  };
}

const everyOne = { contains: () => true };

function closing(): UnavailableError {
  return new UnavailableError("SERVER_DRAINING", "this instance is shutting down; try again, elsewhere if you can");
}

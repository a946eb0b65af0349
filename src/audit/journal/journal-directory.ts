import { randomInt } from "node:crypto";
import { readdir, unlink } from "node:fs/promises";
import type { Clock } from "../../infra/clock.ts";
import { type DataDirectoryLock, lockDataDirectory } from "../../infra/data-directory.ts";
import { Failure } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { unseal } from "../record/leaf.ts";
import type { RecordId, Sealed } from "../record/record.ts";
import { Identities } from "./held-ranges.ts";
import { type Journal, JournalUnavailableError, type Segment } from "./journal.ts";
import { bytesOf, createCommits } from "./journal-commits.ts";
import { SEGMENT_HEADER_BYTES, UnknownJournalVersionError } from "./journal-frame.ts";
import type { Damage, Frame } from "./journal-parser.ts";
import { isMissing, openQuarantine, type Quarantine } from "./journal-quarantine.ts";
import {
  createSegment,
  foundSegment,
  newSegment,
  type SegmentFile,
  scanSegment,
  segmentNumber,
  syncDirectory,
  truncateSegment,
} from "./journal-segment.ts";

const RECORDS_AT_ONCE = 500;

export interface JournalOptions {
  /** Made when it is missing; of this process alone. */
  readonly directory: string;
  /** What all segments together may take. */
  readonly maxBytes: number;
  /** A segment that has reached this is sealed. Default 16 MiB. */
  readonly segmentBytes?: number;
  readonly clock: Clock;
  readonly log: Log;
}

/**
 * Opens the journal of this instance, and looks through all that earlier runs left in it. Rejects when another process has the
 * directory, and when what is there cannot be read at all.
 */
export async function openJournal(options: JournalOptions): Promise<Journal> {
  const lock = lockJournal(options.directory);
  try {
    const { directory } = lock;
    const quarantine = await openQuarantine(directory, options);
    const { found, lastNumber } = await openSegments(directory, quarantine, options.log);
    return createJournal(lock, found, Math.max(lastNumber, quarantine.lastSegment), quarantine, options);
  } catch (error) {
    lock.release();
    if (!(error instanceof UnknownJournalVersionError)) throw unusable(options.directory, error);
    const message = `the audit journal in ${options.directory} cannot be read: ${error.message}`;
    throw new Failure("precondition", "JOURNAL_VERSION_UNKNOWN", message, { cause: error });
  }
}

function lockJournal(directory: string): DataDirectoryLock {
  try {
    return lockDataDirectory(directory);
  } catch (error) {
    if (!(error instanceof Failure) || error.reason !== "DATA_DIRECTORY_IN_USE") throw unusable(directory, error);
    const { pid } = error.metadata;
    const holder = pid === undefined ? "another process" : `process ${pid}`;
    throw new Failure(
      "precondition",
      "JOURNAL_DIRECTORY_IN_USE",
      `the audit journal in ${directory} is in use by ${holder}: give each instance an AUDIT_BACKUP_PATH of its own`,
      { metadata: error.metadata, cause: error },
    );
  }
}

function unusable(directory: string, cause: unknown): JournalUnavailableError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new JournalUnavailableError(
    "JOURNAL_UNAVAILABLE",
    `the audit journal in ${directory} cannot be used: ${why}`,
    {
      cause,
    },
  );
}

/** What earlier runs left, the oldest first. */
async function openSegments(
  directory: string,
  quarantine: Quarantine,
  log: Log,
): Promise<{ readonly found: SegmentFile[]; readonly lastNumber: number }> {
  const numbers = (await readdir(directory)).flatMap((name) => segmentNumber(name) ?? []).sort((a, b) => a - b);
  const found: SegmentFile[] = [];
  for (const number of numbers) {
    const segment = await openSegment(directory, number, quarantine, log);
    if (segment !== undefined) found.push(segment);
  }
  return { found, lastNumber: numbers.at(-1) ?? 0 };
}

/** Undefined when there is nothing in it. */
async function openSegment(
  directory: string,
  number: number,
  quarantine: Quarantine,
  log: Log,
): Promise<SegmentFile | undefined> {
  const segment = await foundSegment(directory, number);
  let torn = Math.min(segment.bytes, SEGMENT_HEADER_BYTES) % SEGMENT_HEADER_BYTES;
  for await (const scanned of scanSegment(segment, segment.bytes)) {
    for (const { producer, sequence } of scanned.frames) segment.held.add(producer, sequence, sequence);
    segment.records += scanned.frames.length;
    for (const damage of scanned.damages) await setAside(segment, damage, quarantine, log);
    torn += scanned.torn;
  }
  const { name, path, records, damages } = segment;
  if (torn > 0) {
    log.info(
      { segment: name, bytes: torn },
      "the end of a segment of the audit journal was never written: it is cut off",
    );
    segment.bytes -= torn;
    await truncateSegment(path, segment.bytes);
  }
  if (records > 0 || damages.size > 0) return segment;
  await unlink(path);
  return undefined;
}

/** A disk that does not take it now must not keep the other records back; the segment stays until it does. */
async function setAside(segment: SegmentFile, damage: Damage, quarantine: Quarantine, log: Log): Promise<void> {
  segment.damages.set(damage.offset, damage);
  try {
    await quarantine.add(segment, damage);
  } catch (error) {
    const { offset, records } = damage;
    log.error(
      { err: error, segment: segment.name, offset, records },
      "damage of the audit journal cannot be set aside",
    );
  }
}

function createJournal(
  lock: DataDirectoryLock,
  segments: SegmentFile[],
  lastNumber: number,
  quarantine: Quarantine,
  { maxBytes, segmentBytes = 16 * 1024 * 1024, clock, log }: JournalOptions,
): Journal {
  const { directory } = lock;
  let number = lastNumber;
  let closed = false;
  const commits = createCommits({
    segmentBytes,
    begin: () => newSegment(directory, ++number, { tag: randomInt(1, 2 ** 32), createdMs: clock.now() }),
    create: (segment) => createSegment(directory, segment),
    onBegun: (segment) => segments.push(segment),
    now: () => clock.now(),
    log,
  });

  function bytesHeld(): number {
    let bytes = commits.bytesUnderWay;
    for (const segment of segments) bytes += segment.bytes;
    return bytes;
  }

  function own(segment: Segment): SegmentFile {
    const found = segments.find((one) => one === segment);
    if (found === undefined) throw new Error(`${segment.name} is no segment of this journal, or was released`);
    return found;
  }

  async function* read(segment: SegmentFile): AsyncGenerator<readonly Sealed[]> {
    const { sealed } = segment;
    const readable = new Identities();
    let count = 0;
    for await (const { frames, damages } of scanSegment(segment, segment.bytes)) {
      const unreadable: Damage[] = [...damages];
      const records = frames.flatMap((frame) => {
        const record = opened(frame);
        if (record === undefined) unreadable.push(notARecord(frame));
        return record ?? [];
      });
      for (const damage of unreadable) await setAside(segment, damage, quarantine, log);
      for (const { producer, sequence } of records) readable.add(producer, sequence, sequence);
      count += records.length;
      for (let at = 0; at < records.length; at += RECORDS_AT_ONCE) yield records.slice(at, at + RECORDS_AT_ONCE);
    }
    if (!sealed || count === segment.records) return;
    // What was there when it was written, and is no more: now it is known whose the damaged records were.
    const lost = new Identities();
    lost.addAll(segment.held);
    lost.removeAll(readable);
    await quarantine.name(segment, lost);
    segment.held.removeAll(lost);
    segment.records = count;
  }

  async function find(id: RecordId): Promise<Uint8Array | undefined> {
    for (const segment of segments.toReversed()) {
      if (!segment.held.contains(id)) continue;
      const leaf = await findIn(segment, id);
      if (leaf !== undefined) return leaf;
    }
    return undefined;
  }

  async function findIn(segment: SegmentFile, { producer, sequence }: RecordId): Promise<Uint8Array | undefined> {
    try {
      for await (const { frames } of scanSegment(segment, segment.bytes)) {
        const found = frames.find((frame) => frame.sequence === sequence && frame.producer === producer);
        if (found !== undefined) return Uint8Array.from(found.leaf);
      }
    } catch (error) {
      // Released meanwhile: it is archived.
      if (!isMissing(error)) throw unusable(directory, error);
    }
    return undefined;
  }

  return {
    append(records) {
      if (records.length === 0) return Promise.resolve();
      if (closed) {
        return Promise.reject(new JournalUnavailableError("JOURNAL_UNAVAILABLE", "the audit journal is closed"));
      }
      const bytes = bytesOf(records);
      if (bytesHeld() + bytes > maxBytes) {
        const message = `the audit journal has reached its ${maxBytes} bytes and waits for records to be archived`;
        return Promise.reject(new JournalUnavailableError("JOURNAL_FULL", message));
      }
      return commits.append(records, bytes);
    },
    segments: () => [...segments],
    rotate: () => commits.rotate(),
    read: (segment) => read(own(segment)),
    async release(segment) {
      const file = own(segment);
      if (!file.sealed) throw new Error(`${segment.name} is still written to`);
      for (const damage of file.damages.values()) await quarantine.add(file, damage);
      await unlink(file.path);
      segments.splice(segments.indexOf(file), 1);
      await syncDirectory(directory);
    },
    find,
    isQuarantined: (id) => quarantine.has(id),
    quarantined: (producer) => quarantine.of(producer),
    condition: () => ({
      segments: segments.length,
      records: segments.reduce((sum, { records }) => sum + records, 0),
      bytes: bytesHeld(),
      quarantined: quarantine.records,
      lastError: commits.lastError,
    }),
    async close() {
      if (closed) return;
      closed = true;
      await commits.rotate();
      lock.release();
    },
  };
}

/** Undefined when the bytes are not the record that their frame says. */
function opened({ producer, sequence, leaf }: Frame): Sealed | undefined {
  try {
    const record = unseal(leaf);
    return record.producer === producer && record.sequence === sequence ? record : undefined;
  } catch {
    return undefined;
  }
}

function notARecord({ producer, sequence, offset, bytes }: Frame): Damage {
  return { offset, bytes, records: 1, id: { producer, sequence }, reason: "the bytes are not an audit record" };
}

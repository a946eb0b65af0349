import type { Log } from "../../infra/log.ts";
import type { Sealed } from "../record/record.ts";
import { JournalUnavailableError } from "./journal.ts";
import { frameBytes, MAX_LEAF_BYTES, MAX_PRODUCER_LENGTH, SEGMENT_HEADER_BYTES, writeFrame } from "./journal-frame.ts";
import type { SegmentFile, SegmentWriter } from "./journal-segment.ts";

const SMALLEST_BUFFER = 256 * 1024;
/** A buffer that had to grow beyond this is let go afterwards. */
const LARGEST_KEPT_BUFFER = 4 * 1024 * 1024;

/**
 * Group commit: what arrives while a write is under way is gathered, encoded already, and goes to the disk as one write and one
 * fdatasync, for which all of its callers wait together.
 */
export interface Commits {
  /** Resolves when the records are on the disk. `bytes`: what they take, as `bytesOf` says. */
  append(records: readonly Sealed[], bytes: number): Promise<void>;
  /** Seals the segment that is written to. Resolves when all that was appended before is on the disk or refused. */
  rotate(): Promise<void>;
  /** Of frames that are not on the disk yet. */
  readonly bytesUnderWay: number;
  readonly lastError: { readonly message: string; readonly time: number } | undefined;
}

export interface CommitsOptions {
  readonly segmentBytes: number;
  /** A segment of which there is no file yet. */
  readonly begin: () => SegmentFile;
  readonly create: (segment: SegmentFile) => Promise<SegmentWriter>;
  /** Called when the first records of a segment are on the disk. */
  readonly onBegun: (segment: SegmentFile) => void;
  readonly now: () => number;
  readonly log: Log;
}

/** Frames that go to the disk together. */
interface Batch {
  readonly segment: SegmentFile;
  readonly done: PromiseWithResolvers<void>;
  bytes: Buffer;
  length: number;
  records: number;
  /** Runs of sequences that follow each other: of run i, producers[i], and edges[2 * i] to edges[2 * i + 1]. */
  readonly producers: string[];
  readonly edges: number[];
}

export function createCommits(options: CommitsOptions): Commits {
  const { segmentBytes, begin, create, onBegun, now, log } = options;
  /** Where the next record goes. */
  let target: SegmentFile | undefined;
  let writer: { readonly segment: SegmentFile; readonly to: SegmentWriter } | undefined;
  let gathering: Batch | undefined;
  let spare: Buffer | undefined;
  let underWay = 0;
  let running = false;
  let rotations: (() => void)[] = [];
  let lastError: Commits["lastError"];

  function gather(records: readonly Sealed[], bytes: number): Batch {
    target ??= begin();
    if (gathering === undefined) {
      gathering = newBatch(target, spare);
      spare = undefined;
    }
    makeRoom(gathering, bytes);
    for (const record of records) encode(gathering, record);
    return gathering;
  }

  function start(): void {
    if (running) return;
    running = true;
    void commitAll();
  }

  async function commitAll(): Promise<void> {
    // Callers of the same turn share the first write, too.
    await Promise.resolve();
    while (target !== undefined && (gathering !== undefined || rotations.length > 0)) {
      const [segment, batch, rotated] = [target, gathering, rotations];
      gathering = undefined;
      rotations = [];
      const seal = rotated.length > 0 || segment.bytes + (batch?.length ?? 0) >= segmentBytes;
      // What comes from here on goes into the next one.
      if (seal) target = undefined;
      if (batch !== undefined) await commit(batch);
      if (seal) await finish(segment);
      for (const resolve of rotated) resolve();
    }
    for (const resolve of rotations.splice(0)) resolve();
    running = false;
  }

  async function commit(batch: Batch): Promise<void> {
    const { segment, length } = batch;
    underWay = length;
    try {
      if (writer?.segment !== segment) writer = { segment, to: await create(segment) };
      await writer.to.append(batch.bytes.subarray(0, length));
    } catch (error) {
      await fail(batch, error);
      return;
    } finally {
      underWay = 0;
      if (batch.bytes.length <= LARGEST_KEPT_BUFFER) spare = batch.bytes;
    }
    lastError = undefined;
    const begun = segment.records === 0;
    segment.bytes += begun ? SEGMENT_HEADER_BYTES + length : length;
    segment.records += batch.records;
    for (const [run, producer] of batch.producers.entries()) {
      segment.held.add(producer, batch.edges[run * 2] ?? 0, batch.edges[run * 2 + 1] ?? 0);
    }
    if (begun) onBegun(segment);
    batch.done.resolve();
  }

  /** Closes the segment for good: after a failed fsync nobody knows what became of the pages. */
  async function fail(batch: Batch, cause: unknown): Promise<void> {
    const { segment } = batch;
    const message = cause instanceof Error ? cause.message : String(cause);
    lastError = { message, time: now() };
    log.error({ err: cause, segment: segment.name }, "the audit journal cannot be written");
    const failed = [batch];
    // Numbered to follow on what is not there.
    if (gathering?.segment === segment) {
      failed.push(gathering);
      gathering = undefined;
    }
    if (target === segment) target = undefined;
    await close(segment, (to) => to.abandon());
    const error = new JournalUnavailableError("JOURNAL_UNAVAILABLE", "the audit journal cannot be written", { cause });
    for (const { done } of failed) done.reject(error);
  }

  async function finish(segment: SegmentFile): Promise<void> {
    if (writer?.segment === segment) await close(segment, (to) => to.finish());
  }

  /** Nothing that is acknowledged depends on how it goes. */
  async function close(segment: SegmentFile, how: (to: SegmentWriter) => Promise<void>): Promise<void> {
    const to = writer?.segment === segment ? writer.to : undefined;
    writer = undefined;
    segment.sealed = true;
    try {
      if (to !== undefined) await how(to);
    } catch (error) {
      log.warn({ err: error, segment: segment.name }, "a segment of the audit journal could not be closed well");
    }
  }

  return {
    append(records, bytes) {
      const { done } = gather(records, bytes);
      start();
      return done.promise;
    },
    rotate() {
      return new Promise((resolve) => {
        rotations.push(resolve);
        start();
      });
    },
    get bytesUnderWay() {
      return underWay + (gathering?.length ?? 0);
    },
    get lastError() {
      return lastError;
    },
  };
}

export function bytesOf(records: readonly Sealed[]): number {
  let bytes = 0;
  for (const { producer, leaf } of records) {
    if (leaf.length > MAX_LEAF_BYTES || producer.length > MAX_PRODUCER_LENGTH || producer === "") {
      throw new Error(`a record of ${leaf.length} bytes by "${producer}" cannot be journaled`);
    }
    bytes += frameBytes(producer, leaf);
  }
  return bytes;
}

function newBatch(segment: SegmentFile, buffer: Buffer | undefined): Batch {
  const done = Promise.withResolvers<void>();
  const bytes = buffer ?? Buffer.allocUnsafeSlow(SMALLEST_BUFFER);
  return { segment, done, bytes, length: 0, records: 0, producers: [], edges: [] };
}

function makeRoom(batch: Batch, bytes: number): void {
  const needed = batch.length + bytes;
  if (needed <= batch.bytes.length) return;
  const larger = Buffer.allocUnsafeSlow(Math.max(needed, batch.bytes.length * 2));
  batch.bytes.copy(larger, 0, 0, batch.length);
  batch.bytes = larger;
}

function encode(batch: Batch, { producer, sequence, leaf }: Sealed): void {
  const { segment, producers, edges } = batch;
  batch.length = writeFrame(batch.bytes, batch.length, segment.tag, segment.numbered++, producer, sequence, leaf);
  batch.records += 1;
  const end = edges.length - 1;
  if (edges[end] === sequence - 1 && producers[producers.length - 1] === producer) {
    edges[end] = sequence;
  } else {
    producers.push(producer);
    edges.push(sequence, sequence);
  }
}

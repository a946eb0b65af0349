import { toBinary } from "@bufbuild/protobuf";
import { AuditEntrySchema } from "../src/gen/holdfast/v1/audit_pb.js";
import {
  appendBytes,
  entryAt,
  lengthDelimited,
  patchSeconds,
  patchSequence,
  patchTrace,
  SECONDS_AT,
  SEQUENCE_AT,
  traceText,
  varint,
} from "./audit-records.ts";
import { FRAME, FRAME_BYTES, HEAD, MESSAGE_HEAD, writeHead } from "./h2-frames.ts";

export const BATCH_RECORDS = 100;
const STREAM = 1;
/** Of AuditServiceIngestRequest: field 2, a batch. Of AuditIngestBatch: field 1, its number. */
const BATCH_TAG = (2 << 3) | 2;
const NUMBER_TAG = 1 << 3;
/** Room for what comes before the first record: frame and message head, the batch's tag, length and number. */
const FRONT = HEAD + MESSAGE_HEAD + 1 + 5 + 1 + 10;

interface Places {
  readonly sequence: number;
  readonly seconds: number;
  readonly trace: number;
}

/** A batch as the DATA frames of stream 1, encoded once and sent again and again with other sequences. */
export interface BatchBuffer {
  /** Encoded records, which is what the producer's window counts. */
  readonly recordBytes: number;
  /** Makes it the batch of this number, whose first record has this sequence. */
  renew(batch: number, firstSequence: number): void;
  /** Its frames, each of which the peer's window must have room for. */
  frames(): readonly Buffer[];
}

/**
 * A load that made each message anew would cost as much as the server it shares the cores with. So a frame ends where a record
 * does, and renewing a batch is some twenty bytes a record in place.
 */
export function createBatchBuffer(first: number): BatchBuffer {
  const records = Array.from({ length: BATCH_RECORDS }, (_, at) => encodeRecord(first + at));
  const groups: (typeof records)[] = [[]];
  let filled = FRONT - HEAD;
  for (const record of records) {
    if (filled + record.bytes.length > FRAME_BYTES) {
      groups.push([]);
      filled = 0;
    }
    groups.at(-1)?.push(record);
    filled += record.bytes.length;
  }
  const recordBytes = records.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const bytes = Buffer.alloc(FRONT + recordBytes + (groups.length - 1) * HEAD);
  const places: Places[] = [];
  const frames: Buffer[] = [];
  let at = FRONT;
  for (const [number, group] of groups.entries()) {
    const begin = at;
    if (number > 0) at += HEAD;
    for (const record of group) {
      bytes.set(record.bytes, at);
      places.push({
        sequence: at + record.sequence,
        seconds: at + record.seconds,
        trace: at + record.trace,
      });
      at += record.bytes.length;
    }
    if (number === 0) continue;
    writeHead(bytes, begin, { length: at - begin - HEAD, type: FRAME.data, flags: 0, stream: STREAM });
    frames.push(bytes.subarray(begin, at));
  }
  const firstEnd = FRONT + (groups[0] ?? []).reduce((sum, record) => sum + record.bytes.length, 0);
  let firstFrame = bytes.subarray(FRONT, firstEnd);

  return {
    recordBytes,
    renew(batch, firstSequence) {
      const numbered = Buffer.concat([Buffer.from([NUMBER_TAG]), varint(batch)]);
      const opened = Buffer.concat([Buffer.from([BATCH_TAG]), varint(numbered.length + recordBytes), numbered]);
      const begin = FRONT - opened.length - MESSAGE_HEAD - HEAD;
      writeHead(bytes, begin, { length: firstEnd - begin - HEAD, type: FRAME.data, flags: 0, stream: STREAM });
      bytes.writeUInt8(0, begin + HEAD);
      bytes.writeUInt32BE(opened.length + recordBytes, begin + HEAD + 1);
      bytes.set(opened, FRONT - opened.length);
      firstFrame = bytes.subarray(begin, firstEnd);
      let sequence = firstSequence;
      for (const place of places) {
        patchSequence(bytes, place.sequence, sequence);
        patchSeconds(bytes, place.seconds);
        patchTrace(bytes, place.trace, sequence);
        sequence++;
      }
    },
    frames: () => [firstFrame, ...frames],
  };
}

/** A record as a field of AuditIngestBatch, and where in it is what is patched. */
function encodeRecord(number: number): Places & { readonly bytes: Buffer } {
  const entry = Buffer.from(toBinary(AuditEntrySchema, entryAt(number)));
  const append = appendBytes(entry);
  const bytes = lengthDelimited(2, append);
  const appendAt = bytes.length - append.length;
  const entryStart = bytes.length - entry.length;
  return {
    bytes,
    sequence: appendAt + SEQUENCE_AT,
    seconds: entryStart + SECONDS_AT,
    trace: entryStart + entry.indexOf(traceText(number)),
  };
}

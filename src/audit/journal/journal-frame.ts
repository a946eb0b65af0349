import { crc32 } from "node:zlib";

/**
 * The bytes of the journal. A segment is its header, twice, then frames:
 *
 *     tag u32 · number u32 · sequence u64 · leaf length u32 · producer length u8 · its complement u8
 *     producer · checksum of all this u32
 *     leaf · checksum of the leaf u32
 *
 * all little-endian; checksums are CRC-32. The tag is a random number that the segment chose, and begins every frame of it:
 * nothing that a caller writes into a record can pass for a frame, so after damage the next frame is found by the tag alone.
 * The numbers run from 0, so it is known how many frames were lost in between. The first checksum is apart from the second, so
 * that a damaged leaf still has its name and its end. A frame without producer and leaf ends a segment that was finished.
 */
export const SEGMENT_HEADER_BYTES = 64;
/** What a frame takes beside its producer and its leaf. */
export const FRAME_OVERHEAD = 30;
/** A record of 256 KiB, and its identity. More is a defect of the caller, or damage. */
export const MAX_LEAF_BYTES = 1024 * 1024;
export const MAX_PRODUCER_LENGTH = 255;

const HEADER_COPY_BYTES = 32;
const MAGIC = 0x4c4a4648; // "HFJL"
const VERSION = 1;
const FIXED = 22;

export interface SegmentHeader {
  readonly tag: number;
  readonly createdMs: number;
}

export class UnknownJournalVersionError extends Error {
  override readonly name = "UnknownJournalVersionError";
}

export function encodeSegmentHeader({ tag, createdMs }: SegmentHeader): Buffer {
  const copy = Buffer.alloc(HEADER_COPY_BYTES);
  copy.writeUInt32LE(MAGIC, 0);
  copy.writeUInt32LE(VERSION, 4);
  copy.writeUInt32LE(tag, 8);
  copy.writeDoubleLE(createdMs, 12);
  copy.writeUInt32LE(crc32(copy.subarray(0, HEADER_COPY_BYTES - 4)), HEADER_COPY_BYTES - 4);
  return Buffer.concat([copy, copy]);
}

/**
 * Reads either copy of the header, from the start of a segment; when both are damaged, learns the tag from a frame that is not.
 * Undefined: there is none.
 */
export function decodeSegmentHeader(start: Buffer): SegmentHeader | undefined {
  for (let at = 0; at < SEGMENT_HEADER_BYTES; at += HEADER_COPY_BYTES) {
    const copy = start.subarray(at, at + HEADER_COPY_BYTES);
    if (copy.length < HEADER_COPY_BYTES || copy.readUInt32LE(0) !== MAGIC) continue;
    if (crc32(copy.subarray(0, HEADER_COPY_BYTES - 4)) !== copy.readUInt32LE(HEADER_COPY_BYTES - 4)) continue;
    const version = copy.readUInt32LE(4);
    if (version !== VERSION) throw new UnknownJournalVersionError(`it is of version ${version}; known is ${VERSION}`);
    return { tag: copy.readUInt32LE(8), createdMs: copy.readDoubleLE(12) };
  }
  for (let at = SEGMENT_HEADER_BYTES; at + FIXED <= start.length; at += 1) {
    const tag = start.readUInt32LE(at);
    if (typeof readFrameHeader(start, at, tag) === "object") return { tag, createdMs: 0 };
  }
  return undefined;
}

export function frameBytes(producer: string, leaf: Uint8Array): number {
  return FRAME_OVERHEAD + producer.length + leaf.length;
}

/** Writes a frame, and returns where it ends. The buffer must have room for it. */
export function writeFrame(
  into: Buffer,
  at: number,
  tag: number,
  number: number,
  producer: string,
  sequence: number,
  leaf: Uint8Array,
): number {
  writeU32(into, at, tag);
  writeU32(into, at + 4, number);
  writeU32(into, at + 8, sequence % 0x1_0000_0000);
  writeU32(into, at + 12, Math.floor(sequence / 0x1_0000_0000));
  writeU32(into, at + 16, leaf.length);
  into[at + 20] = producer.length;
  into[at + 21] = producer.length ^ 0xff;
  into.write(producer, at + FIXED, "latin1");
  const headerEnd = at + FIXED + producer.length;
  writeU32(into, headerEnd, shortCrc32(into, at, headerEnd));
  const leafAt = headerEnd + 4;
  into.set(leaf, leafAt);
  writeU32(into, leafAt + leaf.length, crc32(leaf));
  return leafAt + leaf.length + 4;
}

/** The frame that ends a segment of so many frames. */
export function encodeEnd(tag: number, number: number): Buffer {
  const end = Buffer.alloc(FRAME_OVERHEAD);
  writeFrame(end, 0, tag, number, "", 0, new Uint8Array());
  return end;
}

export interface FrameHeader {
  readonly number: number;
  /** Empty: the end of the segment. */
  readonly producer: string;
  readonly sequence: number;
  readonly leafAt: number;
  readonly leafLength: number;
}

/** "short": it may be one, but its end is not there. "bad": it is none. */
export function readFrameHeader(from: Buffer, at: number, tag: number): FrameHeader | "short" | "bad" {
  const left = from.length - at;
  if (left < 4) return "short";
  if (from.readUInt32LE(at) !== tag) return "bad";
  if (left < FIXED) return "short";
  const producerLength = from[at + 20] ?? 0;
  if ((producerLength ^ 0xff) !== from[at + 21]) return "bad";
  const headerEnd = at + FIXED + producerLength;
  if (from.length < headerEnd + 4) return "short";
  const leafLength = from.readUInt32LE(at + 16);
  if (leafLength > MAX_LEAF_BYTES || shortCrc32(from, at, headerEnd) !== from.readUInt32LE(headerEnd)) return "bad";
  return {
    number: from.readUInt32LE(at + 4),
    producer: from.toString("latin1", at + FIXED, headerEnd),
    sequence: from.readUInt32LE(at + 8) + from.readUInt32LE(at + 12) * 0x1_0000_0000,
    leafAt: headerEnd + 4,
    leafLength,
  };
}

function writeU32(into: Buffer, at: number, value: number): void {
  into[at] = value;
  into[at + 1] = value >>> 8;
  into[at + 2] = value >>> 16;
  into[at + 3] = value >>> 24;
}

const table = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** What zlib's computes; for so few bytes in the middle of a buffer, calling out of JavaScript takes longer than this. */
function shortCrc32(from: Buffer, start: number, end: number): number {
  let crc = -1;
  for (let at = start; at < end; at++) crc = (table[(crc ^ (from[at] ?? 0)) & 0xff] ?? 0) ^ (crc >>> 8);
  return ~crc >>> 0;
}

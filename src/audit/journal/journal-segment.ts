import { type FileHandle, open, unlink } from "node:fs/promises";
import { join } from "node:path";
import { Identities } from "./held-ranges.ts";
import type { Segment } from "./journal.ts";
import { decodeSegmentHeader, encodeEnd, encodeSegmentHeader, SEGMENT_HEADER_BYTES } from "./journal-frame.ts";
import { type Damage, type Frame, SegmentParser } from "./journal-parser.ts";

const CHUNK_BYTES = 256 * 1024;
const NAME = /^(\d{12})\.seg$/;

/** What the journal knows of one of its files. */
export interface SegmentFile extends Segment {
  readonly number: number;
  readonly path: string;
  readonly tag: number;
  records: number;
  bytes: number;
  sealed: boolean;
  readonly held: Identities;
  /** Frames that were given a number, whether or not they are on the disk. */
  numbered: number;
  /** What was found in it so far, by its offset. */
  readonly damages: Map<number, Damage>;
}

export function newSegment(
  directory: string,
  number: number,
  facts: { readonly tag: number; readonly createdMs: number },
): SegmentFile {
  const name = fileName(number);
  return {
    ...facts,
    number,
    name,
    path: join(directory, name),
    records: 0,
    bytes: 0,
    sealed: false,
    held: new Identities(),
    numbered: 0,
    damages: new Map(),
  };
}

function fileName(number: number): string {
  return `${String(number).padStart(12, "0")}.seg`;
}

/** The number of a segment's file; undefined for any other file. */
export function segmentNumber(fileName: string): number | undefined {
  const digits = NAME.exec(fileName)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** Makes what was done to the names in a directory last. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A segment that is written to. After anything that rejects but `abandon`, abandon it: its file is not to be trusted. */
export interface SegmentWriter {
  /** Resolves when these bytes are on the disk. */
  append(bytes: Buffer): Promise<void>;
  /** Says that the segment is whole, and closes it. */
  finish(): Promise<void>;
  /** Closes it with what was known to be on the disk. */
  abandon(): Promise<void>;
}

export async function createSegment(directory: string, segment: SegmentFile): Promise<SegmentWriter> {
  const handle = await open(segment.path, "wx", 0o600);
  let isNew = true;

  async function write(bytes: Buffer, position: number): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done);
      done += bytesWritten;
    }
  }

  return {
    async append(bytes) {
      if (isNew) await write(encodeSegmentHeader(segment), 0);
      await write(bytes, isNew ? SEGMENT_HEADER_BYTES : segment.bytes);
      await handle.datasync();
      if (!isNew) return;
      await syncDirectory(directory);
      isNew = false;
    },
    async finish() {
      await write(encodeEnd(segment.tag, segment.numbered), segment.bytes);
      await handle.datasync();
      await handle.close();
    },
    async abandon() {
      try {
        // What was not acknowledged had better not be replayed; if it must stay, that does no harm.
        await handle.truncate(segment.bytes);
      } finally {
        await handle.close();
        if (segment.bytes === 0) await unlink(segment.path);
      }
    },
  };
}

/** What a scan came upon, chunk by chunk; the last one has the ending. */
export interface Scanned {
  readonly frames: readonly Frame[];
  readonly damages: readonly Damage[];
  readonly torn: number;
}

/** Reads a segment from its start, up to `bytes`. Leaves stay valid; each keeps the memory of its chunk. */
export async function* scanSegment(segment: SegmentFile, bytes: number): AsyncGenerator<Scanned> {
  const handle = await open(segment.path, "r");
  try {
    const parser = new SegmentParser(segment.tag);
    for (let at = SEGMENT_HEADER_BYTES; at < bytes; ) {
      const chunk = await readAt(handle, at, Math.min(CHUNK_BYTES, bytes - at));
      if (chunk.length === 0) break;
      at += chunk.length;
      yield { ...parser.push(chunk), torn: 0 };
    }
    const { damage, torn } = parser.end();
    yield { frames: [], damages: damage === undefined ? [] : [damage], torn };
  } finally {
    await handle.close();
  }
}

/** What is there from a place on: less than asked for at the end of the file only. */
async function readAt(handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await handle.read(buffer, done, length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return buffer.subarray(0, done);
}

/** A segment of an earlier run, as far as it is known without reading all of it. */
export async function foundSegment(directory: string, number: number): Promise<SegmentFile> {
  const handle = await open(join(directory, fileName(number)), "r");
  try {
    const { size, mtimeMs } = await handle.stat();
    const header = decodeSegmentHeader(await readAt(handle, 0, Math.min(size, 4 * CHUNK_BYTES)));
    // Where nothing can be read no tag is right, and all of it is found to be damaged.
    const facts = { tag: header?.tag ?? 0, createdMs: header?.createdMs || mtimeMs };
    return { ...newSegment(directory, number, facts), bytes: size, sealed: true };
  } finally {
    await handle.close();
  }
}

export async function truncateSegment(path: string, bytes: number): Promise<void> {
  const handle = await open(path, "r+");
  try {
    await handle.truncate(bytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Copies a part of a segment. */
export async function copyBytes(from: string, offset: number, bytes: number, to: string): Promise<void> {
  const source = await open(from, "r");
  try {
    const target = await open(to, "w", 0o600);
    try {
      for (let done = 0; done < bytes; ) {
        const chunk = await readAt(source, offset + done, Math.min(CHUNK_BYTES, bytes - done));
        if (chunk.length === 0) break;
        await target.writeFile(chunk);
        done += chunk.length;
      }
      await target.sync();
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

import { crc32 } from "node:zlib";
import type { RecordId } from "../record/record.ts";
import { FRAME_OVERHEAD, readFrameHeader, SEGMENT_HEADER_BYTES } from "./journal-frame.ts";

export interface Frame extends RecordId {
  readonly offset: number;
  /** What all of it takes. */
  readonly bytes: number;
  /** Into the chunk it was parsed from. */
  readonly leaf: Buffer;
}

/** Bytes of a segment that are not what was written. */
export interface Damage {
  readonly offset: number;
  readonly bytes: number;
  /** How many records were there. At the end of a segment that was not finished: at least. */
  readonly records: number;
  /** Whose they were, when that can still be read. */
  readonly id: RecordId | undefined;
  readonly reason: string;
}

export interface Parsed {
  readonly frames: readonly Frame[];
  readonly damages: readonly Damage[];
}

/** How a segment ended. */
export interface Ending {
  readonly damage: Damage | undefined;
  /** Bytes of a frame of which the rest was never written. */
  readonly torn: number;
}

/** Reads the frames of a segment from chunks of it, in whatever portions they come, and goes on behind damage. */
export class SegmentParser {
  readonly #tag: number;
  readonly #tagBytes = Buffer.alloc(4);
  #window: Buffer = Buffer.alloc(0);
  /** Where the window begins in the file, and what is not parsed yet in the window. */
  #base = SEGMENT_HEADER_BYTES;
  #at = 0;
  #expected = 0;
  /** Where the damage began behind which no frame was found yet. */
  #lostAt: number | undefined;
  #ended = false;
  #frames: Frame[] = [];
  #damages: Damage[] = [];

  /** Of a segment, from the first frame on. */
  constructor(tag: number) {
    this.#tag = tag;
    this.#tagBytes.writeUInt32LE(tag);
  }

  push(chunk: Buffer): Parsed {
    const rest = this.#window.subarray(this.#at);
    this.#base += this.#at;
    this.#at = 0;
    this.#window = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (this.#lostAt === undefined ? this.#step() : this.#search(this.#lostAt));
    const parsed = { frames: this.#frames, damages: this.#damages };
    this.#frames = [];
    this.#damages = [];
    return parsed;
  }

  end(): Ending {
    const end = this.#base + this.#window.length;
    if (this.#lostAt !== undefined) return { damage: this.#unreadable(this.#lostAt, end), torn: 0 };
    return { damage: undefined, torn: end - this.#base - this.#at };
  }

  /** Takes one frame. Returns whether to go on. */
  #step(): boolean {
    const window = this.#window;
    const offset = this.#base + this.#at;
    if (this.#at === window.length) return false;
    const header = this.#ended ? "bad" : readFrameHeader(window, this.#at, this.#tag);
    if (header === "short") return false;
    if (header === "bad" || header.number < this.#expected) {
      this.#lostAt = offset;
      this.#at += 1;
      return true;
    }
    const { producer, sequence, number, leafAt, leafLength } = header;
    const end = leafAt + leafLength + 4;
    if (end > window.length) return false;
    if (number > this.#expected) {
      const records = number - this.#expected;
      this.#damages.push({ offset, bytes: 0, records, id: undefined, reason: "records are missing before this place" });
    }
    this.#at = end;
    this.#ended = producer === "";
    this.#expected = number + 1;
    if (this.#ended) return true;
    const bytes = this.#base + end - offset;
    const leaf = window.subarray(leafAt, end - 4);
    if (crc32(leaf) === window.readUInt32LE(end - 4)) {
      this.#frames.push({ producer, sequence, offset, bytes, leaf });
    } else {
      const id = { producer, sequence };
      this.#damages.push({ offset, bytes, records: 1, id, reason: "the checksum of the record is wrong" });
    }
    return true;
  }

  /** Looks for the next frame behind damage. Returns whether it is found. */
  #search(lostAt: number): boolean {
    const window = this.#window;
    for (;;) {
      const found = this.#ended ? -1 : window.indexOf(this.#tagBytes, this.#at);
      if (found === -1) {
        // The last bytes may begin a tag.
        this.#at = Math.max(this.#at, window.length - 3);
        return false;
      }
      this.#at = found;
      const header = readFrameHeader(window, found, this.#tag);
      if (header === "short") return false;
      if (header !== "bad" && header.number >= this.#expected) {
        const bytes = this.#base + found - lostAt;
        const records = header.number - this.#expected;
        this.#damages.push({ offset: lostAt, bytes, records, id: undefined, reason: UNREADABLE });
        this.#expected = header.number;
        this.#lostAt = undefined;
        return true;
      }
      this.#at += 1;
    }
  }

  /** To the end of the file. A place too small for a record was the end of a finished segment. */
  #unreadable(offset: number, end: number): Damage {
    const bytes = end - offset;
    const records = this.#ended || bytes <= FRAME_OVERHEAD ? 0 : 1;
    return { offset, bytes, records, id: undefined, reason: UNREADABLE };
  }
}

const UNREADABLE = "the header of a record is damaged";

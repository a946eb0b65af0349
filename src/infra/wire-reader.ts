import { isUtf8 } from "node:buffer";

/** Thrown for anything that is not plainly in order: then the ordinary decoder has the word. One object: it is not an error. */
export const UNUSUAL: unique symbol = Symbol("unusual");

/** What reading comes to; undefined when it met something unusual. */
export function unlessUnusual<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (thrown) {
    if (thrown === UNUSUAL) return undefined;
    throw thrown;
  }
}

/** Wire types. */
export const VARINT = 0;
export const FIXED64 = 1;
export const BYTES = 2;

/** What stands before each field. */
export function tag(field: number, type: number): number {
  return (field << 3) | type;
}

/** Reads protobuf from bytes, as far as it is written in the usual way. Throws UNUSUAL for the rest. */
export class WireReader {
  readonly bytes: Buffer;
  at: number;

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  /** An integer from 0 to 2^53 - 1. */
  varint(): number {
    const { bytes } = this;
    let byte = bytes[this.at++];
    if (byte === undefined) throw UNUSUAL;
    if (byte < 0x80) return byte;
    let value = byte & 0x7f;
    let factor = 0x80;
    do {
      byte = bytes[this.at++];
      if (byte === undefined || factor > 0x2_0000_0000_0000) throw UNUSUAL;
      value += (byte & 0x7f) * factor;
      factor *= 0x80;
    } while (byte >= 0x80);
    if (value > Number.MAX_SAFE_INTEGER) throw UNUSUAL;
    return value;
  }

  /** The end of a field that says its own length, which must lie within `end`. */
  endOfBytes(end: number): number {
    const length = this.varint();
    const last = this.at + length;
    if (last > end) throw UNUSUAL;
    return last;
  }

  /** A text of 1 to `most` bytes (or none, when allowed), which ends within `end`. */
  text(end: number, most: number): string {
    const last = this.textEnd(end, most);
    const start = this.at;
    this.at = last;
    return this.bytes.toString(this.#isAscii ? "latin1" : "utf8", start, last);
  }

  /** The same, when it need not be a string: where it starts. It ends where the reader is then. */
  textStart(end: number, most: number): number {
    const last = this.textEnd(end, most);
    const start = this.at;
    this.at = last;
    return start;
  }

  /** The same, when what it says does not matter. */
  skipText(end: number, most: number): void {
    this.at = this.textEnd(end, most);
  }

  #isAscii = true;

  private textEnd(end: number, most: number): number {
    const last = this.endOfBytes(end);
    const { bytes, at } = this;
    if (last - at > most) throw UNUSUAL;
    let all = 0;
    for (let i = at; i < last; i++) {
      const byte = bytes[i] ?? 0;
      // NUL has no place in a text.
      if (byte === 0) throw UNUSUAL;
      all |= byte;
    }
    this.#isAscii = all < 0x80;
    if (!this.#isAscii && !isUtf8(bytes.subarray(at, last))) throw UNUSUAL;
    return last;
  }

  /** A double that is a finite number. */
  skipFinite(end: number): void {
    const { bytes, at } = this;
    if (at + 8 > end) throw UNUSUAL;
    if (((bytes[at + 7] ?? 0) & 0x7f) === 0x7f && ((bytes[at + 6] ?? 0) & 0xf0) === 0xf0) throw UNUSUAL;
    this.at = at + 8;
  }
}

export function varintBytes(value: number): number {
  let length = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) length++;
  return length;
}

/** Returns where it ends. */
export function writeVarint(bytes: Uint8Array, at: number, value: number): number {
  let next = at;
  let rest = value;
  while (rest >= 0x80) {
    bytes[next++] = (rest % 0x80) + 0x80;
    rest = Math.floor(rest / 0x80);
  }
  bytes[next++] = rest;
  return next;
}

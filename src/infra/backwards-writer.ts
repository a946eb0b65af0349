import { varintBytes, writeVarint } from "./wire-reader.ts";

/** Writes from the end to the beginning, so that the length of what is nested is known by the time it must be written. */
export class BackwardsWriter {
  readonly #buffer: Buffer;
  at: number;

  constructor(bound: number) {
    this.#buffer = Buffer.allocUnsafe(bound);
    this.at = bound;
  }

  text(tag: number, text: string): void {
    const length = Buffer.byteLength(text);
    this.at -= length;
    this.#buffer.write(text, this.at, length, "utf8");
    this.#head(tag, length);
  }

  /** Empty text is left out, as proto3 does outside of lists and oneofs. */
  scalarText(tag: number, text: string): void {
    if (text !== "") this.text(tag, text);
  }

  bytes(tag: number, bytes: Uint8Array): void {
    this.at -= bytes.byteLength;
    this.#buffer.set(bytes, this.at);
    this.#head(tag, bytes.byteLength);
  }

  /** What was written since `end` becomes a message of its own. */
  message(tag: number, end: number): void {
    this.#head(tag, end - this.at);
  }

  /** Zero is left out, as proto3 does. */
  number(tag: number, value: number): void {
    if (value !== 0) this.#head(tag, value);
  }

  /** A Timestamp of milliseconds since 1970. */
  time(tag: number, ms: number): void {
    const whole = Math.round(ms);
    const end = this.at;
    this.number(0x10, (whole % 1000) * 1_000_000);
    this.number(0x08, Math.floor(whole / 1000));
    this.message(tag, end);
  }

  done(): Buffer {
    return this.#buffer.subarray(this.at);
  }

  /** A Timestamp or a Duration of whole microseconds. */
  micros(tag: number, us: number): void {
    const end = this.at;
    this.number(0x10, (us % 1_000_000) * 1_000);
    this.number(0x08, Math.floor(us / 1_000_000));
    this.message(tag, end);
  }

  flag(tag: number, value: boolean): void {
    if (value) this.#head(tag, 1);
  }

  /** A tag and the number behind it. */
  #head(tag: number, value: number): void {
    this.at -= varintBytes(value);
    writeVarint(this.#buffer, this.at, value);
    this.#buffer[--this.at] = tag;
  }
}

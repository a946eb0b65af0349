import type { JsonObject } from "@bufbuild/protobuf";
import { BOOL, LIST, NULL, NUMBER, STRING, STRUCT } from "../../infra/struct-tags.ts";
import { UNUSUAL, WireReader } from "../../infra/wire-reader.ts";
import { intact } from "./struct-members.ts";
import { structOfJson } from "./struct-writer.ts";

export { structOfJson };

/** Serializes the text of a JSON object as a google.protobuf.Struct. Throws SyntaxError when it is none. */
export function structOfJsonText(text: string): Buffer {
  const value: unknown = JSON.parse(text);
  if (!isObject(value)) throw new SyntaxError("it is not a JSON object");
  return structOfJson(value);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The JSON text of a struct that was checked, without making objects of it. Members keep their order. */
export function jsonTextOf(struct: Uint8Array): string {
  return jsonBytesOf(struct).toString();
}

/** The same in UTF-8. */
export function jsonBytesOf(struct: Uint8Array): Buffer {
  return intact(() => new JsonWriter(struct).write());
}

const [QUOTE, COMMA, COLON] = [0x22, 0x2c, 0x3a];
const [OPEN, CLOSE, OPEN_LIST, CLOSE_LIST] = [0x7b, 0x7d, 0x5b, 0x5d];
/** A byte becomes six at most: "\u0000". */
const WORST = 6;

/** What a byte becomes that must not stand for itself in a text. */
const ESCAPES: readonly (string | undefined)[] = Array.from({ length: 256 }, (_, byte) => {
  const text = JSON.stringify(String.fromCharCode(byte)).slice(1, -1);
  return byte < 0x80 && text.length > 1 ? text : undefined;
});
const MUST_ESCAPE = Uint8Array.from(ESCAPES, (text) => (text === undefined ? 0 : 1));

class JsonWriter {
  readonly #reader: WireReader;
  #out: Buffer;
  #at = 0;

  constructor(struct: Uint8Array) {
    this.#reader = new WireReader(struct);
    this.#out = Buffer.allocUnsafeSlow(struct.length + 256);
  }

  write(): Buffer {
    this.#struct(this.#reader.bytes.length);
    return this.#out.subarray(0, this.#at);
  }

  #struct(end: number): void {
    const reader = this.#reader;
    this.#byte(OPEN);
    for (let more = false; reader.at < end; more = true) {
      if (more) this.#byte(COMMA);
      reader.varint();
      const last = reader.endOfBytes(end);
      reader.varint();
      this.#text(reader.endOfBytes(last));
      this.#byte(COLON);
      reader.varint();
      this.#value(reader.endOfBytes(last));
    }
    this.#byte(CLOSE);
  }

  #value(end: number): void {
    const reader = this.#reader;
    switch (reader.varint()) {
      case NULL:
        reader.varint();
        this.#word("null");
        break;
      case NUMBER:
        // Minus zero is a zero in JSON.
        this.#word(String(reader.bytes.readDoubleLE(reader.at)));
        reader.at += 8;
        break;
      case STRING:
        this.#text(reader.endOfBytes(end));
        break;
      case BOOL:
        this.#word(reader.varint() === 0 ? "false" : "true");
        break;
      case STRUCT:
        this.#struct(reader.endOfBytes(end));
        break;
      case LIST:
        this.#list(reader.endOfBytes(end));
        break;
      default:
        throw UNUSUAL;
    }
  }

  #list(end: number): void {
    const reader = this.#reader;
    this.#byte(OPEN_LIST);
    for (let more = false; reader.at < end; more = true) {
      if (more) this.#byte(COMMA);
      reader.varint();
      this.#value(reader.endOfBytes(end));
    }
    this.#byte(CLOSE_LIST);
  }

  /** Of ASCII, and short. */
  #word(text: string): void {
    this.#ensure(text.length);
    for (let i = 0; i < text.length; i++) this.#out[this.#at++] = text.charCodeAt(i);
  }

  #text(end: number): void {
    const { bytes, at } = this.#reader;
    this.#ensure(end - at + 2);
    let out = this.#out;
    let next = this.#at;
    out[next++] = QUOTE;
    let i = at;
    for (; i < end; i++) {
      const byte = bytes[i] ?? 0;
      if (MUST_ESCAPE[byte] === 1) break;
      out[next++] = byte;
    }
    this.#at = next;
    if (i < end) {
      this.#ensure(WORST * (end - i) + 1);
      out = this.#out;
      this.#escaped(i, end);
    }
    out[this.#at++] = QUOTE;
    this.#reader.at = end;
  }

  #escaped(start: number, end: number): void {
    const { bytes } = this.#reader;
    const out = this.#out;
    let next = this.#at;
    for (let i = start; i < end; i++) {
      const byte = bytes[i] ?? 0;
      const escaped = ESCAPES[byte];
      if (escaped === undefined) out[next++] = byte;
      else for (let k = 0; k < escaped.length; k++) out[next++] = escaped.charCodeAt(k);
    }
    this.#at = next;
  }

  #byte(byte: number): void {
    this.#ensure(1);
    this.#out[this.#at++] = byte;
  }

  #ensure(bytes: number): void {
    if (this.#at + bytes <= this.#out.length) return;
    const grown = Buffer.allocUnsafeSlow(Math.max(2 * this.#out.length, this.#at + bytes));
    grown.set(this.#out.subarray(0, this.#at));
    this.#out = grown;
  }
}

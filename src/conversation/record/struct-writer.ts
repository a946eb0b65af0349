import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import {
  BOOL,
  ENTRY_KEY,
  ENTRY_VALUE,
  LIST,
  LIST_VALUE,
  NULL,
  NUMBER,
  STRING,
  STRUCT,
  STRUCT_ENTRY,
} from "../../infra/struct-tags.ts";
import { varintBytes, writeVarint } from "../../infra/wire-reader.ts";

/** Far beyond what a state may have, far below what the stack has room for. */
const MOST_LEVELS = 200;
/** No text in UTF-8 has this byte. */
const NO_TEXT = 0xff;
/** Up to here a loop is quicker than having text encoded from outside. */
const SHORT = 24;
const ROOM_KEPT = 64 * 1024;

/**
 * Serializes JSON as a google.protobuf.Struct, a tenth of what the generated code takes. It judges nothing: half a surrogate pair
 * becomes bytes that are no text, and whoever checks the struct finds it.
 */
export function structOfJson(value: JsonObject): Buffer {
  const writer = kept ?? new StructWriter();
  kept = undefined;
  const bytes = writer.write(value);
  if (writer.room <= ROOM_KEPT) kept = writer;
  return bytes;
}

let kept: StructWriter | undefined;

/** Writes from the end to the beginning, so that the length of what is nested is known by the time it must be written. */
class StructWriter {
  #buffer = Buffer.allocUnsafeSlow(4096);
  #at = 0;

  get room(): number {
    return this.#buffer.length;
  }

  write(value: JsonObject): Buffer {
    this.#at = this.#buffer.length;
    this.#struct(value, 1);
    return Buffer.from(this.#buffer.subarray(this.#at));
  }

  #struct(object: JsonObject, level: number): void {
    if (level > MOST_LEVELS) throw new RangeError(`it nests more than ${MOST_LEVELS} levels`);
    const keys = Object.keys(object);
    const values = Object.values(object);
    for (let i = keys.length - 1; i >= 0; i--) {
      const key = keys[i] ?? "";
      const end = this.#left;
      this.#value(values[i] ?? null, level);
      this.#head(ENTRY_VALUE, end - this.#left);
      this.#text(ENTRY_KEY, key);
      this.#head(STRUCT_ENTRY, end - this.#left);
    }
  }

  #list(values: readonly JsonValue[], level: number): void {
    if (level > MOST_LEVELS) throw new RangeError(`it nests more than ${MOST_LEVELS} levels`);
    for (let i = values.length - 1; i >= 0; i--) {
      const end = this.#left;
      this.#value(values[i] ?? null, level);
      this.#head(LIST_VALUE, end - this.#left);
    }
  }

  #value(value: JsonValue, level: number): void {
    switch (typeof value) {
      case "string":
        this.#text(STRING, value);
        return;
      case "number":
        this.#ensure(9);
        this.#at = this.#buffer.writeDoubleLE(value, this.#at - 8) - 8;
        this.#buffer[--this.#at] = NUMBER;
        return;
      case "boolean":
        this.#pair(BOOL, value ? 1 : 0);
        return;
      default:
        this.#parent(value, level);
    }
  }

  #parent(value: JsonObject | JsonValue[] | null, level: number): void {
    if (value === null) {
      this.#pair(NULL, 0);
      return;
    }
    const end = this.#left;
    if (Array.isArray(value)) {
      this.#list(value, level + 1);
      this.#head(LIST, end - this.#left);
    } else {
      this.#struct(value, level + 1);
      this.#head(STRUCT, end - this.#left);
    }
  }

  #text(tag: number, text: string): void {
    const { length } = text;
    if (length > SHORT || !this.#shortText(text)) this.#longText(text);
    this.#head(tag, this.#written);
  }

  /** How many bytes the text that was written last has. */
  #written = 0;

  /** Returns false, and has written nothing, when it is not ASCII. */
  #shortText(text: string): boolean {
    const { length } = text;
    this.#ensure(length);
    const buffer = this.#buffer;
    const start = this.#at - length;
    for (let i = 0; i < length; i++) {
      const code = text.charCodeAt(i);
      if (code >= 0x80) return false;
      buffer[start + i] = code;
    }
    this.#at = start;
    this.#written = length;
    return true;
  }

  #longText(text: string): void {
    const isText = text.isWellFormed();
    const length = isText ? Buffer.byteLength(text) : 1;
    this.#ensure(length);
    this.#at -= length;
    this.#written = length;
    if (isText) this.#buffer.write(text, this.#at, length, "utf8");
    else this.#buffer[this.#at] = NO_TEXT;
  }

  #pair(tag: number, value: number): void {
    this.#ensure(2);
    this.#buffer[--this.#at] = value;
    this.#buffer[--this.#at] = tag;
  }

  /** A tag and a length. */
  #head(tag: number, length: number): void {
    this.#ensure(6);
    if (length < 0x80) this.#buffer[--this.#at] = length;
    else {
      this.#at -= varintBytes(length);
      writeVarint(this.#buffer, this.#at, length);
    }
    this.#buffer[--this.#at] = tag;
  }

  /** How much room is left changes when more is made: what is behind `at` is what counts. */
  get #left(): number {
    return this.#at - this.#buffer.length;
  }

  #ensure(bytes: number): void {
    if (this.#at >= bytes) return;
    const old = this.#buffer;
    this.#buffer = Buffer.allocUnsafeSlow(Math.max(2 * old.length, old.length + bytes));
    const grown = this.#buffer.length - old.length;
    this.#buffer.set(old.subarray(this.#at), this.#at + grown);
    this.#at += grown;
  }
}

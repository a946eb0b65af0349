import { isUtf8 } from "node:buffer";
import type { FieldViolation } from "../../infra/failure.ts";
import { MOST_LEVELS, TOO_DEEP } from "../../infra/json-levels.ts";
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
import { UNUSUAL, WireReader } from "../../infra/wire-reader.ts";
import { StructKeys } from "./struct-keys.ts";
import { StructPath } from "./struct-path.ts";
import { MOST_VALUES, tooManyValues } from "./struct-values.ts";
import { UNDECIDED } from "./undecided.ts";

/** More are not told: they would not help, and a struct can hold a million. */
export const MOST_FAULTS = 20;

/**
 * Finds what is wrong with a serialized google.protobuf.Struct in one pass over its bytes: a small part of what decoding it into
 * objects takes. Throws UNUSUAL when it is not plainly written: each entry a key and a value, each value of one kind, tags of one
 * byte, no key twice. Throws a Failure when it holds too many values.
 */
export function faultsOf(bytes: Uint8Array, field: string): readonly FieldViolation[] {
  return new StructScan(bytes, field).faults();
}

class StructScan {
  readonly #reader: WireReader;
  readonly #keys: StructKeys;
  readonly #path: StructPath;
  readonly #field: string;
  readonly #faults: FieldViolation[] = [];
  #values = 0;

  constructor(bytes: Uint8Array, field: string) {
    this.#reader = new WireReader(bytes);
    this.#keys = new StructKeys(this.#reader.bytes);
    this.#path = new StructPath(this.#reader.bytes);
    this.#field = field;
  }

  faults(): readonly FieldViolation[] {
    this.#struct(this.#reader.bytes.length, 1);
    return this.#faults;
  }

  #struct(end: number, level: number): void {
    const reader = this.#reader;
    const object = this.#keys.begin();
    let many: Set<string> | undefined;
    while (reader.at < end) {
      if (reader.bytes[reader.at++] !== STRUCT_ENTRY) throw UNUSUAL;
      const last = reader.endOfBytes(end);
      if (reader.bytes[reader.at++] !== ENTRY_KEY) throw UNUSUAL;
      many = this.#key(reader.endOfBytes(last), level, object, many);
      if (reader.bytes[reader.at++] !== ENTRY_VALUE) throw UNUSUAL;
      this.#value(reader.endOfBytes(last), level);
      if (reader.at !== last) throw UNUSUAL;
    }
    if (reader.at !== end) throw UNUSUAL;
    this.#keys.end(object);
  }

  #key(end: number, level: number, object: number, many: Set<string> | undefined): Set<string> | undefined {
    const reader = this.#reader;
    const { bytes, at } = reader;
    let all = 0;
    let hash = 0;
    for (let i = at; i < end; i++) {
      const byte = bytes[i] ?? 0;
      all |= byte;
      hash = Math.imul(hash ^ byte, 0x01000193);
    }
    this.#path.atKey(level, at, end);
    if (all >= 0x80 && !isUtf8(bytes.subarray(at, end))) this.#refuse(level, "has a name that is not valid UTF-8 text");
    reader.at = end;
    return this.#keys.add(object, many, hash, at, end);
  }

  /** `level` is that of the object or list which holds it. */
  #value(end: number, level: number): void {
    const reader = this.#reader;
    if (++this.#values > MOST_VALUES) throw tooManyValues(this.#field);
    switch (reader.bytes[reader.at++]) {
      case NULL:
        if (reader.bytes[reader.at++] !== 0) throw UNUSUAL;
        break;
      case NUMBER:
        this.#number(level);
        break;
      case STRING:
        this.#text(reader.endOfBytes(end), level);
        break;
      case BOOL:
        if ((reader.bytes[reader.at++] ?? 2) > 1) throw UNUSUAL;
        break;
      case STRUCT: {
        const last = reader.endOfBytes(end);
        if (this.#mayNest(last, level)) this.#struct(last, level + 1);
        break;
      }
      case LIST: {
        const last = reader.endOfBytes(end);
        if (this.#mayNest(last, level)) this.#list(last, level + 1);
        break;
      }
      default:
        // It was read from behind the end of one that is empty.
        if (--reader.at !== end) throw UNUSUAL;
        this.#refuse(level, UNDECIDED);
    }
    if (reader.at !== end) throw UNUSUAL;
  }

  #list(end: number, level: number): void {
    const reader = this.#reader;
    for (let place = 0; reader.at < end; place++) {
      if (reader.bytes[reader.at++] !== LIST_VALUE) throw UNUSUAL;
      this.#path.atPlace(level, place);
      this.#value(reader.endOfBytes(end), level);
    }
  }

  #number(level: number): void {
    const reader = this.#reader;
    const { bytes, at } = reader;
    const high = bytes[at + 7];
    const next = bytes[at + 6];
    if (high === undefined || next === undefined) throw UNUSUAL;
    // An exponent of ones alone is that of an infinity, or of no number.
    if ((high & 0x7f) === 0x7f && next >= 0xf0) this.#refuse(level, "is a number that is not finite");
    reader.at = at + 8;
  }

  #text(end: number, level: number): void {
    const reader = this.#reader;
    const { bytes, at } = reader;
    let all = 0;
    if (end - at <= SHORT) for (let i = at; i < end; i++) all |= bytes[i] ?? 0;
    else all = 0x80;
    if (all >= 0x80 && !isUtf8(bytes.subarray(at, end))) this.#refuse(level, "is not valid UTF-8 text");
    reader.at = end;
  }

  #mayNest(end: number, level: number): boolean {
    if (level < MOST_LEVELS) return true;
    this.#refuse(level, TOO_DEEP);
    this.#reader.at = end;
    return false;
  }

  #refuse(level: number, description: string): void {
    if (this.#faults.length >= MOST_FAULTS) return;
    this.#faults.push({ field: this.#field + this.#path.text(level), description });
  }
}

/** Up to here a loop is quicker than asking for the bytes' validity from outside. */
const SHORT = 48;

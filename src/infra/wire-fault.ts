import { isUtf8 } from "node:buffer";
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import type { FieldViolation } from "./failure.ts";
import { stepTo } from "./json-path.ts";
import { BYTES, FIXED64, VARINT } from "./wire-reader.ts";

/**
 * Where bytes cease to be a message of a type, and how: the decoder behind this names no place. The path is as the proto names
 * fields, and goes on into JSON: `messages[2].metadata.items[3]`. Undefined when nothing is found that is wrong, or not before
 * very many fields: whoever sends what is wrong must not cost more than who sends what is right.
 */
export function wireFault(desc: DescMessage, bytes: Uint8Array): FieldViolation | undefined {
  return faultIn(new Walk(bytes, MOST_FIELDS, false), desc);
}

/** Where the first google.protobuf.Value is that sets no kind, in bytes that are such a message. */
export function kindlessValue(desc: DescMessage, bytes: Uint8Array): string | undefined {
  const fault = faultIn(new Walk(bytes, Number.POSITIVE_INFINITY, true), desc);
  // The decoder overlooks what this walk does not.
  return fault?.description === KINDLESS ? fault.field : undefined;
}

function faultIn(walk: Walk, desc: DescMessage): FieldViolation | undefined {
  try {
    walk.whole(desc);
    return undefined;
  } catch (thrown) {
    if (thrown === TOO_FAR) return undefined;
    if (!(thrown instanceof Fault)) throw thrown;
    return { field: thrown.path.replace(/^\./, ""), description: thrown.description };
  }
}

const FIXED32 = 5;
const SIZES: Readonly<Record<number, number>> = { [FIXED64]: 8, [FIXED32]: 4 };
/** The decoder goes no deeper. */
const MOST_LEVELS = 100;
/** A few tens of milliseconds. */
const MOST_FIELDS = 100_000;
/** Thrown where the walk is given up. */
const TOO_FAR = Symbol("too many fields");

/** Thrown where it is found; the path grows on the way out. */
class Fault {
  path = "";
  readonly description: string;

  constructor(description: string) {
    this.description = description;
  }
}

class Walk {
  readonly #bytes: Buffer;
  readonly #mostFields: number;
  /** Whether a google.protobuf.Value must set one. */
  readonly #wantsKinds: boolean;
  #at = 0;
  #fields = 0;

  constructor(bytes: Uint8Array, mostFields: number, wantsKinds: boolean) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#mostFields = mostFields;
    this.#wantsKinds = wantsKinds;
  }

  whole(desc: DescMessage): void {
    this.#message(desc, this.#bytes.length, 1);
  }

  #message(desc: DescMessage, end: number, level: number): void {
    if (level > MOST_LEVELS) throw new Fault(`is nested deeper than ${MOST_LEVELS} messages`);
    const fields = fieldsOf(desc);
    const counts = new Map<number, number>();
    let hasKind = !this.#wantsKinds || desc.typeName !== VALUE;
    while (this.#at < end) {
      const tag = this.#tag(end);
      const number = Math.floor(tag / 8);
      const field = fields.get(number);
      const count = counts.get(number) ?? 0;
      counts.set(number, count + 1);
      hasKind ||= field !== undefined;
      if (field === undefined) this.#skip(tag & 7, end);
      else within(stepOf(desc, field, count), () => this.#field(field, tag & 7, end, level));
    }
    if (!hasKind) throw new Fault(KINDLESS);
  }

  #field(field: DescField, type: number, end: number, level: number): void {
    const wanted = typeOf(field);
    // Numbers in a list may stand one by one or packed.
    const isPacked = field.fieldKind === "list" && type === BYTES;
    if (!isPacked) requireType(type, wanted);
    if (type !== BYTES) {
      this.#skip(type, end);
      return;
    }
    const last = this.#endOfBytes(end);
    if (field.fieldKind === "map") this.#entry(field, last, level);
    else if (field.message !== undefined) this.#message(field.message, last, level + 1);
    else if (field.scalar === ScalarType.STRING) this.#text(last);
    this.#at = last;
  }

  /** Of a map. A key that is text is a step of the path. */
  #entry({ mapKey, message, scalar }: DescField & { fieldKind: "map" }, end: number, level: number): void {
    let step = "";
    let hasKind = !this.#wantsKinds || message?.typeName !== VALUE;
    while (this.#at < end) {
      const tag = this.#tag(end);
      const type = tag & 7;
      const isKey = tag >> 3 === 1;
      const isValue = tag >> 3 === 2;
      hasKind ||= isValue;
      if (isKey && mapKey === ScalarType.STRING) {
        requireType(type, BYTES);
        const last = this.#endOfBytes(end);
        step = stepTo(this.#bytes.toString("utf8", this.#at, last));
        within(step, () => this.#text(last, "has a name that is not valid UTF-8 text"));
      } else if (isValue && message !== undefined) {
        within(step, () => {
          requireType(type, BYTES);
          this.#message(message, this.#endOfBytes(end), level + 1);
        });
      } else if (isValue && scalar === ScalarType.STRING) {
        within(step, () => {
          requireType(type, BYTES);
          this.#text(this.#endOfBytes(end));
        });
      } else within(step, () => this.#skip(type, end));
    }
    if (!hasKind) {
      within(step, () => {
        throw new Fault(KINDLESS);
      });
    }
  }

  #tag(end: number): number {
    if (++this.#fields > this.#mostFields) throw TOO_FAR;
    const tag = this.#varint(end);
    if (tag < 8) throw new Fault("has a field with the number 0");
    if (tag >= 2 ** 32) throw new Fault("has a field with a number beyond all there are");
    return tag;
  }

  #text(end: number, description = "is not valid UTF-8 text"): void {
    if (!isUtf8(this.#bytes.subarray(this.#at, end))) throw new Fault(description);
    this.#at = end;
  }

  #skip(type: number, end: number): void {
    const size = SIZES[type];
    if (type === VARINT) this.#varint(end);
    else if (type === BYTES) this.#at = this.#endOfBytes(end);
    else if (size !== undefined) this.#at += size;
    else throw new Fault(`has a field of the wire type ${type}, which is none or belongs to a group`);
    if (this.#at > end) throw new Fault(CUT);
  }

  #endOfBytes(end: number): number {
    const last = this.#varint(end) + this.#at;
    if (last > end) throw new Fault(CUT);
    return last;
  }

  /** Of 64 bits, of which those beyond 53 need not be exact. */
  #varint(end: number): number {
    let value = 0;
    for (let factor = 1; factor <= 2 ** 63; factor *= 128) {
      if (this.#at >= end) throw new Fault(CUT);
      const byte = this.#bytes[this.#at++] ?? 0;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
    }
    throw new Fault("has an integer of more than ten bytes");
  }
}

const known = new WeakMap<DescMessage, ReadonlyMap<number, DescField>>();

function fieldsOf(desc: DescMessage): ReadonlyMap<number, DescField> {
  let fields = known.get(desc);
  if (fields === undefined) {
    fields = new Map(desc.fields.map((field) => [field.number, field]));
    known.set(desc, fields);
  }
  return fields;
}

const VALUE = "google.protobuf.Value";
const KINDLESS = "sets no kind of value";
const CUT = "is cut short: it ends in the middle of a field";

function requireType(type: number, wanted: number): void {
  if (type !== wanted) throw new Fault(`has the wire type ${type}; wanted ${wanted}`);
}

function within(step: string, walk: () => void): void {
  try {
    walk();
  } catch (thrown) {
    if (thrown instanceof Fault) thrown.path = step + thrown.path;
    throw thrown;
  }
}

/** JSON is named as such: what protobuf has in between is no step. */
function stepOf(desc: DescMessage, { name, fieldKind }: DescField, count: number): string {
  switch (desc.typeName) {
    case "google.protobuf.Struct":
    case VALUE:
      return "";
    case "google.protobuf.ListValue":
      return `[${count}]`;
  }
  return fieldKind === "list" ? `.${name}[${count}]` : `.${name}`;
}

function typeOf(field: DescField): number {
  if (field.fieldKind === "enum") return VARINT;
  if (field.fieldKind === "list" && field.listKind === "enum") return VARINT;
  if (field.fieldKind === "map") return BYTES;
  switch (field.scalar) {
    case undefined:
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return BYTES;
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return FIXED64;
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return FIXED32;
    default:
      return VARINT;
  }
}

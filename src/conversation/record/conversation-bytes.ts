import { BYTES, VARINT, varintBytes, writeVarint } from "../../infra/wire-reader.ts";

/** Serialized fields of a message, or one that is put together of parts. */
export type Part = Uint8Array | Field;

/** A field that holds a message, text or bytes: what its parts say, one behind the other. */
export interface Field {
  readonly tag: number;
  /** Of the content, without tag and length. */
  readonly length: number;
  readonly content: readonly Part[];
}

/** Nothing is copied until the whole message is. */
export function field(number: number, ...content: readonly Part[]): Field {
  return fieldOf(number, content);
}

/** The same of parts that may be too many to be passed one by one. */
export function fieldOf(number: number, content: readonly Part[]): Field {
  return { tag: (number << 3) | BYTES, length: lengthOf(content), content };
}

/** An integer, an enum or a bool. Zero is left out, as proto3 does. */
export function numberField(number: number, value: number): Uint8Array {
  if (value === 0) return NOTHING;
  const tag = (number << 3) | VARINT;
  const bytes = Buffer.allocUnsafe(varintBytes(tag) + varintBytes(value));
  writeVarint(bytes, writeVarint(bytes, 0, tag), value);
  return bytes;
}

/** A serialized message of parts, each of which says some of its fields. */
export function messageOf(...parts: readonly Part[]): Buffer {
  return joined(parts);
}

/** The same of parts that may be too many to be passed one by one. */
export function joined(parts: readonly Part[]): Buffer {
  const bytes = Buffer.allocUnsafe(lengthOf(parts));
  write(bytes, 0, parts);
  return bytes;
}

const SUMMARY = 1;
const STATE = 2;

/** The fields of a Conversation, to be put into the field of a reply that holds one. */
export function conversationParts(summary: Uint8Array, state: Uint8Array): readonly Part[] {
  return [field(SUMMARY, summary), field(STATE, state)];
}

/** A serialized Conversation, whose state is not decoded for it. */
export function conversationBytes(summary: Uint8Array, state: Uint8Array): Buffer {
  return messageOf(...conversationParts(summary, state));
}

const NOTHING = new Uint8Array();

function lengthOf(parts: readonly Part[]): number {
  let length = 0;
  for (const part of parts) {
    length += part.length;
    if (!(part instanceof Uint8Array)) length += varintBytes(part.tag) + varintBytes(part.length);
  }
  return length;
}

function write(bytes: Buffer, at: number, parts: readonly Part[]): number {
  let next = at;
  for (const part of parts) {
    if (part instanceof Uint8Array) {
      bytes.set(part, next);
      next += part.length;
    } else {
      next = writeVarint(bytes, writeVarint(bytes, next, part.tag), part.length);
      next = write(bytes, next, part.content);
    }
  }
  return next;
}

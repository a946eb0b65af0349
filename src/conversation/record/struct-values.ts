import { Failure } from "../../infra/failure.ts";
import { LIST, STRUCT } from "../../infra/struct-tags.ts";
import { WireReader } from "../../infra/wire-reader.ts";
import { eachMember, intact } from "./struct-members.ts";

/**
 * How many values a struct may hold: members of objects and elements of lists, at any depth. Some planes and clients make an object
 * of each, and nobody else is served meanwhile: so many take some 50 ms.
 */
export const MOST_VALUES = 16_384;
/**
 * How many protobuf messages a request may hold besides a struct that is scanned as bytes: up to three a value, and what messages of
 * a conversation have around them. Counted before they are decoded, which is what takes the time.
 */
export const MOST_PARTS = 5 * MOST_VALUES;
/** An element that is null. No value takes less. */
const LEAST_BYTES = 4;

const MORE = `holds more than ${MOST_VALUES} values: members of objects and elements of lists, at any depth`;

export function tooManyValues(field: string): Failure {
  return tooMany("STATE_TOO_LARGE", field, MORE);
}

export function tooManyInMessage(field: string): Failure {
  return tooMany("MESSAGE_TOO_LARGE", field, MORE);
}

export function tooManyInMessages(field: string): Failure {
  const text = `hold more than ${MOST_VALUES} parts and values of JSON together; the limit is ${MOST_VALUES} a request`;
  return tooMany("TOO_MANY_MESSAGES", field, text);
}

function tooMany(reason: string, field: string, text: string): Failure {
  const metadata = { field, values_limit: String(MOST_VALUES) };
  return new Failure("too_large", reason, `${field}: ${text}`, { metadata });
}

/** Looks at a struct that is plainly written, and was put together of two that were checked. */
export function refuseTooManyValues(field: string, plain: Uint8Array): void {
  if (plain.length > LEAST_BYTES * MOST_VALUES && countOf(plain) > MOST_VALUES) throw tooManyValues(field);
}

function countOf(plain: Uint8Array): number {
  return intact(() => valuesOfStruct(new WireReader(plain).bytes, 0, plain.length));
}

function valuesOfStruct(bytes: Buffer, start: number, end: number): number {
  let values = 0;
  eachMember(bytes, start, end, (member) => {
    values += 1 + valuesWithin(bytes, member.valueStart, member.end);
  });
  return values;
}

/** How many a value holds; it is not counted itself. */
function valuesWithin(bytes: Buffer, start: number, end: number): number {
  const kind = bytes[start];
  if (kind !== STRUCT && kind !== LIST) return 0;
  const reader = new WireReader(bytes);
  reader.at = start + 1;
  const last = reader.endOfBytes(end);
  if (kind === STRUCT) return valuesOfStruct(bytes, reader.at, last);
  let values = 0;
  while (reader.at < last) {
    reader.varint();
    const next = reader.endOfBytes(last);
    values += 1 + valuesWithin(bytes, reader.at, next);
    reader.at = next;
  }
  return values;
}

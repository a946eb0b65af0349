import { BackwardsWriter } from "../infra/backwards-writer.ts";
import { varintBytes } from "../infra/wire-reader.ts";
import type { CacheRecord } from "./record.ts";

/**
 * Replies written straight into protobuf binary. Making the messages and having them encoded costs several times as much as
 * everything else a read does, and these are what the cache answers most. A test holds them to what the generated code
 * would have written.
 */

interface LeaseFields {
  readonly token: string;
  readonly expiresAt: number;
}

/** What a reply says of one key. `outcome` is the number of the enum. */
export interface GetFields {
  readonly outcome: number;
  readonly key: string;
  readonly record: CacheRecord | undefined;
}

export function encodeGet(fields: GetFields, lease: LeaseFields | undefined): Buffer {
  const writer = new BackwardsWriter(boundOf(fields) + 3 * (lease?.token.length ?? 0));
  if (lease !== undefined) {
    const end = writer.at;
    writer.time(0x12, lease.expiresAt);
    writer.scalarText(0x0a, lease.token);
    writer.message(0x1a, end);
  }
  writeResult(writer, fields);
  return writer.done();
}

/** A GetManyResponse; a result that is no more than bytes is a GetResult encoded elsewhere. */
export function encodeGetMany(results: readonly (GetFields | Uint8Array)[]): Buffer {
  let bound = 0;
  for (const result of results) bound += result instanceof Uint8Array ? result.length + 8 : boundOf(result);
  const writer = new BackwardsWriter(bound);
  for (let i = results.length - 1; i >= 0; i--) {
    const result = results[i];
    if (result instanceof Uint8Array) {
      writer.bytes(0x0a, result);
    } else if (result !== undefined) {
      const end = writer.at;
      writeResult(writer, result);
      writer.message(0x0a, end);
    }
  }
  return writer.done();
}

/** A GetResponse and a GetResult have the same fields under the same numbers. */
function writeResult(writer: BackwardsWriter, { outcome, key, record }: GetFields): void {
  if (record !== undefined) {
    const end = writer.at;
    for (let i = record.tags.length - 1; i >= 0; i--) writer.text(0x2a, record.tags[i] ?? "");
    if (record.expiresAt !== undefined) writer.time(0x22, record.expiresAt);
    writer.number(0x18, record.version);
    const valueEnd = writer.at;
    const { data, contentType } = record.value;
    writer.scalarText(0x1a, contentType);
    if (typeof data === "string") writer.text(0x12, data);
    else writer.bytes(0x0a, data);
    writer.message(0x12, valueEnd);
    writer.scalarText(0x0a, key);
    writer.message(0x12, end);
  }
  writer.number(0x08, outcome);
}

/** A SetResponse. */
export function encodeSet(outcome: number, version: number, expiresAt: number | undefined): Buffer {
  const writer = new BackwardsWriter(64);
  if (expiresAt !== undefined) writer.time(0x1a, expiresAt);
  if (version !== 0) writer.number(0x10, version);
  writer.number(0x08, outcome);
  return writer.done();
}

/** What a result of a GetManyResponse takes, to the byte. */
export function sizeOfResult({ outcome, key, record }: GetFields): number {
  let size = numberSize(outcome);
  if (record !== undefined) {
    const { data, contentType } = record.value;
    const value = scalarSize(contentType) + nestedSize(typeof data === "string" ? textSize(data) : data.byteLength);
    let entry = nestedSize(value) + scalarSize(key) + numberSize(record.version);
    if (record.expiresAt !== undefined) entry += nestedSize(timeSize(record.expiresAt));
    for (const tag of record.tags) entry += nestedSize(textSize(tag));
    size += nestedSize(entry);
  }
  return nestedSize(size);
}

const textSize = (text: string) => Buffer.byteLength(text);
/** With its tag and length. */
const nestedSize = (size: number) => 1 + varintBytes(size) + size;
const scalarSize = (text: string) => (text === "" ? 0 : nestedSize(textSize(text)));

function timeSize(ms: number): number {
  const whole = Math.round(ms);
  return numberSize(Math.floor(whole / 1000)) + numberSize((whole % 1000) * 1_000_000);
}

const numberSize = (value: number) => (value === 0 ? 0 : 1 + varintBytes(value));

/** More than tags, lengths, numbers and times of one reply can take. */
const FIXED_BYTES = 160;

/** More than one key takes in a reply; cheaper to tell than what it does take. */
export function boundOf({ key, record }: Pick<GetFields, "key" | "record">): number {
  let bound = FIXED_BYTES + 3 * key.length;
  if (record === undefined) return bound;
  const { data, contentType } = record.value;
  bound += 3 * contentType.length + (typeof data === "string" ? 3 * data.length : data.byteLength);
  for (const tag of record.tags) bound += 3 * tag.length + 4;
  return bound;
}

import { type CacheRecord, type CacheValue, type Draft, NO_VALUE } from "./record.ts";

/**
 * How a record stands in Redis: one line of header that people (and the write script) can read, then the value as it is.
 *
 *     h1 <version> <t|r|d> <created> <expires|-> <stale until|-> <content type|-> <stamps,...> <tags,...|->
 *
 * t: text, r: raw bytes, d: tombstone. Content type and tags are percent-encoded.
 */
const MAGIC = "h1";
const NONE = "-";
const NEWLINE = 0x0a;

function escaped(text: string): string {
  if (text === "") return NONE;
  return text === NONE ? "%2D" : encodeURIComponent(text);
}

function unescaped(text: string): string {
  return text === NONE ? "" : decodeURIComponent(text);
}

/** The header from the flag on; the script puts magic and version before it. */
export function headerTail(draft: Draft, stamps: readonly number[]): string {
  const flag = draft.deleted ? "d" : typeof draft.value.data === "string" ? "t" : "r";
  const tags = draft.tags.length === 0 ? NONE : draft.tags.map(encodeURIComponent).join(",");
  return ` ${flag} ${draft.createdAt} ${draft.expiresAt ?? NONE} ${draft.staleUntil ?? NONE} ${escaped(
    draft.value.contentType,
  )} ${stamps.join(",")} ${tags}\n`;
}

export function payload(draft: Draft): Uint8Array | string {
  return draft.deleted ? "" : draft.value.data;
}

/** Everything but the value: what a listing needs. Undefined when the header is cut off, or is not one of ours. */
export function parseHeader(bytes: Buffer): CacheRecord | undefined {
  return parse(bytes, () => "");
}

/** Undefined when the bytes are not a record of ours: a key that someone else wrote over counts as not there. */
export function parseRecord(bytes: Buffer): CacheRecord | undefined {
  return parse(bytes, dataOf);
}

type DataOf = (bytes: Buffer, start: number, flag: string) => CacheValue["data"];

function dataOf(bytes: Buffer, start: number, flag: string): CacheValue["data"] {
  return flag === "t" ? bytes.toString("utf8", start) : bytes.subarray(start);
}

function parse(bytes: Buffer, data: DataOf): CacheRecord | undefined {
  const end = bytes.indexOf(NEWLINE);
  if (end < 0) return undefined;
  try {
    return recordOf(bytes, end, data);
  } catch {
    // Not percent-encoded as ours are.
    return undefined;
  }
}

function recordOf(bytes: Buffer, end: number, data: DataOf): CacheRecord | undefined {
  const [magic, text, flag, created, expires, stale, type, stamps, tags] = bytes.toString("latin1", 0, end).split(" ");
  const version = Number(text);
  if (magic !== MAGIC || flag === undefined || !Number.isSafeInteger(version)) return undefined;
  if (type === undefined || stamps === undefined || tags === undefined) return undefined;
  const deleted = flag === "d";
  return {
    version,
    deleted,
    value: deleted ? NO_VALUE : { data: data(bytes, end + 1, flag), contentType: unescaped(type) },
    createdAt: Number(created),
    expiresAt: expires === NONE ? undefined : Number(expires),
    staleUntil: stale === NONE ? undefined : Number(stale),
    tags: tags === NONE ? NO_TAGS : tags.split(",").map(decodeURIComponent),
    stamps: stamps.includes(",") ? stamps.split(",").map(Number) : [Number(stamps)],
  };
}

const NO_TAGS: readonly string[] = [];

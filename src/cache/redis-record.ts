import { type CacheRecord, type Draft, NO_VALUE } from "./record.ts";

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
export function parseHeader(bytes: Buffer): { record: CacheRecord; end: number } | undefined {
  const end = bytes.indexOf(NEWLINE);
  if (end < 0) return undefined;
  try {
    return headerOf(bytes, end);
  } catch {
    // Not percent-encoded as ours are.
    return undefined;
  }
}

function headerOf(bytes: Buffer, end: number): { record: CacheRecord; end: number } | undefined {
  const [magic, version, flag, created, expires, stale, type, stamps, tags] = bytes
    .toString("latin1", 0, end)
    .split(" ");
  if (
    magic !== MAGIC ||
    version === undefined ||
    created === undefined ||
    type === undefined ||
    stamps === undefined ||
    tags === undefined ||
    !Number.isSafeInteger(Number(version))
  ) {
    return undefined;
  }
  const record: CacheRecord = {
    version: Number(version),
    deleted: flag === "d",
    value: { data: flag === "t" ? "" : NO_BYTES, contentType: unescaped(type) },
    createdAt: Number(created),
    expiresAt: expires === NONE ? undefined : Number(expires),
    staleUntil: stale === NONE ? undefined : Number(stale),
    tags: tags === NONE ? NO_TAGS : tags.split(",").map(decodeURIComponent),
    stamps: stamps.includes(",") ? stamps.split(",").map(Number) : [Number(stamps)],
  };
  return { record, end };
}

/** Undefined when the bytes are not a record of ours: a key that someone else wrote over counts as not there. */
export function parseRecord(bytes: Buffer): CacheRecord | undefined {
  const parsed = parseHeader(bytes);
  if (parsed === undefined) return undefined;
  const { record, end } = parsed;
  if (record.deleted) return { ...record, value: NO_VALUE };
  const { contentType, data } = record.value;
  const body = typeof data === "string" ? bytes.toString("utf8", end + 1) : bytes.subarray(end + 1);
  return { ...record, value: { data: body, contentType } };
}

const NO_BYTES = new Uint8Array(0);
const NO_TAGS: readonly string[] = [];

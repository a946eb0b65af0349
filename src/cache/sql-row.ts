import type { SqlRow, SqlValue } from "../infra/database.ts";
import { type CacheRecord, type Draft, NO_VALUE, valueBytes } from "./record.ts";

/** A row of cache_entry, and the columns in the order its statements bind them. */
export interface EntryRow extends SqlRow {
  readonly key: string;
  readonly version: number;
  readonly deleted: number;
  /** Text may come as such, or as its bytes. */
  readonly value: Uint8Array | string | null;
  readonly is_text: number;
  readonly content_type: string;
  readonly created_at: number;
  readonly expires_at: number | null;
  readonly stale_until: number | null;
  readonly stamps: string;
}

export const ENTRY_COLUMNS = [
  "version",
  "deleted",
  "value",
  "is_text",
  "content_type",
  "created_at",
  "expires_at",
  "stale_until",
  "stamps",
  "unhealed",
] as const;

export function entryParams(
  namespace: string,
  key: string,
  draft: Draft,
  stamps: readonly number[],
  unhealed: boolean,
): SqlValue[] {
  return [
    namespace,
    key,
    draft.version,
    draft.deleted ? 1 : 0,
    draft.deleted ? null : valueBytes(draft.value),
    typeof draft.value.data === "string" ? 1 : 0,
    draft.value.contentType,
    draft.createdAt,
    draft.expiresAt ?? null,
    draft.staleUntil ?? null,
    stampsText(draft.tags, stamps),
    unhealed ? 1 : 0,
  ];
}

export function recordOf(row: EntryRow): CacheRecord {
  const { tags, stamps } = parseStamps(row.stamps);
  return {
    version: row.version,
    deleted: row.deleted !== 0,
    value: row.deleted !== 0 ? NO_VALUE : { data: dataOf(row), contentType: row.content_type },
    createdAt: row.created_at,
    expiresAt: row.expires_at ?? undefined,
    staleUntil: row.stale_until ?? undefined,
    tags,
    stamps,
  };
}

function dataOf(row: EntryRow): Uint8Array | string {
  if (typeof row.value === "string") return row.value;
  const bytes = row.value ?? new Uint8Array(0);
  if (row.is_text === 0) return bytes;
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
}

/** `[namespace stamp, tag, its stamp, tag, its stamp, ...]`: the namespace's comes first, so that it can be matched as text. */
function stampsText(tags: readonly string[], stamps: readonly number[]): string {
  if (tags.length === 0) return `[${stamps[0] ?? 0}]`;
  return JSON.stringify([stamps[0] ?? 0, ...tags.flatMap((tag, i) => [tag, stamps[i + 1] ?? 0])]);
}

export function parseStamps(text: string): { tags: readonly string[]; stamps: readonly number[] } {
  const [own, ...rest] = JSON.parse(text) as [number, ...(string | number)[]];
  const tags: string[] = [];
  const stamps = [own];
  for (const part of rest) {
    if (typeof part === "string") tags.push(part);
    else stamps.push(part);
  }
  return { tags, stamps };
}

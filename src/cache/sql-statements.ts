import type { Announcement } from "./change.ts";
import { ENTRY_COLUMNS } from "./sql-row.ts";

/**
 * The writing statements of cache_entry. Each is one atomic step that stores a row if its guard holds and returns the version
 * it was stored under, or no row. Parameters 1 to 12 are the row (see entryParams); what follows is said at each.
 */
export interface EntryStatements {
  /** Replaces whatever is there, under a larger version. */
  readonly put: string;
  /** Only over an older version, or a tombstone of the same one. */
  readonly putNewer: string;
  /** Only where there is no row. */
  readonly insert: string;
  /** Only over the version seen. Then: version seen. */
  readonly update: string;
  /** Only over the version seen or no row. Then: version seen. */
  readonly putSeen: string;
  /** Like putSeen, while the lease is held. Then: version seen, token, now. For a database that others write, too. */
  readonly putLeased: string;
  /** Over the version seen, or a row that is not unhealed and so counts as none. Then: version seen. */
  readonly keepSeen: string;
}

/** A larger version than what is there, also when the writer's clock is behind. */
const BUMP =
  "version = CASE WHEN cache_entry.version >= excluded.version THEN cache_entry.version + 1 ELSE excluded.version END";

/** With `notify`, three more parameters come last: channel, message before and after the version. */
export function entryStatements(notify: boolean): EntryStatements {
  const columns = `namespace, key, ${ENTRY_COLUMNS.join(", ")}`;
  const values = ENTRY_COLUMNS.map((_, i) => `$${i + 3}`).join(", ");
  const casts = [
    "TEXT",
    "TEXT",
    "BIGINT",
    "BIGINT",
    "BYTEA",
    "BIGINT",
    "TEXT",
    "BIGINT",
    "BIGINT",
    "BIGINT",
    "TEXT",
    "BIGINT",
  ];
  const insert = `INSERT INTO cache_entry (${columns}) VALUES ($1, $2, ${values})`;
  const insertWhile = (condition: string) =>
    `INSERT INTO cache_entry (${columns}) SELECT ${casts.map((type, i) => `CAST($${i + 1} AS ${type})`).join(", ")} WHERE ${condition}`;
  const replace = ENTRY_COLUMNS.slice(1).map((column) => `${column} = excluded.${column}`);
  const over = `ON CONFLICT (namespace, key) DO UPDATE SET ${[BUMP, ...replace].join(", ")}`;
  const copyOver = `ON CONFLICT (namespace, key) DO UPDATE SET ${["version = excluded.version", ...replace].join(", ")}`;
  const older = `(cache_entry.version < excluded.version
    OR (cache_entry.version = excluded.version AND cache_entry.deleted <> 0 AND excluded.deleted = 0))`;
  const returning = (used: number) =>
    notify
      ? ` RETURNING version, pg_notify($${used + 1}, $${used + 2} || CAST(version AS TEXT) || $${used + 3}) AS told`
      : " RETURNING version";
  const lease =
    "EXISTS (SELECT 1 FROM cache_lease WHERE namespace = $1 AND key = $2 AND token = $14 AND expires_at > $15)";
  return {
    put: `${insert} ${over}${returning(12)}`,
    putNewer: `${insert} ${copyOver} WHERE ${older}${returning(12)}`,
    insert: `${insert} ON CONFLICT (namespace, key) DO NOTHING${returning(12)}`,
    update: `UPDATE cache_entry SET ${ENTRY_COLUMNS.map((column, i) => `${column} = $${i + 3}`).join(", ")}
      WHERE namespace = $1 AND key = $2 AND version = $13${returning(13)}`,
    putSeen: `${insert} ${over} WHERE cache_entry.version = $13${returning(13)}`,
    putLeased: `${insertWhile(lease)} ${over} WHERE cache_entry.version = $13${returning(15)}`,
    keepSeen: `${insert} ${over} WHERE cache_entry.version = $13 OR cache_entry.unhealed = 0${returning(13)}`,
  };
}

export function announcementParams(told: Announcement | undefined): string[] {
  return told === undefined ? [] : [told.channel, told.before, told.after];
}

/** A list of parameters `$from, ...`: as many as the next power of two, so that few distinct statements are prepared. */
export function paddedList<T>(from: number, values: readonly T[]): { text: string; params: T[] } {
  const last = values.at(-1);
  if (last === undefined) throw new RangeError("a list of parameters needs at least one value");
  let size = 1;
  while (size < values.length) size *= 2;
  const params = [...values];
  while (params.length < size) params.push(last);
  return { text: params.map((_, i) => `$${from + i}`).join(", "), params };
}

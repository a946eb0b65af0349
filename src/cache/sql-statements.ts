import type { Database } from "../infra/database.ts";
import type { Announcement } from "./change.ts";
import { ENTRY_COLUMNS } from "./sql-row.ts";

/**
 * The writing statements of cache_entry. Each is one atomic step that stores a row if its guard holds and returns the version
 * it was stored under, or no row. Parameters 1 to 12 are the row (see entryParams); what follows is said at each. In Postgres
 * the same step ends the lease of the key, except for a copy.
 */
export interface EntryStatements {
  /** Replaces whatever is there, under a larger version. */
  readonly put: EntryStatement;
  /** Only over an older version, or a tombstone of the same one. */
  readonly putNewer: EntryStatement;
  /** Like putNewer, for a copy of what is true elsewhere: it leaves a lease alone. */
  readonly copy: EntryStatement;
  /** Only where there is no row. */
  readonly insert: EntryStatement;
  /** Only over the version seen. Then: version seen. */
  readonly update: EntryStatement;
  /** Only over the version seen or no row. Then: version seen. */
  readonly putSeen: EntryStatement;
  /** Like putSeen, while the lease is held. Then: version seen, token, now. For a database that others write, too. */
  readonly putLeased: EntryStatement;
  /** Over the version seen, or a row that is not unhealed and so counts as none. Then: version seen. */
  readonly keepSeen: EntryStatement;
}

export interface EntryStatement {
  readonly sql: string;
  /** The same, and if this very call stored the row it remembers a request. Then: request id, answer, its expiry. */
  readonly remembering: string;
}

/** A larger version than what is there, also when the writer's clock is behind. */
const BUMP =
  "version = CASE WHEN cache_entry.version >= excluded.version THEN cache_entry.version + 1 ELSE excluded.version END";

export interface EntryStatementsOptions {
  /** Three more parameters come after the statement's own: channel, message before and after the version. */
  readonly notify: boolean;
  readonly kind: Database["kind"];
}

export function entryStatements({ notify, kind }: EntryStatementsOptions): EntryStatements {
  const columns = `namespace, key, ${ENTRY_COLUMNS.join(", ")}`;
  const values = ENTRY_COLUMNS.map((_, i) => `$${i + 3}`).join(", ");
  const casts = CASTS.map((type, i) => `CAST($${i + 1} AS ${type})`).join(", ");
  const insert = `INSERT INTO cache_entry (${columns}) VALUES ($1, $2, ${values})`;
  const insertWhile = (condition: string) => `INSERT INTO cache_entry (${columns}) SELECT ${casts} WHERE ${condition}`;
  const replace = ENTRY_COLUMNS.slice(1).map((column) => `${column} = excluded.${column}`);
  const over = `ON CONFLICT (namespace, key) DO UPDATE SET ${[BUMP, ...replace].join(", ")}`;
  const copyOver = `ON CONFLICT (namespace, key) DO UPDATE SET ${["version = excluded.version", ...replace].join(", ")}`;
  const older = `(cache_entry.version < excluded.version
    OR (cache_entry.version = excluded.version AND cache_entry.deleted <> 0 AND excluded.deleted = 0))`;
  const lease =
    "EXISTS (SELECT 1 FROM cache_lease WHERE namespace = $1 AND key = $2 AND token = $14 AND expires_at > $15)";

  /** `used`: the parameters of the statement itself. */
  function step(statement: string, used: number, endsLease = true): EntryStatement {
    const told = `pg_notify($${used + 1}, $${used + 2} || CAST(version AS TEXT) || $${used + 3}) AS told`;
    const storing = `${statement} RETURNING version${notify ? `, ${told}` : ""}`;
    // In SQLite what follows goes into the same transaction as a statement of its own, and leases are in memory.
    if (kind === "sqlite") return { sql: storing, remembering: storing };
    const at = used + (notify ? 3 : 0);
    const remember = `INSERT INTO cache_request ${REQUEST_COLUMNS} SELECT CAST($1 AS TEXT), CAST($2 AS TEXT),
      CAST($${at + 1} AS TEXT), CAST($${at + 2} AS TEXT), CAST($${at + 3} AS BIGINT) FROM stored ${REPLACE_REQUEST}`;
    const parts = [`stored AS (${storing})`];
    if (endsLease) {
      const isStored = "EXISTS (SELECT 1 FROM stored)";
      parts.push(`ended AS (DELETE FROM cache_lease WHERE namespace = $1 AND key = $2 AND ${isStored})`);
    }
    const all = (steps: readonly string[]) => `WITH ${steps.join(", ")} SELECT * FROM stored`;
    return { sql: all(parts), remembering: all([...parts, `remembered AS (${remember})`]) };
  }

  return {
    put: step(`${insert} ${over}`, 12),
    putNewer: step(`${insert} ${copyOver} WHERE ${older}`, 12),
    copy: step(`${insert} ${copyOver} WHERE ${older}`, 12, false),
    insert: step(`${insert} ON CONFLICT (namespace, key) DO NOTHING`, 12),
    update: step(
      `UPDATE cache_entry SET ${ENTRY_COLUMNS.map((column, i) => `${column} = $${i + 3}`).join(", ")}
       WHERE namespace = $1 AND key = $2 AND version = $13`,
      13,
    ),
    putSeen: step(`${insert} ${over} WHERE cache_entry.version = $13`, 13),
    putLeased: step(`${insertWhile(lease)} ${over} WHERE cache_entry.version = $13`, 15),
    keepSeen: step(`${insert} ${over} WHERE cache_entry.version = $13 OR cache_entry.unhealed = 0`, 13),
  };
}

/** The types of the parameters of a row, where the statement does not say them. */
const CASTS = [
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
const REQUEST_COLUMNS = "(namespace, key, request_id, answer, expires_at)";
const REPLACE_REQUEST =
  "ON CONFLICT (namespace, key, request_id) DO UPDATE SET answer = excluded.answer, expires_at = excluded.expires_at";

/**
 * In SQLite, right after the entry's statement in one transaction: only if that one stored a row. That the row now has the
 * version proposed would not prove it: it may be another call's.
 */
export const REMEMBER_IF_STORED = `INSERT INTO cache_request ${REQUEST_COLUMNS}
  SELECT $1, $2, $3, $4, $5 WHERE changes() > 0 ${REPLACE_REQUEST}`;

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

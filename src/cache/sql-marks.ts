import { LRUCache } from "lru-cache";
import type { Database, SqlStatement, SqlValue } from "../infra/database.ts";
import type { Announcer } from "./change.ts";
import { announcementParams, paddedList } from "./sql-statements.ts";
import { invalidationStamp, madeStamp } from "./version.ts";

/** The stamps of namespaces ("" among the tags) and tags, in SQL. */
export interface SqlMarks {
  /** The current stamps; a mark that was never made is missing. */
  current(namespace: string, tags: readonly string[]): Promise<ReadonlyMap<string, number>>;
  /** The current stamps in order; those missing are made from `fresh`. */
  ensure(namespace: string, tags: readonly string[], fresh: number): Promise<number[]>;
  /** Gives new stamps, `stamp` or larger, and returns them in the order of the tags. With `keep`, they are remembered as unhealed. */
  invalidate(namespace: string, tags: readonly string[], stamp: number, keep: boolean): Promise<number[]>;
  /** Forgets what is known of a mark without asking: it is idle, and perhaps soon removed (see sql-mark-reclaimer.ts). */
  forget(namespace: string, tag: string): void;
}

export interface SqlMarksOptions {
  readonly database: Database;
  readonly announcer: Announcer | undefined;
}

// An odd one after an odd one: see version.ts.
const RAISE = `stamp = CASE WHEN cache_mark.stamp >= excluded.stamp
  THEN cache_mark.stamp + 1 + cache_mark.stamp % 2 ELSE excluded.stamp END`;

export function createSqlMarks({ database, announcer }: SqlMarksOptions): SqlMarks {
  // Where nobody else writes the database, what was read once is known until we change it ourselves.
  const known = database.shared
    ? undefined
    : new LRUCache<string, Map<string, number>>({ maxSize: 10_000, sizeCalculation: () => 1 });

  function knownOf(namespace: string): Map<string, number> | undefined {
    if (known === undefined) return undefined;
    let stamps = known.get(namespace);
    if (stamps === undefined) {
      stamps = new Map();
      known.set(namespace, stamps);
    } else if (stamps.size > 10_000) {
      stamps.clear();
    }
    return stamps;
  }

  async function look(namespace: string, tags: readonly string[]): Promise<Looked> {
    const cached = knownOf(namespace);
    const missing = cached === undefined ? tags : tags.filter((tag) => !cached.has(tag));
    if (cached !== undefined && missing.length === 0) return { stamps: cached, idle: NONE };
    const { text, params } = paddedList(2, missing);
    const rows = await database.query<{ tag: string; stamp: number; idle_since: number | null }>(
      `SELECT tag, stamp, idle_since FROM cache_mark WHERE namespace = $1 AND tag IN (${text})`,
      [namespace, ...params],
    );
    const stamps = cached ?? new Map<string, number>();
    // An invalidation that ended while we read has already put the larger stamp there.
    const learn = (into: Map<string, number>, tag: string, stamp: number) =>
      into.set(tag, Math.max(stamp, into.get(tag) ?? 0));
    const idle = rows.filter((row) => row.idle_since !== null);
    for (const { tag, stamp, idle_since } of rows) if (idle_since === null) learn(stamps, tag, stamp);
    if (idle.length === 0) return { stamps, idle: NONE };
    // Not to be known without asking: it may be removed.
    const all = new Map(stamps);
    for (const { tag, stamp } of idle) learn(all, tag, stamp);
    return { stamps: all, idle: idle.map(({ tag }) => tag) };
  }

  async function current(namespace: string, tags: readonly string[]): Promise<ReadonlyMap<string, number>> {
    return (await look(namespace, tags)).stamps;
  }

  async function ensure(namespace: string, tags: readonly string[], fresh: number): Promise<number[]> {
    for (;;) {
      const { stamps, idle } = await look(namespace, tags);
      const missing = tags.filter((tag) => !stamps.has(tag));
      if (missing.length === 0 && idle.length === 0) return tags.map((tag) => stamps.get(tag) ?? 0);
      await database.writeAll([
        ...missing.map((tag) => ({
          sql: "INSERT INTO cache_mark (namespace, tag, stamp, unhealed) VALUES ($1, $2, $3, 0) ON CONFLICT (namespace, tag) DO NOTHING",
          params: [namespace, tag, madeStamp(fresh)],
        })),
        ...idle.toSorted().map((tag) => ({
          sql: "UPDATE cache_mark SET idle_since = NULL WHERE namespace = $1 AND tag = $2",
          params: [namespace, tag],
        })),
      ]);
    }
  }

  async function invalidate(
    namespace: string,
    tags: readonly string[],
    stamp: number,
    keep: boolean,
  ): Promise<number[]> {
    const notify = announcer === undefined ? "" : ", pg_notify($4, $5 || CAST(stamp AS TEXT) || $6) AS told";
    const statements = tags.map((tag): SqlStatement => {
      const told = announcer?.(tag === "" ? "namespace" : "tag", namespace, tag);
      const params: SqlValue[] = [namespace, tag, invalidationStamp(stamp), ...announcementParams(told)];
      return {
        sql: `INSERT INTO cache_mark (namespace, tag, stamp, unhealed) VALUES ($1, $2, $3, ${keep ? 1 : 0})
          ON CONFLICT (namespace, tag) DO UPDATE SET ${RAISE}, idle_since = NULL${keep ? ", unhealed = 1" : ""} RETURNING stamp${notify}`,
        params,
      };
    });
    // One order for all, so that two invalidations of the same tags cannot lock each other out.
    const order = tags.map((tag, i) => ({ tag, statement: statements[i] })).sort((a, b) => (a.tag < b.tag ? -1 : 1));
    const results = await database.writeAll(
      order.flatMap(({ statement }) => (statement === undefined ? [] : [statement])),
    );
    const given = new Map(results.map((rows, i) => [order[i]?.tag, Number(rows[0]?.stamp)]));
    const stamps = knownOf(namespace);
    for (const [tag, now] of given) {
      if (stamps !== undefined && tag !== undefined) stamps.set(tag, Math.max(now, stamps.get(tag) ?? 0));
    }
    return tags.map((tag) => given.get(tag) ?? stamp);
  }

  return {
    current,
    ensure,
    invalidate,
    forget(namespace, tag) {
      known?.get(namespace)?.delete(tag);
    },
  };
}

interface Looked {
  readonly stamps: ReadonlyMap<string, number>;
  /** Those that are called idle, which is to be undone by whoever is about to use them. */
  readonly idle: readonly string[];
}

const NONE: readonly string[] = [];

import type { Clock } from "../infra/clock.ts";
import type { Database, SqlRow, SqlStatement, SqlValue } from "../infra/database.ts";
import type { Fence } from "../infra/fencing.ts";
import type { Announcer } from "./change.ts";
import { createMemoryLeases } from "./memory-leases.ts";
import type { CacheRecord } from "./record.ts";
import { createSqlFencedWrites, type FencedStep } from "./sql-fenced-writes.ts";
import { createSqlLeases } from "./sql-leases.ts";
import { createSqlMarks } from "./sql-marks.ts";
import { type EntryRow, entryParams, parseStamps, recordOf } from "./sql-row.ts";
import {
  announcementParams,
  type EntryStatement,
  entryStatements,
  paddedList,
  REMEMBER_IF_STORED,
} from "./sql-statements.ts";
import {
  type Guard,
  isOvertaken,
  type KeyInfo,
  type KeyPage,
  ListingInterruptedError,
  type ReadResult,
  type Refuge,
  refuseFenced,
  type Write,
  type WriteResult,
} from "./store.ts";

const COLUMNS = "key, version, deleted, is_text, content_type, created_at, expires_at, stale_until, stamps";
/**
 * SQLite hands text over as text: a buffer for each value costs twice the time, and leaves holes in the heap. Postgres cannot,
 * because its text has no NUL.
 */
const VALUE = {
  sqlite: "CASE WHEN is_text <> 0 THEN CAST(value AS TEXT) ELSE value END AS value",
  postgres: "value",
};

export interface SqlStoreOptions {
  readonly database: Database;
  /** How a write tells other instances, in the same transaction. Undefined where nobody else listens to this database. */
  readonly announcer: Announcer | undefined;
  readonly clock: Clock;
  readonly newStamp: () => number;
}

export interface SqlStore extends Refuge {
  /** Forgets what this process knows of a mark without asking. */
  forgetMark(namespace: string, tag: string): void;
}

export function createSqlStore({ database, announcer, clock, newStamp }: SqlStoreOptions): SqlStore {
  const layer = database.kind;
  const statements = entryStatements({ notify: announcer !== undefined, kind: database.kind });
  const marks = createSqlMarks({ database, announcer });
  const fenced = createSqlFencedWrites(database);
  const leases = database.shared ? createSqlLeases(database, clock) : createMemoryLeases(clock);

  async function readWhere(condition: string, namespace: string, keys: readonly string[]): Promise<ReadResult[]> {
    const { text, params } = paddedList(2, keys);
    const rows = await database.query<EntryRow>(
      `SELECT ${COLUMNS}, ${VALUE[database.kind]} FROM cache_entry WHERE namespace = $1 AND key IN (${text})${condition}`,
      [namespace, ...params],
    );
    const records = new Map(rows.map((row) => [row.key, recordOf(row)]));
    const stamps = rows.length === 0 ? NO_STAMPS : await stampsOf(namespace, [...records.values()]);
    return keys.map((key) => {
      const record = records.get(key);
      return { record, valid: record !== undefined && isCurrent(record, stamps), layer };
    });
  }

  function stampsOf(namespace: string, records: readonly { tags: readonly string[] }[]) {
    return marks.current(namespace, [...new Set(["", ...records.flatMap((record) => record.tags)])]);
  }

  async function writeOne(namespace: string, wanted: Write, over: "any" | "kept"): Promise<WriteResult> {
    const write = withLargerVersion(wanted);
    const order = orderFor(namespace, write, await stampsFor(namespace, write), over);
    return "stored" in order ? order : resultOf(order, await run(order.statements));
  }

  /** The writes of one call, all under one fence. */
  async function writeFenced(namespace: string, fence: Fence, wanted: readonly Write[]): Promise<WriteResult[]> {
    const orders = await Promise.all(
      wanted.map(async (one) => {
        const write = withLargerVersion(one);
        return orderFor(namespace, write, await stampsFor(namespace, write), "any");
      }),
    );
    const sent = orders.flatMap((order) => ("stored" in order ? [] : [order]));
    const outcome = await fenced.carryOut(fence, sent);
    if ("newest" in outcome) return wanted.map(() => ({ stored: false, why: "fenced", newest: outcome.newest, layer }));
    let next = 0;
    return orders.map((order) => ("stored" in order ? order : resultOf(order, outcome.rows[next++] ?? [])));
  }

  async function stampsFor(namespace: string, { stamps, draft }: Write): Promise<readonly number[]> {
    return stamps ?? (await marks.ensure(namespace, ["", ...draft.tags], newStamp()));
  }

  /** What to carry out; or the answer, when the write is refused before that. */
  function orderFor(namespace: string, write: Write, stamps: readonly number[], over: "any" | "kept"): Order | Refusal {
    const { key, draft, guard } = write;
    if (isOvertaken(guard, stamps)) return { stored: false, why: "overtaken", stamp: Math.max(...stamps), layer };
    if (guard.kind === "lease" && !leases.holds(namespace, key, guard.token))
      return { stored: false, why: "lease", layer };
    const told = write.announce === "no" ? undefined : announcer?.(write.announce, namespace, key);
    const notify = announcer === undefined ? [] : announcementParams(told ?? NOBODY);
    const row = entryParams(namespace, key, draft, stamps, write.unhealed ?? false);
    const { statement, seen } = chosen(write, over);
    const statements = statementsOf(statement, [...row, ...seen, ...notify], namespace, write);
    return { namespace, key, guard, stamps, statements };
  }

  function resultOf({ namespace, key, guard, stamps }: Order, [stored]: readonly SqlRow[]): WriteResult {
    if (stored === undefined) return { stored: false, why: guard.kind === "lease" ? "lease" : "version", layer };
    if (guard.kind !== "newer") leases.void(namespace, key);
    return { stored: true, version: Number(stored.version), stamps, layer };
  }

  /** The statement for the guard, and what it takes beyond the row. */
  function chosen({ guard }: Write, over: "any" | "kept"): { statement: EntryStatement; seen: readonly SqlValue[] } {
    switch (guard.kind) {
      case "none":
        return { statement: guard.ordered ? statements.putNewer : statements.put, seen: [] };
      case "newer":
        return { statement: statements.copy, seen: [] };
      case "version":
        if (over === "kept") return { statement: statements.keepSeen, seen: [guard.seen] };
        if (guard.orAbsent) return { statement: statements.putSeen, seen: [guard.seen] };
        if (guard.seen === 0) return { statement: statements.insert, seen: [] };
        return { statement: statements.update, seen: [guard.seen] };
      case "lease":
        return database.shared
          ? { statement: statements.putLeased, seen: [guard.seen, guard.token, clock.now()] }
          : { statement: statements.putSeen, seen: [guard.seen] };
    }
  }

  /** One, or one and what is to be remembered if it stores. */
  function statementsOf(
    { sql, remembering }: EntryStatement,
    params: readonly SqlValue[],
    namespace: string,
    { key, request }: Write,
  ): readonly [SqlStatement, ...SqlStatement[]] {
    if (request === undefined) return [{ sql, params }];
    const asked = [request.id, request.answer, request.expiresAt];
    if (database.kind === "postgres") return [{ sql: remembering, params: [...params, ...asked] }];
    return [
      { sql: remembering, params },
      { sql: REMEMBER_IF_STORED, params: [namespace, key, ...asked] },
    ];
  }

  /** In one go, so that concurrent ones can share a commit. */
  async function run(statements: readonly [SqlStatement, ...SqlStatement[]]): Promise<SqlRow[]> {
    const [{ sql, params }, ...more] = statements;
    if (more.length === 0) return database.write(sql, params);
    const [stored = []] = await database.writeAll(statements);
    return stored;
  }

  async function list(namespace: string, prefix: string, limit: number, cursor: string | undefined): Promise<KeyPage> {
    const keys: KeyInfo[] = [];
    if (cursor !== undefined && !cursor.startsWith(CURSOR)) throw new ListingInterruptedError();
    let after = cursor?.slice(CURSOR.length);
    for (;;) {
      const rows = await database.query<Pick<EntryRow, "key" | "version" | "expires_at" | "stamps">>(
        `SELECT key, version, expires_at, stamps FROM cache_entry
         WHERE namespace = $1 AND ${after === undefined ? "key >= $2" : "key > $2"} AND deleted = 0
           AND (expires_at IS NULL OR expires_at > $3)
         ORDER BY key LIMIT $4`,
        [namespace, after ?? prefix, clock.now(), limit + 1],
      );
      const matching = rows.filter((row) => row.key.startsWith(prefix));
      const parsed = matching.map((row) => parseStamps(row.stamps));
      const stamps = matching.length === 0 ? NO_STAMPS : await stampsOf(namespace, parsed);
      for (const [i, row] of matching.entries()) {
        if (keys.length === limit) return { keys, cursor: CURSOR + (keys.at(-1)?.key ?? "") };
        const { tags, stamps: own } = parsed[i] ?? NOTHING;
        if (!isCurrent({ tags, stamps: own }, stamps)) continue;
        keys.push({ key: row.key, version: row.version, expiresAt: row.expires_at ?? undefined });
      }
      if (matching.length < rows.length || rows.length <= limit) return { keys, cursor: undefined };
      after = rows.at(-1)?.key;
    }
  }

  return {
    layer,
    forgetMark: marks.forget,
    read: (namespace, keys) => readWhere("", namespace, keys),
    readKept: (namespace, keys) => readWhere(" AND unhealed <> 0", namespace, keys),
    write(namespace, writes) {
      const fence = writes[0]?.fence;
      if (fence !== undefined) return writeFenced(namespace, fence, writes);
      return Promise.all(writes.map((write) => writeOne(namespace, write, "any")));
    },
    async keep(namespace, writes) {
      refuseFenced(writes);
      return Promise.all(writes.map((write) => writeOne(namespace, { ...write, unhealed: true }, "kept")));
    },
    async invalidate(namespace, tags, stamp) {
      await marks.invalidate(namespace, tags.length === 0 ? [""] : tags, stamp, false);
      return {};
    },
    async keepInvalidation(namespace, tags, stamp) {
      const names = tags.length === 0 ? [""] : tags;
      const stamps = await marks.invalidate(namespace, names, stamp, true);
      return names.map((tag, i) => ({ namespace, tag, stamp: stamps[i] ?? stamp }));
    },
    acquireLease: (namespace, key, token, expiresAt) => leases.acquire(namespace, key, token, expiresAt),
    releaseLease: leases.release,
    async recall(namespace, key, requestId) {
      const [row] = await database.query<{ answer: string }>(
        "SELECT answer FROM cache_request WHERE namespace = $1 AND key = $2 AND request_id = $3 AND expires_at > $4",
        [namespace, key, requestId, clock.now()],
      );
      return row?.answer;
    },
    list,
    unhealed: (limit) =>
      database.query<UnhealedRow>("SELECT namespace, key, version FROM cache_entry WHERE unhealed <> 0 LIMIT $1", [
        limit,
      ]),
    unhealedMarks: (limit) =>
      database.query<UnhealedMarkRow>("SELECT namespace, tag, stamp FROM cache_mark WHERE unhealed <> 0 LIMIT $1", [
        limit,
      ]),
    async unhealedCount() {
      const [row] = await database.query<{ count: number }>(
        `SELECT (SELECT COUNT(*) FROM cache_entry WHERE unhealed <> 0) + (SELECT COUNT(*) FROM cache_mark WHERE unhealed <> 0) AS count`,
      );
      return Number(row?.count ?? 0);
    },
    async latestUnhealed() {
      const [row] = await database.query<{ entry: number | null; mark: number | null }>(
        `SELECT (SELECT MAX(version) FROM cache_entry WHERE unhealed <> 0) AS entry,
                (SELECT MAX(stamp) FROM cache_mark WHERE unhealed <> 0) AS mark`,
      );
      return Math.max(row?.entry ?? 0, row?.mark ?? 0);
    },
    async raisedTags(namespace) {
      const rows = await database.query<{ tag: string }>(
        "SELECT tag FROM cache_mark WHERE namespace = $1 AND unhealed <> 0",
        [namespace],
      );
      return new Set(rows.map((row) => row.tag));
    },
    async settle(entries, forget) {
      if (entries.length === 0) return;
      const act = forget ? "DELETE FROM cache_entry" : "UPDATE cache_entry SET unhealed = 0";
      await database.writeAll(
        entries.map(({ namespace, key, version }) => ({
          sql: `${act} WHERE namespace = $1 AND key = $2 AND version = $3 AND unhealed <> 0`,
          params: [namespace, key, version],
        })),
      );
    },
    async settleMarks(raised) {
      if (raised.length === 0) return;
      await database.writeAll(
        raised.map(({ namespace, tag, stamp }) => ({
          sql: "UPDATE cache_mark SET unhealed = 0 WHERE namespace = $1 AND tag = $2 AND stamp = $3 AND unhealed <> 0",
          params: [namespace, tag, stamp],
        })),
      );
    },
    async sweep(now, limit) {
      const removed = await Promise.all(SWEEPS.map((sql) => database.write(sql, [now, limit])));
      return removed.some((rows) => rows.length === limit);
    },
  };
}

interface Order extends FencedStep {
  readonly statements: readonly [SqlStatement, ...SqlStatement[]];
  readonly guard: Guard;
  readonly stamps: readonly number[];
}

type Refusal = Extract<WriteResult, { stored: false }>;

type UnhealedRow = { namespace: string; key: string; version: number };
type UnhealedMarkRow = { namespace: string; tag: string; stamp: number };

/**
 * What each removes is said twice: a row that another instance is just changing is chosen by what it was and waited for, and
 * then judged again by what it has become.
 */
const SWEEPS = [
  `DELETE FROM cache_entry WHERE (namespace, key) IN (
     SELECT namespace, key FROM cache_entry WHERE stale_until <= $1 AND unhealed = 0 LIMIT $2)
   AND stale_until <= $1 AND unhealed = 0 RETURNING version`,
  `DELETE FROM cache_request WHERE (namespace, key, request_id) IN (
     SELECT namespace, key, request_id FROM cache_request WHERE expires_at <= $1 LIMIT $2)
   AND expires_at <= $1 RETURNING expires_at`,
  `DELETE FROM cache_lease WHERE (namespace, key) IN (
     SELECT namespace, key FROM cache_lease WHERE expires_at <= $1 LIMIT $2)
   AND expires_at <= $1 RETURNING expires_at`,
];
const NOBODY = { channel: "holdfast_silence", before: "", after: "" };
const CURSOR = "sql:";
const NO_STAMPS: ReadonlyMap<string, number> = new Map();
const NOTHING: { tags: readonly string[]; stamps: readonly number[] } = { tags: [], stamps: [] };

/** Versions only grow. Where the guard names the one before, the one after is known beforehand. */
function withLargerVersion(write: Write): Write {
  const { draft, guard } = write;
  if (!("seen" in guard) || draft.version > guard.seen) return write;
  return { ...write, draft: { ...draft, version: guard.seen + 1 } };
}

function isCurrent(record: Pick<CacheRecord, "tags" | "stamps">, stamps: ReadonlyMap<string, number>): boolean {
  if (record.stamps[0] !== stamps.get("")) return false;
  return record.tags.every((tag, i) => record.stamps[i + 1] === stamps.get(tag));
}

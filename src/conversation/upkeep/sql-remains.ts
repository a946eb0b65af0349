import { alongIndex, keepToIndexes } from "../../infra/along-index.ts";
import type { Database, SqlRow, SqlSession, SqlValue } from "../../infra/database.ts";
import { bigintArray, textArray } from "../../infra/postgres-array.ts";
import { COPIES_GONE_MS } from "../hot/copy-store.ts";
import { presenceNumber } from "../ledger/sql-row.ts";
import type { ConversationKey } from "../record/conversation.ts";
import type { Expired, Outlived, Remains } from "./remains.ts";

/** Few enough that SQLite, which reads and writes on the thread that answers calls, is busy for some milliseconds only. */
const PAGE = 500;
const PORTION = 1_000;
/** Large messages and answers are fewer at a time. */
const PORTION_BYTES = 16 * 1024 * 1024;
/** What was written so long ago needs no healing: copies of what was there before are gone by themselves. */
const COPIES_GONE_US = COPIES_GONE_MS * 1000;

/** SQLite, which may not know how many there are of what, would rather sort all conversations. */
const tableBy = (kind: Database["kind"], index: string) =>
  kind === "sqlite" ? `conversation INDEXED BY ${index}` : "conversation";
const expiredIn = (
  kind: Database["kind"],
) => `SELECT collection, id, message_count AS figure, state_bytes, expires_us AS at
  FROM ${tableBy(kind, "conversation_expires")}
  WHERE presence = 1 AND expires_us IS NOT NULL AND expires_us <= $1 AND (expires_us, collection, id) > ($2, $3, $4)
  ORDER BY expires_us, collection, id LIMIT ${PAGE}`;
const outlivedIn = (
  kind: Database["kind"],
) => `SELECT collection, id, stamp AS figure, 0 AS state_bytes, kept_until_us AS at
  FROM ${tableBy(kind, "conversation_kept_until")}
  WHERE kept_until_us IS NOT NULL AND kept_until_us <= $1 AND (unhealed = 0 OR stamp <= $1 - ${COPIES_GONE_US})
    AND (kept_until_us, collection, id) > ($2, $3, $4)
  ORDER BY kept_until_us, collection, id LIMIT ${PAGE}`;
const REMOVED = "RETURNING collection, presence, status";
const REMOVE_ONE = `DELETE FROM conversation
  WHERE collection = $1 AND id = $2 AND stamp = $3 AND presence <> 1 AND (unhealed = 0 OR stamp <= $4) ${REMOVED}`;
const REMOVE_MANY = `DELETE FROM conversation c
  USING unnest($1::text[], $2::text[], $3::bigint[]) AS outlived (collection, id, stamp)
  WHERE c.collection = outlived.collection AND c.id = outlived.id AND c.stamp = outlived.stamp
    AND c.presence <> 1 AND (c.unhealed = 0 OR c.stamp <= $4)
  RETURNING c.collection, c.presence, c.status`;
const COUNT_DOWN = `UPDATE conversation_count SET conversations = conversations - $4
  WHERE collection = $1 AND presence = $2 AND status = $3`;
const DUE = "SELECT collection, id, generation FROM conversation_garbage WHERE due_us <= $1 ORDER BY due_us LIMIT 1";
const OF_GENERATION = "collection = $1 AND id = $2 AND generation = $3";
const STILL_DUE = `SELECT due_us FROM conversation_garbage WHERE ${OF_GENERATION} AND due_us <= $4`;
const IN_USE = `SELECT stamp FROM conversation WHERE ${OF_GENERATION} AND presence = $4`;
const FIRST_MESSAGES = `SELECT MAX(CASE WHEN before < ${PORTION_BYTES} THEN position END) AS last, COUNT(*) AS seen,
    COUNT(CASE WHEN before < ${PORTION_BYTES} THEN 1 END) AS taken
  FROM (
    SELECT position, SUM(bytes) OVER (ORDER BY position, added) - bytes AS before FROM (
      SELECT position, added, LENGTH(body) AS bytes FROM conversation_message WHERE ${OF_GENERATION}
      ORDER BY position, added LIMIT ${PORTION}
    ) AS portion
  ) AS summed`;
const REMOVE_FIRST = `DELETE FROM conversation_message WHERE ${OF_GENERATION} AND position <= $4`;
const REMOVE_REST = `DELETE FROM conversation_message WHERE ${OF_GENERATION}`;
const FORGET_GENERATION = `DELETE FROM conversation_garbage WHERE ${OF_GENERATION}`;
const COUNT_KEY = "(collection, presence, status)";
const COUNTS = `SELECT collection, presence, status, conversations FROM conversation_count
  WHERE ${COUNT_KEY} > ($1, $2, $3) ORDER BY collection, presence, status LIMIT ${PAGE}`;
const REMOVE_EMPTY = `DELETE FROM conversation_count
  WHERE ${COUNT_KEY} > ($1, $2, $3) AND ${COUNT_KEY} <= ($4, $5, $6)
    AND conversations = 0 AND messages = 0 AND state_bytes = 0 RETURNING 1 AS removed`;

type Place = { readonly at: number } & ConversationKey;
type PlaceRow = { collection: string; id: string; figure: number; state_bytes: number; at: number };
type GenerationRow = { collection: string; id: string; generation: number };
type RemovedRow = { collection: string; presence: number; status: string };
/** With no message, there is no last one. */
type PortionRow = { last: number | null; seen: number; taken: number };
type CountRow = RemovedRow & { conversations: number };

const START: Place = { at: 0, collection: "", id: "" };

export function createSqlRemains(database: Database): Remains {
  const isPostgres = database.kind === "postgres";
  const forUpdate = isPostgres ? " FOR UPDATE" : "";
  // Never waits for what a writer holds, so that the two cannot wait for each other; the next sweep finds it.
  const removeAnswers = `DELETE FROM conversation_request WHERE expires_us <= $1 AND (collection, id, request_id) IN (
    SELECT collection, id, request_id FROM (
      SELECT collection, id, request_id, SUM(bytes) OVER (ROWS UNBOUNDED PRECEDING) - bytes AS before FROM (
        SELECT collection, id, request_id, LENGTH(answer) AS bytes FROM conversation_request
        WHERE expires_us <= $1 ORDER BY expires_us LIMIT ${PORTION}${isPostgres ? " FOR UPDATE SKIP LOCKED" : ""}
      ) AS portion
    ) AS summed WHERE before < ${PORTION_BYTES}) RETURNING 1 AS removed`;

  async function* pages<T>(sql: string, untilUs: number, of: (row: PlaceRow) => T): AsyncGenerator<readonly T[]> {
    let after = START;
    for (;;) {
      const rows = await alongIndex<PlaceRow>(database, sql, [untilUs, after.at, after.collection, after.id]);
      const last = rows.at(-1);
      if (last === undefined) return;
      yield rows.map(of);
      if (rows.length < PAGE) return;
      after = last;
    }
  }

  /** As whoever writes conversations: what is read stays true, and counts are not changed by two. */
  function asWriter<T>(work: (tx: SqlSession) => Promise<T>): Promise<T> {
    return database.transaction(async (tx) => {
      await keepToIndexes(database.kind, tx);
      await tx.query(`SELECT seq FROM conversation_head WHERE id = 1${forUpdate}`);
      return work(tx);
    });
  }

  async function remove(
    tx: SqlSession,
    tombstones: readonly Outlived[],
    copiedUs: number,
  ): Promise<readonly RemovedRow[]> {
    if (isPostgres) {
      return tx.query<RemovedRow>(REMOVE_MANY, [
        textArray(tombstones.map(({ collection }) => collection)),
        textArray(tombstones.map(({ id }) => id)),
        bigintArray(tombstones.map(({ stamp }) => stamp)),
        copiedUs,
      ]);
    }
    const removed: RemovedRow[] = [];
    for (const { collection, id, stamp } of tombstones) {
      removed.push(...(await tx.query<RemovedRow>(REMOVE_ONE, [collection, id, stamp, copiedUs])));
    }
    return removed;
  }

  return {
    expired: (untilUs) =>
      pages(
        expiredIn(database.kind),
        untilUs,
        ({ collection, id, figure, state_bytes: stateBytes }): Expired => ({
          ...{ collection, id, messageCount: figure, stateBytes },
        }),
      ),
    outlived: (untilUs) =>
      pages(
        outlivedIn(database.kind),
        untilUs,
        ({ collection, id, figure }): Outlived => ({ collection, id, stamp: figure }),
      ),
    async removeTombstones(tombstones, untilUs) {
      if (tombstones.length === 0) return 0;
      return asWriter(async (tx) => {
        const removed = await remove(tx, tombstones, untilUs - COPIES_GONE_US);
        await tx.each(COUNT_DOWN, sumsOf(removed));
        return removed.length;
      });
    },
    async removeMessages(nowUs) {
      const [due] = await database.query<GenerationRow>(DUE, [nowUs]);
      if (due === undefined) return false;
      const of = [due.collection, due.id, due.generation];
      await database.transaction(async (tx) => {
        await keepToIndexes(database.kind, tx);
        // Whoever puts the generation to use meanwhile waits for this row, and finds it gone or still due.
        const [still] = await tx.query<{ due_us: number }>(STILL_DUE + forUpdate, [...of, nowUs]);
        if (still === undefined) return;
        const [used] = await tx.query<{ stamp: number }>(IN_USE, [...of, presenceNumber("live")]);
        const [first] = used === undefined ? await tx.query<PortionRow>(FIRST_MESSAGES, of) : [];
        if (first !== undefined && (first.seen === PORTION || first.taken < first.seen)) {
          await tx.query(REMOVE_FIRST, [...of, first.last]);
          return;
        }
        if (used === undefined) await tx.query(REMOVE_REST, of);
        await tx.query(FORGET_GENERATION, of);
      });
      return true;
    },
    async removeAnswers(nowUs) {
      const [expired] = await database.query(
        "SELECT expires_us FROM conversation_request WHERE expires_us <= $1 ORDER BY expires_us LIMIT 1",
        [nowUs],
      );
      if (expired === undefined) return false;
      const removed = await database.write<SqlRow>(removeAnswers, [nowUs]);
      return removed.length > 0;
    },
    async *removeEmptyCounts() {
      for (let after: readonly SqlValue[] = ["", 0, ""]; ; ) {
        const counts = await alongIndex<CountRow>(database, COUNTS, after);
        const last = counts.at(-1);
        if (last === undefined) return;
        const page = [...after, last.collection, last.presence, last.status];
        const hasEmpty = counts.some(({ conversations }) => conversations === 0);
        yield hasEmpty ? (await asWriter((tx) => tx.query(REMOVE_EMPTY, page))).length : 0;
        after = page.slice(3);
      }
    },
  };
}

function sumsOf(removed: readonly RemovedRow[]): SqlValue[][] {
  const groups = Map.groupBy(removed, ({ collection, presence, status }) => `${collection}/${presence}/${status}`);
  return [...groups.values()].flatMap((rows) => {
    const [first] = rows;
    return first === undefined ? [] : [[first.collection, first.presence, first.status, rows.length]];
  });
}

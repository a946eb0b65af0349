import { alongIndex } from "../../infra/along-index.ts";
import type { Database, SqlValue } from "../../infra/database.ts";
import { presenceOfNumber } from "../ledger/sql-row.ts";
import { listOf } from "./sql-values.ts";
import type { CountRow, Counts, StatusSums } from "./stats.ts";

/** Rows that are looked at in one statement. */
const PART = 1000;
/** Of those that were updated last, to find one that has not expired. */
const LAST = 64;

type SumsRow = { collection: string; status: string; conversations: number; messages: number; state_bytes: number };
type UpdateRow = { collection: string; updated_us: number | null };
type ExpiredPlace = { expires_us: number; collection: string; id: string };

const COUNTS = `SELECT collection, presence, status, conversations, messages, state_bytes FROM conversation_count
  WHERE (collection, presence, status) > ($1, $2, $3) ORDER BY collection, presence, status LIMIT ${PART}`;

export function createSqlCounts(database: Pick<Database, "kind" | "query" | "transaction">): Counts {
  const { kind, query } = database;
  // SQLite would rather go through all conversations in the order that GROUP BY wants.
  const table = kind === "sqlite" ? "conversation INDEXED BY conversation_expires" : "conversation";
  const place = "(expires_us, collection, id)";
  const part = `presence = 1 AND expires_us IS NOT NULL AND ${place} > ($1, $2, $3)`;
  // Many may have expired at the same moment.
  const endOfPart = `SELECT expires_us, collection, id FROM ${table} WHERE ${part} AND expires_us <= $4
    ORDER BY expires_us, collection, id LIMIT 1 OFFSET ${PART - 1}`;
  const sumsOf = (end: string) => `SELECT collection, status, COUNT(*) AS conversations,
      CAST(SUM(message_count) AS BIGINT) AS messages, CAST(SUM(state_bytes) AS BIGINT) AS state_bytes
    FROM ${table} WHERE ${part} AND ${end} GROUP BY collection, status`;
  const sumsOfPart = sumsOf(`${place} <= ($4, $5, $6)`);
  const sumsOfRest = sumsOf("expires_us <= $4");

  const isSqlite = kind === "sqlite";
  const names = isSqlite ? "json_each($1) AS name" : "unnest($1::text[]) AS name (value)";
  const byUpdate = isSqlite ? "conversation INDEXED BY conversation_updated" : "conversation";
  const lastUpdates = `SELECT name.value AS collection, (
      SELECT MAX(updated_us) FROM (
        SELECT updated_us, expires_us FROM ${byUpdate} WHERE collection = name.value AND presence = 1
        ORDER BY updated_us DESC, id DESC LIMIT ${LAST}
      ) AS updated WHERE expires_us IS NULL OR expires_us > $2
    ) AS updated_us FROM ${names}`;

  return {
    async *rows() {
      let after: [string, number, string] = ["", 0, ""];
      for (;;) {
        const rows = await alongIndex<SumsRow & { presence: number }>(database, COUNTS, after);
        const last = rows.at(-1);
        if (last === undefined) return;
        yield rows.map(
          ({ presence, ...row }): CountRow => ({ ...statusSums(row), presence: presenceOfNumber(presence) }),
        );
        after = [last.collection, last.presence, last.status];
      }
    },
    async lastUpdates(collections, nowUs) {
      const rows = await alongIndex<UpdateRow>(database, lastUpdates, [listOf(kind, collections), nowUs]);
      return new Map(
        rows.flatMap(({ collection, updated_us: us }): [string, number][] => (us === null ? [] : [[collection, us]])),
      );
    },
    async *expired(untilUs) {
      for (let after: readonly SqlValue[] = [Number.MIN_SAFE_INTEGER, "", ""]; ; ) {
        const [end] = await alongIndex<ExpiredPlace>(database, endOfPart, [...after, untilUs]);
        if (end === undefined) {
          yield (await query<SumsRow>(sumsOfRest, [...after, untilUs])).map(statusSums);
          return;
        }
        const last = [end.expires_us, end.collection, end.id];
        yield (await query<SumsRow>(sumsOfPart, [...after, ...last])).map(statusSums);
        after = last;
      }
    },
  };
}

function statusSums({ collection, status, conversations, messages, state_bytes: stateBytes }: SumsRow): StatusSums {
  return { collection, status, conversations, messages, stateBytes };
}

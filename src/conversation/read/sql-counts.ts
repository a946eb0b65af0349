import type { Database } from "../../infra/database.ts";
import { presenceOfNumber } from "../ledger/sql-row.ts";
import type { CountRow, Counts, StatusSums } from "./stats.ts";

/** Rows that are looked at in one statement. */
const PART = 1000;

type SumsRow = { collection: string; status: string; conversations: number; messages: number; state_bytes: number };

const COUNTS = `SELECT collection, presence, status, conversations, messages, state_bytes FROM conversation_count
  WHERE (collection, presence, status) > ($1, $2, $3) ORDER BY collection, presence, status LIMIT ${PART}`;

export function createSqlCounts({ kind, query }: Pick<Database, "kind" | "query">): Counts {
  // SQLite would rather go through all conversations in the order that GROUP BY wants.
  const table = kind === "sqlite" ? "conversation INDEXED BY conversation_expires" : "conversation";
  const expired = "presence = 1 AND expires_us IS NOT NULL AND expires_us > $1 AND expires_us <= $2";
  const endOfPart = `SELECT expires_us FROM ${table} WHERE ${expired} ORDER BY expires_us LIMIT 1 OFFSET ${PART - 1}`;
  const sumsOfPart = `SELECT collection, status, COUNT(*) AS conversations,
      CAST(SUM(message_count) AS BIGINT) AS messages, CAST(SUM(state_bytes) AS BIGINT) AS state_bytes
    FROM ${table} WHERE ${expired} GROUP BY collection, status`;

  return {
    async *rows() {
      let after: [string, number, string] = ["", 0, ""];
      for (;;) {
        const rows = await query<SumsRow & { presence: number }>(COUNTS, after);
        const last = rows.at(-1);
        if (last === undefined) return;
        yield rows.map(({ presence, ...row }): CountRow => ({ ...sumsOf(row), presence: presenceOfNumber(presence) }));
        after = [last.collection, last.presence, last.status];
      }
    },
    async *expired(untilUs) {
      for (let after = Number.MIN_SAFE_INTEGER; ; ) {
        const [end] = await query<{ expires_us: number }>(endOfPart, [after, untilUs]);
        const last = end?.expires_us ?? untilUs;
        yield (await query<SumsRow>(sumsOfPart, [after, last])).map(sumsOf);
        if (end === undefined) return;
        after = last;
      }
    },
  };
}

function sumsOf({ collection, status, conversations, messages, state_bytes: stateBytes }: SumsRow): StatusSums {
  return { collection, status, conversations, messages, stateBytes };
}

import type { Database, SqlRow, SqlValue } from "../../infra/database.ts";
import { KIND, type Kind } from "../ledger/book.ts";
import { HELD_COLUMNS, type HeldRow, heldOf } from "../ledger/sql-row.ts";
import type { Held } from "../record/conversation.ts";
import type { Change, Scope } from "./change.ts";
import type { ChangePage, Changes, PageLimits } from "./changes.ts";

const COLUMNS = [
  ...["seq", "collection", "id", "kind", "version", "previous_version", "generation", "state_version"],
  ...["first_position", "last_position", "before_user_id", "before_status", "summary", "changed_us"],
] as const;

type ChangeRow = {
  seq: number;
  collection: string;
  id: string;
  kind: number;
  version: number;
  previous_version: number;
  generation: number;
  state_version: number;
  first_position: number | null;
  last_position: number | null;
  before_user_id: string | null;
  before_status: string | null;
  summary: Uint8Array;
  changed_us: number;
};

/** With no change in the page, all columns of one are null. */
type PageRow = { head: number; follower: number | null; total: number } & (
  | ChangeRow
  | { [K in keyof ChangeRow]: null }
);
/** With no conversation, all columns of one are null. */
type OpeningRow = { head: number } & (HeldRow | { [K in keyof HeldRow]: null });
type KeptRow = OpeningRow & {
  known_seq: number | null;
  known_version: number | null;
  first_seq: number | null;
  first_previous: number | null;
  created_seq: number | null;
};

const HELD = HELD_COLUMNS.map((column) => `c.${column}`).join(", ");
const OF = "collection = $1 AND id = $2";
/** The head and the conversation, as they are together. */
const OPENED = `FROM conversation_head h LEFT JOIN conversation c ON c.collection = $1 AND c.id = $2`;
const OPENING = `SELECT h.seq AS head, ${HELD} ${OPENED} WHERE h.id = 1`;
const KEPT_SINCE = `SELECT h.seq AS head, ${HELD}, first.seq AS first_seq, first.previous_version AS first_previous,
    known.seq AS known_seq, known.version AS known_version,
    (SELECT seq FROM conversation_change WHERE ${OF} AND CAST($3 AS BIGINT) = 0 AND kind = ${KIND.created} ORDER BY seq LIMIT 1) AS created_seq
  ${OPENED}
  LEFT JOIN (SELECT seq, previous_version FROM conversation_change WHERE ${OF} ORDER BY seq LIMIT 1) first ON 1 = 1
  LEFT JOIN (
    SELECT seq, version FROM conversation_change WHERE ${OF} AND CAST($3 AS BIGINT) > 0 AND version <= CAST($3 AS BIGINT) ORDER BY seq DESC LIMIT 1
  ) known ON 1 = 1
  WHERE h.id = 1`;

export function createSqlChanges(database: Pick<Database, "query">): Changes {
  return {
    async page(scope, after, limits) {
      const { where, params } = conditionOf(scope);
      const rows = await database.query<PageRow>(pageSql(where), [after, after + 1, ...limitsOf(limits), ...params]);
      return pageOf(rows, after, limits);
    },
    async opening(collection, id) {
      // No conversation has an empty id.
      const [row] = await database.query<OpeningRow>(OPENING, [collection, id ?? ""]);
      return openingOf(headed(row));
    },
    async keptSince({ collection, id }, version) {
      const row = headed((await database.query<KeptRow>(KEPT_SINCE, [collection, id, version]))[0]);
      const { first_seq: first, first_previous: previousVersion, known_seq: known, known_version: ofVersion } = row;
      return {
        ...openingOf(row),
        known: known === null || ofVersion === null ? undefined : { seq: known, version: ofVersion },
        first: first === null || previousVersion === null ? undefined : { seq: first, previousVersion },
        createdSeq: row.created_seq ?? undefined,
      };
    },
  };
}

/**
 * One statement, so that it sees one moment: the head, whether the change behind the place is kept still, and the changes. None is
 * kept without all that follow it, so if that one is, all are.
 */
function pageSql(where: string): string {
  return `SELECT h.seq AS head, f.seq AS follower, p.*
    FROM conversation_head h
    LEFT JOIN conversation_change f ON f.seq = $2
    LEFT JOIN (
      SELECT * FROM (
        SELECT ${COLUMNS.join(", ")}, SUM(LENGTH(summary)) OVER (ORDER BY seq) AS total FROM (
          SELECT ${COLUMNS.join(", ")} FROM conversation_change WHERE seq > $1 ${where} ORDER BY seq LIMIT $3
        ) taken
      ) summed WHERE total - LENGTH(summary) < $4
    ) p ON 1 = 1
    WHERE h.id = 1 ORDER BY p.seq`;
}

function conditionOf(scope: Scope | undefined): { where: string; params: SqlValue[] } {
  if (scope === undefined) return { where: "", params: [] };
  const { collection, id } = scope;
  if (id === undefined) return { where: "AND collection = $5", params: [collection] };
  return { where: "AND collection = $5 AND id = $6", params: [collection, id] };
}

function limitsOf({ changes, bytes }: PageLimits): readonly SqlValue[] {
  return [changes, bytes];
}

function pageOf(rows: readonly PageRow[], after: number, limits: PageLimits): ChangePage {
  const { head, follower } = headed(rows[0]);
  const gap = after > head || (after < head && follower === null);
  if (gap) return { gap, changes: [], next: head, head };
  const changes = rows.flatMap((row) => (row.seq === null ? [] : [changeOf(row)]));
  const last = changes.at(-1);
  const isFull = changes.length === limits.changes || (rows.at(-1)?.total ?? 0) >= limits.bytes;
  return { gap, changes, next: last !== undefined && isFull ? last.seq : head, head };
}

function openingOf(row: OpeningRow): { head: number; held: Held | undefined } {
  return { head: row.head, held: row.collection === null ? undefined : heldOf(row) };
}

function headed<Row extends SqlRow>(row: Row | undefined): Row {
  if (row === undefined) throw new Error("the conversations have lost their head");
  return row;
}

function changeOf(row: ChangeRow): Change {
  const { first_position: first, last_position: last, before_user_id: userId, before_status: status } = row;
  return {
    seq: row.seq,
    collection: row.collection,
    id: row.id,
    // What this server, or one it works beside, has written.
    kind: row.kind as Kind,
    version: row.version,
    previousVersion: row.previous_version,
    generation: row.generation,
    stateVersion: row.state_version,
    positions: first === null || last === null ? undefined : { first, last },
    before: userId === null || status === null ? undefined : { userId, status },
    summary: row.summary,
    changedUs: row.changed_us,
  };
}

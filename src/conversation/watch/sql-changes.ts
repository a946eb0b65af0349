import type { Database, SqlRow, SqlValue } from "../../infra/database.ts";
import type { Kind } from "../ledger/book.ts";
import { HELD_COLUMNS, type HeldRow, heldOf } from "../ledger/sql-row.ts";
import type { Change, Scope } from "./change.ts";
import type { ChangePage, Changes, Mark, Opening, PageLimits } from "./changes.ts";

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

type MarkRow = Pick<ChangeRow, "seq" | "kind" | "version" | "previous_version" | "generation">;

/** With no change in the page, all columns of one are null. */
type PageRow = { head: number; follower: number | null; total: number } & (
  | ChangeRow
  | { [K in keyof ChangeRow]: null }
);
/** With no conversation, all columns of one are null. */
type OpeningRow = { head: number; log: number } & (HeldRow | { [K in keyof HeldRow]: null });
type OpeningOfRow = OpeningRow & {
  [K in `${"first" | "last"}_${keyof MarkRow & string}`]: number | null;
};

const HELD = HELD_COLUMNS.map((column) => `c.${column}`).join(", ");
const OF = "collection = $1 AND id = $2";
/** The head and the conversation, as they are together. */
const OPENED = `FROM conversation_head h LEFT JOIN conversation c ON c.collection = $1 AND c.id = $2`;
const OPENING = `SELECT h.seq AS head, h.log, ${HELD} ${OPENED} WHERE h.id = 1`;
const MARK = ["seq", "kind", "version", "previous_version", "generation"] as const;
const MARKS = `SELECT ${MARK.join(", ")} FROM conversation_change WHERE ${OF}`;
const markAs = (name: "first" | "last") => MARK.map((column) => `${name}.${column} AS ${name}_${column}`).join(", ");
const OPENING_OF = `SELECT h.seq AS head, h.log, ${HELD}, ${markAs("first")}, ${markAs("last")} ${OPENED}
  LEFT JOIN (${MARKS} ORDER BY seq LIMIT 1) first ON 1 = 1
  LEFT JOIN (${MARKS} ORDER BY seq DESC LIMIT 1) last ON 1 = 1
  WHERE h.id = 1`;
const MARK_FROM = `${MARKS} AND seq >= $3 ORDER BY seq LIMIT 1`;

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
    async openingOf({ collection, id }) {
      const row = headed((await database.query<OpeningOfRow>(OPENING_OF, [collection, id]))[0]);
      const [first, last] = [markIn(row, "first"), markIn(row, "last")];
      return { ...openingOf(row), kept: first && last && { first, last } };
    },
    async markFrom({ collection, id }, seq) {
      const [row] = await database.query<MarkRow>(MARK_FROM, [collection, id, seq]);
      return row && markOf(row);
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

function openingOf(row: OpeningRow): Opening {
  return { head: row.head, log: row.log, held: row.collection === null ? undefined : heldOf(row) };
}

function markIn(row: OpeningOfRow, name: "first" | "last"): Mark | undefined {
  const [seq, kind, version] = [row[`${name}_seq`], row[`${name}_kind`], row[`${name}_version`]];
  const [previous_version, generation] = [row[`${name}_previous_version`], row[`${name}_generation`]];
  if (seq === null || kind === null || version === null || previous_version === null || generation === null) {
    return undefined;
  }
  return markOf({ seq, kind, version, previous_version, generation });
}

function markOf(row: MarkRow): Mark {
  const { seq, version, generation } = row;
  // What this server, or one it works beside, has written.
  return { seq, kind: row.kind as Kind, version, previousVersion: row.previous_version, generation };
}

function headed<Row extends SqlRow>(row: Row | undefined): Row {
  if (row === undefined) throw new Error("the conversations have lost their head");
  return row;
}

function changeOf(row: ChangeRow): Change {
  const { first_position: first, last_position: last, before_user_id: userId, before_status: status } = row;
  return {
    ...markOf(row),
    collection: row.collection,
    id: row.id,
    stateVersion: row.state_version,
    positions: first === null || last === null ? undefined : { first, last },
    before: userId === null || status === null ? undefined : { userId, status },
    summary: row.summary,
    changedUs: row.changed_us,
  };
}

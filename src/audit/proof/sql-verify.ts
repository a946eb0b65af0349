import type { Database } from "../../infra/database.ts";
import { bigintArray, textArray } from "../../infra/postgres-array.ts";
import { idOf } from "../record/record.ts";
import { RETENTION_PRODUCER } from "../retention/announcement.ts";
import type { ArchiveReader } from "./offline-verify.ts";
import { createSqlTree, LEAF_ROW_COLUMNS, leafRowOf, type WholeRow } from "./sql-tree.ts";

const ROW = `SELECT ${LEAF_ROW_COLUMNS} FROM audit_record WHERE producer = $1 AND sequence = $2`;
const ROWS = `SELECT ${LEAF_ROW_COLUMNS} FROM audit_record
  WHERE (producer, sequence) IN (SELECT * FROM unnest($1::text[], $2::bigint[]))`;
const ANNOUNCEMENTS = `SELECT sequence, leaf FROM audit_record
  WHERE producer = '${RETENTION_PRODUCER}' AND sequence > $1 AND leaf IS NOT NULL ORDER BY sequence LIMIT 1000`;

/** The archive in SQL, for whoever verifies it: only statements that read. */
export function createSqlArchiveReader(database: Pick<Database, "kind" | "query">): ArchiveReader {
  return {
    ...createSqlTree(database),
    async rows(ids) {
      const found: WholeRow[] = [];
      if (database.kind === "postgres") {
        const wanted = [
          textArray(ids.map(({ producer }) => producer)),
          bigintArray(ids.map(({ sequence }) => sequence)),
        ];
        found.push(...(await database.query<WholeRow>(ROWS, wanted)));
      } else {
        for (const { producer, sequence } of ids) {
          found.push(...(await database.query<WholeRow>(ROW, [producer, sequence])));
        }
      }
      const byId = new Map(found.map((row) => [idOf(row), leafRowOf(row)]));
      return ids.map((id) => byId.get(idOf(id)));
    },
    async bounds() {
      const [row] = await database.query<{ lowest: number | null; highest: number | null }>(
        `SELECT (SELECT min(leaf_index) FROM audit_record) AS lowest,
          (SELECT max(leaf_index) FROM audit_record) AS highest`,
      );
      if (row === undefined || row.lowest === null || row.highest === null) return undefined;
      return { lowest: row.lowest, highest: row.highest };
    },
    async nodeLevels() {
      return await database.query<{ level: number; lowest: number; highest: number }>(
        "SELECT level, min(node_index) AS lowest, max(node_index) AS highest FROM audit_node GROUP BY level ORDER BY level",
      );
    },
    async announcements(after) {
      return await database.query<{ sequence: number; leaf: Uint8Array }>(ANNOUNCEMENTS, [after]);
    },
  };
}

import type { Database, SqlSession } from "../../infra/database.ts";
import type { KeptRecord, LeafPage, Leaves, PageLimits } from "./leaves.ts";
import { ARCHIVED_COLUMNS, type ArchivedRow, archivedOf } from "./sql-archive.ts";

type Reader = Pick<SqlSession, "query">;

/** How large a leaf is. Neither database reads the leaf itself for that. */
export type LeafSize = {
  readonly leaf_index: number;
  /** Null when retention has dropped the record. */
  readonly bytes: number | null;
};

export function createSqlLeaves(database: Database): Leaves {
  return { from: (leafIndex, limits) => readLeaves(database, leafIndex, limits) };
}

/** Sizes first, so that a page of large records is never in memory as a whole. */
export async function readLeaves(sql: Reader, from: number, limits: PageLimits): Promise<LeafPage> {
  const sizes = await sql.query<{ leaf_index: number; bytes: number | null }>(
    "SELECT leaf_index, LENGTH(leaf) AS bytes FROM audit_record WHERE leaf_index >= $1 ORDER BY leaf_index LIMIT $2",
    [from, limits.leaves],
  );
  const taken = withinBytes(sizes, limits.bytes);
  const last = taken.at(-1);
  if (last === undefined) return { records: [], next: from, retired: 0, end: true };
  const retired = taken.filter(({ bytes }) => bytes === null).length;
  const next = last.leaf_index + 1;
  const end = sizes.length < limits.leaves && taken.length === sizes.length;
  if (retired === taken.length) return { records: [], next, retired, end };
  const rows = await sql.query<ArchivedRow>(
    `SELECT ${ARCHIVED_COLUMNS} FROM audit_record
      WHERE leaf_index >= $1 AND leaf_index < $2 AND leaf IS NOT NULL ORDER BY leaf_index`,
    [from, next],
  );
  return { records: rows.flatMap(keptOf), next, retired, end };
}

/** The records of these leaves that are still kept, by leaf. */
export async function readRecords(
  kind: Database["kind"],
  sql: Reader,
  leafIndexes: readonly number[],
): Promise<ReadonlyMap<number, KeptRecord>> {
  if (leafIndexes.length === 0) return new Map();
  const rows = await sql.query<ArchivedRow>(
    `SELECT ${ARCHIVED_COLUMNS} FROM audit_record WHERE leaf_index IN (${numberList(kind, 1)}) AND leaf IS NOT NULL`,
    [JSON.stringify(leafIndexes)],
  );
  return new Map(rows.flatMap(keptOf).map((record) => [record.leafIndex, record]));
}

/** As many from the front as fit, but at least one. */
export function withinBytes<Row extends LeafSize>(rows: readonly Row[], most: number): readonly Row[] {
  let bytes = 0;
  const end = rows.findIndex((row, at) => {
    bytes += row.bytes ?? 0;
    return at > 0 && bytes > most;
  });
  return end === -1 ? rows : rows.slice(0, end);
}

/** A subquery: the numbers of a JSON array, which is this parameter. One statement for any number of them. */
export function numberList(kind: Database["kind"], parameter: number): string {
  return kind === "sqlite"
    ? `SELECT value FROM json_each($${parameter})`
    : `SELECT CAST(element AS BIGINT) AS value FROM json_array_elements_text(CAST($${parameter} AS json)) AS element`;
}

function keptOf(row: ArchivedRow): readonly KeptRecord[] {
  const { leaf } = row;
  return leaf === null ? [] : [{ ...archivedOf(row), leaf }];
}

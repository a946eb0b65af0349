import type { Database, SqlRow, SqlStatement, SqlValue } from "../../src/infra/database.ts";

/** A database, and how many rows were read through it. */
export interface CountedDatabase {
  readonly database: Database;
  /**
   * How many rows the queries so far have looked at, those that they passed over included, as the database itself tells when it
   * is asked how it carries them out.
   */
  rowsRead(): Promise<number>;
}

export function countRows(counted: Database): CountedDatabase {
  const asked: SqlStatement[] = [];
  return {
    database: {
      ...counted,
      query: <Row extends SqlRow>(sql: string, params: readonly SqlValue[] = []) => {
        asked.push({ sql, params });
        return counted.query<Row>(sql, params);
      },
    },
    async rowsRead() {
      let rows = 0;
      for (const one of asked) rows += await (counted.kind === "postgres" ? byPostgres : bySqlite)(counted, one);
      return rows;
    },
  };
}

/** Each step of the plan says how many rows it gave, and how many it dropped. */
async function byPostgres(database: Database, { sql, params }: SqlStatement): Promise<number> {
  const lines = await database.query<{ "QUERY PLAN": string }>(`EXPLAIN (ANALYZE, TIMING OFF) ${sql}`, params);
  const text = lines.map((line) => line["QUERY PLAN"]).join("\n");
  const given = [...text.matchAll(/actual rows=(\d+)[\d.]* loops=(\d+)/g)];
  if (given.length === 0) throw new Error(`no plan that tells of rows: ${text}`);
  const dropped = [...text.matchAll(/Rows Removed by [^:]*: (\d+)/g)];
  return (
    given.reduce((sum, [, rows, loops]) => sum + Number(rows) * Number(loops), 0) +
    dropped.reduce((sum, [, rows]) => sum + Number(rows), 0)
  );
}

/**
 * SQLite does not count, but tells of its indexes: what a search in one that leads to nothing else finds is what it reads. Any
 * other way through the records is counted as all of them.
 */
async function bySqlite(database: Database, { sql, params }: SqlStatement): Promise<number> {
  const plan = await database.query<{ detail: string }>(`EXPLAIN QUERY PLAN ${sql}`, params);
  const isNarrow = plan.every(({ detail }) => {
    if (detail.includes("TEMP B-TREE")) return false;
    return (
      !/ audit_(record|index)\b/.test(detail) || /PRIMARY KEY \(rowid=\?\)|audit_record_reviewable \(/.test(detail)
    );
  });
  if (isNarrow) return (await database.query(sql, params)).length;
  const [all] = await database.query<{ records: number }>("SELECT count(*) AS records FROM audit_record");
  return all?.records ?? 0;
}

import type { Database } from "../../infra/database.ts";
import type { HeldSequences } from "./reconcile.ts";

/** So many rows are a few milliseconds, and SQLite answers nothing else meanwhile. */
const STEP_ROWS = 5_000;

/** Rows whose sequence rises as fast as their number follow each other: what they differ by names the run. */
const RUNS = `SELECT min(sequence) AS first, max(sequence) AS last, retired, count(*) AS held FROM (
    SELECT sequence, retired, sequence - row_number() OVER (PARTITION BY retired ORDER BY sequence) AS run FROM (
      SELECT sequence, CASE WHEN leaf IS NULL THEN 1 ELSE 0 END AS retired FROM audit_record
        WHERE producer = $1 AND sequence BETWEEN $2 AND $3 ORDER BY sequence LIMIT ${STEP_ROWS}
    ) AS step
  ) AS numbered GROUP BY retired, run ORDER BY first`;

type Run = { first: number; last: number; retired: number; held: number };

/** The sequences that the archive holds, by its index of identities. */
export function createSqlSequences(database: Database): HeldSequences {
  return {
    async last(producer) {
      const [row] = await database.query<{ sequence: number }>(
        "SELECT sequence FROM audit_record WHERE producer = $1 ORDER BY sequence DESC LIMIT 1",
        [producer],
      );
      return row?.sequence ?? 0;
    },
    async scan(producer, first, last) {
      const runs = await database.query<Run>(RUNS, [producer, first, last]);
      const rows = runs.reduce((sum, { held }) => sum + held, 0);
      const reached = runs.at(-1)?.last ?? last;
      return {
        runs: runs.map((run) => ({ first: run.first, last: run.last, retired: run.retired === 1 })),
        until: rows < STEP_ROWS ? last : reached,
      };
    },
  };
}

import type { Database, SqlRow, SqlSession, SqlValue } from "../../src/infra/database.ts";

export interface PlannedStatement {
  readonly sql: string;
  /** How the database carries it out, step by step. */
  readonly plan: readonly string[];
}

/** A database, and every statement that it was given, with its plan. */
export interface PlannedDatabase {
  readonly database: Database;
  readonly asked: PlannedStatement[];
}

export function recordPlans(recorded: Database): PlannedDatabase {
  const asked: PlannedStatement[] = [];
  const explain = recorded.kind === "sqlite" ? "EXPLAIN QUERY PLAN" : "EXPLAIN";
  // Asked where the statement is: a transaction may have its own mind about plans.
  const planning =
    (session: Pick<SqlSession, "query">, carryOut: SqlSession["query"]): SqlSession["query"] =>
    async <Row extends SqlRow>(sql: string, params: readonly SqlValue[] = []) => {
      const steps = await session.query<SqlRow>(`${explain} ${sql}`, params);
      asked.push({ sql, plan: steps.map((step) => String(step.detail ?? step["QUERY PLAN"]).trim()) });
      return carryOut<Row>(sql, params);
    };
  const database: Database = {
    ...recorded,
    query: planning(recorded, recorded.query),
    write: (sql, params) => recorded.transaction((tx) => planning(tx, tx.query)(sql, params)),
    transaction: (work) => recorded.transaction((tx) => work({ ...tx, query: planning(tx, tx.query) })),
  };
  return { database, asked };
}

/** Steps that go through a whole table of conversations, or (unless what they sort is bounded) sort what they found. */
export function costlySteps({ database: { kind }, asked }: PlannedDatabase, { maySort = false } = {}): string[] {
  const scans = kind === "sqlite" ? "^SCAN (conversation|c)\\b" : "Seq Scan on conversation(?!_head)";
  const sorts = kind === "sqlite" ? "TEMP B-TREE" : "\\bSort  ";
  const costly = new RegExp(maySort ? scans : `${scans}|${sorts}`);
  const found = asked.flatMap(({ sql, plan }) =>
    plan.filter((step) => costly.test(step)).map((step) => `${step}: ${sql}`),
  );
  return [...new Set(found)];
}

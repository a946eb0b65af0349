import type { Database, SqlStatement, SqlValue } from "../../infra/database.ts";
import { HELD_COLUMNS } from "../ledger/sql-row.ts";
import type { ListPlace, ListQuery } from "./listing.ts";
import type { Branch, ListPlan } from "./sql-list-plan.ts";
import { isOneOf, listOf } from "./sql-values.ts";

/** A part of the rows of a plan: those behind one place, up to another. Undefined: from the first, to the last. */
export interface Stretch {
  readonly after: ListPlace | undefined;
  readonly end: ListPlace | undefined;
}

/** Where a stretch of so many rows ends, as the index alone tells. No row: there are fewer. */
export function endStatement(
  kind: Database["kind"],
  plan: ListPlan,
  query: ListQuery,
  after: ListPlace | undefined,
  count: number,
): SqlStatement {
  const sql = new SqlWriter(kind, plan, query);
  return sql.merge(`${plan.column} AS us, id`, { after, end: undefined }, [], count, `1 OFFSET ${sql.bind(count - 1)}`);
}

/** The rows of a stretch that match. */
export function rowsStatement(
  kind: Database["kind"],
  plan: ListPlan,
  query: ListQuery,
  stretch: Stretch,
  limit: number,
): SqlStatement {
  const sql = new SqlWriter(kind, plan, query);
  const columns = `${plan.column} AS us, ${HELD_COLUMNS.join(", ")}`;
  return sql.merge(columns, stretch, sql.conditions(), limit, sql.bind(limit));
}

class SqlWriter {
  readonly #kind: Database["kind"];
  readonly #plan: ListPlan;
  readonly #query: ListQuery;
  readonly #params: SqlValue[] = [];

  constructor(kind: Database["kind"], plan: ListPlan, query: ListQuery) {
    this.#kind = kind;
    this.#plan = plan;
    this.#query = query;
  }

  bind(value: SqlValue): string {
    return `$${this.#params.push(value)}`;
  }

  /** The branches of the plan, each in order and no longer than `most`, as one. */
  merge(columns: string, stretch: Stretch, conditions: readonly string[], most: number, limit: string): SqlStatement {
    const { branches, column } = this.#plan;
    const wanted = [...this.#ofCollection(), ...this.#range(stretch), ...conditions].join(" AND ");
    const bound = this.bind(most);
    const parts = branches.map((branch, at) => {
      const where = `${wanted}${this.#ofBranch(branch)}`;
      const rows = `SELECT ${columns} FROM ${this.#table()} WHERE ${where} ${this.#order(column)} LIMIT ${bound}`;
      return `SELECT * FROM (${rows}) AS branch${at}`;
    });
    const sql = `SELECT * FROM (${parts.join(" UNION ALL ")}) AS merged ${this.#order("us")} LIMIT ${limit}`;
    return { sql, params: this.#params };
  }

  /** What the plan's indexes do not see to. */
  conditions(): readonly string[] {
    const { filter, nowUs, order, updatedSinceUs } = this.#query;
    const conditions = [`(expires_us IS NULL OR expires_us > ${this.bind(nowUs)})`];
    if (filter.userId !== "" && this.#plan.drives !== "user") conditions.push(`user_id = ${this.bind(filter.userId)}`);
    if (filter.statuses.size > 0 && this.#plan.drives !== "status") {
      const statuses = this.bind(listOf(this.#kind, [...filter.statuses]));
      conditions.push(isOneOf(this.#kind, "status", "text", statuses));
    }
    if (updatedSinceUs !== undefined && order !== "updated") {
      conditions.push(`updated_us >= ${this.bind(updatedSinceUs)}`);
    }
    return conditions;
  }

  /** SQLite knows nothing of how the values are spread, and would rather sort all that an equality finds. */
  #table(): string {
    return this.#kind === "sqlite" ? `conversation INDEXED BY ${this.#plan.index}` : "conversation";
  }

  #ofCollection(): readonly string[] {
    return [`collection = ${this.bind(this.#query.collection)}`, "presence = 1"];
  }

  #ofBranch(branch: Branch | undefined): string {
    return branch === undefined ? "" : ` AND ${branch.column} = ${this.bind(branch.value)}`;
  }

  #range({ after, end }: Stretch): readonly string[] {
    const { column, descending } = this.#plan;
    const { order, updatedSinceUs } = this.#query;
    const since = order === "updated" && updatedSinceUs !== undefined ? { us: updatedSinceUs, id: "" } : undefined;
    const bounds: [operator: string, place: ListPlace | undefined][] = [
      [descending ? "<" : ">", after],
      [descending ? ">=" : "<=", end ?? since],
    ];
    return bounds.flatMap(([operator, place]) =>
      place === undefined ? [] : `(${column}, id) ${operator} (${this.bind(place.us)}, ${this.bind(place.id)})`,
    );
  }

  #order(column: string): string {
    const direction = this.#plan.descending ? "DESC" : "ASC";
    return `ORDER BY ${column} ${direction}, id ${direction}`;
  }
}

import type { Database, SqlSession, SqlValue } from "../../infra/database.ts";
import { bigintArray, byteaArray, doubleArray, textArray } from "../../infra/postgres-array.ts";

type ColumnType = "bigint" | "bytea" | "double precision" | "text";

/** A statement that is carried out for many rows of values. */
export interface RowsStatement {
  readonly types: readonly ColumnType[];
  /** Carries it out for one row. */
  readonly one: string;
  /** For Postgres: carries it out for all at once, which spares it most of what a statement costs. Takes an array a column. */
  readonly many: string | undefined;
}

/** Inserts rows. `after` is what follows the values. */
export function insertRows(table: string, columns: Readonly<Record<string, ColumnType>>, after = ""): RowsStatement {
  const names = Object.keys(columns);
  const types = Object.values(columns);
  const into = `INSERT INTO ${table} (${names.join(", ")})`;
  const arrays = types.map((type, at) => `$${at + 1}::${type}[]`);
  return {
    types,
    one: `${into} VALUES (${names.map((_, at) => `$${at + 1}`).join(", ")}) ${after}`,
    many: `${into} SELECT * FROM unnest(${arrays.join(", ")}) ${after}`,
  };
}

/** Something else, row by row. */
export function eachRow(one: string): RowsStatement {
  return { types: [], one, many: undefined };
}

/**
 * Deletes what each row says. `where` compares the table with the columns of the row, which are named: it is the same for one row and
 * for many, and never more than `most` of one.
 */
export function deleteRows(
  table: string,
  row: Readonly<Record<string, ColumnType>>,
  where: (column: (name: string) => string) => string,
  most: number,
): RowsStatement {
  const names = Object.keys(row);
  const types = Object.values(row);
  const arrays = types.map((type, at) => `$${at + 1}::${type}[]`);
  return {
    types,
    one: `DELETE FROM ${table} WHERE ${where((name) => `$${names.indexOf(name) + 1}`)}`,
    // The planner is told to look up each row, whatever it thinks of how large the table is.
    many: `DELETE FROM ${table} WHERE ctid = ANY (ARRAY(
      SELECT found.place FROM unnest(${arrays.join(", ")}) AS given (${names.join(", ")}) CROSS JOIN LATERAL (
        SELECT ${table}.ctid AS place FROM ${table} WHERE ${where((name) => `given.${name}`)} LIMIT ${most}) AS found))`,
  };
}

/** In both dialects it is on its way when this returns, behind what was sent before. */
export async function carryOutRows(
  kind: Database["kind"],
  tx: SqlSession,
  { types, one, many }: RowsStatement,
  rows: readonly (readonly SqlValue[])[],
): Promise<void> {
  if (rows.length === 0) return;
  if (kind === "sqlite" || many === undefined) await tx.each(one, rows);
  else await tx.query(many, columnsOf(types, rows));
}

function columnsOf(types: readonly ColumnType[], rows: readonly (readonly SqlValue[])[]): Uint8Array[] {
  return types.map((type, at) => ARRAYS[type](rows.map((row) => row[at] ?? null)));
}

const ARRAYS: Readonly<Record<ColumnType, (values: readonly SqlValue[]) => Uint8Array>> = {
  bigint: (values) => bigintArray(values.map(numberOf)),
  bytea: (values) => byteaArray(values.map(bytesOf)),
  "double precision": (values) => doubleArray(values.map(numberOf)),
  text: (values) => textArray(values.map(textOf)),
};

function numberOf(value: SqlValue): number | null {
  if (value === null || typeof value === "number") return value;
  throw new TypeError(`a number was wanted, not a ${typeof value}`);
}

function bytesOf(value: SqlValue): Uint8Array | null {
  if (value === null || value instanceof Uint8Array) return value;
  throw new TypeError(`bytes were wanted, not a ${typeof value}`);
}

function textOf(value: SqlValue): string | null {
  if (value === null || typeof value === "string") return value;
  throw new TypeError(`a text was wanted, not a ${typeof value}`);
}

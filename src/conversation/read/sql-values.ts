import type { Database, SqlValue } from "../../infra/database.ts";
import { bigintArray, textArray } from "../../infra/postgres-array.ts";

type Values = readonly string[] | readonly number[];

/** A condition that a column has one of the values that a parameter holds, see `listOf`. */
export function isOneOf(kind: Database["kind"], column: string, type: "text" | "bigint", parameter: string): string {
  if (kind === "sqlite") return `${column} IN (SELECT value FROM json_each(${parameter}))`;
  return `${column} = ANY(${parameter}::${type}[])`;
}

export function listOf(kind: Database["kind"], values: Values): SqlValue {
  if (kind === "sqlite") return JSON.stringify(values);
  return areTexts(values) ? textArray(values) : bigintArray(values);
}

function areTexts(values: Values): values is readonly string[] {
  return typeof values[0] === "string";
}

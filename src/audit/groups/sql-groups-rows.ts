import type { Database, SqlSession } from "../../infra/database.ts";
import { numberList } from "../archive/sql-leaves.ts";
import type { DeliveryRef } from "./deliveries.ts";

/** What the statements about groups have in common. */
export type GroupRow = { filter: Uint8Array; next_leaf: number; last_token: number; created_ms: number };
export type RefRow = { leaf_index: number; token: number };

export function refOf({ leaf_index, token }: RefRow): DeliveryRef {
  return { leafIndex: leaf_index, token };
}

/**
 * Holds the group's row until the transaction ends. Whatever hands out or gives up deliveries does so under it, so there is one at
 * a time among all instances. In SQLite the transaction itself keeps the others out.
 */
export async function lockGroup(kind: Database["kind"], tx: SqlSession, group: string): Promise<GroupRow | undefined> {
  const lock = kind === "postgres" ? " FOR UPDATE" : "";
  const [row] = await tx.query<GroupRow>(
    `SELECT filter, next_leaf, last_token, created_ms FROM audit_group WHERE name = $1${lock}`,
    [group],
  );
  return row;
}

/** A condition: the row's leaf and token are one of the pairs of a JSON array, which is this parameter; see `pairs`. */
export function isOneOfPairs(kind: Database["kind"], parameter: number): string {
  const list =
    kind === "sqlite"
      ? `SELECT value ->> 0, value ->> 1 FROM json_each($${parameter})`
      : `SELECT CAST(pair ->> 0 AS BIGINT), CAST(pair ->> 1 AS BIGINT)
          FROM json_array_elements(CAST($${parameter} AS json)) AS pair`;
  return `(leaf_index, token) IN (${list})`;
}

export function pairs(refs: readonly DeliveryRef[]): string {
  return JSON.stringify(refs.map(({ leafIndex, token }) => [leafIndex, token]));
}

/**
 * Makes dead letters of deliveries. The caller holds the group, and has made their tokens negative, so that no ack can take one
 * away in between.
 */
export async function bury(
  kind: Database["kind"],
  tx: SqlSession,
  group: string,
  leafIndexes: readonly number[],
  now: number,
): Promise<void> {
  if (leafIndexes.length === 0) return;
  const these = `group_name = $1 AND leaf_index IN (${numberList(kind, 2)})`;
  const list = JSON.stringify(leafIndexes);
  await tx.query(
    `INSERT INTO audit_dead_letter (group_name, leaf_index, deliveries, last_error, last_consumer, dead_ms)
      SELECT group_name, leaf_index, attempt, last_error, consumer, CAST($3 AS BIGINT) FROM audit_delivery WHERE ${these}`,
    [group, list, now],
  );
  await tx.query(`DELETE FROM audit_delivery WHERE ${these}`, [group, list]);
}

/** Buries those of these deliveries that are still as they were read. */
export async function buryExhausted(
  kind: Database["kind"],
  tx: SqlSession,
  group: string,
  refs: readonly DeliveryRef[],
  now: number,
): Promise<void> {
  if (refs.length === 0) return;
  const doomed = await tx.query<{ leaf_index: number }>(
    `UPDATE audit_delivery SET token = -ABS(token) WHERE group_name = $1 AND ${isOneOfPairs(kind, 2)}
      RETURNING leaf_index`,
    [group, pairs(refs)],
  );
  const leafIndexes = doomed.map(({ leaf_index }) => leaf_index);
  await bury(kind, tx, group, leafIndexes, now);
}

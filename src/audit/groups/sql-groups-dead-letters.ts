import { setImmediate as nextTurn } from "node:timers/promises";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type AuditServiceRequeueDeadLettersResponse,
  AuditServiceRequeueDeadLettersResponseSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { Clock } from "../../infra/clock.ts";
import type { Database, SqlSession } from "../../infra/database.ts";
import type { PageLimits } from "../archive/leaves.ts";
import { type LeafSize, numberList, readRecords, withinBytes } from "../archive/sql-leaves.ts";
import { recallAnswer, rememberAnswer } from "../archive/sql-requests.ts";
import { idOf, parseId } from "../record/record.ts";
import { archivedRecord } from "../record/replies.ts";
import { type DeadLetterPage, type DeadLetterPlace, GroupNotFoundError, type RequeueOrder } from "./groups.ts";
import { buryExhausted, lockGroup, type RefRow, refOf } from "./sql-groups-rows.ts";

const SCOPE = "requeue";
/** How many are moved in one transaction. */
const STEP = 10_000;
const BURIED = 1_000;

const OVERDUE = "FROM audit_delivery WHERE group_name = $1 AND due_ms <= $2 AND attempt >= max_deliveries";

type DeadRow = LeafSize & {
  readonly deliveries: number;
  readonly last_error: string;
  readonly last_consumer: string;
  readonly dead_ms: number;
};

/**
 * Buries some of what was delivered as often as it may be and was not acked in time: never so many that others wait long for it.
 * Returns whether there may be more. The caller holds the group.
 */
export async function buryOverdue(
  kind: Database["kind"],
  tx: SqlSession,
  group: string,
  now: number,
): Promise<boolean> {
  const rows = await tx.query<RefRow>(`SELECT leaf_index, token ${OVERDUE} LIMIT ${BURIED}`, [group, now]);
  await buryExhausted(kind, tx, group, rows.map(refOf), now);
  return rows.length === BURIED;
}

/** All of it, for a group that may have no consumer left to do it. Throws when there is no such group. */
export async function settleOverdue(database: Database, group: string, now: number): Promise<void> {
  const [row] = await database.query<{ overdue: number | null }>(
    `SELECT (SELECT 1 ${OVERDUE} LIMIT 1) AS overdue FROM audit_group WHERE name = $1`,
    [group, now],
  );
  if (row === undefined) throw new GroupNotFoundError(group);
  if (row.overdue === null) return;
  const bury = () =>
    database.transaction(async (tx) => {
      await lockGroup(database.kind, tx, group);
      return buryOverdue(database.kind, tx, group, now);
    });
  while (await bury()) await nextTurn();
}

export async function readDeadLetters(
  database: Database,
  group: string,
  after: DeadLetterPlace | undefined,
  limits: PageLimits,
  now: number,
): Promise<DeadLetterPage> {
  await settleOverdue(database, group, now);
  const rows = await database.query<DeadRow>(
    `SELECT d.leaf_index, d.deliveries, d.last_error, d.last_consumer, d.dead_ms, LENGTH(r.leaf) AS bytes
      FROM audit_dead_letter d JOIN audit_record r ON r.leaf_index = d.leaf_index
      WHERE d.group_name = $1 AND (d.dead_ms, d.leaf_index) > ($2, $3) ORDER BY d.dead_ms, d.leaf_index LIMIT $4`,
    [group, after?.deadMs ?? 0, after?.leafIndex ?? -1, limits.leaves],
  );
  const taken = withinBytes(rows, limits.bytes);
  const leafIndexes = taken.map(({ leaf_index }) => leaf_index);
  const records = await readRecords(database.kind, database, leafIndexes);
  const last = taken.at(-1);
  const isLast = taken.length === rows.length && rows.length < limits.leaves;
  return {
    deadLetters: taken.flatMap((row) => {
      const record = records.get(row.leaf_index);
      if (record === undefined) return [];
      return [
        {
          record: archivedRecord(record),
          leafIndex: row.leaf_index,
          deliveries: row.deliveries,
          lastError: row.last_error,
          lastConsumer: row.last_consumer,
          deadMs: row.dead_ms,
        },
      ];
    }),
    next: isLast || last === undefined ? undefined : { deadMs: last.dead_ms, leafIndex: last.leaf_index },
  };
}

/** All of many are moved in steps; the answer is remembered with the last of them. */
export async function requeueDeadLetters(
  database: Database,
  order: RequeueOrder,
  clock: Clock,
): Promise<AuditServiceRequeueDeadLettersResponse> {
  const { kind } = database;
  const { group, ids, caller, named } = order;
  const request = named && { scope: SCOPE, caller, named };
  const began = clock.now();
  await settleOverdue(database, group, began);
  const wanted = ids && (await leavesOf(kind, database, ids));
  let before = 0;
  for (;;) {
    const { answer, done } = await database.transaction(async (tx) => {
      await lockGroup(kind, tx, group);
      const now = clock.now();
      const known = request && (await recallAnswer(tx, request, now));
      if (known !== undefined) {
        return { answer: fromBinary(AuditServiceRequeueDeadLettersResponseSchema, known), done: true };
      }
      const dead = await deadLeaves(kind, tx, group, wanted && [...wanted.values()], began);
      await revive(kind, tx, group, dead, now);
      const moved = new Set(dead);
      const answer = create(AuditServiceRequeueDeadLettersResponseSchema, {
        requeued: BigInt(before + dead.length),
        missingRecordIds: ids?.filter((id) => !moved.has(wanted?.get(id) ?? -1)) ?? [],
      });
      const done = wanted !== undefined || dead.length < STEP;
      if (done && request !== undefined) {
        await rememberAnswer(tx, request, toBinary(AuditServiceRequeueDeadLettersResponseSchema, answer), now);
      }
      return { answer, done };
    });
    if (done) return answer;
    before = Number(answer.requeued);
    await nextTurn();
  }
}

/** Those of these leaves that are dead letters; of all: some of those that were there when the call began. */
async function deadLeaves(
  kind: Database["kind"],
  tx: SqlSession,
  group: string,
  wanted: readonly number[] | undefined,
  began: number,
): Promise<readonly number[]> {
  const these =
    wanted === undefined
      ? { condition: `dead_ms <= $2 ORDER BY dead_ms, leaf_index LIMIT ${STEP}`, param: began }
      : { condition: `leaf_index IN (${numberList(kind, 2)})`, param: JSON.stringify(wanted) };
  const rows = await tx.query<{ leaf_index: number }>(
    `SELECT leaf_index FROM audit_dead_letter WHERE group_name = $1 AND ${these.condition}`,
    [group, these.param],
  );
  return rows.map(({ leaf_index }) => leaf_index);
}

async function revive(
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
    `INSERT INTO audit_delivery
        (group_name, leaf_index, token, attempt, max_deliveries, consumer, holder, due_ms, last_error)
      SELECT group_name, leaf_index, 0, 0, 1, last_consumer, NULL, CAST($3 AS BIGINT), ''
      FROM audit_dead_letter WHERE ${these}`,
    [group, list, now],
  );
  await tx.query(`DELETE FROM audit_dead_letter WHERE ${these}`, [group, list]);
}

/** The leaves of those that are held, by id. */
async function leavesOf(
  kind: Database["kind"],
  database: Database,
  ids: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const list =
    kind === "sqlite"
      ? "SELECT value ->> 0, value ->> 1 FROM json_each($1)"
      : "SELECT id ->> 0, CAST(id ->> 1 AS BIGINT) FROM json_array_elements(CAST($1 AS json)) AS id";
  const rows = await database.query<{ leaf_index: number; producer: string; sequence: number }>(
    `SELECT leaf_index, producer, sequence FROM audit_record WHERE (producer, sequence) IN (${list})`,
    [JSON.stringify(ids.flatMap((id) => parseId(id) ?? []).map(({ producer, sequence }) => [producer, sequence]))],
  );
  return new Map(rows.map((row) => [idOf(row), row.leaf_index]));
}

import type { Database, SqlSession } from "../../infra/database.ts";
import { bigintArray } from "../../infra/postgres-array.ts";
import { open } from "../record/leaf.ts";
import { parseId, REVIEW_PRODUCER } from "../record/record.ts";
import { type DroppedRecords, RETENTION_PRODUCER } from "./announcement.ts";
import type { LeafRange } from "./leaf-ranges.ts";
import type { Due, RetentionStore } from "./retention.ts";

export interface SqlRetentionOptions {
  readonly database: Database;
  /** Takes what was dropped among these leaves, both included, out of an index that SQL does not keep by itself. */
  readonly forgetDropped?: (firstLeaf: number, lastLeaf: number) => Promise<void>;
}

const BATCH = 1000;
/** $1, $2: leaves; $3, $4: what is due. */
const IS_KEPT = `leaf_index >= $1 AND leaf_index < $2 AND leaf IS NOT NULL AND producer <> '${RETENTION_PRODUCER}'`;
const IS_OLD = "accept_us < $3";
const IS_DUE = `(${IS_OLD} OR leaf_index < $4)`;
/** status 2 is PENDING. A review tells of another record, so its leaf has to be read. */
const CANDIDATES = `SELECT leaf_index, accept_us, CASE WHEN producer = '${REVIEW_PRODUCER}' THEN leaf END AS review
  FROM audit_record
  WHERE ${IS_KEPT} AND status <> 2 AND ${IS_DUE}
  ORDER BY leaf_index LIMIT ${BATCH}`;
/** One statement, because a record may move from one table to the other. */
const UNSETTLED = `SELECT leaf_index FROM audit_delivery WHERE group_name = $1 AND leaf_index >= $2 AND leaf_index < $3
  UNION ALL
  SELECT leaf_index FROM audit_dead_letter WHERE group_name = $1 AND leaf_index >= $2 AND leaf_index < $3`;
/** What is left is what proofs and retries need, and when it happened, by which blocks of leaves are found. */
const DROP = `UPDATE audit_record SET leaf = NULL, review = NULL, outcome = 0, actor_key = NULL, action_key = NULL,
  resource_key = NULL, resource_type_key = NULL, trace_key = NULL, service_key = NULL`;

type Candidate = { leaf_index: number; accept_us: number; review: Uint8Array | null };

export function createSqlRetention({ database, forgetDropped }: SqlRetentionOptions): RetentionStore {
  const { kind } = database;

  async function dropAll(tx: SqlSession, candidates: readonly Candidate[]): Promise<void> {
    const leaves = candidates.map(({ leaf_index }) => leaf_index);
    if (kind === "postgres") {
      await tx.query(`${DROP} WHERE leaf_index = ANY($1::bigint[])`, [bigintArray(leaves)]);
    } else {
      await tx.each(
        `${DROP} WHERE leaf_index = $1`,
        leaves.map((leaf) => [leaf]),
      );
    }
  }

  return {
    async startOfNewest(records) {
      const [head] = await database.query<{ size: number }>("SELECT size FROM audit_head WHERE id = 1");
      const start = (head?.size ?? 0) - records;
      let own = 0;
      for (;;) {
        // Further back there may be more of them.
        const [row] = await database.query<{ own: number }>(
          `SELECT count(*) AS own FROM audit_record WHERE producer = '${RETENTION_PRODUCER}' AND leaf_index >= $1`,
          [start - own],
        );
        if (row === undefined || row.own <= own) return start - own;
        own = row.own;
      }
    },
    async survey({ first, end }, due) {
      const [row] = await database.query<{ kept: number; due: number | null; by_age: number | null }>(
        `SELECT count(*) AS kept, sum(CASE WHEN ${IS_DUE} THEN 1 ELSE 0 END) AS due,
          sum(CASE WHEN ${IS_OLD} THEN 1 ELSE 0 END) AS by_age
          FROM audit_record WHERE ${IS_KEPT}`,
        [first, end, due.acceptedBeforeUs, due.beforeLeaf],
      );
      return { kept: row?.kept ?? 0, due: row?.due ?? 0, byAge: row?.by_age ?? 0 };
    },
    async drop(tx, { first, end }, due) {
      const { below, unsettled } = await unackedAmong(tx, { first, end });
      const candidates = await tx.query<Candidate>(CANDIDATES, [first, below, due.acceptedBeforeUs, due.beforeLeaf]);
      const settled = candidates.filter(({ leaf_index }) => !unsettled.has(leaf_index));
      const records = settled.filter(({ review }) => review === null);
      await dropAll(tx, records);
      // Afterwards, so that a record and its review may go together.
      const reviews: Candidate[] = [];
      for (const candidate of settled) {
        if (candidate.review !== null && !(await isKept(tx, candidate.review))) reviews.push(candidate);
      }
      await dropAll(tx, reviews);
      const last = candidates.length < BATCH ? undefined : candidates.at(-1);
      return { dropped: summaryOf([...records, ...reviews], due), next: last && last.leaf_index + 1 };
    },
    async tidy({ first, end }) {
      await forgetDropped?.(first, end - 1);
    },
  };
}

/** What groups have not acked among these leaves: all from `below` on, and those in `unsettled`. */
async function unackedAmong(
  tx: SqlSession,
  { first, end }: LeafRange,
): Promise<{ below: number; unsettled: Set<number> }> {
  // First how far each group has got: what it takes from there meanwhile is kept by that alone.
  const groups = await tx.query<{ name: string; next_leaf: number }>("SELECT name, next_leaf FROM audit_group");
  const unsettled = new Set<number>();
  let below = end;
  for (const { name, next_leaf } of groups) {
    below = Math.min(below, next_leaf);
    for (const row of await tx.query<{ leaf_index: number }>(UNSETTLED, [name, first, end])) {
      unsettled.add(row.leaf_index);
    }
  }
  return { below, unsettled };
}

/** Whether the record that a review is about is still there. */
async function isKept(tx: SqlSession, review: Uint8Array): Promise<boolean> {
  const id = parseId(open(review).entry.resource?.id ?? "");
  if (id === undefined) return false;
  const [row] = await tx.query<{ kept: number }>(
    `SELECT CASE WHEN leaf IS NULL THEN 0 ELSE 1 END AS kept FROM audit_record WHERE producer = $1 AND sequence = $2`,
    [id.producer, id.sequence],
  );
  return row?.kept === 1;
}

function summaryOf(dropped: readonly Candidate[], due: Due): DroppedRecords | undefined {
  if (dropped.length === 0) return undefined;
  const times = dropped.map(({ accept_us }) => accept_us);
  return {
    leaves: dropped.map(({ leaf_index }) => leaf_index).toSorted((a, b) => a - b),
    byAge: times.filter((us) => us < due.acceptedBeforeUs).length,
    oldestAcceptUs: Math.min(...times),
    newestAcceptUs: Math.max(...times),
  };
}

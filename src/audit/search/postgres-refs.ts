import type { Database } from "../../infra/database.ts";
import { bigintArray } from "../../infra/postgres-array.ts";
import { orderSql, type PositionRow, positionOf, type Range, type Refs } from "./sql-refs.ts";
import type { Driver, Plan } from "./sql-search-plan.ts";

/**
 * What leads to a driver's records; `wanted.key` is each of its keys. The predicates of the index are repeated here, or it would
 * not be used.
 */
const CONDITIONS: Readonly<Record<Driver, string>> = {
  // Without "leaf IS NOT NULL": the planner then cannot take the index of all the resource's records, and need not see the rows.
  reviewable: "resource_key = wanted.key AND status IN (2, 3, 4)",
  trace: "leaf IS NOT NULL AND trace_key = wanted.key",
  resource: "leaf IS NOT NULL AND resource_key = wanted.key",
  actor: "leaf IS NOT NULL AND actor_key = wanted.key",
  action: "leaf IS NOT NULL AND action_key = wanted.key",
  pending: "leaf IS NOT NULL AND status = 2",
  time: "leaf IS NOT NULL",
};
/** A limit that the planner sees, few enough that every statement is worth preparing. */
const LIMITS = [32, 128, 512, 2048];

/** Looks into the ordinary indexes. */
export function createPostgresRefs(database: Database): Refs {
  return {
    async next(plan, range, count) {
      const limit = LIMITS.find((one) => one >= count) ?? count;
      const { from, lastUs, belowLeaf } = range;
      const bounds = [from.occurUs, from.leafIndex, lastUs, belowLeaf];
      const rows =
        plan.keys.length === 0
          ? await database.query<PositionRow>(select(plan, range, limit), bounds)
          : await database.query<PositionRow>(byKey(plan, range, limit), [...bounds, bigintArray(plan.keys)]);
      return rows.slice(0, count).map(positionOf);
    },
  };
}

/** One ordered walk for each key, merged by the server. */
function byKey(plan: Plan, range: Range, limit: number): string {
  return `SELECT r.occur_us, r.leaf_index FROM unnest($5::bigint[]) AS wanted (key)
    CROSS JOIN LATERAL (${select(plan, range, limit)}) AS r
    ORDER BY ${orderSql(range.order).by} LIMIT ${limit}`;
}

function select({ driver }: Plan, { order }: Range, limit: number): string {
  const { after, within, by } = orderSql(order);
  return `SELECT occur_us, leaf_index FROM audit_record
    WHERE ${CONDITIONS[driver]}
      AND (occur_us, leaf_index) ${after} ($1, $2) AND occur_us ${within} $3 AND leaf_index < $4
    ORDER BY ${by} LIMIT ${limit}`;
}

import type { Database } from "../../infra/database.ts";
import { bigintArray } from "../../infra/postgres-array.ts";
import { orderSql, type PositionRow, positionOf, type Range, type Refs } from "./sql-refs.ts";
import type { Driver, Plan } from "./sql-search-plan.ts";

const KEY_COLUMN: Partial<Record<Driver, string>> = {
  trace: "trace_key",
  resource: "resource_key",
  actor: "actor_key",
  action: "action_key",
};
/** A limit that the planner sees, few enough that every statement is worth preparing. */
const LIMITS = [32, 128, 512, 2048];

/** Looks into the ordinary indexes; their predicates are repeated here, or they would not be used. */
export function createPostgresRefs(database: Database): Refs {
  return {
    async next(plan, range, count) {
      const limit = LIMITS.find((one) => one >= count) ?? count;
      const { from, lastUs, belowLeaf } = range;
      const bounds = [from.occurUs, from.leafIndex, lastUs, belowLeaf];
      const rows =
        plan.keys.length === 0
          ? await database.query<PositionRow>(withoutKey(plan, range, limit), bounds)
          : await database.query<PositionRow>(byKey(plan, range, limit), [...bounds, bigintArray(plan.keys)]);
      return rows.slice(0, count).map(positionOf);
    },
  };
}

function withoutKey({ driver }: Plan, range: Range, limit: number): string {
  return select(driver === "pending" ? "status = 2" : "true", range, limit);
}

/** One ordered walk for each key, merged by the server. */
function byKey({ driver }: Plan, range: Range, limit: number): string {
  return `SELECT r.occur_us, r.leaf_index FROM unnest($5::bigint[]) AS wanted (key)
    CROSS JOIN LATERAL (${select(`${KEY_COLUMN[driver]} = wanted.key`, range, limit)}) AS r
    ORDER BY ${orderSql(range.order).by} LIMIT ${limit}`;
}

function select(condition: string, { order }: Range, limit: number): string {
  const { after, within, by } = orderSql(order);
  return `SELECT occur_us, leaf_index FROM audit_record
    WHERE leaf IS NOT NULL AND ${condition}
      AND (occur_us, leaf_index) ${after} ($1, $2) AND occur_us ${within} $3 AND leaf_index < $4
    ORDER BY ${by} LIMIT ${limit}`;
}

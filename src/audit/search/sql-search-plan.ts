import { AuditStatus } from "../../gen/holdfast/v1/audit_pb.js";
import type { Database } from "../../infra/database.ts";
import { keyOf } from "../record/keys.ts";
import type { Filter } from "./filter.ts";

/**
 * What records can be fetched by in order. "reviewable": those of a resource that were, or are to be, reviewed. "time": all of
 * them.
 */
export type Driver = "reviewable" | "trace" | "resource" | "actor" | "action" | "pending" | "time";

/** A condition on a row; `matches` still has to look at what meets it, because different texts may share a key. */
export interface Condition {
  readonly column: string;
  readonly values: readonly number[] | readonly string[];
}

export interface Plan {
  readonly driver: Driver;
  /** What the driver's column must be; none for "pending" and "time". */
  readonly keys: readonly number[];
  /** What the driver does not see to. */
  readonly conditions: readonly Condition[];
}

type Sql = Pick<Database, "query">;

/** More actions than this are not looked up one by one. */
const ACTIONS = 100;
/** Fewer records than this that wait for a review are looked through sooner than all that an actor did. */
const FEW_PENDING = 1000;
const REVIEWABLE: ReadonlySet<number> = new Set([AuditStatus.PENDING, AuditStatus.APPROVED, AuditStatus.REJECTED]);

/** How to find what a filter wants, by the field that usually leaves the fewest. Undefined: nothing can match. */
export async function planSearch(sql: Sql, filter: Filter): Promise<Plan | undefined> {
  const actions = await actionsOf(sql, filter);
  if (actions?.length === 0) return undefined;
  const resource = filter.resourceId === "" ? [] : [keyOf(filter.resourceType, filter.resourceId)];
  const keys: Record<Driver, readonly number[]> = {
    reviewable: resource,
    trace: filter.traceId === "" ? [] : [keyOf(filter.traceId)],
    resource,
    actor: distinctKeys(filter.actors),
    action: distinctKeys(actions ?? []),
    pending: [],
    time: [],
  };
  const driver = await driverFor(sql, filter, keys);
  const byNumber: [string, readonly number[]][] = [
    ["trace_key", driver === "trace" ? [] : keys.trace],
    ["resource_key", driver === "resource" || driver === "reviewable" ? [] : resource],
    ["actor_key", driver === "actor" ? [] : keys.actor],
    ["action_key", driver === "action" ? [] : keys.action],
    ["resource_type_key", filter.resourceType === "" || filter.resourceId !== "" ? [] : [keyOf(filter.resourceType)]],
    ["service_key", distinctKeys(filter.services)],
    ["outcome", [...filter.outcomes]],
    ["status", driver === "pending" ? [] : [...filter.statuses]],
  ];
  const conditions: Condition[] = byNumber.map(([column, values]) => ({ column, values }));
  conditions.push({ column: "producer", values: [...filter.producers] });
  return {
    driver,
    keys: keys[driver],
    conditions: conditions.filter(({ values }) => values.length > 0),
  };
}

async function driverFor(
  sql: Sql,
  { statuses }: Filter,
  keys: Readonly<Record<Driver, readonly number[]>>,
): Promise<Driver> {
  if (keys.reviewable.length > 0 && statuses.size > 0 && [...statuses].every((one) => REVIEWABLE.has(one)))
    return "reviewable";
  if (keys.trace.length > 0) return "trace";
  if (keys.resource.length > 0) return "resource";
  const other = keys.actor.length > 0 ? "actor" : keys.action.length > 0 ? "action" : "time";
  if (statuses.size !== 1 || !statuses.has(AuditStatus.PENDING)) return other;
  return other === "time" || (await hasFewPending(sql)) ? "pending" : other;
}

async function hasFewPending(sql: Sql): Promise<boolean> {
  const [row] = await sql.query<{ pending: number }>(
    `SELECT count(*) AS pending FROM (SELECT 1 AS one FROM audit_record WHERE status = 2 LIMIT ${FEW_PENDING}) AS waiting`,
  );
  return row === undefined || row.pending < FEW_PENDING;
}

/** The actions that the filter wants, prefixes looked up. Undefined: any, or too many to name. */
async function actionsOf(sql: Sql, filter: Filter): Promise<readonly string[] | undefined> {
  const { actions, actionPrefixes } = filter;
  if (actions.size === 0 && actionPrefixes.size === 0) return undefined;
  const found = new Set(actions);
  for (const prefix of actionPrefixes) {
    if (prefix === "") return undefined;
    const end = afterAllWith(prefix);
    const rows = await sql.query<{ action: string }>(
      `SELECT action FROM audit_action WHERE action >= $1 ${end === undefined ? "" : "AND action < $2"}
        ORDER BY action LIMIT ${ACTIONS + 1}`,
      end === undefined ? [prefix] : [prefix, end],
    );
    for (const { action } of rows) found.add(action);
    if (found.size > ACTIONS) return undefined;
  }
  return [...found];
}

/** The first text, byte by byte, after all those that begin with the prefix. Undefined: there is none. */
function afterAllWith(prefix: string): string | undefined {
  const points = [...prefix];
  for (let last = points.pop(); last !== undefined; last = points.pop()) {
    const point = last.codePointAt(0) ?? 0;
    if (point === 0x10ffff) continue;
    // What UTF-16 keeps for its pairs stands for no character.
    return points.join("") + String.fromCodePoint(point === 0xd7ff ? 0xe000 : point + 1);
  }
  return undefined;
}

function distinctKeys(texts: Iterable<string>): readonly number[] {
  return [...new Set([...texts].map((text) => keyOf(text)))];
}

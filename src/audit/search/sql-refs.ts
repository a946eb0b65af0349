import type { Filter } from "./filter.ts";
import type { Order, Position } from "./search.ts";
import type { Plan } from "./sql-search-plan.ts";

/** The stretch of the order that is looked at. */
export interface Range {
  readonly order: Order;
  /** Without this place itself. */
  readonly from: Position;
  /** The last occurUs, included. */
  readonly lastUs: number;
  /** Without this leaf and those after it. */
  readonly belowLeaf: number;
}

/** Where records are that a plan's driver leads to. */
export interface Refs {
  /** The first `count` of a range, in its order; fewer when there are no more. Some may be of records since dropped. */
  next(plan: Plan, range: Range, count: number): Promise<readonly Position[]>;
}

/** What a filter's times leave of the order, from a place on. */
export function rangeOf(filter: Filter, order: Order, after: Position | undefined, belowLeaf: number): Range {
  const { start, end } = filter;
  const firstUs = start?.us ?? -Number.MAX_SAFE_INTEGER;
  // An end within a microsecond leaves a part of it.
  const endUs = end === undefined ? Number.MAX_SAFE_INTEGER : end.us + (end.nanos > 0 ? 1 : 0);
  if (order === "newest") {
    return { order, from: after ?? { occurUs: endUs, leafIndex: -1 }, lastUs: firstUs, belowLeaf };
  }
  return { order, from: after ?? { occurUs: firstUs, leafIndex: -1 }, lastUs: endUs - 1, belowLeaf };
}

/** For sorting. */
export function inOrder(order: Order): (a: Position, b: Position) => number {
  const sign = order === "newest" ? -1 : 1;
  return (a, b) => sign * (a.occurUs - b.occurUs || a.leafIndex - b.leafIndex);
}

export type PositionRow = { occur_us: number; leaf_index: number };

export function positionOf(row: PositionRow): Position {
  return { occurUs: row.occur_us, leafIndex: row.leaf_index };
}

/** The comparisons and the direction that an order means in SQL. */
export function orderSql(order: Order) {
  return order === "newest"
    ? { after: "<", within: ">=", by: "occur_us DESC, leaf_index DESC" }
    : { after: ">", within: "<=", by: "occur_us, leaf_index" };
}

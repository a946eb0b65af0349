import type { Database, SqlValue } from "../../infra/database.ts";
import { createPauses } from "../../infra/pauses.ts";
import type { Position } from "./search.ts";
import { inOrder, orderSql, type PositionRow, positionOf, type Range, type Refs } from "./sql-refs.ts";
import type { Plan } from "./sql-search-plan.ts";
import { BLOCK_LEAVES, type Block, createSqliteBlocks, KINDS } from "./sqlite-blocks.ts";

/** Blocks times keys that are asked for in one statement. */
const PROBES = 256;

/** Looks into the blocks that can hold what comes next, and stops as soon as no other block can. */
export function createSqliteRefs(database: Database): Refs {
  const blocks = createSqliteBlocks(database);

  /** Those of the blocks that hold any of the keys, as far as the index knows. */
  async function holding(plan: Plan, candidates: readonly Block[]): Promise<readonly Block[]> {
    const { kind, keys } = kindOf(plan);
    const rows = await database.query<{ block: number }>(
      `SELECT wanted.value AS block FROM json_each($1) AS wanted
        WHERE EXISTS (SELECT 1 FROM audit_index WHERE block = wanted.value AND kind = $2 AND ${isKey(keys, 3)})`,
      [json(candidates.filter(({ indexed }) => indexed).map(({ number }) => number)), kind, keysParam(keys)],
    );
    const held = new Set(rows.map(({ block }) => block));
    return candidates.filter(({ indexed, number }) => !indexed || held.has(number));
  }

  async function look(plan: Plan, block: Block, range: Range, count: number): Promise<Position[]> {
    const { from, lastUs, belowLeaf } = range;
    const { after, within, by } = orderSql(range.order);
    const { kind, keys, column } = kindOf(plan);
    const first = block.number * BLOCK_LEAVES;
    const [source, params]: [string, SqlValue[]] = block.indexed
      ? [`audit_index WHERE block = $6 AND kind = $7 AND ${isKey(keys, 8)}`, [block.number, kind, keysParam(keys)]]
      : [
          `audit_record WHERE leaf_index >= $6 AND leaf_index < $7 AND leaf IS NOT NULL AND ${isKey(keys, 8, column)}`,
          [first, first + BLOCK_LEAVES, keysParam(keys)],
        ];
    const rows = await database.query<PositionRow>(
      `SELECT occur_us, leaf_index FROM ${source}
        AND (occur_us, leaf_index) ${after} ($1, $2) AND occur_us ${within} $3 AND leaf_index < $4
        ORDER BY ${by} LIMIT $5`,
      [from.occurUs, from.leafIndex, lastUs, belowLeaf, count, ...params],
    );
    return rows.map(positionOf);
  }

  async function byBlocks(plan: Plan, range: Range, count: number): Promise<readonly Position[]> {
    const pause = createPauses();
    const candidates = (await blocks.current()).filter((block) => overlaps(block, range)).sort(bestFirst(range));
    let found: Position[] = [];
    // Who is in every block is found in the first; who is rare is asked for in many blocks at once.
    for (let at = 0, ahead = 1; at < candidates.length; at += ahead, ahead = Math.min(2 * ahead, most(plan))) {
      const next = candidates.slice(at, at + ahead);
      for (const block of ahead === 1 || plan.driver === "time" ? next : await holding(plan, next)) {
        const last = found[count - 1];
        if (last !== undefined && isAfter(block, last, range)) return found;
        const more = await look(plan, block, range, count);
        if (more.length > 0) found = [...found, ...more].sort(inOrder(range.order)).slice(0, count);
        await pause();
      }
      const last = found[count - 1];
      const following = candidates[at + ahead];
      if (last !== undefined && following !== undefined && isAfter(following, last, range)) return found;
      await pause();
    }
    return found;
  }

  /** The only ordinary indexes, of few records: those that wait for a review, and those of a resource that had one. */
  async function reviewed(plan: Plan, range: Range, count: number): Promise<readonly Position[]> {
    const { after, within, by } = orderSql(range.order);
    const condition = plan.driver === "pending" ? "status = 2" : "resource_key = $6 AND status IN (2, 3, 4)";
    const rows = await database.query<PositionRow>(
      `SELECT occur_us, leaf_index FROM audit_record WHERE ${condition}
        AND (occur_us, leaf_index) ${after} ($1, $2) AND occur_us ${within} $3 AND leaf_index < $4
        ORDER BY ${by} LIMIT $5`,
      [range.from.occurUs, range.from.leafIndex, range.lastUs, range.belowLeaf, count, ...plan.keys],
    );
    return rows.map(positionOf);
  }

  return {
    next(plan, range, count) {
      const isReviewed = plan.driver === "pending" || plan.driver === "reviewable";
      return isReviewed ? reviewed(plan, range, count) : byBlocks(plan, range, count);
    },
  };
}

function kindOf({ driver, keys }: Plan) {
  const found = KINDS.find((one) => one.driver === driver);
  if (found === undefined) throw new Error(`audit_index knows nothing by ${driver}`);
  return { kind: found.kind, column: found.key, keys: driver === "time" ? [0] : keys };
}

/** How many blocks are asked for at once. */
function most({ keys }: Plan): number {
  return Math.max(1, Math.floor(PROBES / Math.max(1, keys.length)));
}

/** A single key leaves the index in order; several are sorted, at most a block of them. */
function isKey(keys: readonly number[], parameter: number, column = "key"): string {
  return keys.length === 1 ? `${column} = $${parameter}` : `${column} IN (SELECT value FROM json_each($${parameter}))`;
}

function keysParam(keys: readonly number[]): SqlValue {
  const [only] = keys;
  return keys.length === 1 && only !== undefined ? only : json(keys);
}

function json(numbers: readonly number[]): string {
  return `[${numbers.join(",")}]`;
}

/** Whether a block may hold something of the range. */
function overlaps({ number, minUs, maxUs }: Block, { order, from, lastUs, belowLeaf }: Range): boolean {
  const first = number * BLOCK_LEAVES;
  if (first >= belowLeaf) return false;
  if (order === "newest") {
    return maxUs >= lastUs && (minUs < from.occurUs || (minUs === from.occurUs && first < from.leafIndex));
  }
  const last = first + BLOCK_LEAVES - 1;
  return minUs <= lastUs && (maxUs > from.occurUs || (maxUs === from.occurUs && last > from.leafIndex));
}

function bestFirst({ order }: Range): (a: Block, b: Block) => number {
  if (order === "newest") return (a, b) => b.maxUs - a.maxUs || b.number - a.number;
  return (a, b) => a.minUs - b.minUs || a.number - b.number;
}

/** Whether everything in a block comes after the place. */
function isAfter({ number, minUs, maxUs }: Block, place: Position, { order }: Range): boolean {
  const first = number * BLOCK_LEAVES;
  if (order === "newest") {
    return maxUs < place.occurUs || (maxUs === place.occurUs && first + BLOCK_LEAVES - 1 < place.leafIndex);
  }
  return minUs > place.occurUs || (minUs === place.occurUs && first > place.leafIndex);
}

import type { Database, SqlValue } from "../../infra/database.ts";
import { createPauses } from "../../infra/pauses.ts";
import { bigintArray, textArray } from "../../infra/postgres-array.ts";
import { open } from "../record/leaf.ts";
import { type Filter, serializeFilter } from "./filter.ts";
import { matches } from "./filter-match.ts";
import { createPostgresRefs } from "./postgres-refs.ts";
import { type Found, PAGE_BYTES, type Page, type Position, type Query, type Search } from "./search.ts";
import { rangeOf } from "./sql-refs.ts";
import { type Condition, planSearch } from "./sql-search-plan.ts";
import { createSqliteRefs } from "./sqlite-refs.ts";

const SCANNED = 20_000;
const SCANNED_BYTES = 16 * 1024 * 1024;
/** Places that are asked for at once; at first about as many as the page needs. */
const FEWEST_PLACES = 32;
const MOST_PLACES = 1024;
/** Rows that are read at once. Leaves that are longer than this are read one by one, so that a read stays below 1 MiB. */
const ROWS = 128;
const SHORT_LEAF_BYTES = 8192;
/** What a record takes in a reply beside its leaf, about. */
const RECORD_BYTES = 160;

type Row = Omit<Found, "leaf"> & { readonly leaf: Uint8Array | null; readonly leafBytes: number };

/**
 * Search over SQL, in two steps: places in order from an index by what the filter names most narrowly, then their rows, where
 * keys and numbers sort out what cannot match before its leaf is sent and compared in full.
 */
export function createSqlSearch({ database }: { readonly database: Database }): Search {
  const { kind } = database;
  const refs = kind === "sqlite" ? createSqliteRefs(database) : createPostgresRefs(database);

  async function readRows(places: readonly Position[], conditions: readonly Condition[]): Promise<Map<number, Row>> {
    const wanted: Condition[] = [
      { column: "leaf_index", values: places.map(({ leafIndex }) => leafIndex) },
      ...conditions,
    ];
    const rows = await database.query<{
      leaf_index: number;
      producer: string;
      sequence: number;
      occur_us: number;
      status: number;
      review: Uint8Array | null;
      leaf_bytes: number;
      leaf: Uint8Array | null;
    }>(
      `SELECT leaf_index, producer, sequence, occur_us, status, review, length(leaf) AS leaf_bytes,
          CASE WHEN length(leaf) <= ${SHORT_LEAF_BYTES} THEN leaf END AS leaf
        FROM audit_record
        WHERE leaf IS NOT NULL AND ${wanted.map((one, at) => isOneOf(kind, one, at + 1)).join(" AND ")}`,
      wanted.map(({ values }) => listOf(kind, values)),
    );
    return new Map(
      rows.map(({ leaf_index: leafIndex, occur_us: occurUs, leaf_bytes: leafBytes, ...rest }) => [
        leafIndex,
        { leafIndex, occurUs, leafBytes, ...rest },
      ]),
    );
  }

  /** Undefined when retention dropped it a moment ago. */
  async function withLeaf(row: Row): Promise<Found | undefined> {
    if (row.leaf !== null) return { ...row, leaf: row.leaf };
    const [found] = await database.query<{ leaf: Uint8Array | null }>(
      "SELECT leaf FROM audit_record WHERE leaf_index = $1",
      [row.leafIndex],
    );
    return found === undefined || found.leaf === null ? undefined : { ...row, leaf: found.leaf };
  }

  return {
    async page({ filter, order, limit, after, belowLeaf, maxScanned = SCANNED }: Query): Promise<Page> {
      const plan = await planSearch(database, filter);
      if (plan === undefined) return { rows: [], next: undefined };
      const pause = createPauses();
      const isWanted = matcherOf(filter);
      const rows: Found[] = [];
      let bytes = 0;
      let scanned = 0;
      let scannedBytes = 0;
      let reached = after;
      for (let count = FEWEST_PLACES; ; count = 2 * count) {
        count = Math.min(MOST_PLACES, Math.max(count, limit + 1 - rows.length));
        const range = rangeOf(filter, order, reached, belowLeaf ?? Number.MAX_SAFE_INTEGER);
        const places = await refs.next(plan, range, count);
        for (let at = 0; at < places.length; at += ROWS) {
          const some = places.slice(at, at + ROWS);
          const candidates = await readRows(some, plan.conditions);
          for (const place of some) {
            const candidate = candidates.get(place.leafIndex);
            const row = candidate && (await withLeaf(candidate));
            scanned++;
            scannedBytes += row?.leaf.length ?? 0;
            if (row !== undefined && isWanted(row)) {
              bytes += row.leaf.length + (row.review?.length ?? 0) + RECORD_BYTES;
              if (bytes > PAGE_BYTES && rows.length > 0) return { rows, next: reached };
              rows.push(row);
            }
            reached = place;
            const isLast = places.length < count && place === places.at(-1);
            if (isLast) return { rows, next: undefined };
            if (rows.length === limit || scanned >= maxScanned || scannedBytes > SCANNED_BYTES) {
              return { rows, next: reached };
            }
          }
          await pause();
        }
        if (places.length < count) return { rows, next: undefined };
      }
    },
  };
}

/** Compares in full. A filter that wants everything need not have a look. */
function matcherOf(filter: Filter): (row: Found) => boolean {
  if (serializeFilter(filter) === "{}") return () => true;
  return ({ producer, occurUs, status, leaf }) =>
    matches(filter, { producer, occurUs, status, entry: open(leaf).entry });
}

function isOneOf(kind: Database["kind"], { column, values }: Condition, parameter: number): string {
  if (kind === "sqlite") return `${column} IN (SELECT value FROM json_each($${parameter}))`;
  return `${column} = ANY($${parameter}::${areTexts(values) ? "text" : "bigint"}[])`;
}

function listOf(kind: Database["kind"], values: Condition["values"]): SqlValue {
  if (kind === "sqlite") return JSON.stringify(values);
  return areTexts(values) ? textArray(values) : bigintArray(values);
}

function areTexts(values: Condition["values"]): values is readonly string[] {
  return typeof values[0] === "string";
}

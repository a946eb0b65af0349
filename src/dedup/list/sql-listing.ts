import { alongIndex } from "../../infra/along-index.ts";
import type { Database, SqlStatement, SqlValue } from "../../infra/database.ts";
import { createPauses } from "../../infra/pauses.ts";
import type { SqlClock } from "../../infra/sql-clock.ts";
import { type Claim, stateOf } from "../record/claim.ts";
import { type ClaimRow, COLUMNS, claimOf, KINDS, STATUSES } from "../truth/sql-row.ts";
import type { Listing, ListPlace, ListQuery } from "./listing.ts";

/** How many claims a page looks at. */
const SCANNED = 5_000;
/** In one statement, at first about as many as the page needs. */
const FEWEST_ROWS = 64;
const MOST_ROWS = 1_000;

export function createSqlListing(database: Database, clock: SqlClock): Listing {
  return {
    async page(query) {
      const { limit } = query;
      const pause = createPauses();
      const claims: Claim[] = [];
      let { after } = query;
      let scanned = 0;
      for (let count = limit; ; count *= 2) {
        const most = Math.min(MOST_ROWS, Math.max(FEWEST_ROWS, count + 1), SCANNED - scanned);
        const { sql, params } = stretchStatement(database.kind, query, after, most);
        const [rows, nowMs] = await Promise.all([alongIndex<ClaimRow>(database, sql, params), clock(database)]);
        const stretch = rows.map(claimOf);
        const end = stretch.at(-1);
        // Where the prefix ends all that follows is without it.
        const isEnd = rows.length < most || (end !== undefined && !hasPrefix(end, query));
        for (const claim of stretch) if (isWanted(claim, query, nowMs)) claims.push(claim);
        if (claims.length > limit) {
          const page = claims.slice(0, limit);
          return { claims: page, nowMs, next: page.at(-1)?.id };
        }
        scanned += rows.length;
        if (isEnd || end === undefined) return { claims, nowMs, next: undefined };
        if (scanned >= SCANNED) return { claims, nowMs, next: end.id };
        after = end.id;
        await pause();
      }
    },
  };
}

function hasPrefix({ id }: Claim, { prefix }: ListQuery): boolean {
  return prefix === "" || (id.kind === "key" && id.text.startsWith(prefix));
}

function isWanted(claim: Claim, query: ListQuery, nowMs: number): boolean {
  const state = stateOf(claim, nowMs);
  if (state === undefined || !hasPrefix(claim, query)) return false;
  return (query.state === undefined || query.state === state) && (query.owner === "" || query.owner === claim.owner);
}

/** So many claims behind a place, along the index that leaves most others out. */
export function stretchStatement(
  kind: Database["kind"],
  query: ListQuery,
  after: ListPlace | undefined,
  count: number,
): Required<SqlStatement> {
  const params: SqlValue[] = [query.namespace];
  const bind = (value: SqlValue) => `$${params.push(value)}`;
  const wanted = ["namespace = $1"];
  let index = "";
  if (query.owner !== "") {
    wanted.push(`owner = ${bind(query.owner)}`);
    index = "dedup_claim_owner";
  } else if (query.state === "in_progress" || query.state === "abandoned") {
    wanted.push(`status = ${STATUSES.in_progress}`);
    index = "dedup_claim_open";
  }
  const place = after ?? { kind: "key", text: query.prefix };
  const from = `(kind, id) ${after === undefined ? ">=" : ">"} (${bind(KINDS[place.kind])}, ${bind(place.text)})`;
  const table = kind === "sqlite" && index !== "" ? `dedup_claim INDEXED BY ${index}` : "dedup_claim";
  const sql = `SELECT ${COLUMNS.join(", ")} FROM ${table} WHERE ${wanted.join(" AND ")} AND ${from}
    ORDER BY kind, id LIMIT ${bind(count)}`;
  return { sql, params };
}

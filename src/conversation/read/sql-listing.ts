import type { Database } from "../../infra/database.ts";
import { createPauses } from "../../infra/pauses.ts";
import { type HeldRow, heldOf } from "../ledger/sql-row.ts";
import type { Listing, ListPage } from "./listing.ts";
import { planListing } from "./sql-list-plan.ts";
import { endStatement, rowsStatement } from "./sql-stretch.ts";

type PlaceRow = { us: number; id: string };

/** How many rows a page looks at. */
const SCANNED = 20_000;
/** Rows that are looked at in one statement, at first about as many as the page needs. */
const FEWEST_ROWS = 64;
const MOST_ROWS = 512;

/**
 * Listings over an index that has the rows in their order. A page is made of stretches of it: where one ends is looked up in the
 * index alone, and bounds how many rows the filter is then compared with.
 */
export function createSqlListing({ database }: { readonly database: Pick<Database, "kind" | "query"> }): Listing {
  const { kind } = database;
  return {
    async page(query): Promise<ListPage> {
      const { limit } = query;
      const plan = await planListing(database, query);
      if (plan === undefined) return { rows: [], next: undefined };
      const pause = createPauses();
      const rows: (HeldRow & PlaceRow)[] = [];
      let { after } = query;
      let scanned = 0;
      for (let count = FEWEST_ROWS; ; count = 2 * count) {
        count = Math.min(MOST_ROWS, Math.max(count, limit + 1 - rows.length), SCANNED - scanned);
        const wanted = endStatement(kind, plan, query, after, count);
        const [end] = await database.query<PlaceRow>(wanted.sql, wanted.params);
        const some = rowsStatement(kind, plan, query, { after, end }, limit + 1 - rows.length);
        rows.push(...(await database.query<HeldRow & PlaceRow>(some.sql, some.params)));
        const held = rows.slice(0, limit).map(heldOf);
        const last = rows[limit - 1];
        if (rows.length > limit) return { rows: held, next: last };
        if (end === undefined) return { rows: held, next: undefined };
        after = end;
        scanned += count;
        if (rows.length === limit || scanned >= SCANNED) return { rows: held, next: end };
        await pause();
      }
    },
  };
}

import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ListOrder, ListPage, ListQuery } from "../../src/conversation/read/listing.ts";
import { createSqlListing } from "../../src/conversation/read/sql-listing.ts";
import type { Database, SqlRow, SqlStatement, SqlValue } from "../../src/infra/database.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { type CountedDatabase, countRows } from "../audit/rows-read.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type ScratchDirectory, scratchDirectory } from "../support/scratch.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { costlySteps, recordPlans } from "./plans.ts";

/** So many are looked at for a page, and in a statement. */
const PAGE_SCANS = 20_000;
const STATEMENT_SCANS = 512;

/** One in 100,000 has the status "rare"; users take turns. What is updated has little to do with what was created when. */
const FILL = `INSERT INTO conversation (collection, id, stamp, version, presence, generation, state_version, cut_version,
    user_id, status, complexity_level, message_count, state_bytes, created_us, updated_us, sliding, unhealed)
  WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < CAST($1 AS BIGINT))
  SELECT 'conversation', 'c' || CAST(n AS TEXT), n, n, 1, n, n, 0, 'u' || CAST(n % 1000 AS TEXT),
    CASE WHEN n % 100000 = 7 THEN 'rare' WHEN n % 100000 < 10 THEN 'free-' || CAST(n % 10 AS TEXT) ELSE 'busy' END, '', 0, 10, n * 1000, n * 1000 + n % 97 * 1000000, 0, 0 FROM n`;
const COUNT = `INSERT INTO conversation_count (collection, presence, status, conversations, messages, state_bytes)
  SELECT collection, presence, status, count(*), 0, 0 FROM conversation GROUP BY collection, presence, status`;

/** More than are looked up one by one. */
const MANY_STATUSES = ["busy", ...Array.from({ length: 10 }, (_, at) => `free-${at}`)];

interface Wish {
  readonly order: ListOrder;
  readonly statuses?: readonly string[];
  readonly userId?: string;
  readonly updatedSinceUs?: number;
}

function queryOf({ order, statuses = [], userId = "", updatedSinceUs }: Wish): Omit<ListQuery, "after"> {
  const filter = { statuses: new Set(statuses), userId };
  return { collection: "conversation", filter, updatedSinceUs, order, limit: 100, nowUs: 1 };
}

const EVERY_WAY: readonly Wish[] = [
  ...(["newest", "oldest", "updated"] as const).flatMap((order): Wish[] => [
    ...[{ order }, { order, statuses: ["rare"] }, { order, userId: "u7" }, { order, statuses: ["rare"], userId: "u7" }],
    ...[
      { order, statuses: ["busy", "rare"] },
      { order, statuses: ["busy", "rare"], userId: "u7", updatedSinceUs: 3e7 },
      { order, statuses: MANY_STATUSES },
      { order, userId: "nobody" },
      { order, updatedSinceUs: 1e15 },
    ],
  ]),
];

describe("List of 1,000,000 conversations in SQLite", () => {
  const total = 1_000_000;
  let directory: ScratchDirectory;
  let database: Database;
  let asked: SqlStatement[] = [];

  beforeAll(async () => {
    directory = scratchDirectory("million");
    const path = join(directory.path, "holdfast.db");
    const empty = openTestDatabase("sqlite", path);
    await migrate(empty, migrations);
    await empty.close();
    fillQuickly(path, total);
    const opened = openTestDatabase("sqlite", path);
    database = {
      ...opened,
      query: <Row extends SqlRow>(sql: string, params: readonly SqlValue[] = []) => {
        asked.push({ sql, params });
        return opened.query<Row>(sql, params);
      },
    };
  });
  afterAll(async () => {
    await database.close();
    directory.remove();
  });

  async function page(wish: Wish, after?: ListPage["next"]): Promise<ListPage> {
    asked = [];
    return createSqlListing({ database }).page({ ...queryOf(wish), after });
  }

  it.each(EVERY_WAY)("goes through an index in its order, a little at a time: %j", async (wish) => {
    let after: ListPage["next"];
    for (let pages = 0; pages < 2; pages++) {
      const { next } = await page(wish, after);
      const stretches = asked
        .filter(({ sql }) => sql.includes("OFFSET"))
        .map(({ params }) => Number(params?.at(0)) + 1);
      expect(Math.max(0, ...stretches)).toBeLessThanOrEqual(STATEMENT_SCANS);
      expect(stretches.reduce((sum, one) => sum + one, 0)).toBeLessThanOrEqual(PAGE_SCANS);
      for (const { sql, params } of [...asked]) {
        const plan = await database.query<{ detail: string }>(`EXPLAIN QUERY PLAN ${sql}`, params);
        const steps = plan.map(({ detail }) => detail).filter((detail) => / conversation\b/.test(detail));
        for (const step of steps)
          expect(step).toMatch(/^SEARCH conversation USING (COVERING )?INDEX conversation_\w+ \(/);
        // What is compared with the filter ends where the stretch does, unless that is the last one.
        const isBounded = (step: string) => /_us,id\)[<>].*_us,id\)[<>]/.test(step);
        const isRows = sql.includes("generation");
        if (isRows && after !== undefined && next !== undefined) expect(steps.every(isBounded)).toBe(true);
      }
      if (next === undefined) return;
      after = next;
    }
  });

  it("finds the rare ones by their status on the first page", async () => {
    for (const order of ["newest", "oldest"] as const) {
      const { rows, next } = await page({ order, statuses: ["rare", "unheard of"] });
      expect([rows.length, next]).toEqual([10, undefined]);
    }
  });

  it("finds the rare ones in the order of updates on pages that end early", async () => {
    const found: string[] = [];
    let pages = 0;
    let last: ListPage["next"];
    do {
      const { rows, next } = await page({ order: "updated", statuses: ["rare"] }, last);
      found.push(...rows.map(({ id }) => id));
      pages++;
      last = next;
    } while (last !== undefined);
    expect(found.toSorted()).toEqual(Array.from({ length: 10 }, (_, at) => `c${at * 100_000 + 7}`).sort());
    // One more where the last one ended with the last row.
    expect([total / PAGE_SCANS, total / PAGE_SCANS + 1]).toContain(pages);
  });
});

/** A commit of a million rows with all their indexes would take minutes; nothing here depends on how they came to be. */
function fillQuickly(path: string, count: number): void {
  const db = new Sqlite(path);
  db.pragma("journal_mode = OFF");
  db.pragma("synchronous = OFF");
  db.pragma("cache_size = -400000");
  const indexes = db
    .prepare<[], { name: string; sql: string }>(
      "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'conversation' AND sql IS NOT NULL",
    )
    .all();
  for (const { name } of indexes) db.exec(`DROP INDEX ${name}`);
  db.exec(FILL.replace("$1", String(count)));
  for (const { sql } of indexes) db.exec(sql);
  db.exec(COUNT);
  db.pragma("journal_mode = WAL");
  db.close();
}

describe("List over Postgres", () => {
  const total = 60_000;
  let opened: Database;

  beforeAll(async () => {
    opened = openTestDatabase("postgres", await freshDatabase());
    await migrate(opened, migrations);
    await opened.write(FILL, [total]);
    await opened.write(COUNT);
    await opened.write("ANALYZE conversation");
  });
  afterAll(() => opened.close());

  it.each(EVERY_WAY)("reads a bounded number of rows for a page: %j", async (wish) => {
    let after: ListPage["next"];
    for (let pages = 0; pages < 2; pages++) {
      const query = { ...queryOf(wish), after };
      const planned = recordPlans(opened);
      await createSqlListing({ database: planned.database }).page(query);
      // Branches that are merged are sorted, each no longer than the page needs.
      expect(costlySteps(planned, { maySort: true })).toEqual([]);
      const counted: CountedDatabase = countRows(opened);
      const { next } = await createSqlListing({ database: counted.database }).page(query);
      // Each is looked at in the index, and then compared with the filter; each step of a plan counts it once more.
      expect(await counted.rowsRead()).toBeLessThanOrEqual(6 * PAGE_SCANS);
      if (next === undefined) return;
      after = next;
    }
  });
});

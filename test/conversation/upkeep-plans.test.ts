import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createSqlCounts } from "../../src/conversation/read/sql-counts.ts";
import type { Outlived } from "../../src/conversation/upkeep/remains.ts";
import { createRemoval } from "../../src/conversation/upkeep/removal.ts";
import { createSqlRemains } from "../../src/conversation/upkeep/sql-remains.ts";
import { pruneChanges } from "../../src/conversation/watch/sql-prune.ts";
import type { Database } from "../../src/infra/database.ts";
import { KINDS, type OpenLedgers, openLedgers } from "./ledgers.ts";
import { costlySteps, recordPlans } from "./plans.ts";

/** A search for what is behind a place in an index. */
const BEHIND = {
  sqlite: /^SEARCH conversation USING COVERING INDEX conversation_\w+ \(\(\w+_us,collection,id\)>/,
  postgres: /Index (Only )?Scan using conversation_\w+ .*Index Cond: .*ROW\(\w+_us, collection, id\) > /,
} as const;
const MANY = 20_000;
const END_US = 1_000_000;

/** Most of what there is is not over; what is ended at one and the same moment. */
const FILL: readonly string[] = [
  ...[
    { presence: 1, expires: `${END_US}`, keptUntil: "NULL", collection: "'over'" },
    { presence: 1, expires: `${END_US} + CAST(n AS BIGINT) * 1000000000`, keptUntil: "NULL", collection: "'live'" },
    { presence: 3, expires: "NULL", keptUntil: `${END_US}`, collection: "'outlived'" },
    { presence: 3, expires: "NULL", keptUntil: `${END_US} + CAST(n AS BIGINT) * 1000000000`, collection: "'kept'" },
  ].map(
    ({ presence, expires, keptUntil, collection }) =>
      `INSERT INTO conversation (collection, id, stamp, version, presence, generation, state_version, cut_version, user_id,
        status, complexity_level, message_count, state_bytes, created_us, updated_us, expires_us, kept_until_us, sliding, unhealed)
        SELECT ${collection}, 'c' || CAST(n AS TEXT), n, n, ${presence}, n, n, 0, '', 's', '', 1, 1, n, n, ${expires},
          ${keptUntil}, 0, 0 FROM n`,
  ),
  `INSERT INTO conversation_request (collection, id, request_id, meaning, answer, expires_us)
    SELECT 'conversation', 'c', CAST(n AS TEXT), '', CAST('x' AS $blob), n FROM n`,
  `INSERT INTO conversation_garbage (collection, id, generation, due_us)
    SELECT 'conversation', 'c' || CAST(n AS TEXT), n, n FROM n`,
  `INSERT INTO conversation_message (collection, id, generation, position, added, message_id, role, content_hash, body)
    SELECT 'conversation', 'c1', 1, n, n, CAST(n AS TEXT), 'user', CAST('x' AS $blob), CAST('x' AS $blob) FROM n`,
  `INSERT INTO conversation_count (collection, presence, status, conversations, messages, state_bytes)
    SELECT 'conversation', 1, 's' || CAST(n AS TEXT), n % 2, 0, 0 FROM n`,
  `INSERT INTO conversation_change (seq, collection, id, kind, version, previous_version, generation, state_version,
    summary, changed_us) SELECT n, 'conversation', 'c', 1, n, 0, n, n, CAST('x' AS $blob), n FROM n`,
];

async function fill(database: Database): Promise<void> {
  const numbers = `WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ${MANY})`;
  for (const sql of FILL) {
    const [insert, select] = [sql.slice(0, sql.indexOf("SELECT")), sql.slice(sql.indexOf("SELECT"))];
    const blob = database.kind === "sqlite" ? "BLOB" : "BYTEA";
    await database.write(`${insert} ${numbers} ${select}`.replaceAll("$blob", blob));
  }
  await database.write("ANALYZE");
}

describe.each(KINDS)("upkeep of much in %s", (kind) => {
  let open: OpenLedgers;
  let original: Database;
  beforeAll(async () => {
    open = await openLedgers(kind);
    [{ database: original }] = open.instances;
    await fill(original);
  });
  afterAll(() => open[Symbol.asyncDispose]());

  it("finds what is over in an index, which has it in its order, and visits nothing else", async () => {
    const planned = recordPlans(original);
    const remains = createSqlRemains(planned.database);
    let [expired, outlived] = [0, 0];
    for await (const page of remains.expired(END_US)) expired += page.length;
    const some: Outlived[] = [];
    for await (const page of remains.outlived(END_US)) {
      outlived += page.length;
      if (some.length < 100) some.push(...page.slice(0, 100));
    }
    expect([expired, outlived]).toEqual([MANY, MANY]);
    const pages = planned.asked.filter(({ sql }) => sql.includes("_us AS at"));
    expect(pages.length).toBeGreaterThan((2 * MANY) / 1_000);
    // They all ended at one moment: without the ids, each page would begin with that moment again.
    for (const { plan } of pages) expect(plan.join(" ")).toMatch(BEHIND[kind]);
    for await (const _ of createSqlCounts(planned.database).expired(END_US));
    expect(costlySteps(planned, { maySort: true })).toEqual([]);
    expect(costlySteps({ ...planned, asked: pages })).toEqual([]);
    expect(await remains.removeTombstones(some, END_US)).toBe(100);
  });

  it("removes the rest of what is over without looking through all", async () => {
    const planned = recordPlans(original);
    const { database } = planned;
    const remains = createSqlRemains(database);
    while (await remains.removeMessages(2));
    await remains.removeAnswers(MANY / 4);
    await pruneChanges(database, MANY / 4, 1_000);
    const portions: number[] = [];
    for await (const removed of remains.removeEmptyCounts()) portions.push(removed);
    expect(Math.max(...portions)).toBeLessThanOrEqual(500);
    expect(portions.reduce((sum, one) => sum + one, 0)).toBe(MANY / 2);
    expect(costlySteps(planned)).toEqual([]);
  });

  it("asks before it looks on for those that a caller may remove", async () => {
    const { database, asked } = recordPlans(original);
    const removal = createRemoval({
      ...{ remains: createSqlRemains(database), clock: { ...open.clock, now: () => END_US / 1000 } },
      ledger: open.instances[0].ledger,
    });
    let left = 3;
    const goOn = () => left-- > 0;
    const removed = await removal({ includes: () => false, limit: 10, dryRun: true, goOn });
    expect(removed).toMatchObject({ conversations: 0, more: true });
    expect(asked.filter(({ sql }) => sql.includes("_us AS at")).length).toBe(4);
  });
});

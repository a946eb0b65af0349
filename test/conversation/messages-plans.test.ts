import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConversationMessageOrder as Order } from "../../src/gen/holdfast/v1/conversation_pb.js";
import type { Database } from "../../src/infra/database.ts";
import { countRows } from "../audit/rows-read.ts";
import { done, KINDS, type OpenLedgers, openLedgers, save } from "./ledgers.ts";
import { costlySteps, recordPlans } from "./plans.ts";
import { readsOf } from "./reads.ts";

const MANY = 100_000;
/** Versions that were restored took this many away, and others came in their places. */
const CUT = 20_000;
const PAGE = 100;

/** Every tenth is by the assistant. */
const insert = (blob: string) => `INSERT INTO conversation_message
  (collection, id, generation, position, added, removed, message_id, role, content_hash, body)
  WITH RECURSIVE n (n) AS (SELECT CAST($1 AS BIGINT) UNION ALL SELECT n + 1 FROM n WHERE n < ${MANY})
  SELECT c.collection, c.id, c.generation, n, c.version - $2, CASE WHEN $2 = 1 THEN c.version END,
    CASE WHEN $2 = 1 THEN 'cut' ELSE 'm' END || CAST(n AS TEXT), CASE WHEN n % 10 = 0 THEN 'assistant' ELSE 'user' END,
    CAST('x' AS ${blob}), CAST('' AS ${blob}) FROM n, conversation c`;

async function fill(database: Database): Promise<void> {
  const sql = insert(database.kind === "sqlite" ? "BLOB" : "BYTEA");
  await database.write(sql, [1, 0]);
  await database.write(sql, [MANY - CUT + 1, 1]);
  await database.write(`UPDATE conversation SET message_count = ${MANY}`);
  await database.write("ANALYZE");
}

const WAYS = [Order.OLDEST_FIRST, Order.NEWEST_FIRST].flatMap((order) =>
  [[], ["assistant"], ["nobody"]].map((roles) => ({ order, roles })),
);

describe.each(KINDS)(`ListMessages of ${MANY} messages, some of them taken away, in %s`, (kind) => {
  let open: OpenLedgers;
  let original: Database;
  beforeAll(async () => {
    open = await openLedgers(kind);
    await done(open.instances[0], save(""));
    [{ database: original }] = open.instances;
    await fill(original);
  });
  afterAll(() => open[Symbol.asyncDispose]());

  it.each(WAYS)("reads a stretch of one index for a page, wherever that is: %j", async ({ order, roles }) => {
    const newestFirst = order === Order.NEWEST_FIRST;
    for (const afterPosition of [0, MANY / 2, MANY - CUT / 2]) {
      const planned = recordPlans(original);
      const { listMessages } = readsOf({ database: planned.database, clock: open.clock });
      const request = { id: "c1", order, roles: [...roles], pageSize: PAGE, afterPosition: BigInt(afterPosition) };
      let pageToken = "";
      for (let pages = 0; pages < 3; pages++) {
        const page = await listMessages({ ...request, pageToken });
        const step = (newestFirst ? -1 : 1) * (roles.length === 0 ? 1 : 10);
        const positions = page.messages.map(({ position }) => Number(position));
        expect(positions.slice(1).every((position, at) => position - (positions[at] ?? 0) === step)).toBe(true);
        expect(positions.length).toBe(roles.includes("nobody") ? 0 : PAGE);
        pageToken = page.nextPageToken;
        if (pageToken === "") break;
      }
      const wholePages = planned.asked.filter(({ sql }) => sql.includes("conversation_message"));
      expect(wholePages.length).toBeGreaterThan(0);
      // Postgres may gather the rows of the stretch first, and sort those.
      expect(costlySteps({ ...planned, asked: wholePages }, { maySort: kind === "postgres" })).toEqual([]);
      const stretch =
        kind === "sqlite"
          ? /^SEARCH conversation_message USING INDEX \w+ \(collection=\? AND id=\? AND generation=\? AND position>\? AND position<\?\)/
          : /Index Cond: .*"position" >= .*"position" <= /;
      for (const { plan } of wholePages) expect(plan.join(" ")).toMatch(stretch);
      // 1,000 at a time for a role, up to 20,000 a page; those that were taken away stand in the same places.
      const most = roles.length === 0 ? PAGE : roles.includes("nobody") ? 20_000 : 1_000;
      if (kind === "sqlite") continue;
      const counted = countRows(original);
      await readsOf({ database: counted.database, clock: open.clock }).listMessages(request);
      expect(await counted.rowsRead()).toBeLessThanOrEqual(5 * most + 10);
    }
  });
});

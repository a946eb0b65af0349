import Sqlite from "better-sqlite3";
import { expect, it } from "vitest";
import { NO_COPIES } from "../../src/conversation/hot/hot-copies.ts";
import { createSqlLedger } from "../../src/conversation/ledger/sql-ledger.ts";
import { systemClock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { append, DEFAULT_POLICY, done, message, messagesOf, openLedgers, patch, restore, save } from "./ledgers.ts";

const messages = (count: number) => Array.from({ length: count }, (_, at) => message(`m${at}`));

it("appending in Postgres reads as little of a conversation with thousands of messages as of a short one", async () => {
  await using open = await openLedgers("postgres");
  const [one] = open.instances;
  open.policies.set("conversation", { ...DEFAULT_POLICY, history: 2 });
  const short = { collection: "conversation", id: "short" };
  const long = { collection: "conversation", id: "long" };
  await done(one, save("a", { key: short }));
  await done(one, save("a", { key: long }));
  const append20 = async (key: typeof short, name: string) => {
    const before = await blocksRead(one.database);
    for (let at = 0; at < 20; at++) await done(one, append([message(`${name}-${at}`)], { key }));
    return (await blocksRead(one.database)) - before;
  };
  // Plans that are made while there is next to nothing have to do for later.
  await append20(short, "early");
  const many = messages(8000);
  for (let at = 0; at < many.length; at += 1000) await done(one, append(many.slice(at, at + 1000), { key: long }));
  const fromLong = await append20(long, "late");
  const fromShort = await append20(short, "late");
  expect(fromShort).toBeGreaterThan(20);
  expect(fromLong).toBeLessThan(1.5 * fromShort);
});

it("restoring in Postgres, and appending after it, reads as little of thousands of messages as of few", async () => {
  await using open = await openLedgers("postgres");
  const [one] = open.instances;
  open.policies.set("conversation", { ...DEFAULT_POLICY, history: 50 });
  const short = { collection: "conversation", id: "short" };
  const long = { collection: "conversation", id: "long" };
  const many = messages(8000);
  await done(one, save("a", { key: short }));
  await done(one, save("a", { key: long }));
  for (let at = 0; at < many.length; at += 1000) await done(one, append(many.slice(at, at + 1000), { key: long }));
  const restoring = async (key: typeof short) => {
    const before = await blocksRead(one.database);
    const [first, second] = [await grown(key, "first"), await grown(key, "second")];
    await done(one, restore(first, { key }));
    await grown(key, "third");
    // From before the last time that messages were taken away, there and back.
    for (const version of [second, first, second]) await done(one, restore(version, { key }));
    await grown(key, "fourth");
    return (await blocksRead(one.database)) - before;
  };
  const grown = async (key: typeof short, name: string) =>
    (await done(one, append([message(name)], { key }))).held.version;
  const fromLong = await restoring(long);
  const fromShort = await restoring(short);
  expect((await messagesOf(one, long)).slice(-3)).toEqual(["first", "second", "fourth"]);
  expect(fromShort).toBeGreaterThan(20);
  expect(fromLong).toBeLessThan(1.5 * fromShort);
});

/** How many blocks of tables and indexes the server has looked at. */
async function blocksRead(database: Database): Promise<number> {
  // On the only connection of the pool; else it would tell its figures some time later.
  await database.query("SELECT pg_stat_force_next_flush()");
  const [row] = await database.query<{ read: number }>(
    "SELECT SUM(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit) AS read FROM pg_statio_user_tables",
  );
  return row?.read ?? 0;
}

it("no write to a conversation in SQLite walks through a table, or looks for messages but by their ids", async () => {
  await using open = await openLedgers("sqlite");
  const [{ database }] = open.instances;
  const statements = new Set<string>();
  const ledger = createSqlLedger({
    ...{ copies: NO_COPIES, clock: systemClock, policyFor: () => ({ ...DEFAULT_POLICY, history: 9 }) },
    onCommit: () => {},
    database: {
      ...database,
      transaction: (work) =>
        database.transaction((tx) =>
          work({
            query: (sql, params) => {
              statements.add(sql);
              return tx.query(sql, params);
            },
            each: (sql, rows) => {
              statements.add(sql);
              return tx.each(sql, rows);
            },
          }),
        ),
    },
  });
  const first = await done({ ledger }, save("a", { messages: messages(3), requestId: "r" }));
  await done({ ledger }, append([message("m9")]));
  await done({ ledger }, patch("b"));
  const second = await done({ ledger }, append([message("m10")]));
  for (const { held } of [first, second]) await done({ ledger }, restore(held.version));
  using file = openFile(open.where);
  const plans = new Map([...statements].map((sql) => [sql, file.planOf(sql)]));
  expect(plans.size).toBeGreaterThan(10);
  for (const [sql, plan] of plans) expect(`${plan} OF ${sql}`).not.toMatch(/^(?!.*CONSTANT).*\bSCAN\b/);
  const lookUp = [...plans].find(([sql]) => /^SELECT message_id/.test(sql));
  expect(lookUp?.[1]).toMatch(/generation=\? AND message_id=\?/);
  const byPlace = [...plans].filter(([sql]) => /position <= \$/.test(sql));
  expect(byPlace).toHaveLength(3);
  for (const [, plan] of byPlace) expect(plan).toMatch(/generation=\? AND position[<>]\?/);
});

/** The file past the server, to be asked how it would carry a statement out. */
function openFile(path: string) {
  const file = new Sqlite(path, { readonly: true });
  return {
    planOf(sql: string): string {
      const explained = file.prepare<unknown[], { detail: string }>(`EXPLAIN QUERY PLAN ${sql.replace(/\$\d+/g, "?")}`);
      const values = [...sql.matchAll(/\$\d+/g)].map(() => 0);
      return explained
        .all(...values)
        .map(({ detail }) => detail)
        .join("; ");
    },
    [Symbol.dispose]: () => void file.close(),
  };
}

import { join } from "node:path";
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { createSqlStore } from "../../src/cache/sql.ts";
import type { Write } from "../../src/cache/store.ts";
import { createVersions } from "../../src/cache/version.ts";
import type { Database } from "../../src/infra/database.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { freshDatabase } from "../support/fresh.ts";
import { movedClock } from "../support/moved-clock.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { commitsInLog } from "../support/sqlite-log.ts";
import { until } from "../support/until.ts";

const LONG = { statementTimeoutMs: 60_000, connectTimeoutMs: 60_000 };
const closing: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

async function start(database: Database) {
  closing.push(() => database.close());
  await migrate(database, migrations);
  const clock = movedClock();
  const versions = createVersions(clock);
  const store = createSqlStore({ database, announcer: undefined, clock, newStamp: () => versions.next() });
  const order = (key: string, more: Partial<Write> = {}): Write => ({
    key,
    draft: {
      version: versions.next(),
      deleted: false,
      value: { data: "v", contentType: "" },
      createdAt: clock.now(),
      expiresAt: undefined,
      staleUntil: undefined,
      tags: [],
    },
    guard: { kind: "none" },
    announce: "no",
    ...more,
  });
  return { store, clock, order };
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  await client.connect();
  closing.push(() => client.end());
  return client;
}

it("in SQLite concurrent writes share a commit also where each has an answer to remember", async () => {
  const path = join(scratchDirectory("sql-writes").path, "holdfast.db");
  const { store, clock, order } = await start(openSqlite({ path }));
  await store.write("ns", [order("first")]);
  const before = commitsInLog(path);
  const ids = Array.from({ length: 50 }, (_, i) => `r${i}`);
  const expiresAt = clock.now() + 60_000;
  const results = await Promise.all(
    ids.map((id) => store.write("ns", [order(`of ${id}`, { request: { id, answer: id, expiresAt } })])),
  );
  expect(results.every(([result]) => result?.stored)).toBe(true);
  expect(commitsInLog(path) - before).toBe(1);
  expect(await Promise.all(ids.map((id) => store.recall("ns", `of ${id}`, id)))).toEqual(ids);
});

it("in Postgres a write and the end of the key's lease are one commit", async () => {
  const url = await freshDatabase();
  const { store, clock, order } = await start(openPostgres({ url, poolSize: 4, ...LONG }));
  await store.acquireLease("ns", "k", "token", clock.now() + 60_000);
  const [other, observer] = await Promise.all([connect(url), connect(url)]);
  await other.query("BEGIN");
  await other.query("SELECT 1 FROM cache_lease FOR UPDATE");
  const writing = store.write("ns", [order("k")]);
  const blocked = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
  await until(async () => (await observer.query(blocked)).rowCount, { what: "the write to meet the lease" });
  expect((await observer.query("SELECT 1 FROM cache_entry")).rowCount).toBe(0);
  await other.query("COMMIT");
  expect(await writing).toMatchObject([{ stored: true }]);
  expect((await observer.query("SELECT 1 FROM cache_entry")).rowCount).toBe(1);
  expect((await observer.query("SELECT 1 FROM cache_lease")).rowCount).toBe(0);
});

it("in Postgres a write that is refused leaves the lease alone", async () => {
  const { store, clock, order } = await start(openPostgres({ url: await freshDatabase(), poolSize: 4, ...LONG }));
  await store.write("ns", [order("k")]);
  await store.acquireLease("ns", "k", "mine", clock.now() + 60_000);
  const refused = order("k", { guard: { kind: "version", seen: 0 } });
  expect(await store.write("ns", [refused])).toMatchObject([{ stored: false }]);
  expect(await store.acquireLease("ns", "k", "other", clock.now() + 60_000)).toMatchObject({ granted: false });
});

describe("writes under a lock", () => {
  const under = (lock: string, token = 1) => ({ fence: { lock, token, askedAt: 0 } });
  const openPool = (url: string) => openPostgres({ url, poolSize: 4, ...LONG });
  const BLOCKED = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

  it("of one moment share a commit in SQLite, and each is held to its own token", async () => {
    const path = join(scratchDirectory("sql-writes").path, "holdfast.db");
    const { store, order } = await start(openSqlite({ path }));
    await store.write("ns", [order("first", under("l"))]);
    const before = commitsInLog(path);
    const tokens = [1, 1, 3, 2, 3, 1];
    const results = await Promise.all(tokens.map((token, i) => store.write("ns", [order(`k${i}`, under("l", token))])));
    const refused = { stored: false, why: "fenced", newest: 3 };
    expect(results.flat()).toMatchObject(tokens.map((token, i) => (token === 3 || i < 2 ? { stored: true } : refused)));
    expect(commitsInLog(path) - before).toBe(1);
  });

  it("fail for themselves in Postgres, also where others share their transaction", async () => {
    const { store, order } = await start(openPool(await freshDatabase()));
    // With stamps given nothing is asked before, so that all come in one moment.
    const orders = ["one", "bad", "two"].map((key) => order(key, { ...under("l"), stamps: [2] }));
    const sent = orders.map((one) =>
      one.key === "bad" ? { ...one, draft: { ...one.draft, createdAt: 2 ** 70 } } : one,
    );
    const results = await Promise.allSettled(sent.map((one) => store.write("ns", [one])));
    expect(results).toMatchObject([
      { value: [{ stored: true }] },
      { status: "rejected" },
      { value: [{ stored: true }] },
    ]);
  });

  it("take their keys in one order in Postgres, so that two locks do not lock each other out", async () => {
    const url = await freshDatabase();
    const { store, order } = await start(openPool(url));
    const keys = ["c", "a", "b"];
    await store.write(
      "ns",
      keys.map((key) => order(key)),
    );
    const [other, observer] = await Promise.all([connect(url), connect(url)]);
    await other.query("BEGIN");
    await other.query("SELECT 1 FROM cache_entry WHERE key = 'a' FOR UPDATE");
    const writing = store.write(
      "ns",
      keys.map((key) => order(key, under("l"))),
    );
    await until(async () => (await observer.query(BLOCKED)).rowCount, { what: "the write to wait for a" });
    await observer.query("SELECT 1 FROM cache_entry WHERE key IN ('b', 'c') FOR UPDATE NOWAIT");
    await other.query("COMMIT");
    expect(await writing).toMatchObject(keys.map(() => ({ stored: true })));
  });

  it("wait in Postgres for whoever writes under the same lock, and for nobody else", async () => {
    const url = await freshDatabase();
    const { store, order } = await start(openPool(url));
    await store.write("ns", [order("k", under("l", 1))]);
    const [other, observer] = await Promise.all([connect(url), connect(url)]);
    await other.query("BEGIN");
    await other.query("UPDATE fence SET token = 2 WHERE lock = 'l'");
    const waiting = store.write("ns", [order("k", under("l", 1))]);
    await until(async () => (await observer.query(BLOCKED)).rowCount, { what: "the write to wait for the fence" });
    expect(await store.write("ns", [order("k", under("another"))])).toMatchObject([{ stored: true }]);
    expect(await store.write("ns", [order("k")])).toMatchObject([{ stored: true }]);
    await other.query("COMMIT");
    expect(await waiting).toMatchObject([{ stored: false, why: "fenced", newest: 2 }]);
  });
});

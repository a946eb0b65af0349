import { join } from "node:path";
import pg from "pg";
import { afterEach, describe, expect, it } from "vitest";
import { createSqlStore } from "../../src/cache/sql.ts";
import type { Write } from "../../src/cache/store.ts";
import { startSweeper } from "../../src/cache/sweeper.ts";
import { createVersions } from "../../src/cache/version.ts";
import type { Database } from "../../src/infra/database.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { freshDatabase } from "../support/fresh.ts";
import { movedClock } from "../support/moved-clock.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

const log = createLog({ level: "silent" });
const MINUTE = 60_000;
const closing: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

function postgresAt(url: string): Database {
  return openPostgres({ url, poolSize: 4, statementTimeoutMs: 60_000, connectTimeoutMs: 60_000 });
}

async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client(url);
  await client.connect();
  closing.push(() => client.end());
  return client;
}

const backends = {
  sqlite: async () => openSqlite({ path: join(scratchDirectory("sweep").path, "holdfast.db") }),
  postgres: async () => postgresAt(await freshDatabase()),
};

async function start(database: Database) {
  closing.push(() => database.close());
  await migrate(database, migrations);
  const clock = movedClock();
  const versions = createVersions(clock);
  const store = createSqlStore({ database, announcer: undefined, clock, newStamp: () => versions.next() });
  const sweeper = startSweeper(store, clock, log);
  closing.push(() => sweeper.close());
  const order = (key: string, ttl: number | undefined, more: Partial<Write> = {}): Write => ({
    key,
    draft: {
      version: versions.next(),
      deleted: false,
      value: { data: "v", contentType: "" },
      createdAt: clock.now(),
      expiresAt: ttl === undefined ? undefined : clock.now() + ttl,
      staleUntil: ttl === undefined ? undefined : clock.now() + ttl,
      tags: [],
    },
    guard: { kind: "none" },
    announce: "no",
    ...more,
  });
  const count = async (table: string) =>
    Number((await database.query<{ n: number }>(`SELECT COUNT(*) AS n FROM ${table}`))[0]?.n);
  return { clock, store, sweeper, order, count };
}

describe.each(Object.entries(backends))("sweeping what has ended in %s", (_, open) => {
  it("removes entries and remembered answers, and keeps what has not ended or is not healed", async () => {
    const { clock, store, sweeper, order, count } = await start(await open());
    const request = (id: string, ttl: number) => ({ request: { id, answer: "a", expiresAt: clock.now() + ttl } });
    await store.write("ns", [order("ended", MINUTE, request("old", MINUTE)), order("endless", undefined)]);
    await store.write("ns", [order("later", 3 * MINUTE, request("new", 3 * MINUTE))]);
    await store.keep("ns", [order("kept", MINUTE)]);
    clock.move(2 * MINUTE);
    await sweeper.sweep();
    const left = await store.read("ns", ["ended", "endless", "later", "kept"]);
    expect(left.map(({ record }) => record !== undefined)).toEqual([false, true, true, true]);
    expect(await count("cache_request")).toBe(1);
    expect(await store.recall("ns", "later", "new")).toBe("a");
  });

  it("goes on until there is nothing left, also where only remembered answers have ended", async () => {
    const database = await open();
    const { clock, store, sweeper, order, count } = await start(database);
    const ids = Array.from({ length: 2_500 }, (_, i) => `r${i}`);
    const request = (id: string) => ({ id, answer: "a", expiresAt: clock.now() + MINUTE });
    await store.write("ns", [order("k", undefined, { request: request("first") })]);
    await database.writeAll(
      ids.map((id) => ({
        sql: "INSERT INTO cache_request (namespace, key, request_id, answer, expires_at) VALUES ('ns', 'k', $1, 'a', $2)",
        params: [id, clock.now() + MINUTE],
      })),
    );
    clock.move(2 * MINUTE);
    await sweeper.sweep();
    expect(await count("cache_request")).toBe(0);
    expect((await store.read("ns", ["k"]))[0]?.record).toBeDefined();
  });
});

describe("sweeping in Postgres", () => {
  it("removes leases that have ended, and no others", async () => {
    const { clock, store, sweeper, count } = await start(await backends.postgres());
    await store.acquireLease("ns", "left", "a", clock.now() + MINUTE);
    await store.acquireLease("ns", "held", "b", clock.now() + 3 * MINUTE);
    clock.move(2 * MINUTE);
    await sweeper.sweep();
    expect(await count("cache_lease")).toBe(1);
    expect(await store.acquireLease("ns", "held", "c", clock.now() + MINUTE)).toMatchObject({ granted: false });
  });

  it.each([
    ["an entry", "UPDATE cache_entry SET stale_until = NULL, expires_at = NULL", "cache_entry"],
    ["an unhealed change", "UPDATE cache_entry SET unhealed = 1", "cache_entry"],
    ["a remembered answer", "UPDATE cache_request SET expires_at = expires_at + 3600000", "cache_request"],
    ["a lease", "UPDATE cache_lease SET expires_at = expires_at + 3600000", "cache_lease"],
  ])("leaves alone %s that another instance is just storing anew", async (_, storing, table) => {
    const url = await freshDatabase();
    const { clock, store, sweeper, order, count } = await start(postgresAt(url));
    const request = { id: "r", answer: "a", expiresAt: clock.now() + MINUTE };
    await store.write("ns", [order("k", MINUTE, { request })]);
    await store.acquireLease("ns", "k", "token", clock.now() + MINUTE);
    clock.move(2 * MINUTE);
    const [other, observer] = await Promise.all([connect(url), connect(url)]);
    await other.query("BEGIN");
    await other.query(storing);
    const sweeping = sweeper.sweep();
    const blocked = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    await until(async () => (await observer.query(blocked)).rowCount, { what: "the sweep to meet the row" });
    await other.query("COMMIT");
    await sweeping;
    expect(await count(table)).toBe(1);
  });
});

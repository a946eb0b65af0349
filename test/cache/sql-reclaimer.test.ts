import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { createSqlStore } from "../../src/cache/sql.ts";
import { startSqlReclaimer } from "../../src/cache/sql-reclaimer.ts";
import { createVersions } from "../../src/cache/version.ts";
import { systemClock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { freshDatabase } from "../support/fresh.ts";
import { scratchDirectory } from "../support/scratch.ts";

const log = createLog({ level: "silent" });
const opened: Database[] = [];

afterEach(async () => {
  for (const database of opened.splice(0)) await database.close();
});

const backends = {
  sqlite: async () => openSqlite({ path: join(scratchDirectory("reclaim").path, "holdfast.db") }),
  postgres: async () =>
    openPostgres({ url: await freshDatabase(), poolSize: 2, statementTimeoutMs: 5_000, connectTimeoutMs: 5_000 }),
};

describe.each(Object.entries(backends))("reclaiming invalidated entries in %s", (_, open) => {
  async function start() {
    const database = await open();
    opened.push(database);
    await migrate(database, migrations);
    const versions = createVersions(systemClock);
    const newStamp = () => versions.next();
    const store = createSqlStore({ database, announcer: undefined, clock: systemClock, newStamp });
    const put = (namespace: string, keys: readonly string[], tags: readonly string[] = []) =>
      store.write(
        namespace,
        keys.map((key) => ({
          key,
          draft: {
            version: versions.next(),
            deleted: false,
            value: { data: "v", contentType: "" },
            createdAt: 0,
            expiresAt: undefined,
            staleUntil: undefined,
            tags,
          },
          guard: { kind: "none" },
          announce: "set",
        })),
      );
    const left = async () =>
      (await database.query<{ key: string }>("SELECT key FROM cache_entry ORDER BY namespace, key")).map(
        ({ key }) => key,
      );
    const reclaimer = startSqlReclaimer({ database, log, everyMs: 1_000_000 });
    return { store, put, left, reclaimer, newStamp };
  }

  it("removes what an invalidation left behind, and nothing else", async () => {
    const { store, put, left, reclaimer, newStamp } = await start();
    await put("one", ["a", "b"], ["t"]);
    await put("one", ["c"], ["u"]);
    await put("two", ["d"]);
    await store.invalidate("one", ["t"], newStamp());
    await put("one", ["b"], ["t"]);
    expect(await reclaimer.step()).toBe(1);
    expect(await left()).toEqual(["b", "c", "d"]);
    await store.invalidate("two", [], newStamp());
    expect(await reclaimer.step()).toBe(1);
    expect(await left()).toEqual(["b", "c"]);
  });

  it("walks through more than one page and begins again", async () => {
    const { store, put, left, reclaimer, newStamp } = await start();
    const keys = Array.from({ length: 1_200 }, (_, i) => `k${String(i).padStart(5, "0")}`);
    for (let at = 0; at < keys.length; at += 400) await put("many", keys.slice(at, at + 400));
    expect(await reclaimer.step()).toBe(0);
    await store.invalidate("many", [], newStamp());
    let removed = 0;
    for (let i = 0; i < 6; i++) removed += await reclaimer.step();
    expect(removed).toBe(1_200);
    expect(await left()).toEqual([]);
  });

  it("leaves alone what is not healed yet", async () => {
    const { store, put, left, reclaimer, newStamp } = await start();
    await put("ns", ["gone"]);
    const draft = {
      version: newStamp(),
      deleted: false,
      value: { data: "v", contentType: "" },
      createdAt: 0,
      expiresAt: undefined,
      staleUntil: undefined,
      tags: [],
    };
    await store.keep("ns", [{ key: "kept", draft, guard: { kind: "none" }, announce: "no" }]);
    await store.invalidate("ns", [], newStamp());
    expect(await reclaimer.step()).toBe(1);
    expect(await left()).toEqual(["kept"]);
  });
});

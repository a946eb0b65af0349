import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { createSqlStore } from "../../src/cache/sql.ts";
import { createSqlMarkReclaimer } from "../../src/cache/sql-mark-reclaimer.ts";
import { startSqlReclaimer } from "../../src/cache/sql-reclaimer.ts";
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

const log = createLog({ level: "silent" });
const IDLE_MS = 60_000;
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
    const clock = movedClock();
    const versions = createVersions(clock);
    const newStamp = () => versions.next();
    const store = createSqlStore({ database, announcer: undefined, clock, newStamp });
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
    const { forgetMark } = store;
    const moment = { beforeRemoval: async () => {} };
    const slowed: Database = {
      ...database,
      async writeAll(statements) {
        await moment.beforeRemoval();
        return database.writeAll(statements);
      },
    };
    const marks = createSqlMarkReclaimer({ database: slowed, forgetMark, newStamp, everyMs: 0, idleMs: IDLE_MS });
    const reclaimer = startSqlReclaimer({ database, marks, log, everyMs: 1_000_000 });
    const tagsLeft = async () =>
      (await database.query<{ tag: string }>("SELECT tag FROM cache_mark ORDER BY tag")).map(({ tag }) => tag);
    const isValid = async (key: string) => (await store.read("ns", [key]))[0]?.valid;
    return { moment, clock, store, put, left, tagsLeft, isValid, reclaimer, newStamp };
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

  describe("a tag's mark", () => {
    it("goes when nothing has carried it for long, and the namespace's stays", async () => {
      const { clock, store, put, tagsLeft, isValid, reclaimer, newStamp } = await start();
      await put("ns", ["a"], ["gone", "stays"]);
      await put("ns", ["b"], ["stays"]);
      await put("ns", ["a"]);
      await store.invalidate("ns", ["nobody's"], newStamp());
      await reclaimer.step();
      expect(await tagsLeft()).toEqual(["", "gone", "nobody's", "stays"]);
      clock.move(2 * IDLE_MS);
      await reclaimer.step();
      expect(await tagsLeft()).toEqual(["", "stays"]);
      expect([await isValid("a"), await isValid("b")]).toEqual([true, true]);
      await put("ns", ["c"], ["gone"]);
      expect(await isValid("c")).toBe(true);
      await store.invalidate("ns", ["gone"], newStamp());
      expect(await isValid("c")).toBe(false);
    });

    it("stays when it is used again while it is called idle, by a write or an invalidation", async () => {
      const { clock, store, put, left, tagsLeft, isValid, reclaimer, newStamp } = await start();
      await put("ns", ["a", "b"], ["written", "invalidated"]);
      await put("ns", ["a", "b"]);
      await reclaimer.step();
      await put("ns", ["k"], ["written"]);
      await store.invalidate("ns", ["invalidated"], newStamp());
      clock.move(2 * IDLE_MS);
      await reclaimer.step();
      expect(await tagsLeft()).toEqual(["", "invalidated", "written"]);
      expect(await isValid("k")).toBe(true);
      expect(await left()).toEqual(["a", "b", "k"]);
    });

    it("stays when it is used again after a walk has gone past the entry's place", async () => {
      const { clock, put, tagsLeft, isValid, reclaimer } = await start();
      const keys = Array.from({ length: 700 }, (_, i) => `k${String(i).padStart(5, "0")}`);
      await put("ns", keys);
      await put("ns", ["x"], ["t"]);
      await put("ns", ["x"]);
      await reclaimer.step();
      await reclaimer.step();
      clock.move(2 * IDLE_MS);
      await reclaimer.step();
      await put("ns", ["early"], ["t"]);
      await reclaimer.step();
      expect(await tagsLeft()).toEqual(["", "t"]);
      expect(await isValid("early")).toBe(true);
    });

    it("stays when it is used again while it is called idle, also where it was read meanwhile", async () => {
      const { clock, store, put, tagsLeft, isValid, reclaimer } = await start();
      await put("ns", ["x"], ["t"]);
      const [{ record } = { record: undefined }] = await store.read("ns", ["x"]);
      if (record === undefined) throw new Error("no record");
      await put("ns", ["x"]);
      await reclaimer.step();
      // A write that looked the mark up before it was called idle and is stored only now.
      const { stamps, ...draft } = record;
      await store.write("ns", [{ key: "x", draft, stamps, guard: { kind: "none" }, announce: "no" }]);
      expect(await isValid("x")).toBe(true);
      await put("ns", ["x"]);
      await put("ns", ["early"], ["t"]);
      await put("ns", ["early"]);
      clock.move(2 * IDLE_MS);
      await reclaimer.step();
      expect(await tagsLeft()).toEqual(["", "t"]);
    });

    it("stays when it is used again in the very moment before it were removed", async () => {
      const { moment, clock, put, tagsLeft, isValid, reclaimer } = await start();
      await put("ns", ["k"], ["t"]);
      await put("ns", ["k"]);
      await reclaimer.step();
      clock.move(2 * IDLE_MS);
      moment.beforeRemoval = async () => {
        moment.beforeRemoval = async () => {};
        await put("ns", ["k"], ["t"]);
      };
      await reclaimer.step();
      expect(await tagsLeft()).toEqual(["", "t"]);
      expect(await isValid("k")).toBe(true);
    });

    it("stays for an entry that is not healed yet, and while it is not healed itself", async () => {
      const { clock, store, put, tagsLeft, reclaimer, newStamp } = await start();
      await put("ns", ["a"], ["carried", "raised"]);
      const [{ record } = { record: undefined }] = await store.read("ns", ["a"]);
      if (record === undefined) throw new Error("no record");
      const kept = { ...record, version: newStamp(), tags: ["carried"] };
      await store.keep("ns", [{ key: "a", draft: kept, guard: { kind: "none" }, announce: "no" }]);
      await store.keepInvalidation("ns", ["raised"], newStamp());
      await reclaimer.step();
      clock.move(2 * IDLE_MS);
      await reclaimer.step();
      expect(await tagsLeft()).toEqual(["", "carried", "raised"]);
    });

    it("goes under writers that use it all the time, and none of their entries is lost", async () => {
      const { clock, put, isValid, reclaimer } = await start();
      for (let round = 0; round < 40; round++) {
        const key = `k${round % 3}`;
        const using = put("ns", [key], [`t${round % 2}`]);
        const walking = reclaimer.step();
        await using;
        expect(await isValid(key)).toBe(true);
        await walking;
        expect(await isValid(key)).toBe(true);
        await put("ns", [key]);
        await reclaimer.step();
        clock.move(2 * IDLE_MS);
      }
    });
  });
});

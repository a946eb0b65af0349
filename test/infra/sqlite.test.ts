import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Database } from "../../src/infra/database.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { startChild } from "../support/child.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { commitsInLog } from "../support/sqlite-log.ts";
import { until } from "../support/until.ts";

const scratch = scratchDirectory("sqlite-faults");
afterAll(() => scratch.remove());

const insert = "INSERT INTO item (id, value) VALUES ($1, $2)";
/** Of PRAGMA synchronous: OFF is 0, NORMAL (in WAL: no sync with a commit) is 1. */
const FULL = 2;
const createTable = "CREATE TABLE item (id BIGINT NOT NULL PRIMARY KEY, value BLOB)";

async function errorOf(work: Promise<unknown>): Promise<UnavailableError> {
  const error: unknown = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof UnavailableError) return error;
  throw new Error(`wanted an UnavailableError, got ${String(error)}`);
}

describe("SQLite", () => {
  let directory: string;
  let path: string;
  let db: Database;

  beforeEach(async () => {
    directory = mkdtempSync(join(scratch.path, "test-"));
    path = join(directory, "test.db");
    db = openSqlite({ path, busyTimeoutMs: 200 });
    await db.write(createTable);
  });
  afterEach(() => db.close());

  const ids = async () => (await db.query<{ id: number }>("SELECT id FROM item ORDER BY id")).map((row) => row.id);

  describe("group commit", () => {
    it("gives writes that arrive in one turn one commit", async () => {
      const before = commitsInLog(path);
      await Promise.all(Array.from({ length: 100 }, (_, id) => db.write(insert, [id, null])));
      expect(commitsInLog(path) - before).toBe(1);
      expect(await ids()).toHaveLength(100);
    });

    it("commits in parts what would keep the thread too long", async () => {
      const before = commitsInLog(path);
      await Promise.all(Array.from({ length: 3000 }, (_, id) => db.write(insert, [id, null])));
      expect(commitsInLog(path) - before).toBe(3);
      expect(await ids()).toHaveLength(3000);
    });

    it("undoes a failed batch within the commit and keeps the writes around it", async () => {
      const before = commitsInLog(path);
      const outcomes = await Promise.allSettled([
        db.write(insert, [1, null]),
        db.writeAll([
          { sql: insert, params: [2, null] },
          { sql: insert, params: [1, null] },
        ]),
        db.write(insert, [3, null]),
      ]);
      expect(outcomes.map((outcome) => outcome.status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
      expect(commitsInLog(path) - before).toBe(1);
      expect(await ids()).toEqual([1, 3]);
    });
  });

  it("syncs the log to the disk with each commit, on the very connection that writes", async () => {
    // write() and not query(): these are settings of a connection, and the other one only reads.
    expect(await db.write("PRAGMA journal_mode")).toEqual([{ journal_mode: "wal" }]);
    expect(await db.write("PRAGMA synchronous")).toEqual([{ synchronous: FULL }]);
  });

  it("refuses to write through query()", async () => {
    await expect(db.query(insert, [1, null])).rejects.toThrow("only reads");
  });

  describe("a full disk", () => {
    it("is told to the write that did not fit, not to those beside it, and passes", async () => {
      const [row] = await db.query<{ page_count: number }>("PRAGMA page_count");
      await db.write(`PRAGMA max_page_count = ${(row?.page_count ?? 0) + 8}`);
      const big = Buffer.alloc(1024 * 1024);
      const [small, tooBig, another] = [
        db.write(insert, [1, null]),
        errorOf(db.write(insert, [2, big])),
        db.write(insert, [3, null]),
      ];
      expect(await tooBig).toMatchObject({
        reason: "SQL_UNAVAILABLE",
        message: expect.stringContaining("disk is full"),
      });
      await Promise.all([small, another]);
      expect(await ids()).toEqual([1, 3]);

      const doomed = db.transaction(async (tx) => {
        await tx.query(insert, [4, null]);
        await tx.query(insert, [5, big]).catch(() => {});
        await tx.query(insert, [6, null]).catch(() => {});
      });
      expect(await errorOf(doomed)).toMatchObject({ message: expect.stringContaining("disk is full") });
      expect(await ids()).toEqual([1, 3]);

      await db.write("PRAGMA max_page_count = 1000000");
      await db.write(insert, [2, big]);
      expect(await ids()).toEqual([1, 2, 3]);
    });

    it.skipIf(!canMount())("of the machine is told, loses nothing that was acknowledged, and passes", async () => {
      await using disk = smallDisk();
      const onSmall = openSqlite({ path: join(disk.path, "test.db") });
      try {
        await onSmall.write(createTable);
        const value = Buffer.alloc(16 * 1024);
        const acknowledged: number[] = [];
        let failure: UnavailableError | undefined;
        for (let round = 0; failure === undefined && round < 100; round += 1) {
          const outcomes = await Promise.allSettled(
            Array.from({ length: 10 }, (_, n) => onSmall.write(insert, [round * 10 + n, value])),
          );
          for (const [n, outcome] of outcomes.entries()) {
            if (outcome.status === "fulfilled") acknowledged.push(round * 10 + n);
            else failure = await errorOf(Promise.reject(outcome.reason));
          }
        }
        expect(failure).toMatchObject({ reason: "SQL_UNAVAILABLE", message: expect.stringContaining("disk is full") });
        expect(acknowledged.length).toBeGreaterThan(0);
        const stored = await onSmall.query<{ id: number }>("SELECT id FROM item ORDER BY id");
        expect(stored.map((row) => row.id)).toEqual(acknowledged);
        disk.grow();
        await onSmall.write(insert, [100_000, value]);
        expect(await onSmall.query("SELECT id FROM item WHERE id = $1", [100_000])).toHaveLength(1);
      } finally {
        await onSmall.close();
      }
    });
  });

  describe("a file that another process holds", () => {
    it("still answers reads, fails writes once the wait is over, and works again afterwards", async () => {
      await db.write(insert, [1, null]);
      const other = new Sqlite(path);
      other.exec("BEGIN IMMEDIATE");
      const waiting = [db.write(insert, [2, null]), db.writeAll([{ sql: insert, params: [3, null] }])];
      const failures = Promise.all(waiting.map(errorOf));
      expect(await ids()).toEqual([1]);
      for (const failure of await failures) {
        expect(failure).toMatchObject({
          reason: "SQL_UNAVAILABLE",
          message: expect.stringContaining("another process holds it locked"),
        });
        // Where the file is, is for the log.
        expect(failure.message).not.toContain(path);
        expect(failure.cause).toMatchObject({ message: expect.stringContaining(path) });
      }
      other.exec("COMMIT");
      other.close();
      await db.write(insert, [4, null]);
      expect(await ids()).toEqual([1, 4]);
    });

    it("is waited for", async () => {
      const patient = openSqlite({ path, busyTimeoutMs: 60_000 });
      const other = new Sqlite(path);
      other.exec("BEGIN IMMEDIATE");
      const write = patient.write(insert, [1, null]);
      // The wait does not hold the thread, or these turns of the loop would not come.
      for (let turn = 0; turn < 10; turn += 1) await nextTurn();
      other.exec("COMMIT");
      other.close();
      await write;
      expect(await ids()).toEqual([1]);
      await patient.close();
    });

    it("cannot be opened while it is held exclusively", async () => {
      const file = join(directory, "held.db");
      const other = new Sqlite(file);
      other.exec("BEGIN EXCLUSIVE");
      expect(() => openSqlite({ path: file, busyTimeoutMs: 50 })).toThrow(/held\.db.*another process holds it locked/);
      other.exec("COMMIT");
      other.close();
      await openSqlite({ path: file }).close();
    });
  });

  it("says which file is not a database", () => {
    const file = join(directory, "text.db");
    writeFileSync(file, "these are a hundred bytes that no database begins with ".repeat(20));
    expect(() => openSqlite({ path: file })).toThrow(UnavailableError);
    expect(() => openSqlite({ path: file })).toThrow(/text\.db.*not an SQLite database/);
  });

  describe("killed with SIGKILL in mid-write", () => {
    it("has every write that it acknowledged", async () => {
      const { acknowledged, stored } = await killWhileWriting({ acknowledge: "when done" });
      expect(acknowledged.filter((id) => !stored.has(id))).toEqual([]);
    });

    it("is caught by this very check if it acknowledges too early", async () => {
      const { acknowledged, stored } = await killWhileWriting({ acknowledge: "when asked" });
      expect(acknowledged.filter((id) => !stored.has(id))).not.toEqual([]);
    });
  });

  async function killWhileWriting(options: { acknowledge: "when done" | "when asked" }) {
    const file = join(directory, "killed.db");
    const module = new URL("../../src/infra/sqlite.ts", import.meta.url).href;
    const script = `import { writeSync } from "node:fs";
      const { openSqlite } = await import(${JSON.stringify(module)});
      const db = openSqlite({ path: process.argv[1] });
      await db.write(${JSON.stringify(createTable)});
      const early = ${options.acknowledge === "when asked"};
      let next = 0;
      const value = Buffer.alloc(200);
      const acknowledge = (id) => writeSync(1, "ack " + id + "\\n");
      for (;;) {
        const writes = Array.from({ length: 50 }, async () => {
          const id = next++;
          if (early) acknowledge(id);
          await db.write(${JSON.stringify(insert)}, [id, value]);
          if (!early) acknowledge(id);
        });
        // Dies between the word and the deed, so that the lie shows every time.
        if (early && next > 2000) process.kill(process.pid, "SIGKILL");
        await Promise.all(writes);
      }`;
    const child = await startChild({
      command: process.execPath,
      args: ["--input-type=module", "-e", script, file],
      isReady: (line) => line === (options.acknowledge === "when asked" ? "ack 2049" : "ack 2000"),
    });
    await child.kill();
    // The last line may be cut off, and then says another number.
    const complete = child.output().slice(0, child.output().lastIndexOf("\n"));
    const acknowledged = complete.split("\n").map((line) => Number(line.slice("ack ".length)));
    const reopened = openSqlite({ path: file });
    const rows = await reopened.query<{ id: number }>("SELECT id FROM item");
    await reopened.close();
    return { acknowledged, stored: new Set(rows.map((row) => row.id)) };
  }
});

function canMount(): boolean {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return false;
  try {
    void smallDisk()[Symbol.asyncDispose]();
    return true;
  } catch {
    return false;
  }
}

/** A file system of its own with room for 2 MiB. */
function smallDisk() {
  const path = join(scratch.path, `disk-${performance.now()}`);
  mkdirSync(path);
  const mount = (...args: string[]) => {
    const { status, stderr } = spawnSync("mount", [...args, path], { encoding: "utf8" });
    if (status !== 0) throw new Error(stderr);
  };
  mount("-t", "tmpfs", "-o", "size=2m", "tmpfs");
  return {
    path,
    grow: () => mount("-o", "remount,size=64m"),
    async [Symbol.asyncDispose]() {
      await until(() => spawnSync("umount", [path]).status === 0, { what: "the unmounting of a small disk" });
    },
  };
}

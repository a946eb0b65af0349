import { setImmediate as nextTurn } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Database, SqlSession } from "../../src/infra/database.ts";
import { Failure, UnavailableError } from "../../src/infra/failure.ts";

export interface DatabaseQuirks {
  readonly kind: Database["kind"];
  readonly shared: boolean;
  /** Whether transactions run one after the other, so that reading and then writing needs no row lock. */
  readonly oneWriter: boolean;
  readonly blobType: string;
  readonly keyType: string;
}

/** What every SQL backend promises. `open` gives a new handle on the same database, empty at first. */
export function databaseConformance(open: () => Promise<Database>, quirks: DatabaseQuirks): void {
  let db: Database;
  // A handle of its own kind, to see what others see.
  let other: Database;

  beforeAll(async () => {
    db = await open();
    other = await open();
    await db.write(
      `CREATE TABLE item (key ${quirks.keyType} NOT NULL PRIMARY KEY, n BIGINT, value ${quirks.blobType}, note TEXT)`,
    );
    await db.write("CREATE TABLE mark (id BIGINT NOT NULL PRIMARY KEY)");
  });
  beforeEach(async () => {
    await db.write("DELETE FROM item");
    await db.write("DELETE FROM mark");
  });
  afterAll(async () => {
    await db.close();
    await other.close();
  });

  const put = "INSERT INTO item (key, n) VALUES ($1, $2)";
  const increment =
    "INSERT INTO item (key, n) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET n = item.n + excluded.n RETURNING n";
  const keys = async (from: Database = db) =>
    (await from.query<{ key: string }>("SELECT key FROM item ORDER BY key")).map((row) => row.key);

  it("says what it is", () => {
    expect(db.kind).toBe(quirks.kind);
    expect(db.shared).toBe(quirks.shared);
  });

  it("answers a ping", async () => {
    await expect(db.ping()).resolves.toBeUndefined();
  });

  describe("values", () => {
    it("gives back what was stored, whatever the type", async () => {
      const value = new Uint8Array([0, 1, 127, 128, 255]);
      await db.write("INSERT INTO item (key, n, value, note) VALUES ($1, $2, $3, $4)", ["k", 42, value, "héllo 🚀"]);
      const [row] = await db.query("SELECT key, n, value, note FROM item");
      expect(row).toMatchObject({ key: "k", n: 42, note: "héllo 🚀" });
      expect(row?.value).toBeInstanceOf(Uint8Array);
      expect([...Buffer.from(row?.value as Uint8Array)]).toEqual([...value]);
    });

    it("stores a part of a larger buffer without its surroundings", async () => {
      const part = new Uint8Array([9, 9, 1, 2, 3, 9]).subarray(2, 5);
      await db.write("INSERT INTO item (key, value) VALUES ($1, $2)", ["k", part]);
      const [row] = await db.query<{ value: Uint8Array }>("SELECT value FROM item");
      expect([...(row?.value ?? [])]).toEqual([1, 2, 3]);
    });

    it("tells null from empty", async () => {
      await db.write("INSERT INTO item (key, n, value, note) VALUES ($1, $2, $3, $4)", ["null", null, null, null]);
      await db.write("INSERT INTO item (key, value, note) VALUES ($1, $2, $3)", ["empty", new Uint8Array(0), ""]);
      const rows = await db.query("SELECT key, n, value, note FROM item ORDER BY key");
      expect(rows).toMatchObject([
        { key: "empty", n: null, note: "" },
        { key: "null", n: null, value: null, note: null },
      ]);
      expect(rows[0]?.value).toHaveLength(0);
    });

    it.each([Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, 2 ** 31, 0, -1])("keeps %d exact", async (n) => {
      await db.write(put, ["number", n]);
      await db.write(put, ["bigint", BigInt(n)]);
      expect(await db.query("SELECT n FROM item")).toEqual([{ n }, { n }]);
      expect(await db.query("SELECT key FROM item WHERE n = $1 AND key = $2", [n, "number"])).toHaveLength(1);
    });

    it("counts and sums as numbers", async () => {
      await db.write(put, ["a", 2 ** 40]);
      await db.write(put, ["b", 1]);
      expect(await db.query("SELECT COUNT(*) AS count, SUM(n) AS sum FROM item")).toEqual([
        { count: 2, sum: 2 ** 40 + 1 },
      ]);
    });

    it("says truth as 1 and 0", async () => {
      const sql = "SELECT EXISTS (SELECT 1 FROM item WHERE key = $1) AS found";
      expect(await db.query(sql, ["k"])).toEqual([{ found: 0 }]);
      await db.write(put, ["k", 1]);
      expect(await db.query(sql, ["k"])).toEqual([{ found: 1 }]);
    });

    it("orders text by its bytes", async () => {
      const unordered = ["b", "é", "a", "B", "a/b", "a-b", "Z", "aa", "🚀", "~", "_", ""];
      await db.writeAll(unordered.map((key) => ({ sql: put, params: [key, 1] })));
      const ordered = unordered.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      expect(await keys()).toEqual(ordered);
      expect(await db.query("SELECT key FROM item WHERE key > $1 ORDER BY key LIMIT $2", ["a", 2])).toEqual(
        ordered.slice(ordered.indexOf("a") + 1, ordered.indexOf("a") + 3).map((key) => ({ key })),
      );
    });

    it("stores a megabyte", async () => {
      const value = Buffer.alloc(1024 * 1024, "x");
      await db.write("INSERT INTO item (key, value) VALUES ($1, $2)", ["k", value]);
      const [row] = await db.query<{ value: Uint8Array }>("SELECT value FROM item");
      expect(value.equals(row?.value ?? new Uint8Array())).toBe(true);
    });
  });

  describe("statements", () => {
    it("may use a parameter several times and in any order", async () => {
      await db.write("INSERT INTO item (note, key, n) VALUES ($2, $1, $3)", ["k", "note", 3]);
      const rows = await db.query("SELECT note FROM item WHERE n >= $2 AND n <= $2 AND key = $1", ["k", 3]);
      expect(rows).toEqual([{ note: "note" }]);
    });

    it("leave a dollar in a string, a name or a comment alone", async () => {
      await db.write(put, ["k", 1]);
      const sql = `SELECT 'it''s $1' AS text, n AS "$2" /* $3 */ FROM item -- $4\n WHERE key = $1`;
      expect(await db.query(sql, ["k"])).toEqual([{ text: "it's $1", $2: 1 }]);
    });

    it("return the rows that an upsert wrote", async () => {
      expect(await db.write(increment, ["k", 1])).toEqual([{ n: 1 }]);
      expect(await db.write(increment, ["k", 41])).toEqual([{ n: 42 }]);
    });

    it("return no row when the guard of an upsert refuses", async () => {
      const newer =
        "INSERT INTO item (key, n) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET n = excluded.n WHERE item.n < excluded.n RETURNING n";
      expect(await db.write(newer, ["k", 5])).toEqual([{ n: 5 }]);
      expect(await db.write(newer, ["k", 4])).toEqual([]);
      expect(await db.write(newer, ["k", 6])).toEqual([{ n: 6 }]);
    });

    it("return no row when there is nothing to return", async () => {
      expect(await db.write(put, ["k", 1])).toEqual([]);
      expect(await db.write("DELETE FROM item WHERE key = $1 RETURNING key", ["none"])).toEqual([]);
    });

    it("return every row that a DELETE took", async () => {
      await db.writeAll(["a", "b"].map((key) => ({ sql: put, params: [key, 1] })));
      const rows = await db.write<{ key: string }>("DELETE FROM item WHERE n = $1 RETURNING key", [1]);
      expect(rows.map((row) => row.key).toSorted()).toEqual(["a", "b"]);
    });

    it("fail with the wrong number of parameters, and nothing is written", async () => {
      await expect(db.write(put, ["k"])).rejects.toThrow();
      await expect(db.write(put, ["k", 1, 2])).rejects.toThrow();
      expect(await keys()).toEqual([]);
    });

    it("keep working when a column is added to their table", async () => {
      await db.write("CREATE TABLE growing (id BIGINT NOT NULL PRIMARY KEY)");
      await db.write("INSERT INTO growing (id) VALUES ($1)", [1]);
      const sql = "SELECT * FROM growing WHERE id = $1";
      expect(await db.query(sql, [1])).toEqual([{ id: 1 }]);
      await other.write("ALTER TABLE growing ADD COLUMN more BIGINT");
      expect(await db.query(sql, [1])).toEqual([{ id: 1, more: null }]);
    });

    it("may be of more different texts than are kept prepared", async () => {
      for (let n = 0; n < 1500; n += 1) expect(await db.query(`SELECT ${n} AS n WHERE 1 = $1`, [1])).toEqual([{ n }]);
    });
  });

  describe("write", () => {
    it("is seen by reads on every handle once it resolved", async () => {
      for (let n = 0; n < 20; n += 1) {
        await db.write(put, [`k${n}`, n]);
        expect(await db.query("SELECT n FROM item WHERE key = $1", [`k${n}`])).toEqual([{ n }]);
        expect(await other.query("SELECT n FROM item WHERE key = $1", [`k${n}`])).toEqual([{ n }]);
      }
    });

    it("fails alone among those that arrive together", async () => {
      await db.write(put, ["taken", 1]);
      const outcomes = await Promise.allSettled(
        ["a", "taken", "b", "taken", "c"].map((key) => db.write(put, [key, 2])),
      );
      expect(outcomes.map((outcome) => outcome.status)).toEqual([
        "fulfilled",
        "rejected",
        "fulfilled",
        "rejected",
        "fulfilled",
      ]);
      expect(await keys(other)).toEqual(["a", "b", "c", "taken"]);
    });

    it("that is wrong is a defect, not an outage", async () => {
      const error: unknown = await db.write("INSERT INTO nowhere (a) VALUES ($1)", [1]).catch((thrown) => thrown);
      expect(error).toBeInstanceOf(Error);
      expect(error).not.toBeInstanceOf(Failure);
    });

    it("loses no increment among concurrent ones", async () => {
      const results = await Promise.all(
        Array.from({ length: 300 }, (_, index) => (index % 2 ? db : other).write<{ n: number }>(increment, ["k", 1])),
      );
      expect(results.map(([row]) => row?.n).toSorted((a = 0, b = 0) => a - b)).toEqual(
        Array.from({ length: 300 }, (_, index) => index + 1),
      );
    });
  });

  describe("writeAll", () => {
    it("returns the rows of each statement in order", async () => {
      const results = await db.writeAll([
        { sql: increment, params: ["k", 1] },
        { sql: "DELETE FROM mark" },
        { sql: increment, params: ["k", 2] },
      ]);
      expect(results).toEqual([[{ n: 1 }], [], [{ n: 3 }]]);
    });

    it("of nothing does nothing", async () => {
      expect(await db.writeAll([])).toEqual([]);
    });

    it("does all or none, and fails with the error of the statement that failed", async () => {
      const [before, after] = [db.write(put, ["before", 1]), db.write(put, ["after", 1])];
      const failing = db.writeAll([
        { sql: put, params: ["a", 1] },
        { sql: put, params: ["a", 2] },
        { sql: put, params: ["b", 1] },
      ]);
      await expect(failing).rejects.toThrow(/unique/i);
      await Promise.all([before, after]);
      expect(await keys(other)).toEqual(["after", "before"]);
    });

    it("is never seen in part", async () => {
      await db.writeAll(["a", "b"].map((key) => ({ sql: put, params: [key, 0] })));
      let writing = true;
      const writer = (async () => {
        for (let n = 1; n <= 100; n += 1) {
          await db.writeAll(["a", "b"].map((key) => ({ sql: increment, params: [key, 1] })));
        }
        writing = false;
      })();
      while (writing) {
        const rows = await other.query<{ n: number }>("SELECT n FROM item ORDER BY key");
        expect(rows[0]?.n).toBe(rows[1]?.n);
        // SQLite answers within the turn: without a pause the writer would never get one.
        await nextTurn();
      }
      await writer;
    });

    it("survives batches that touch the same rows in opposite order", async () => {
      const rows = Array.from({ length: 20 }, (_, index) => ({ sql: increment, params: [`k${index}`, 1] }));
      const batches = Array.from({ length: 6 }, (_, index) =>
        (index % 2 ? db : other).writeAll(index % 4 < 2 ? rows : rows.toReversed()),
      );
      await Promise.all(batches);
      expect(await db.query("SELECT DISTINCT n FROM item")).toEqual([{ n: 6 }]);
    });
  });

  describe("transaction", () => {
    const move = (handle: Database, lock: string) =>
      handle.transaction(async (tx) => {
        const [row] = await tx.query<{ n: number }>(`SELECT n FROM item WHERE key = $1 ${lock}`, ["counter"]);
        const next = (row?.n ?? 0) + 1;
        await tx.query("UPDATE item SET n = $2 WHERE key = $1", ["counter", next]);
        return next;
      });

    it("reads, decides and writes without losing what others do meanwhile", async () => {
      await db.write(put, ["counter", 0]);
      const lock = quirks.oneWriter ? "" : "FOR UPDATE";
      const results = await Promise.all(Array.from({ length: 40 }, (_, i) => move(i % 2 ? db : other, lock)));
      expect(results.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 40 }, (_, index) => index + 1));
    });

    it("sees its own writes, which others do not until it ends", async () => {
      await db.transaction(async (tx) => {
        await tx.query(put, ["k", 1]);
        expect(await tx.query("SELECT n FROM item WHERE key = $1", ["k"])).toEqual([{ n: 1 }]);
        expect(await db.query("SELECT n FROM item WHERE key = $1", ["k"])).toEqual([]);
        expect(await other.query("SELECT n FROM item WHERE key = $1", ["k"])).toEqual([]);
      });
      expect(await other.query("SELECT n FROM item WHERE key = $1", ["k"])).toEqual([{ n: 1 }]);
    });

    it("is undone when its work throws, and throws the same", async () => {
      const reason = new Failure("conflict", "TEST", "changed my mind");
      const work = db.transaction(async (tx) => {
        await tx.query(put, ["k", 1]);
        throw reason;
      });
      await expect(work).rejects.toBe(reason);
      expect(await keys(other)).toEqual([]);
    });

    it("is undone when a statement failed, even if its work goes on as if nothing had", async () => {
      const work = db.transaction(async (tx) => {
        await tx.query(put, ["k", 1]);
        await tx.query(put, ["k", 2]).catch(() => {});
        return "done";
      });
      await expect(work).rejects.toThrow(/unique/i);
      const floating = db.transaction(async (tx) => {
        await tx.query(put, ["k", 1]);
        tx.query(put, ["k", 2]).catch(() => {});
        return "done";
      });
      await expect(floating).rejects.toThrow();
      expect(await keys(other)).toEqual([]);
    });

    it("refuses to be used after its end", async () => {
      let leaked: SqlSession | undefined;
      await db.transaction(async (tx) => {
        leaked = tx;
      });
      await expect(leaked?.query(put, ["late", 1])).rejects.toThrow("ended");
      expect(await keys()).toEqual([]);
    });

    it("keeps the order of writes that were asked for after it", async () => {
      const order: string[] = [];
      const gate = Promise.withResolvers<void>();
      const first = db.transaction(async (tx) => {
        await tx.query(put, ["k", 1]);
        await gate.promise;
        order.push("transaction");
      });
      const second = db.write("UPDATE item SET n = $1 WHERE key = $2", [2, "k"]).then(() => order.push("write"));
      gate.resolve();
      await Promise.all([first, second]);
      if (quirks.oneWriter) {
        expect(order).toEqual(["transaction", "write"]);
        expect(await db.query("SELECT n FROM item")).toEqual([{ n: 2 }]);
      }
    });
  });

  describe("close", () => {
    it("waits for what is under way and then refuses", async () => {
      const handle = await open();
      const gate = Promise.withResolvers<void>();
      const started = Promise.withResolvers<void>();
      const work = handle.transaction(async (tx) => {
        started.resolve();
        await gate.promise;
        await tx.query(put, ["transaction", 1]);
      });
      await started.promise;
      const write = quirks.oneWriter ? handle.write(put, ["queued", 1]) : undefined;
      let closed = false;
      const closing = handle.close().then(() => {
        closed = true;
      });
      await expect(handle.query("SELECT 1 AS one")).rejects.toBeInstanceOf(UnavailableError);
      await expect(handle.write(put, ["late", 1])).rejects.toBeInstanceOf(UnavailableError);
      expect(closed).toBe(false);
      gate.resolve();
      await Promise.all([work, write, closing]);
      expect(await keys()).toEqual(quirks.oneWriter ? ["queued", "transaction"] : ["transaction"]);
      await handle.close();
    });
  });
}

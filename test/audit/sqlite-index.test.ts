import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createGrowth, type Growth } from "../../src/audit/archive/growth.ts";
import { filterOf } from "../../src/audit/search/filter.ts";
import { createSqlSearch } from "../../src/audit/search/sql-search.ts";
import { BLOCK_LEAVES, KINDS } from "../../src/audit/search/sqlite-blocks.ts";
import { createSqliteIndex, type SqliteIndex } from "../../src/audit/search/sqlite-index.ts";
import { AuditFilterSchema } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import type { Database, SqlRow } from "../../src/infra/database.ts";
import { Fields } from "../../src/infra/fields.ts";
import type { Log } from "../../src/infra/log.ts";
import { until } from "../support/until.ts";
import { type OpenArchives, openArchives, sealed } from "./archives.ts";

describe("the index of SQLite", () => {
  let archives: OpenArchives;
  let database: Database;
  let growth: Growth;
  let warnings: string[];
  let log: Log;
  let index: SqliteIndex | undefined;
  let filledTo = 0;

  beforeEach(async () => {
    archives = await openArchives("sqlite");
    ({ database } = archives.instances[0]);
    growth = createGrowth(createLocalBackplane());
    warnings = [];
    const silent = () => {};
    log = {
      debug: silent,
      info: silent,
      warn: (_, message) => void warnings.push(message),
      error: silent,
      debugEnabled: false,
      child: () => log,
    };
    filledTo = 0;
  });
  afterEach(async () => {
    await index?.close();
    index = undefined;
    await archives[Symbol.asyncDispose]();
  });

  /** Appends until there are so many. */
  async function fillTo(count: number): Promise<void> {
    while (filledTo < count) {
      const some = Math.min(2000, count - filledTo);
      const from = filledTo;
      const records = Array.from({ length: some }, (_, offset) => {
        const number = from + offset;
        return sealed(
          { producer: "p", sequence: number + 1 },
          {
            actor: `user:${number % 10}`,
            ...(number % 3 === 0 && { resource: { type: "t", id: String(number) } }),
            ...(number % 5 === 0 && { context: { traceId: `trace ${number}` } }),
          },
        );
      });
      await archives.instances[0].archive.append(records, "refuse");
      filledTo += some;
    }
  }

  const blocks = () => database.query("SELECT * FROM audit_index_block ORDER BY block");
  const entries = () => database.query("SELECT * FROM audit_index ORDER BY block, kind, key, occur_us, leaf_index");

  /** What the index has to say of the first blocks. */
  async function expectedEntries(count: number): Promise<SqlRow[]> {
    const all = KINDS.map(
      ({
        kind,
        key,
      }) => `SELECT leaf_index / ${BLOCK_LEAVES} AS block, ${kind} AS kind, ${key} AS key, occur_us, leaf_index
        FROM audit_record WHERE leaf IS NOT NULL AND ${key} IS NOT NULL AND leaf_index < ${count * BLOCK_LEAVES}`,
    );
    return database.query(`${all.join(" UNION ALL ")} ORDER BY 1, 2, 3, 4, 5`);
  }

  async function listed(actor: string): Promise<readonly number[]> {
    const filter = filterOf(new Fields(), "filter", create(AuditFilterSchema, { actors: [actor] }));
    const page = await createSqlSearch({ database }).page({ filter, order: "oldest", limit: 1000 });
    return page.rows.map(({ leafIndex }) => leafIndex);
  }

  it("has all complete blocks that were there when it starts, and none else", async () => {
    await fillTo(2 * BLOCK_LEAVES + 100);
    index = createSqliteIndex({ database, growth, log });
    await index.caughtUp();
    expect(await blocks()).toMatchObject([{ block: 0 }, { block: 1 }]);
    expect(await entries()).toEqual(await expectedEntries(2));
    const [first] = await database.query(
      `SELECT min(occur_us) AS min_occur_us, max(occur_us) AS max_occur_us FROM audit_record
        WHERE leaf_index < ${BLOCK_LEAVES}`,
    );
    expect((await blocks())[0]).toMatchObject(first ?? {});
  });

  it("gets a block as soon as its last leaf is announced", async () => {
    index = createSqliteIndex({ database, growth, log });
    await index.caughtUp();
    await fillTo(BLOCK_LEAVES - 1);
    growth.announce(BLOCK_LEAVES - 1);
    await index.caughtUp();
    expect(await blocks()).toEqual([]);
    await fillTo(BLOCK_LEAVES);
    growth.announce(BLOCK_LEAVES);
    await until(async () => (await blocks()).length === 1, { what: "the block" });
    expect(await entries()).toEqual(await expectedEntries(1));
  });

  it("is what searches look into", async () => {
    await fillTo(BLOCK_LEAVES + 100);
    index = createSqliteIndex({ database, growth, log });
    await index.caughtUp();
    const before = await listed("user:7");
    expect(before).toHaveLength(Math.floor((BLOCK_LEAVES + 100 + 2) / 10));
    await database.write("DELETE FROM audit_index WHERE kind = 1");
    expect(await listed("user:7")).toEqual(before.filter((leafIndex) => leafIndex >= BLOCK_LEAVES));
  });

  it("is completed after a crash between any two of its writes", async () => {
    await fillTo(BLOCK_LEAVES);
    const expected = await expectedEntries(1);
    for (let done = 0; done <= KINDS.length; done++) {
      await database.write("DELETE FROM audit_index_block");
      await database.write("DELETE FROM audit_index WHERE kind > $1", [done]);
      index = createSqliteIndex({ database, growth, log });
      await index.caughtUp();
      await index.close();
      expect(await entries()).toEqual(expected);
      expect(await blocks()).toHaveLength(1);
    }
    expect(warnings).toEqual([]);
  });

  it("stops within a block when it is closed, and goes on there when it is opened again", async () => {
    await fillTo(3 * BLOCK_LEAVES);
    index = createSqliteIndex({ database, growth, log });
    await until(async () => (await entries()).length > 0, { what: "the first entries", intervalMs: 1 });
    await index.close();
    expect((await blocks()).length).toBeLessThan(3);
    index = createSqliteIndex({ database, growth, log });
    await index.caughtUp();
    expect(await entries()).toEqual(await expectedEntries(3));
    expect(warnings).toEqual([]);
  });

  it("tries again when it could not be built, and searches find everything meanwhile", async () => {
    await fillTo(BLOCK_LEAVES);
    await database.write(
      "CREATE TRIGGER full BEFORE INSERT ON audit_index WHEN new.kind = 3 BEGIN SELECT RAISE(ABORT, 'no room'); END",
    );
    let retry: (() => void) | undefined;
    const timer = (run: () => void) => {
      retry = run;
      return () => {};
    };
    index = createSqliteIndex({ database, growth, log, timer });
    await index.caughtUp();
    expect(warnings.length).toBeGreaterThan(0);
    expect(await blocks()).toEqual([]);
    expect(await listed("user:7")).toHaveLength(Math.floor((BLOCK_LEAVES + 2) / 10));
    await database.write("DROP TRIGGER full");
    retry?.();
    await until(async () => (await blocks()).length === 1, { what: "the block" });
    expect(await entries()).toEqual(await expectedEntries(1));
  });

  it("forgets what retention has dropped", async () => {
    await fillTo(2 * BLOCK_LEAVES);
    index = createSqliteIndex({ database, growth, log });
    await index.caughtUp();
    const kept = "leaf_index >= 9000 OR leaf_index % 100 = 7";
    await database.write(`UPDATE audit_record SET leaf = NULL WHERE NOT (${kept})`);
    await index.forgetDropped(0, 8999);
    expect(await entries()).toEqual(await expectedEntries(2));
    const left = Array.from({ length: 2 * BLOCK_LEAVES }, (_, at) => at).filter(
      (at) => at % 10 === 7 && (at >= 9000 || at % 100 === 7),
    );
    expect(await listed("user:7")).toEqual(left.slice(0, 1000));
  });
});

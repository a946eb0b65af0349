import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Database } from "../../src/infra/database.ts";
import { Failure } from "../../src/infra/failure.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { type Migration, migrate } from "../../src/infra/migrations.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { startChild } from "../support/child.ts";
import { freshDatabase } from "../support/fresh.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

const scratch = scratchDirectory("migrations");
afterAll(() => scratch.remove());

const backends = [
  {
    kind: "sqlite",
    where: async () => join(scratch.path, `${randomUUID()}.db`),
    open: (path: string) => openSqlite({ path }),
  },
  {
    kind: "postgres",
    where: freshDatabase,
    open: (url: string) => openPostgres({ url, poolSize: 3, statementTimeoutMs: 30_000, connectTimeoutMs: 30_000 }),
  },
] as const;

function migration(version: number, name: string, ...statements: string[]): Migration {
  return { version, name, sqlite: statements, postgres: statements };
}

const first = migration(1, "first", "CREATE TABLE one (id BIGINT PRIMARY KEY)", "INSERT INTO one (id) VALUES (1)");
const second = migration(2, "second", "ALTER TABLE one ADD COLUMN note TEXT", "UPDATE one SET note = 'hello'");

for (const backend of backends) {
  describe(`migrating ${backend.kind}`, () => {
    let where: string;
    let db: Database;

    beforeEach(async () => {
      where = await backend.where();
      db = backend.open(where);
    });
    afterEach(() => db.close());

    const applied = () => db.query("SELECT version, name FROM holdfast_migration ORDER BY version");

    it("applies what is missing in the order of versions, once", async () => {
      await migrate(db, [first]);
      await migrate(db, [second, first]);
      await migrate(db, [first, second]);
      expect(await db.query("SELECT id, note FROM one")).toEqual([{ id: 1, note: "hello" }]);
      expect(await applied()).toEqual([
        { version: 1, name: "first" },
        { version: 2, name: "second" },
      ]);
    });

    it("makes the whole schema of this build", async () => {
      await migrate(db, migrations);
      expect(await applied()).toHaveLength(migrations.length);
      expect(await db.query("SELECT namespace, key, unhealed FROM cache_entry WHERE unhealed <> 0")).toEqual([]);
    });

    it("does one migration wholly or not at all, and can be tried again", async () => {
      const broken = migration(2, "second", "ALTER TABLE one ADD COLUMN note TEXT", "INSERT INTO nowhere VALUES (1)");
      await expect(migrate(db, [first, broken])).rejects.toThrow("nowhere");
      expect(await applied()).toEqual([{ version: 1, name: "first" }]);
      await migrate(db, [first, second]);
      expect(await applied()).toHaveLength(2);
    });

    it("refuses a schema from the future and names both versions", async () => {
      await migrate(db, [first, second]);
      const error: unknown = await migrate(db, [first]).catch((thrown) => thrown);
      expect(error).toBeInstanceOf(Failure);
      expect(error).toMatchObject({
        reason: "SCHEMA_FROM_THE_FUTURE",
        message: expect.stringMatching(/version 2.*up to 1/),
        metadata: { database_version: "2", known_version: "1" },
      });
    });

    it("refuses a database whose migration of the same number is another one", async () => {
      await migrate(db, [first]);
      const error: unknown = await migrate(db, [migration(1, "renamed"), second]).catch((thrown) => thrown);
      expect(error).toMatchObject({ reason: "SCHEMA_DIVERGED", message: expect.stringMatching(/"first".*"renamed"/) });
      expect(await applied()).toHaveLength(1);
    });

    it("refuses a list with two migrations of one number", async () => {
      await expect(migrate(db, [first, migration(1, "again")])).rejects.toThrow("two migrations have version 1");
    });

    it("is safe when four processes start at once", async () => {
      const at = (path: string) => JSON.stringify(new URL(`../../src/infra/${path}`, import.meta.url).href);
      const open =
        backend.kind === "sqlite"
          ? `(await import(${at("sqlite.ts")})).openSqlite({ path: process.argv[1] })`
          : `(await import(${at("postgres.ts")})).openPostgres({ url: process.argv[1], poolSize: 2, statementTimeoutMs: 30000, connectTimeoutMs: 30000 })`;
      // Each step fails if it is done twice; many steps give the four many occasions to meet.
      const script = `const { migrate } = await import(${at("migrations.ts")});
        const { migrations } = await import(${at("migrations/all.ts")});
        const more = Array.from({ length: 20 }, (_, i) => {
          const sql = ["CREATE TABLE step_" + i + " (id BIGINT PRIMARY KEY)", "INSERT INTO step_" + i + " (id) VALUES (1)"];
          return { version: 1001 + i, name: "step " + i, sqlite: sql, postgres: sql };
        });
        const db = ${open};
        await migrate(db, [...migrations, ...more]);
        await db.close();
        console.log("migrated");`;
      const start = () =>
        startChild({
          command: process.execPath,
          args: ["--input-type=module", "-e", script, where],
          isReady: (line) => line === "migrated",
        });
      const children = await Promise.all([start(), start(), start(), start()]);
      for (const child of children) {
        expect(await until(() => child.exited(), { what: "the end of a migrating process" })).toBe("exit code 0");
      }
      expect(await applied()).toHaveLength(migrations.length + 20);
      expect(await db.query("SELECT COUNT(*) AS count FROM step_19")).toEqual([{ count: 1 }]);
    });
  });
}

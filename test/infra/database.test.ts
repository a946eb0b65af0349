import { join } from "node:path";
import { afterAll, beforeAll, describe } from "vitest";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { databaseConformance } from "../conformance/database.ts";
import { freshDatabase } from "../support/fresh.ts";
import { scratchDirectory } from "../support/scratch.ts";

describe("SQLite", () => {
  const directory = scratchDirectory("sqlite");
  afterAll(() => directory.remove());
  databaseConformance(async () => openSqlite({ path: join(directory.path, "test.db"), busyTimeoutMs: 60_000 }), {
    kind: "sqlite",
    shared: false,
    oneWriter: true,
    blobType: "BLOB",
    keyType: "TEXT",
  });
});

describe("Postgres", () => {
  let url: string;
  beforeAll(async () => {
    url = await freshDatabase();
  });
  databaseConformance(
    async () => openPostgres({ url, poolSize: 5, statementTimeoutMs: 60_000, connectTimeoutMs: 60_000 }),
    { kind: "postgres", shared: true, oneWriter: false, blobType: "BYTEA", keyType: 'TEXT COLLATE "C"' },
  );
});

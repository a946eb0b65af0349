import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { describe, expect, it, onTestFinished } from "vitest";
import type { Archive } from "../../src/audit/archive/archive.ts";
import { createGrowth } from "../../src/audit/archive/growth.ts";
import { createSqlArchive } from "../../src/audit/archive/sql-archive.ts";
import type { Sealed } from "../../src/audit/record/record.ts";
import { EntryTexts } from "../../src/audit/record/texts.ts";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import { systemClock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { archiveConformance } from "../conformance/audit-archive.ts";
import { startChild } from "../support/child.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { unsoundness } from "./archive-check.ts";
import { KINDS, openArchives, sealed } from "./archives.ts";

const range = (first: number, last: number, producer = "p") =>
  Array.from({ length: last - first + 1 }, (_, at) => sealed({ producer, sequence: first + at }));

const NO_WORDS = { actor: "", action: "", resourceType: "", resourceId: "", traceId: "", service: "" };

/** What the tables hold and the types allow, and the database does not: SQLite takes NaN for null. */
const poisoned = {
  sqlite: (record: Sealed): Sealed => ({ ...record, outcome: Number.NaN }),
  postgres: (record: Sealed): Sealed => ({
    ...record,
    texts: EntryTexts.of({ ...NO_WORDS, action: "no\0text" }),
  }),
};

describe.each(KINDS)("the archive in %s", (kind) => {
  const quirks = { kind, shared: kind === "postgres", poisoned: poisoned[kind] };
  archiveConformance((count) => openArchives(kind, count), quirks);

  async function watched() {
    const opened = await openArchives(kind);
    onTestFinished(() => opened[Symbol.asyncDispose]());
    const { database } = opened.instances[0];
    return { ...opened, database, ...watching(database) };
  }

  it("commits together what callers bring at the same time, and says once how large it is then", async () => {
    const { archive, grown, transactions } = await watched();
    await Promise.all(Array.from({ length: 100 }, (_, at) => archive.append(range(1, 5, `c${at}`), "refuse")));
    expect(transactions()).toBe(1);
    expect(grown).toEqual([500]);
  });

  it("lets those who come while a commit is under way share the next", async () => {
    const { archive, transactions } = await watched();
    const first = archive.append(range(1, 1), "refuse");
    await until(() => transactions() === 1, { what: "the first commit to begin", intervalMs: 1 });
    const others = Array.from({ length: 60 }, (_, at) => archive.append(range(2 + at, 2 + at), "refuse"));
    await Promise.all([first, ...others]);
    expect(transactions()).toBeLessThanOrEqual(2);
  });

  it("leaves no failure to itself when what it holds cannot be read while rows are on their way", async () => {
    const { archive, database } = await watched();
    await archive.append(range(1, 1), "refuse");
    // The place of the next row is taken, too: those on their way fail, after the appending has failed already.
    await database.write("UPDATE audit_record SET leaf_index = 1, leaf = $1", [Buffer.alloc(8, 0xff)]);
    const unseen: unknown[] = [];
    const see = (error: unknown) => void unseen.push(error);
    process.on("unhandledRejection", see);
    onTestFinished(() => void process.off("unhandledRejection", see));
    await expect(archive.append([...range(1, 500, "q"), ...range(1, 1)], "refuse")).rejects.toThrow();
    await new Promise(setImmediate);
    expect(unseen).toEqual([]);
  });

  it("does not say that it grew when all was held already", async () => {
    const { archive, grown } = await watched();
    await archive.append(range(1, 3), "refuse");
    await archive.append(range(1, 3), "keep");
    await archive.append([sealed({ producer: "p", sequence: 1 }, { actor: "eve" })], "keep");
    await expect(archive.transaction(() => Promise.reject(new Error("no")))).rejects.toThrow("no");
    expect(grown).toEqual([3]);
  });

  it("tells the log, in errors, of what it put aside, and of nothing that was refused", async () => {
    const { archive, errors } = await watched();
    const eve = sealed({ producer: "p", sequence: 2 }, { actor: "eve" });
    await archive.append([...range(1, 3), eve], "refuse");
    expect(errors).toEqual([]);
    await archive.append([eve], "keep");
    expect(errors).toMatchObject([{ id: "p/2", msg: expect.stringContaining("audit_conflict") }]);
  });

  it("is closed when what was under way is committed", async () => {
    const { archive, database } = await watched();
    let told = 0;
    for (let at = 0; at < 20; at++) void archive.append(range(1, 100, `c${at}`), "refuse").then(() => told++);
    await archive.close();
    expect(told).toBe(20);
    expect(await unsoundness(database)).toEqual([]);
  });

  it("tells all who wait that SQL is away, and appends again when it is back", async () => {
    const opened = await openArchives(kind);
    onTestFinished(() => opened[Symbol.asyncDispose]());
    await using outage = kind === "sqlite" ? lockable(opened.where) : await cuttable(opened.where);
    const { archive } = watching(outage.database);
    await archive.append(range(1, 5), "refuse");
    outage.begin();
    const calls = Array.from({ length: 40 }, (_, at) =>
      archive.append(range(6 + at, 6 + at), at % 3 === 0 ? "keep" : "refuse"),
    );
    const reviewing = archive.transaction((_, log) => log.append(range(1, 1, "@review")));
    for (const call of await Promise.allSettled([...calls, reviewing])) {
      expect(call).toMatchObject({ status: "rejected", reason: expect.any(UnavailableError) });
    }
    outage.end();
    await until(() => outage.database.ping().then(() => true), { what: "SQL to be back" });
    const placed = await archive.append(range(1, 60), "refuse");
    expect(placed.map(({ leafIndex }) => leafIndex)).toEqual(range(1, 60).map((_, at) => at));
    expect(await unsoundness(opened.instances[0].database)).toEqual([]);
  });
});

describe("processes over one Postgres", () => {
  it("hold each identity once, though all hammer the same ones and some are killed in the middle", async () => {
    await using opened = await openArchives("postgres");
    const { archive, database } = opened.instances[0];
    const start = (name: string) =>
      startChild({
        command: process.execPath,
        args: [join(import.meta.dirname, "archive-appender.ts"), opened.where, name],
        isReady: (line) => line === "ready",
      });
    const children = await Promise.all(["a", "b", "c", "d"].map(start));
    onTestFinished(async () => {
      await Promise.all(children.map((child) => child.kill()));
    });
    const [first, second, ...others] = children;
    await until(async () => (await archive.size()) > 300, { what: "the archive to grow" });
    await Promise.all([first?.kill(), second?.kill()]);
    const last = await start("e");
    children.push(last);
    const survivors = [...others, last];
    const told = (child: (typeof children)[number]) => child.output().split("\n").slice(0, -1);
    await until(() => survivors.every((child) => told(child).includes("done")), { what: "the others to be done" });
    expect(await unsoundness(database)).toEqual([]);

    const appended = new Map<string, string>();
    const places = new Map<string, string>();
    const problems: string[] = [];
    for (const line of children.flatMap(told)) {
      const [outcome = "", id = "", leafIndex = "", content = ""] = line.split(" ");
      if (outcome === "failed") problems.push(line);
      if (id === "") continue;
      if (outcome === "appended" && appended.has(id)) problems.push(`${id} was appended twice`);
      if (outcome === "appended") appended.set(id, content);
      if ((places.get(id) ?? leafIndex) !== leafIndex) problems.push(`${id} was said to be in two places`);
      places.set(id, leafIndex);
    }
    expect(problems).toEqual([]);
    // All there are: 3 producers with 400 sequences each. Whoever was killed may not have said what it appended.
    expect(await archive.size()).toBe(1_200);
    expect(appended.size).toBeGreaterThan(600);
    const rows = await database.query<{ producer: string; sequence: number; leaf_index: number }>(
      "SELECT producer, sequence, leaf_index FROM audit_record",
    );
    const wrong = rows.filter((row) => {
      const place = places.get(`${row.producer}/${row.sequence}`);
      return place !== undefined && place !== String(row.leaf_index);
    });
    expect(wrong).toEqual([]);
  });
});

/** An archive of its own over the database, and what it does. */
function watching(database: Database) {
  let transactions = 0;
  const counted: Database = {
    ...database,
    transaction(work) {
      transactions++;
      return database.transaction(work);
    },
  };
  const growth = createGrowth(createLocalBackplane());
  const grown: number[] = [];
  growth.onGrown((size) => grown.push(size));
  const errors: unknown[] = [];
  const log = createLog({ level: "error", destination: { write: (line) => errors.push(JSON.parse(line)) } });
  const archive: Archive = createSqlArchive({ database: counted, growth, clock: systemClock, log });
  return { archive, grown, errors, transactions: () => transactions };
}

interface Outage extends AsyncDisposable {
  readonly database: Database;
  begin(): void;
  end(): void;
}

/** Somebody else's lock on the file. */
function lockable(path: string): Outage {
  const other = new Sqlite(path);
  const database = openSqlite({ path, busyTimeoutMs: 100 });
  return {
    database,
    begin: () => other.exec("BEGIN IMMEDIATE"),
    end: () => other.exec("ROLLBACK"),
    async [Symbol.asyncDispose]() {
      other.close();
      await database.close();
    },
  };
}

async function cuttable(where: string): Promise<Outage> {
  const url = new URL(where);
  const proxy = await startTcpProxy(Number(url.port));
  url.port = String(proxy.port);
  url.hostname = "127.0.0.1";
  const database = openPostgres({
    ...{ url: url.href, poolSize: 4, statementTimeoutMs: 20_000, connectTimeoutMs: 20_000 },
  });
  return {
    database,
    begin: () => proxy.cut(),
    end: () => proxy.restore(),
    async [Symbol.asyncDispose]() {
      await database.close();
      await proxy.close();
    },
  };
}

import { appendFileSync, copyFileSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import Sqlite from "better-sqlite3";
import { Redis } from "ioredis";
import { describe, expect, it } from "vitest";
import { openFilesSource } from "../../src/cli/import/files-source.ts";
import { createMapping } from "../../src/cli/import/roles.ts";
import type { Source, SourceRow } from "../../src/cli/import/source.ts";
import { openSqliteSource } from "../../src/cli/import/sqlite-source.ts";
import { openStreamSource } from "../../src/cli/import/stream-source.ts";
import { directoryPerTest } from "../support/directory-per-test.ts";
import { freshRedis } from "../support/fresh.ts";

const directory = directoryPerTest("import");

const mapping = createMapping([]);

async function rowsOf(source: Source): Promise<SourceRow[]> {
  const rows: SourceRow[] = [];
  for await (const row of source.rows()) rows.push(row);
  await source.close();
  return rows;
}

describe("a SQLite file", () => {
  const path = () => directory.of("audit_queue.db");

  function make(...statements: string[]): void {
    const db = new Sqlite(path());
    for (const statement of statements) db.exec(statement);
    db.close();
  }

  const openTable = (table?: string) => openSqliteSource({ file: path(), table, mapping });

  it("gives the rows of the table that looks like audit records, known by their number", async () => {
    make(
      "CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT)",
      "CREATE TABLE audits (id INTEGER PRIMARY KEY, actor TEXT, action TEXT, created_at TEXT)",
      "INSERT INTO audits VALUES (3, 'a', 'x', '2024-01-01'), (1, 'b', 'y', NULL), (-4, 'c', 'z', NULL)",
    );
    const source = openTable();
    expect(source).toMatchObject({ producer: "import.audit_queue.db.audits", total: 3 });
    expect(source.remarks.join()).toContain("time = created_at, actor, action");
    const rows = await rowsOf(source);
    expect(rows.map(({ sequence }) => sequence).slice(1)).toEqual([1, 3]);
    expect(rows[0]?.sequence).toBeGreaterThan(1000);
    expect(rows[2]).toMatchObject({ where: "row 3", fields: { actor: "a", action: "x", id: 3n } });
  });

  it("keeps the identities of rows with a key of their own, whatever is deleted and compacted", async () => {
    make(
      "CREATE TABLE audits (uid TEXT PRIMARY KEY, actor TEXT, action TEXT)",
      "INSERT INTO audits VALUES ('k1', 'a', 'x'), ('k2', 'b', 'y'), ('k3', 'c', 'z')",
    );
    const before = new Map((await rowsOf(openTable())).map(({ fields, sequence }) => [fields?.uid, sequence]));
    make("DELETE FROM audits WHERE uid = 'k1'", "VACUUM");
    for (const { fields, sequence } of await rowsOf(openTable())) expect(sequence).toBe(before.get(fields?.uid));
    expect(new Set(before.values()).size).toBe(3);
  });

  it("may have a table without row numbers, or without a key, which is then remarked on", async () => {
    make(
      "CREATE TABLE audits (actor TEXT, n INT, action TEXT, PRIMARY KEY (actor, n)) WITHOUT ROWID",
      "INSERT INTO audits VALUES ('a', 1, 'x'), ('a', 2, 'x')",
      "CREATE TABLE keyless (actor TEXT, action TEXT)",
      "INSERT INTO keyless VALUES ('a', 'x'), ('a', 'x')",
    );
    const keyed = await rowsOf(openTable("audits"));
    expect(new Set(keyed.map(({ sequence }) => sequence)).size).toBe(2);
    const keyless = openTable("keyless");
    expect(keyless.remarks.join()).toContain("VACUUM");
    expect((await rowsOf(keyless)).map(({ sequence }) => sequence)).toEqual([1, 2]);
  });

  it("may keep its records as JSON in one column", async () => {
    make(
      "CREATE TABLE queue (id INTEGER PRIMARY KEY, payload TEXT, tries INT)",
      `INSERT INTO queue VALUES (1, '{"actor": "a", "action": "x"}', 0)`,
    );
    expect(openTable().producer).toBe("import.audit_queue.db.queue");
  });

  it("names the other tables that look like audit records, and asks where it cannot tell", () => {
    make("CREATE TABLE one (actor TEXT, action TEXT, status TEXT)", "CREATE TABLE two (actor TEXT, action TEXT)");
    expect(openTable().remarks.join()).toContain("--table two");
    make("ALTER TABLE two ADD COLUMN status TEXT");
    expect(() => openTable()).toThrow(/--table[\s\S]*one \(actor, action, status\)[\s\S]*two \(/);
  });

  it("of an unknown layout is refused, and what was found is shown", () => {
    make("CREATE TABLE books (isbn TEXT, title TEXT)", "CREATE TABLE loans (isbn TEXT, due TEXT)");
    expect(() => openTable()).toThrow(
      /looks like audit[\s\S]*--map[\s\S]*books \(isbn, title\)[\s\S]*loans \(isbn, due\)/,
    );
    expect(() => openTable("books")).toThrow(/the table books[\s\S]*books \(isbn, title\)/);
    expect(() => openTable("shelves")).toThrow(/no table shelves/);
    const said = createMapping(["actor=isbn", "action=due"]);
    expect(openSqliteSource({ file: path(), table: undefined, mapping: said }).name).toContain("loans");
  });

  it("that is none is refused, and nothing is made of one that is not there", () => {
    expect(() => openTable()).toThrow(/audit_queue\.db cannot be read/);
    expect(() => openTable()).toThrow(/cannot be read/);
    writeFileSync(path(), "this is text, and long enough to be taken for the header of a file\n".repeat(20));
    expect(() => openTable()).toThrow(/not a database/);
  });

  it("is not begun when a column that was named is not there, and those that are there are named", () => {
    make("CREATE TABLE audits (usr TEXT, action TEXT, created_at TEXT)", "CREATE TABLE other (note TEXT)");
    const opened = (table: string | undefined, ...said: string[]) =>
      openSqliteSource({ file: path(), table, mapping: createMapping(said) });
    expect(() => opened(undefined, "actor=user_nme")).toThrow(
      "--map actor=user_nme: there is no such column or field; there are usr, action, created_at, note",
    );
    expect(() => opened("audits", "actor=note")).toThrow(/--map actor=note: .*there are usr, action, created_at$/);
    expect(() => opened("other", "actor=who")).toThrow(/--map actor=who: .*there are note$/);
    expect(opened("audits", "actor=usr").name).toContain("audits");
  });

  it("is not changed by being read", async () => {
    make("CREATE TABLE audits (actor TEXT, action TEXT)", "INSERT INTO audits VALUES ('a', 'x')");
    const db = new Sqlite(path(), { readonly: true });
    const before = db.serialize();
    db.close();
    await rowsOf(openTable());
    const after = new Sqlite(path(), { readonly: true });
    expect(after.serialize().equals(before)).toBe(true);
    expect(after.pragma("journal_mode", { simple: true })).toBe("delete");
    after.close();
  });
});

describe("files of JSON lines", () => {
  const line = (n: number) => `${JSON.stringify({ actor: `a${n}`, action: "x" })}\n`;
  const path = (name: string) => directory.of(name);
  const write = (name: string, text: string | Buffer) => writeFileSync(path(name), text);
  const open = (from = directory.path) => openFilesSource({ path: from, mapping });

  /** actor -> sequence of what can be read. */
  async function identities(): Promise<Map<unknown, number>> {
    const rows = await rowsOf(await open());
    return new Map(rows.filter(({ fields }) => fields !== undefined).map((row) => [row.fields?.actor, row.sequence]));
  }

  it("are read in the order of their names, blank lines and the ends of lines left out", async () => {
    write("b.jsonl", `${line(3)}\n  \r\n${line(4).trim()}\r\n`);
    write("a.jsonl", line(1) + line(2));
    write("c.jsonl", "");
    write(".hidden", "no JSON");
    mkdirSync(path("directory"));
    mkdirSync(path(".git"));
    const source = await open();
    expect(source.remarks).toContain("left out, because hidden or no files: .git, .hidden");
    const rows = await rowsOf(source);
    expect(rows.map(({ where, fields }) => [where, fields?.actor])).toEqual([
      ["a.jsonl:1", "a1"],
      ["a.jsonl:2", "a2"],
      ["b.jsonl:1", "a3"],
      ["b.jsonl:4", "a4"],
    ]);
  });

  it("may be one file, also a compressed one", async () => {
    write("a.log", line(1));
    write("b.log.gz", gzipSync(line(2) + line(3)));
    expect(await rowsOf(await open(path("a.log")))).toHaveLength(1);
    expect((await rowsOf(await open(path("b.log.gz")))).map(({ fields }) => fields?.actor)).toEqual(["a2", "a3"]);
  });

  it("give their records the same identities when they have grown, were rotated, packed and copied", async () => {
    write("audit.log", line(1) + line(2));
    const before = await identities();
    appendFileSync(path("audit.log"), line(3));
    renameSync(path("audit.log"), path("audit.log.1"));
    copyFileSync(path("audit.log.1"), path("audit.log.2"));
    write("audit.log.3.gz", gzipSync(line(1) + line(2)));
    write("audit.log", line(4));
    const after = await identities();
    expect(after.size).toBe(4);
    for (const [actor, sequence] of before) expect(after.get(actor)).toBe(sequence);
    expect(new Set(after.values()).size).toBe(4);
  });

  it("count the same line again in the same file as another record", async () => {
    write("a.log", line(1) + line(2) + line(1) + line(1));
    const first = await rowsOf(await open());
    expect(new Set(first.map(({ sequence }) => sequence)).size).toBe(4);
    appendFileSync(path("a.log"), line(1));
    const again = await rowsOf(await open());
    expect(again.slice(0, 4).map(({ sequence }) => sequence)).toEqual(first.map(({ sequence }) => sequence));
    expect(new Set(again.map(({ sequence }) => sequence)).size).toBe(5);
  });

  it("tell of lines that cannot be read, a torn last one among them, and go on", async () => {
    const [whole, torn] = [line(3), line(4).slice(0, 9)];
    write("a.log", `${line(1)}{"actor": \n[1]\n${"x".repeat(5_000_000)}\n${whole}${torn}`);
    const rows = await rowsOf(await open());
    expect(rows.map(({ where, fault }) => [where, fault])).toEqual([
      ["a.log:1", undefined],
      ["a.log:2", "is not JSON"],
      ["a.log:3", "is JSON, but not an object"],
      ["a.log:4", "is longer than 4194304 bytes"],
      ["a.log:5", undefined],
      ["a.log:6", "is not JSON: the last line, torn off"],
    ]);
    appendFileSync(path("a.log"), line(4).slice(9));
    expect((await rowsOf(await open())).at(-1)?.fields).toEqual(JSON.parse(line(4)));
  });

  it("are found in directories below, and through links to files, in the order of their paths", async () => {
    mkdirSync(path("b/2024/01"), { recursive: true });
    mkdirSync(path("a"));
    write("b/2024/01/x.log", line(3));
    write("b/2024/x.log", line(4));
    write("a/x.log", line(1));
    write("c.log", line(5));
    symlinkSync(path("c.log"), path("a/y.log"));
    symlinkSync(path("b"), path("a/z"));
    const source = await open();
    expect(source.remarks).toContain("left out, because hidden or no files: a/z");
    const rows = await rowsOf(source);
    expect(rows.map(({ where, fields }) => [where, fields?.actor])).toEqual([
      ["a/x.log:1", "a1"],
      ["a/y.log:1", "a5"],
      ["b/2024/01/x.log:1", "a3"],
      ["b/2024/x.log:1", "a4"],
      ["c.log:1", "a5"],
    ]);
    expect(rows[1]?.sequence).toBe(rows[4]?.sequence);
  });

  it.each([
    ["a log of another kind", "127.0.0.1 - - GET /\n", /not made of JSON lines.*"127\.0\.0\.1 - - GET \/"/],
    ["other JSON", '{"level": "info", "msg": "hello"}\n', /do not look like audit records; --map.*hello/],
    ["an array on one line", `[${line(1).trim()}]`, /is one JSON array.*jq -c '\.\[\]'/],
    ["an array with an object a line", `[\n${line(1).trim()},\n${line(2)}]\n`, /is one JSON array/],
    ["an object over several lines", '{\n  "actor": "a"\n}\n', /JSON over several lines.*jq -c \./],
  ])("with %s among them: that file is refused with the reason, the others are read", async (_, text, why) => {
    write("a.log", line(1));
    write("b.log", text);
    write("c.log", line(2));
    const rows = await rowsOf(await open());
    expect(rows.map(({ where, fault }) => [where, fault])).toEqual([
      ["a.log:1", undefined],
      ["b.log", expect.stringMatching(why)],
      ["c.log:1", undefined],
    ]);
    await expect(open(path("b.log"))).rejects.toThrow(why);
  });

  it("that are damaged in the middle are read up to there, and it is said that there is more", async () => {
    const text = Array.from({ length: 3000 }, (_, n) => line(n)).join("");
    write("a.log.gz", gzipSync(text).subarray(0, -2000));
    write("b.log", line(1));
    const rows = await rowsOf(await open());
    const at = rows.findIndex(({ where }) => where === "a.log.gz");
    expect(rows[at]?.fault).toMatch(/cannot be read to its end: unexpected end of file/);
    expect(at).toBeGreaterThan(100);
    expect(rows.at(-1)?.where).toBe("b.log:1");
  });

  it("tell every field that was taken as something, whatever line it is in", async () => {
    write("a.log", `${line(1)}{"user": "b", "action": "x", "request": {"ip": "192.0.2.1"}, "timestamp": 1}\n`);
    expect((await open()).remarks).toEqual([
      "taken as: time = timestamp, actor = actor or user, action, context = request, ip_address = request.ip; everything else becomes attributes",
    ]);
  });

  it("are not begun when a field that was named is in none of them", async () => {
    write("a.log", `${line(1)}{"actor": "a", "action": "b", "who": "c", "request": {"addr": "d"}}\n`);
    const opened = (...said: string[]) => openFilesSource({ path: directory.path, mapping: createMapping(said) });
    await expect(opened("actor=whom")).rejects.toThrow(/--map actor=whom: .*there are actor, action, who, request/);
    await expect(opened("actor=who", "ip_address=addr")).resolves.toBeDefined();
  });

  it("that are all of an unknown layout are refused before anything is read", async () => {
    write("b.log", "127.0.0.1 - - GET /\n");
    await expect(open()).rejects.toThrow(/b\.log is not made of JSON lines/);
    await expect(open(path("none"))).rejects.toThrow(/none cannot be read/);
    mkdirSync(path("empty"));
    await expect(open(path("empty"))).rejects.toThrow(/has no files/);
  });
});

describe("a Redis stream", () => {
  const key = "audit_queue:stream";

  async function fill(...entries: Record<string, string>[]): Promise<string> {
    const url = await freshRedis();
    const redis = new Redis(url);
    for (const entry of entries) await redis.xadd(key, "*", ...Object.entries(entry).flat());
    redis.disconnect();
    return url;
  }

  const open = (redisUrl: string, remove = false, stream = key) =>
    openStreamSource({ redisUrl, key: stream, remove, environment: {}, mapping });

  it("gives its entries, and passes over those that the server put there", async () => {
    const url = await fill(
      { actor: "a", action: "x" },
      { producer: "p", first: "1", last: "1", leaves: "bytes" },
      { data: '{"actor": "b", "action": "y"}' },
    );
    const source = await open(url);
    expect(source).toMatchObject({ producer: "import.audit_queue:stream", total: 3, remove: undefined });
    const rows = await rowsOf(source);
    expect(rows.map(({ fields }) => fields)).toEqual([
      { actor: "a", action: "x" },
      { data: '{"actor": "b", "action": "y"}' },
    ]);
    expect(source.passedOver()).toBe(1);
    expect(rows[0]?.where).toMatch(/^entry \d+-\d+$/);
  });

  it("is read in pages, up to where it ended when it was opened", async () => {
    const url = await fill(...Array.from({ length: 1203 }, (_, n) => ({ actor: `a${n}`, action: "x" })));
    const redis = new Redis(url);
    const source = await open(url);
    await redis.xadd(key, "*", "actor", "late", "action", "x");
    const rows = await rowsOf(source);
    expect(rows.map(({ fields }) => fields?.actor)).toEqual(Array.from({ length: 1203 }, (_, n) => `a${n}`));
    expect(new Set(rows.map(({ sequence }) => sequence)).size).toBe(1203);
    redis.disconnect();
  });

  it("loses the entries that are to be removed, and only where that was asked for", async () => {
    const url = await fill({ actor: "a", action: "x" }, { actor: "b", action: "x" });
    const source = await open(url, true);
    const rows: SourceRow[] = [];
    for await (const row of source.rows()) rows.push(row);
    await source.remove?.(rows.slice(0, 1));
    await source.close();
    expect((await rowsOf(await open(url))).map(({ fields }) => fields?.actor)).toEqual(["b"]);
  });

  it("of an unknown layout is refused, and its first entry is shown", async () => {
    const url = await fill({ level: "info", msg: "hello" });
    await expect(open(url)).rejects.toThrow(/do not look like audit records; --map[\s\S]*level[\s\S]*hello/);
    await expect(open(url, false, "none")).rejects.toThrow(/none is not a stream.*no such key/);
    const redis = new Redis(url);
    await redis.set("text", "x");
    redis.disconnect();
    await expect(open(url, false, "text")).rejects.toThrow(/it is a string/);
  });

  it("has times of its own, as the ids of its entries say", async () => {
    const url = await fill({ actor: "a", action: "x" });
    const redis = new Redis(url);
    await redis.del(key);
    await redis.xadd(key, "5-1", "actor", "a", "action", "x");
    await redis.xadd(key, "1704164645123-0", "actor", "b", "action", "x");
    redis.disconnect();
    const source = await open(url);
    expect(source.remarks.join()).toContain("when they were queued, as their ids say");
    const rows = await rowsOf(source);
    expect(rows.map(({ time }) => time)).toEqual([undefined, { seconds: 1_704_164_645n, nanos: 123_000_000 }]);
  });

  it("is not begun when a field that was named is in none of its entries", async () => {
    const url = await fill({ actor: "a", action: "x" });
    const options = { redisUrl: url, key, remove: false, environment: {}, mapping: createMapping(["actor=who"]) };
    await expect(openStreamSource(options)).rejects.toThrow(/--map actor=who: .*there are actor, action$/);
  });

  it("needs to be told which Redis, unless the settings say so", async () => {
    const options = { redisUrl: undefined, key, remove: false, mapping };
    await expect(openStreamSource({ ...options, environment: {} })).rejects.toThrow(/--redis-url/);
    const url = await fill({ actor: "a", action: "x" });
    expect(await rowsOf(await openStreamSource({ ...options, environment: { REDIS_URL: url } }))).toHaveLength(1);
  });
});

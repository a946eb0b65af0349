import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import Sqlite from "better-sqlite3";
import { Redis } from "ioredis";
import { describe, expect, it } from "vitest";
import { AuditSequenceState, AuditService, AuditStatus } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createCertificates } from "../server/certificates.ts";
import { type AuditClient, createAuditClient } from "../support/audit-client.ts";
import { directoryPerTest } from "../support/directory-per-test.ts";
import { freePort } from "../support/free-port.ts";
import { freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { until } from "../support/until.ts";
import { holdfast } from "./command.ts";
import { importArgs, runImport, startImport, TOPOLOGIES } from "./import-run.ts";

const { PENDING, APPROVED, REJECTED, NOT_REQUIRED } = AuditStatus;
const directory = directoryPerTest("import");
const path = (name: string) => directory.of(name);
const run = (server: HoldfastProcess, kind: string, ...args: string[]) =>
  runImport(directory.path, server, kind, ...args);

/** Of each four rows one waits, one was approved, one rejected, and one needs no review. */
const STATUSES = ["pending", "approved", "rejected", null];
const PRODUCER = "import.audit_queue.db.audit_queue";

function fillSqlite(count: number): void {
  const db = new Sqlite(path("audit_queue.db"));
  db.exec(
    "CREATE TABLE audit_queue (id INTEGER PRIMARY KEY, memory_id TEXT, action TEXT, user_id TEXT, status TEXT, created_at TEXT, reviewer TEXT, comment TEXT)",
  );
  const insert = db.prepare("INSERT INTO audit_queue VALUES (?, ?, 'memory.add', 'u', ?, '2024-01-02 03:04:05', ?, ?)");
  db.transaction(() => {
    for (let id = 1; id <= count; id++) {
      const status = STATUSES[id % 4] ?? null;
      const isDecided = status === "approved" || status === "rejected";
      insert.run(id, `m${id}`, status, isDecided ? "bob" : null, isDecided ? `because ${id}` : null);
    }
  })();
  db.close();
}

/** For records that do not say when they were. */
const AT_IMPORT = ["--default", "time=import"];

/** What is held of a producer, such as ["ARCHIVED 1-9"]. */
async function held(client: AuditClient, producer: string): Promise<string[]> {
  const { reply } = await client.call(AuditService.method.reconcile, { producer });
  return reply.ranges.map((range) => `${AuditSequenceState[range.state]} ${range.firstSequence}-${range.lastSequence}`);
}

async function countOf(client: AuditClient, producer: string, status: AuditStatus): Promise<number> {
  return (await client.list({ producers: [producer], statuses: [status] })).length;
}

async function isApproved(client: AuditClient, id: string): Promise<boolean> {
  const subject = { resource: { type: "memory", id } };
  const { reply } = await client.call(AuditService.method.isApproved, { target: { case: "subject", value: subject } });
  return reply.approved;
}

describe.each(TOPOLOGIES)("an import into a server (%s)", (_, settings) => {
  it("brings the rows of a SQLite file with their reviews; a second one finds all of it there", async () => {
    fillSqlite(400);
    await using server = await startHoldfast(await settings());
    using client = createAuditClient(server.grpcAddress);
    const first = await run(server, "audit-sqlite", "audit_queue.db");
    expect(first).toMatchObject({
      code: 0,
      counts: { read: 400, imported: 400, refused: 0, "reviews carried out": 200 },
    });
    const second = await run(server, "audit-sqlite", "audit_queue.db");
    expect(second).toMatchObject({
      code: 0,
      counts: { read: 400, imported: 0, "already there": 400, refused: 0, "reviews already there": 200 },
    });
    expect(await held(client, PRODUCER)).toEqual(["ARCHIVED 1-400"]);
    for (const status of [PENDING, APPROVED, REJECTED, NOT_REQUIRED]) {
      expect(await countOf(client, PRODUCER, status)).toBe(100);
    }
    expect(await client.list({ producers: ["@review"] })).toHaveLength(200);
    expect(await client.get(`${PRODUCER}/1`)).toMatchObject({
      entry: { actor: "u", action: "memory.add", resource: { type: "memory", id: "m1" } },
      status: APPROVED,
      review: { reviewer: "bob", comment: "because 1" },
    });
    expect(await Promise.all(["m1", "m2", "m3", "m4"].map((id) => isApproved(client, id)))).toEqual([
      true,
      false,
      false,
      false,
    ]);
  });

  it("that is killed in the middle is completed by the next one, nothing twice", async () => {
    const count = 6_000;
    fillSqlite(count);
    await using server = await startHoldfast(await settings());
    using client = createAuditClient(server.grpcAddress);
    const child = await startImport("as records of", server, "audit-sqlite", path("audit_queue.db"));
    await until(async () => (await countOf(client, "@review", NOT_REQUIRED)) > 0, { what: "the first reviews" });
    await child.kill();
    const reviewed = await countOf(client, "@review", NOT_REQUIRED);
    expect(reviewed).toBeLessThan(count / 2);
    const rest = await run(server, "audit-sqlite", path("audit_queue.db"));
    expect(rest).toMatchObject({ code: 0, counts: { read: count, refused: 0 } });
    expect((rest.counts.imported ?? 0) + (rest.counts["already there"] ?? 0)).toBe(count);
    expect(rest.counts["already there"]).toBeGreaterThan(0);
    expect(await held(client, PRODUCER)).toEqual([`ARCHIVED 1-${count}`]);
    expect(await countOf(client, "@review", NOT_REQUIRED)).toBe(count / 2);
    expect(await countOf(client, PRODUCER, APPROVED)).toBe(count / 4);
    expect(await countOf(client, PRODUCER, REJECTED)).toBe(count / 4);
  });

  it("goes on when the server is killed and comes back", async () => {
    const count = 6_000;
    fillSqlite(count);
    await using server = await startHoldfast(await settings());
    using client = createAuditClient(server.grpcAddress);
    const importing = run(server, "audit-sqlite", path("audit_queue.db"));
    await until(async () => (await countOf(client, "@review", NOT_REQUIRED)) > 0, { what: "the first reviews" });
    await server.kill();
    await server.restart();
    const { code, counts, stderr } = await importing;
    expect({ code, counts }).toMatchObject({ code: 0, counts: { read: count, refused: 0 } });
    expect(stderr).toContain("trying again");
    expect(await held(client, PRODUCER)).toEqual([`ARCHIVED 1-${count}`]);
    expect(await countOf(client, "@review", NOT_REQUIRED)).toBe(count / 2);
  });
});

describe("an import", () => {
  it("leaves alone what people have decided since", async () => {
    fillSqlite(4);
    await using server = await startHoldfast();
    using client = createAuditClient(server.grpcAddress);
    await run(server, "audit-sqlite", "audit_queue.db");
    const id = `${PRODUCER}/1`;
    await client.review({ id, decision: 3, reviewer: "eve" });
    const again = await run(server, "audit-sqlite", "audit_queue.db");
    expect(again).toMatchObject({ code: 0, counts: { "reviews already there": 2 } });
    expect(await client.get(id)).toMatchObject({ status: PENDING, review: { reviewer: "eve" } });
  });

  it("brings a decision that was made in the source after the record was imported", async () => {
    fillSqlite(4);
    await using server = await startHoldfast();
    using client = createAuditClient(server.grpcAddress);
    await run(server, "audit-sqlite", "audit_queue.db");
    const db = new Sqlite(path("audit_queue.db"));
    db.exec("UPDATE audit_queue SET status = 'approved', reviewer = 'eve', comment = 'late' WHERE id = 4");
    db.close();
    const again = await run(server, "audit-sqlite", "audit_queue.db");
    expect(again).toMatchObject({ code: 0, counts: { "already there": 4, "reviews carried out": 1 } });
    expect(await client.get(`${PRODUCER}/4`)).toMatchObject({ status: APPROVED, review: { reviewer: "eve" } });
  });

  it("tells of what was refused, by the server and by itself, and brings the rest", async () => {
    const lines = [
      { actor: "a", action: "x" },
      { actor: "a".repeat(300), action: "x" },
      { actor: "a", action: "y", time: "never" },
      { actor: "a", action: "big", data: "x".repeat(300_000) },
      { actor: "a", action: "z" },
    ];
    writeFileSync(path("audit.log"), `${lines.map((line) => JSON.stringify(line)).join("\n")}\n{"actor": "to`);
    await using server = await startHoldfast();
    const { code, counts, stdout } = await run(
      server,
      "audit-files",
      "audit.log",
      "--rejects",
      "rejects.jsonl",
      ...AT_IMPORT,
    );
    expect({ code, counts }).toMatchObject({ code: 1, counts: { read: 6, imported: 2, refused: 4 } });
    expect(stdout).toMatch(/audit\.log:2: FIELD_INVALID: .*actor/);
    expect(stdout).toMatch(/audit\.log:6: UNREADABLE: is not JSON: the last line, torn off/);
    const rejects = readFileSync(path("rejects.jsonl"), "utf8").trim().split("\n");
    const reasons = rejects.map((line) => JSON.parse(line).reason).toSorted();
    expect(reasons).toEqual(["FIELD_INVALID", "NOT_UNDERSTOOD", "RECORD_TOO_LARGE", "UNREADABLE"]);
    expect(rejects.map((line) => JSON.parse(line)).find(({ where }) => where === "audit.log:6").record).toBe(
      '{"actor": "to',
    );
    expect(await run(server, "audit-files", "audit.log", ...AT_IMPORT)).toMatchObject({
      code: 1,
      counts: { imported: 0, "already there": 2, refused: 4 },
    });
  });

  it("does not begin where nothing says who did it, what or when, unless the user does", async () => {
    const db = new Sqlite(path("queue.db"));
    db.exec("CREATE TABLE queue (id INTEGER PRIMARY KEY, memory_id TEXT, usr TEXT, status TEXT)");
    db.exec(
      "INSERT INTO queue VALUES (1, 'm', 'ada', 'pending'), (2, 'm', NULL, 'pending'), (3, 'm', 'b', 'approved')",
    );
    db.close();
    await using server = await startHoldfast();
    using client = createAuditClient(server.grpcAddress);
    const nothing = await run(server, "audit-sqlite", "queue.db");
    expect(nothing).toMatchObject({ code: 1, stdout: "" });
    expect(nothing.stderr).toMatch(
      /nothing in it is known as actor or action or time\. It has id, memory_id, usr, status\.\n.*--map actor=NAME.*--default actor=TEXT --default action=TEXT --default time=import/,
    );
    const said = ["--map", "actor=usr", "--default", "action=memory.add", ...AT_IMPORT];
    const some = await run(server, "audit-sqlite", "queue.db", ...said);
    expect(some).toMatchObject({ code: 1, counts: { read: 3, imported: 1, refused: 2 } });
    expect(some.stdout).toMatch(
      /row 2: NOT_UNDERSTOOD: has no actor[\s\S]*row 3: NOT_UNDERSTOOD: was decided on .*has no reviewer/,
    );
    const all = await run(
      server,
      "audit-sqlite",
      "queue.db",
      ...said,
      "--default",
      "actor=?",
      "--default",
      "reviewer=old",
    );
    expect(all).toMatchObject({ code: 0, counts: { imported: 2, "already there": 1, "reviews carried out": 1 } });
    expect(await client.get("import.queue.db.queue/3")).toMatchObject({
      status: APPROVED,
      review: { reviewer: "old" },
    });
    const wrong = await run(server, "audit-sqlite", "queue.db", "--map", "actor=user");
    expect(wrong).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("--map actor=user: there is no such column"),
    });
  });

  it("of files that were rotated and have grown brings what is new", async () => {
    const line = (n: number) => `${JSON.stringify({ actor: `a${n}`, action: "x", timestamp: n })}\n`;
    mkdirSync(path("backup"));
    writeFileSync(path("backup/audit.log"), line(1) + line(2));
    await using server = await startHoldfast();
    expect(await run(server, "audit-files", "backup")).toMatchObject({ code: 0, counts: { imported: 2 } });
    writeFileSync(path("backup/audit.log.1"), line(1) + line(2) + line(3));
    writeFileSync(path("backup/audit.log"), line(4));
    expect(await run(server, "audit-files", "backup")).toMatchObject({
      code: 0,
      counts: { read: 4, imported: 2, "already there": 2 },
    });
    mkdirSync(path("backup/older/2023"), { recursive: true });
    writeFileSync(path("backup/older/2023/audit.log"), line(1) + line(5));
    writeFileSync(path("backup/older/list.json"), `[${line(6)}]`);
    const below = await run(server, "audit-files", "backup");
    expect(below).toMatchObject({ code: 1, counts: { imported: 1, "already there": 5, refused: 1 } });
    expect(below.stdout).toMatch(/older\/list\.json: UNREADABLE: the whole file is refused: it is one JSON array/);
  });

  it("brings a stream in place, beside the server that uses it, and takes out what is safe", async () => {
    const url = await freshRedis();
    const redis = new Redis(url);
    const key = "audit_queue:stream";
    for (let n = 0; n < 700; n++) {
      await redis.xadd(
        key,
        "*",
        "data",
        JSON.stringify({ user_id: `u${n}`, action: "x", memory_id: `m${n}`, status: "approved", reviewer: "bob" }),
      );
    }
    await redis.xadd(key, "*", "unlike", "the others");
    await using server = await startHoldfast({ REDIS_URL: url });
    using client = createAuditClient(server.grpcAddress);
    await client.append([{ sequence: 1n, entry: { actor: "own", action: "x" } }], { producer: "p" });
    const first = await run(server, "audit-stream", "--redis-url", url);
    expect(first).toMatchObject({ code: 1, counts: { imported: 700, refused: 1, "reviews carried out": 700 } });
    expect(first.stdout).toContain("it has unlike");
    expect(await isApproved(client, "m699")).toBe(true);
    const second = await run(server, "audit-stream", "--redis-url", url, "--delete");
    expect(second).toMatchObject({ code: 1, counts: { "already there": 700, "taken out of the source": 700 } });
    const left = (await redis.xrange(key, "-", "+")).filter(([, fields]) => fields[0] !== "producer");
    expect(left.map(([, fields]) => fields)).toEqual([["unlike", "the others"]]);
    expect(await client.list({ producers: ["import.audit_queue:stream"] })).toHaveLength(700);
    redis.disconnect();
  });

  it("that is only rehearsed sends nothing, needs no server and shows what it would send", async () => {
    fillSqlite(8);
    const args = ["import", "audit-sqlite", "audit_queue.db", "--dry-run", "--address", "127.0.0.1:1"];
    const { code, stdout, stderr } = await holdfast(args, { cwd: directory.path });
    expect(code).toBe(0);
    expect(stdout).toBe("read: 8\nwould be sent: 8\nrefused: 0\n");
    expect(stderr).toContain('such as {"occurTime":"2024-01-02T03:04:05Z","actor":"u"');
  });

  it("needs a key where the server wants one, and says so at once", async () => {
    fillSqlite(8);
    const file = path("keys.yaml");
    const make = (name: string, scopes: string) =>
      holdfast(["keys", "create", "--name", name, "--scopes", scopes, "--file", file], { cwd: directory.path });
    const all = (await make("all", "audit:*")).stdout.trim();
    const append = (await make("append", "audit:append")).stdout.trim();
    await using server = await startHoldfast({ HOLDFAST_API_KEYS_FILE: file });
    const args = importArgs(server, "audit-sqlite", "audit_queue.db");
    const none = await holdfast(args, { cwd: directory.path });
    expect(none).toMatchObject({ code: 1, stderr: expect.stringMatching(/given up: Ingest: UNAUTHENTICATED/) });
    const few = await holdfast(args, { cwd: directory.path, env: { HOLDFAST_API_KEY: append } });
    expect(few).toMatchObject({ code: 1, stderr: expect.stringMatching(/given up: Review: PERMISSION_DENIED/) });
    const enough = await holdfast(args, { cwd: directory.path, env: { HOLDFAST_API_KEY: all } });
    expect(enough).toMatchObject({ code: 0, stdout: expect.stringContaining("reviews carried out: 4") });
  });

  it("goes by TLS to a server that its authority vouches for", async () => {
    fillSqlite(4);
    await using certificates = await createCertificates();
    writeFileSync(path("cert.pem"), certificates.server.cert);
    writeFileSync(path("key.pem"), certificates.server.key);
    writeFileSync(path("ca.pem"), certificates.ca);
    await using server = await startHoldfast({
      HOLDFAST_TLS_CERT: path("cert.pem"),
      HOLDFAST_TLS_KEY: path("key.pem"),
    });
    const args = importArgs(server, "audit-sqlite", "audit_queue.db");
    const trusted = await holdfast([...args, "--tls-ca", "ca.pem"], { cwd: directory.path });
    expect(trusted).toMatchObject({ code: 0, stdout: expect.stringContaining("imported: 4") });
    expect(await holdfast([...args, "--tls-ca", "none.pem"], { cwd: directory.path })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("none.pem cannot be read"),
    });
  });

  it.each([
    [["import"], /expected `import audit-sqlite FILE`/],
    [["import", "audit-sqlite"], /which FILE/],
    [["import", "audit-files"], /which DIR/],
    [["import", "audit-files", "a", "b"], /unexpected b/],
    [["import", "audit-files", "a", "--delete"], /--delete belongs to import audit-stream/],
    [["import", "audit-sqlite", "a", "--producer", "a b"], /--producer must be/],
    [["import", "audit-sqlite", "a", "--map", "x"], /--map is "x"/],
    [["import", "audit-sqlite", "a", "--default", "x=y"], /--default is "x=y"/],
    [["import", "audit-sqlite", "a", "--bogus"], /--bogus/],
  ])("that was not understood ends with exit code 2 and says why: %j", async (args, why) => {
    const { code, stderr } = await holdfast(args, { cwd: directory.path });
    expect(code).toBe(2);
    expect(stderr).toMatch(why);
  });

  it("into a server that is not there is given up, and says what it tried", async () => {
    fillSqlite(4);
    const args = ["import", "audit-sqlite", "audit_queue.db", "--address", `127.0.0.1:${await freePort()}`];
    const { code, stdout, stderr } = await holdfast(args, { cwd: directory.path });
    expect(code).toBe(1);
    expect(stderr).toMatch(/trying again: Ingest: UNAVAILABLE[\s\S]*given up: Ingest: UNAVAILABLE[\s\S]*run it again/);
    expect(stdout).toContain("imported: 0");
  });

  it("of what is not there ends with exit code 1", async () => {
    const { code, stderr } = await holdfast(["import", "audit-sqlite", "none.db"], { cwd: directory.path });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^holdfast: none\.db cannot be read as a SQLite database/);
  });
});

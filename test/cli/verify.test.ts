import { generateKeyPairSync, sign } from "node:crypto";
import { closeSync, openSync, symlinkSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { toJsonString } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { signCheckpoint } from "../../src/audit/proof/checkpoint.ts";
import { createSqlTree } from "../../src/audit/proof/sql-tree.ts";
import { headRoot } from "../../src/audit/proof/tree.ts";
import { UsageError } from "../../src/cli/usage.ts";
import { type VerifyOutcome, type VerifyRequest, verifyCommand } from "../../src/cli/verify.ts";
import { AuditServiceCheckpointResponseSchema } from "../../src/gen/holdfast/v1/audit_pb.js";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { KINDS } from "../audit/archives.ts";
import { fill, openArchive, type TestArchive } from "../audit/verify-archive.ts";
import { holdfast } from "../e2e/command.ts";
import { freshDatabase } from "../support/fresh.ts";
import { scratchDirectory } from "../support/scratch.ts";

const scratch = scratchDirectory("verify");
afterAll(() => scratch.remove());

const { privateKey, publicKey } = generateKeyPairSync("ed25519");
const rawKey = Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url");
const base64Key = rawKey.toString("base64");
const pemKey = publicKey.export({ type: "spki", format: "pem" }).toString();

function file(name: string, content: string): string {
  const path = join(scratch.path, name);
  writeFileSync(path, content);
  return path;
}

/** As curl prints what Checkpoint answers. */
async function keepCheckpoint({ database, clock }: TestArchive, name: string): Promise<string> {
  const head = await createSqlTree(database).head();
  const root = { origin: "a log", treeSize: head.size, rootHash: headRoot(head), signTime: clock.now() };
  const key = { publicKey: rawKey, created: false, sign: (text: Uint8Array) => sign(null, text, privateKey) };
  const response = {
    $typeName: "holdfast.v1.AuditServiceCheckpointResponse",
    checkpoint: signCheckpoint(root, key),
  } as const;
  return file(name, toJsonString(AuditServiceCheckpointResponseSchema, response));
}

/** The settings of a server that has this archive. */
function settingsOf({ where, archive }: TestArchive): Record<string, string> {
  if (archive.kind === "postgres") return { DATABASE_URL: where };
  const data = scratchDirectory("verify-data").path;
  symlinkSync(where, join(data, "holdfast.db"));
  return { HOLDFAST_DATA_DIR: data };
}

describe.each(KINDS)("holdfast verify over %s", (kind) => {
  let on: TestArchive;
  let env: Record<string, string>;
  let older: string;
  beforeAll(async () => {
    on = await openArchive(kind);
    await fill(on, 300);
    older = await keepCheckpoint(on, `${kind}-older.json`);
    await fill(on, 20);
    env = settingsOf(on);
  });
  afterAll(() => on[Symbol.asyncDispose]());
  const verify = (...args: string[]) => holdfast(["verify", ...args], { cwd: scratch.path, env });

  it("ends with 0 and an account while the database is in use, and changes nothing", async () => {
    const { code, stdout, stderr } = await verify("--checkpoint", older, "--public-key", base64Key);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(
      /checkpoint .*older\.json: 300 leaves of "a log", signed .*Z: holds\n320 leaves checked, 0 of/,
    );
    expect(stdout).toMatch(/The first 300 leaves are what they were; the 20 after them .*\n$/);
    await fill(on, 1);
    expect((await verify()).stdout).toContain("321 leaves checked");
  });

  it("takes several checkpoints and the key in each form, and answers programs in JSON", async () => {
    const newer = await keepCheckpoint(on, `${kind}-newer.json`);
    const pem = file("key.pem", pemKey);
    for (const key of [pemKey, pem, file("key.txt", `${base64Key}\n`)]) {
      const { code, stdout } = await verify(
        "--checkpoint",
        older,
        "--checkpoint",
        newer,
        `--public-key=${key}`,
        "--json",
      );
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({
        sound: true,
        leaves: 321,
        damaged: [],
        faults: [],
        checkpoints: [
          { file: older, tree_size: 300, holds: true },
          { file: newer, tree_size: 321, holds: true },
        ],
      });
    }
  });

  it("ends with 1 when a checkpoint does not hold or a record was changed, and names both", async () => {
    const other = generateKeyPairSync("ed25519").publicKey.export({ type: "spki", format: "pem" }).toString();
    const untrusted = await verify("--checkpoint", older, `--public-key=${other}`);
    expect(untrusted.code).toBe(1);
    expect(untrusted.stdout).toMatch(
      /^FAILED checkpoint .*: signed by another key, .*; the archive itself begins with what it signs$/m,
    );
    await on.database.write("UPDATE audit_record SET status = 3 WHERE leaf_index = 7");
    const { code, stdout } = await verify();
    expect(code).toBe(1);
    expect(stdout).toMatch(/^DAMAGED leaf 7 \(app\/8\): its status is APPROVED/m);
    expect(stdout).toMatch(/The archive is NOT what it was\.\n$/);
  });
});

describe("holdfast verify", () => {
  it.each([
    [["--checkpoint", "nowhere.json"], "--checkpoint names nowhere.json, which cannot be read (ENOENT)"],
    [["--public-key", "nowhere.pem"], "--public-key names nowhere.pem, which cannot be read (ENOENT)"],
    [["--public-key", `${"A".repeat(43)}!`], "cannot be read"],
    [["--checkpoint", "empty.json"], "--checkpoint names empty.json, which is not JSON"],
    [["--public-key", "empty.json"], "--public-key is no Ed25519 public key"],
    [["--checkpiont", "x"], "--checkpiont"],
    [["extra"], "extra"],
  ])("says what is wrong with %s", async (args, message) => {
    file("empty.json", "");
    const { code, stdout, stderr } = await holdfast(["verify", ...args], { cwd: scratch.path });
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(message);
  });

  it("says so when there is nothing to verify, and makes no database", async () => {
    const data = scratchDirectory("verify-nothing").path;
    const env = { HOLDFAST_DATA_DIR: data };
    const missing = await holdfast(["verify"], { cwd: scratch.path, env });
    expect(missing).toMatchObject({ code: 3, stdout: "" });
    expect(missing.stderr).toBe(`holdfast: nothing was verified: there is no SQLite database ${data}/holdfast.db\n`);
    await openSqlite({ path: join(data, "holdfast.db") }).close();
    const empty = await holdfast(["verify"], { cwd: scratch.path, env });
    expect(empty).toMatchObject({ code: 3, stdout: "" });
    expect(empty.stderr).toContain("the database holds no audit log");
    const emptyPostgres = { DATABASE_URL: await freshDatabase() };
    const stranger = await holdfast(["verify"], { cwd: scratch.path, env: emptyPostgres });
    expect(stranger.stderr).toContain("the database holds no audit log");
    const away = await holdfast(["verify"], {
      cwd: scratch.path,
      env: { DATABASE_URL: "postgres://a:secret@127.0.0.1:1/b" },
    });
    expect(away.code).toBe(3);
    expect(away.stderr).toMatch(/nothing was verified: .*127\.0\.0\.1:1\/b.*ECONNREFUSED/);
    expect(away.stderr).not.toContain("secret");
  });

  it("says which file is damaged when it is no database, or only in part", async () => {
    const data = scratchDirectory("verify-damaged").path;
    const path = join(data, "holdfast.db");
    writeFileSync(path, "this is not a database, whatever its name says. ".repeat(100));
    const garbage = await holdfast(["verify"], { cwd: scratch.path, env: { HOLDFAST_DATA_DIR: data } });
    expect(garbage).toMatchObject({ code: 3, stdout: "" });
    expect(garbage.stderr).toContain(`nothing was verified: ${path}: file is not a database`);

    await using on = await openArchive("sqlite");
    await fill(on, 3_000);
    await on.database.close();
    const pageSize = 4096;
    const pages = openSync(on.where, "r+");
    // Somewhere in the rows: what was written there is neither a page nor a record any more.
    for (let page = 100; page < 110; page++)
      writeSync(pages, Buffer.alloc(pageSize, 0xff), 0, pageSize, page * pageSize);
    closeSync(pages);
    const { code, stdout } = await holdfast(["verify"], { cwd: scratch.path, env: settingsOf(on) });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^DAMAGED after [\d,]+ leaves the archive cannot be read on: .*the file is damaged$/m);
    expect(stdout).toMatch(/^[\d,]+ of 3,000 leaves checked/m);
  });

  it.each(KINDS)("finds in %s that tables were dropped, and does not say that nothing was ever there", async (kind) => {
    for (const tables of [["audit_node"], ["audit_record"], ["audit_head"], ["audit_record", "holdfast_migration"]]) {
      await using on = await openArchive(kind);
      await fill(on, 300);
      for (const table of tables) await on.database.write(`DROP TABLE ${table}`);
      const { code, stdout } = await holdfast(["verify"], { cwd: scratch.path, env: settingsOf(on) });
      expect(code).toBe(1);
      expect(stdout).toContain(`DAMAGED a table of the audit log was dropped: `);
      expect(stdout).toContain(String(tables[0]));
      expect(stdout).toMatch(/NOT what it was: Holdfast has kept an audit log in this database\.\n$/);
    }
  });

  it("does not end like a damaged archive when it may not read", async () => {
    await using on = await openArchive("postgres");
    await fill(on, 3);
    const url = new URL(on.where);
    const role = `stranger_${url.pathname.replaceAll(/\W/g, "")}`;
    await on.database.write(`CREATE ROLE ${role} LOGIN PASSWORD 'stranger'`);
    url.username = role;
    url.password = "stranger";
    const { code, stderr } = await holdfast(["verify"], { cwd: scratch.path, env: { DATABASE_URL: url.href } });
    await on.database.write(`DROP ROLE ${role}`);
    expect(code).toBe(3);
    expect(stderr).toMatch(/nothing was verified: the database says: permission denied for table audit_head/);
  });

  it("does not end like a damaged archive when a setting is wrong", async () => {
    const wrong = await holdfast(["verify"], { cwd: scratch.path, env: { DATABASE_URL: "nonsense" } });
    expect(wrong).toMatchObject({ code: 2, stdout: "" });
  });

  it("tells people how far it is, now and then", async () => {
    let now = 0;
    const remarks: string[] = [];
    const outcome: VerifyOutcome = { sound: true, lines: ["done"], json: {} };
    const printed: string[] = [];
    const code = await verifyCommand([], {
      async verify({ onProgress }: VerifyRequest) {
        for (let checked = 0; checked <= 5_000_000; checked += 500_000) {
          onProgress(checked, 5_000_000);
          now += 700;
        }
        return outcome;
      },
      print: (line) => printed.push(line),
      remark: (line) => remarks.push(line),
      now: () => now,
    });
    expect({ code, printed }).toEqual({ code: 0, printed: ["done"] });
    expect(remarks).toEqual([
      "1,500,000 of 5,000,000 leaves checked",
      "3,000,000 of 5,000,000 leaves checked",
      "4,500,000 of 5,000,000 leaves checked",
    ]);
  });

  it("does not take a mistake of its own for a finding", async () => {
    const context = { print: () => {}, remark: () => {}, now: () => 0 };
    const verify = () => Promise.reject(new TypeError("a defect"));
    await expect(verifyCommand([], { ...context, verify })).rejects.toThrow("a defect");
    await expect(verifyCommand(["--checkpoint", "nowhere"], { ...context, verify })).rejects.toThrow(UsageError);
  });
});

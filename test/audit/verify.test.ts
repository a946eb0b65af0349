import { generateKeyPairSync, sign } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import { signCheckpoint } from "../../src/audit/proof/checkpoint.ts";
import { type GivenCheckpoint, type VerifyAccount, verifyArchive } from "../../src/audit/proof/offline-verify.ts";
import { accountJson, accountLines } from "../../src/audit/proof/offline-verify-report.ts";
import type { SigningKey } from "../../src/audit/proof/signing-key.ts";
import { createSqlArchiveReader } from "../../src/audit/proof/sql-verify.ts";
import { headRoot } from "../../src/audit/proof/tree.ts";
import { type Retention, startRetention } from "../../src/audit/retention/retention.ts";
import { createSqlRetention } from "../../src/audit/retention/sql-retention.ts";
import { AuditDecision } from "../../src/gen/holdfast/v1/audit_pb.js";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { hashOfLeaf } from "../support/audit-tree.ts";
import { KINDS } from "./archives.ts";
import { naiveRoot } from "./rfc6962.ts";
import { fill, openArchive, PENDING, review, statedRecord, type TestArchive } from "./verify-archive.ts";

const DAY = 86_400_000;
const { APPROVE, REJECT, REOPEN } = AuditDecision;
const retentions: Retention[] = [];
afterEach(async () => {
  for (const retention of retentions.splice(0)) await retention.close();
});

function verify(
  { database }: TestArchive,
  checkpoints: readonly GivenCheckpoint[] = [],
  publicKey?: Uint8Array,
): Promise<VerifyAccount> {
  return verifyArchive(createSqlArchiveReader(database), { checkpoints, publicKey });
}

async function dropOlderThan({ archive, database, clock }: TestArchive, maxAgeMs: number): Promise<void> {
  const store = createSqlRetention({ database });
  const settings = { maxAgeMs, maxRecords: undefined };
  const retention = startRetention({ archive, store, settings, clock, log: createLog({ level: "silent" }) });
  retentions.push(retention);
  await retention.run();
}

function newKey(): SigningKey {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const raw = Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url");
  return { publicKey: raw, created: false, sign: (text) => sign(null, text, privateKey) };
}

async function checkpointOf({ database, clock }: TestArchive, key: SigningKey, name: string): Promise<GivenCheckpoint> {
  const head = await createSqlArchiveReader(database).head();
  const root = { origin: "a log", treeSize: head.size, rootHash: headRoot(head), signTime: clock.now() };
  return { name, checkpoint: signCheckpoint(root, key) };
}

/** An archive with a bit of everything: 600 records, two reviewed more than once, one that waits. */
async function fillAll(on: TestArchive): Promise<void> {
  await fill(on, 500, { over: (sequence) => (sequence % 100 === 0 ? PENDING : {}) });
  await review(on, "app/100", APPROVE);
  await review(on, "app/200", REJECT);
  await review(on, "app/200", REOPEN);
  await review(on, "app/200", APPROVE);
  await review(on, "app/7", REOPEN);
  await fill(on, 95);
}

const SOUND = { sound: true, damagedCount: 0, damaged: [], faultCount: 0, faults: [] };

describe.each(KINDS)("the archive in %s, verified as a whole", (kind) => {
  it("is sound as it was written, from empty on", async () => {
    await using on = await openArchive(kind);
    expect(await verify(on)).toMatchObject({ ...SOUND, size: 0, root: naiveRoot([]) });
    await fillAll(on);
    const account = await verify(on);
    expect(account).toMatchObject({ ...SOUND, size: 600, checked: 600, retired: 0 });
    expect(account.root).toEqual(headRoot(await createSqlArchiveReader(on.database).head()));
    expect(accountLines(account, undefined)).toEqual([
      "600 leaves checked, 0 of them dropped by retention, 0 damaged",
      expect.stringMatching(/^root [A-Za-z0-9+/]{43}=$/),
      "The archive is consistent with itself; without a checkpoint from outside, a rewritten history would not show.",
    ]);
  });

  it("is sound behind retention, and so are the checkpoints from before it", async () => {
    await using on = await openArchive(kind);
    const key = newKey();
    await fillAll(on);
    const kept = [await checkpointOf(on, key, "before.json")];
    on.clock.move(3 * DAY);
    await fill(on, 10);
    await dropOlderThan(on, DAY);
    kept.push(await checkpointOf(on, key, "after.json"));
    const account = await verify(on, kept, key.publicKey);
    // 300, 400, 500 and 7 wait for a review; 7 keeps its own reviews, and the record of the drop is new.
    expect(account).toMatchObject({ ...SOUND, size: 611, retired: 595 });
    expect(account.checkpoints.map(({ fault }) => fault)).toEqual([undefined, undefined]);
    await review(on, "app/300", APPROVE);
    on.clock.move(3 * DAY);
    await dropOlderThan(on, DAY);
    expect(await verify(on, kept, key.publicKey)).toMatchObject({ ...SOUND, retired: 607 });
  });

  const forged = statedRecord("app", 8, 0, { actor: "user:mallory" }).leaf;
  type Tampering = readonly [what: string, sql: readonly string[], wanted: object];
  const leafSeven = (fault: unknown) => ({ damaged: [{ leafIndex: 7, id: "app/8", fault }] });
  const tamperings: readonly Tampering[] = [
    ["a changed leaf", ["UPDATE audit_record SET leaf = $1 WHERE leaf_index = 7"], leafSeven(/not what was hashed/)],
    [
      "a changed leaf with its hash",
      ["UPDATE audit_record SET leaf = $1, leaf_hash = $2, accept_us = 0, occur_us = 0 WHERE leaf_index = 7"],
      { faults: [/^the hashes of the leaves 0 to 255 do not lead to the one that was kept of them$/] },
    ],
    [
      "swapped rows",
      [
        "UPDATE audit_record SET leaf_index = -1 WHERE leaf_index = 7",
        "UPDATE audit_record SET leaf_index = 7 WHERE leaf_index = 9",
        "UPDATE audit_record SET leaf_index = 9 WHERE leaf_index = -1",
      ],
      { damagedCount: 0, faults: [/^the hashes of the leaves 0 to 255 do not lead to/] },
    ],
    [
      "a deleted row",
      ["DELETE FROM audit_record WHERE leaf_index = 7"],
      { damaged: [{ leafIndex: 7, id: undefined, fault: /missing/ }] },
    ],
    [
      "a deleted row at the end",
      ["DELETE FROM audit_record WHERE leaf_index = 599"],
      { damaged: [{ leafIndex: 599, id: undefined, fault: /missing/ }], faults: [/^leaf 599 is missing$/] },
    ],
    [
      "an end that was cut off with its head",
      [
        "DELETE FROM audit_record WHERE leaf_index >= 512",
        "UPDATE audit_head SET size = 512, frontier = (SELECT hash FROM audit_node WHERE node_index = 1)",
      ],
      { faults: [/^the hashes do not lead to the root of the log's head$/] },
    ],
    [
      "a record made to look dropped",
      [
        `UPDATE audit_record SET leaf = NULL, actor_key = NULL, action_key = NULL, resource_key = NULL,
          resource_type_key = NULL, trace_key = NULL, service_key = NULL WHERE leaf_index = 7`,
      ],
      { damagedCount: 0, faults: [/^the record of leaf 7 is gone that no record of retention announces$/] },
    ],
    [
      "records made to look dropped",
      [
        `UPDATE audit_record SET leaf = NULL, review = NULL, actor_key = NULL, action_key = NULL, resource_key = NULL,
          resource_type_key = NULL, trace_key = NULL, service_key = NULL
          WHERE leaf_index IN (7, 9, 10, 11, 300)`,
      ],
      {
        damagedCount: 0,
        faults: [/^5 records are gone that no record of retention announces: leaves 7, 9-11, 300$/],
      },
    ],
    [
      "a changed status",
      ["UPDATE audit_record SET status = 3 WHERE leaf_index = 7"],
      leafSeven(/status is APPROVED, but/),
    ],
    [
      "a changed status of a reviewed record",
      ["UPDATE audit_record SET status = 4 WHERE leaf_index = 199"],
      {
        damaged: [
          { leafIndex: 199, id: "app/200", fault: /^its status is REJECTED, but @review\/4 made it APPROVED$/ },
        ],
      },
    ],
    [
      "a review taken back",
      ["UPDATE audit_record SET status = 2, review = NULL WHERE leaf_index = 99"],
      {
        damaged: [{ leafIndex: 99, id: "app/100", fault: /^it does not show the review @review\/1, nor a later one$/ }],
      },
    ],
    [
      "a review of another record",
      [
        "UPDATE audit_record SET status = 3, review = (SELECT review FROM audit_record WHERE leaf_index = 99) WHERE leaf_index = 7",
      ],
      leafSeven(/^the review it shows is not what @review\/1 says$/),
    ],
    [
      "an older review put back",
      [
        "UPDATE audit_record SET status = 3, review = (SELECT review FROM audit_record WHERE leaf_index = 99) WHERE leaf_index = 199",
      ],
      { damaged: [{ leafIndex: 199, id: "app/200", fault: /^the review it shows is not what @review\/1 says$/ }] },
    ],
    [
      "a review that is garbled",
      ["UPDATE audit_record SET status = 3, review = $1 WHERE leaf_index = 7"],
      leafSeven(/^the review it shows cannot be read$/),
    ],
    [
      "a review whose record is gone",
      [
        `UPDATE audit_record SET leaf = NULL, actor_key = NULL, action_key = NULL, resource_key = NULL,
          resource_type_key = NULL WHERE producer = '@review' AND sequence = 1`,
      ],
      {
        damaged: [{ leafIndex: 99, id: "app/100", fault: /^it shows the review @review\/1, which is not there$/ }],
        faults: [/^the record of leaf 500 is gone/],
      },
    ],
    [
      "another producer",
      ["UPDATE audit_record SET producer = 'ape' WHERE leaf_index = 7"],
      {
        damaged: [{ leafIndex: 7, id: "ape/8", fault: /^it is filed as ape\/8, and the record says app\/8$/ }],
      },
    ],
    [
      "another sequence",
      ["UPDATE audit_record SET sequence = 9999 WHERE leaf_index = 7"],
      {
        damaged: [{ leafIndex: 7, id: "app/9999", fault: /the record says app\/8$/ }],
      },
    ],
    ["another time", ["UPDATE audit_record SET occur_us = 7 WHERE leaf_index = 7"], leafSeven(/occur_time/)],
    [
      "another time of acceptance",
      ["UPDATE audit_record SET accept_us = 7 WHERE leaf_index = 7"],
      leafSeven(/accept_time/),
    ],
    ["another outcome", ["UPDATE audit_record SET outcome = 3 WHERE leaf_index = 7"], leafSeven(/outcome/)],
    [
      "an actor that is not found",
      ["UPDATE audit_record SET actor_key = 5 WHERE leaf_index = 7"],
      leafSeven(/by its actor$/),
    ],
    [
      "a trace that is not found",
      ["UPDATE audit_record SET trace_key = NULL WHERE leaf_index = 7"],
      leafSeven(/trace id$/),
    ],
    [
      "a changed node",
      ["UPDATE audit_node SET hash = $2 WHERE node_index = 1"],
      { faults: [/^the hashes of the leaves 256 to 511 do not lead/, /^the hashes do not lead to the root/] },
    ],
    [
      "a missing node",
      ["DELETE FROM audit_node WHERE node_index = 1"],
      { faults: [/^the hash that was kept of the leaves 256 to 511 is missing$/, /is missing$/] },
    ],
    [
      "a node too many",
      ["INSERT INTO audit_node (level, node_index, hash) VALUES (8, 2, $2)"],
      { faults: [/^hashes are kept at level 8 where a tree of 600 leaves has none$/] },
    ],
    [
      "a changed head",
      ["UPDATE audit_head SET frontier = $3"],
      { faults: [/^the hashes do not lead to the root of the log's head$/] },
    ],
    ["a head that is gone", ["DELETE FROM audit_head"], { root: undefined, faults: [/^the log has lost its head$/] }],
    [
      "a head that is no head",
      ["UPDATE audit_head SET frontier = $2"],
      { faults: [/^the head of 600 leaves has 32 bytes of hashes/] },
    ],
    [
      "a row behind the end",
      [
        `INSERT INTO audit_record (leaf_index, producer, sequence, leaf_hash, accept_us, occur_us, outcome, status)
          VALUES (600, 'x', 1, $2, 1, 1, 0, 1)`,
      ],
      { faults: [/^there is a record at 600, but the head of the log counts 600 leaves$/] },
    ],
    [
      "a row before the first",
      ["UPDATE audit_record SET leaf_index = -1 WHERE leaf_index = 7"],
      { faults: [/^there is a record at -1, before the first leaf$/], damagedCount: 1 },
    ],
  ];

  it.each(tamperings)("shows %s", async (_, statements, wanted) => {
    await using on = await openArchive(kind);
    await fillAll(on);
    const values = [forged, hashOfLeaf(forged), Buffer.alloc(4 * 32, 7)];
    for (const sql of statements) {
      const numbers = [...new Set([...sql.matchAll(/\$(\d)/g)].map((match) => Number(match[1])))];
      const params = numbers.map((number) => values[number - 1] ?? null);
      const text = sql.replaceAll(/\$(\d)/g, (_whole, digit) => `$${numbers.indexOf(Number(digit)) + 1}`);
      await on.database.write(text, params);
    }
    const account = await verify(on);
    expect(account).toMatchObject({ sound: false, ...matching(wanted) });
    expect(accountLines(account, undefined).at(-1)).toBe("The archive is NOT what it was.");
  });

  it("shows a record that was taken away or put back behind the back of retention, beside what it dropped", async () => {
    await using on = await openArchive(kind);
    await fill(on, 20);
    on.clock.move(3 * DAY);
    await fill(on, 20);
    const keys = ["actor", "action", "resource", "resource_type", "trace", "service"].map((name) => `${name}_key`);
    const columns = ["leaf", "outcome", ...keys];
    const [row] = await on.database.query(`SELECT ${columns.join(", ")} FROM audit_record WHERE leaf_index = 3`);
    await dropOlderThan(on, DAY);
    expect(await verify(on)).toMatchObject({ ...SOUND, retired: 20 });
    await on.database.write("UPDATE audit_record SET leaf = NULL WHERE leaf_index = 30");
    await on.database.write(
      `UPDATE audit_record SET ${columns.map((name, at) => `${name} = $${at + 1}`).join(", ")} WHERE leaf_index = 3`,
      columns.map((name) => row?.[name] ?? null),
    );
    expect(await verify(on)).toMatchObject({
      sound: false,
      damaged: [{ leafIndex: 3, id: "app/4", fault: "retention says it dropped it, and it is there" }],
      faults: ["the record of leaf 30 is gone that no record of retention announces"],
    });
  });

  it("lets no checkpoint hold while the records below it are damaged, and every one that ends before them", async () => {
    await using on = await openArchive(kind);
    const key = newKey();
    await fill(on, 100);
    const below = await checkpointOf(on, key, "below.json");
    await fill(on, 500);
    const above = await checkpointOf(on, key, "above.json");
    expect((await verify(on, [below], key.publicKey)).sound).toBe(true);
    await on.database.write("UPDATE audit_record SET leaf = NULL WHERE leaf_index = 150");
    const gone = await verify(on, [below, above], key.publicKey);
    const damaged = "its root is kept here, but the archive below it is damaged";
    expect(gone.checkpoints.map(({ fault }) => fault)).toEqual([undefined, damaged]);
    await on.database.write("UPDATE audit_record SET status = 3 WHERE leaf_index = 99");
    const account = await verify(on, [below, above], key.publicKey);
    expect(account.checkpoints.map(({ fault }) => fault)).toEqual([damaged, damaged]);
    expect(accountLines(account, key.publicKey).filter((line) => /: holds$/.test(line))).toEqual([]);
  });

  it("does not take a database that goes away for a damaged one", async () => {
    await using on = await openArchive(kind);
    await fill(on, 300);
    const reader = createSqlArchiveReader(on.database);
    const away = () => Promise.reject(new UnavailableError("SQL_UNAVAILABLE", "it is gone"));
    const leaves = (first: number, count: number) => (first < 256 ? reader.leaves(first, count) : away());
    const nothing = { checkpoints: [], publicKey: undefined };
    await expect(verifyArchive({ ...reader, leaves }, nothing)).rejects.toThrow("it is gone");
    await on.database.write("UPDATE audit_record SET status = 3 WHERE leaf_index = 7");
    expect(await verifyArchive({ ...reader, leaves }, nothing)).toMatchObject({ sound: false, damagedCount: 1 });
  });

  it("concludes no more than the checkpoints cover", async () => {
    await using on = await openArchive(kind);
    const key = newKey();
    await fill(on, 300);
    const checkpoint = await checkpointOf(on, key, "kept.json");
    const conclusion = async () => accountLines(await verify(on, [checkpoint], key.publicKey), key.publicKey).at(-1);
    expect(await conclusion()).toBe("The archive is what it was.");
    await fill(on, 20);
    expect(await conclusion()).toBe(
      "The first 300 leaves are what they were; the 20 after them are consistent with themselves, and no checkpoint covers them.",
    );
  });

  it("shows by a checkpoint what no hash in the database could: a log that was written anew", async () => {
    await using on = await openArchive(kind);
    const key = newKey();
    await fill(on, 300);
    const older = await checkpointOf(on, key, "older.json");
    await using anew = await openArchive(kind);
    await fill(anew, 310, { over: (sequence) => (sequence === 8 ? { actor: "user:mallory" } : {}) });
    const account = await verify(anew, [older], key.publicKey);
    expect(account).toMatchObject({ ...SOUND, sound: false });
    expect(accountLines(account, key.publicKey).at(-1)).toBe(
      "The archive is consistent with itself, but it is NOT what was signed.",
    );
    expect(account.checkpoints[0]?.fault).toBe(
      "the first 300 leaves are not those that were signed: they have another root",
    );
    await using shorter = await openArchive(kind);
    await fill(shorter, 299);
    const { checkpoints } = await verify(shorter, [older], key.publicKey);
    expect(checkpoints[0]?.fault).toBe("it covers 300 leaves, and the archive has only 299");
  });

  it("takes no checkpoint of another key than the one that is trusted, and says so when none was named", async () => {
    await using on = await openArchive(kind);
    await fill(on, 10);
    const [key, mallory] = [newKey(), newKey()];
    const given = [await checkpointOf(on, key, "ours.json"), await checkpointOf(on, mallory, "theirs.json")];
    const trusting = await verify(on, given);
    expect(trusting.checkpoints.map(({ fault }) => fault)).toEqual([undefined, undefined]);
    expect(accountLines(trusting, undefined).filter((line) => line.includes("pass --public-key"))).toHaveLength(2);
    const account = await verify(on, given, key.publicKey);
    expect(account.sound).toBe(false);
    const theirs = Buffer.from(mallory.publicKey).toString("base64");
    expect(account.checkpoints.map(({ fault }) => fault)).toEqual([
      undefined,
      `signed by another key, ${theirs}; the archive itself begins with what it signs`,
    ]);
    expect(accountLines(account, key.publicKey).at(-1)).toBe(
      "The archive is consistent with itself, but not every checkpoint is signed by the key given.",
    );
    const [stranger] = given.slice(1);
    if (stranger === undefined) throw new Error("no checkpoint");
    const forged = { name: "forged.json", checkpoint: { ...stranger.checkpoint, signature: new Uint8Array(64) } };
    const forgery = await verify(on, [forged], key.publicKey);
    expect(forgery.checkpoints[0]?.fault).toBe("its signature is not one of the public key");
    expect(accountLines(forgery, key.publicKey).at(-1)).toMatch(/NOT what was signed/);
    expect(accountJson(account)).toMatchObject({
      sound: false,
      consistent: true,
      leaves: 10,
      damaged: [],
      checkpoints: [
        { file: "ours.json", tree_size: 10, holds: true, fault: null },
        { file: "theirs.json", holds: false, signed_by_other_key: true },
      ],
    });
  });

  it("may be verified while records, reviews and drops go on", async () => {
    await using on = await openArchive(kind);
    await fill(on, 3_000, { over: (sequence) => (sequence % 3 === 0 ? PENDING : {}) });
    on.clock.move(DAY);
    let busy = true;
    const store = createSqlRetention({ database: on.database });
    const settings = { maxAgeMs: DAY / 2, maxRecords: undefined };
    const { archive, clock } = on;
    const work = (async () => {
      const retention = startRetention({ archive, store, settings, clock, log: createLog({ level: "silent" }) });
      retentions.push(retention);
      for (let at = 3; busy && at < 3_000; at += 3) {
        await review(on, `app/${at}`, at % 2 === 0 ? APPROVE : REJECT);
        await fill(on, 1);
        if (at % 30 === 0) await retention.run();
      }
    })();
    for (let round = 0; round < 4; round++) expect(await verify(on)).toMatchObject(SOUND);
    busy = false;
    await work;
    expect(await verify(on)).toMatchObject(SOUND);
  });
});

/** Where a pattern stands, a text that matches it. */
function matching(wanted: unknown): object {
  const inner = (value: unknown): unknown => {
    if (value instanceof RegExp) return expect.stringMatching(value);
    if (Array.isArray(value)) return value.map(inner);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, inner(part)]));
  };
  return Object(inner(wanted));
}

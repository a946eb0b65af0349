import { generateKeyPairSync, sign } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import type { Settled } from "../../src/audit/intake/settled.ts";
import { createProofRpcs } from "../../src/audit/proof/proof-rpcs.ts";
import type { SigningKey } from "../../src/audit/proof/signing-key.ts";
import { createSqlTree } from "../../src/audit/proof/sql-tree.ts";
import { idOf } from "../../src/audit/record/record.ts";
import {
  AuditConsistencyCheckSchema,
  AuditInclusionCheckSchema,
  AuditRangeCheckSchema,
  AuditServiceCheckpointRequestSchema,
  type AuditServiceVerifyRequest,
  AuditServiceVerifyRequestSchema,
  type AuditServiceVerifyResponse,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { EncodedReply } from "../../src/infra/call.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { hashOfLeaf, includes, isGrownFrom, isSigned } from "../support/audit-tree.ts";
import { KINDS } from "./archives.ts";
import { testCall } from "./calls.ts";
import { naiveRoot } from "./rfc6962.ts";
import { fill, openArchive, statedRecord, type TestArchive } from "./verify-archive.ts";

function testKey(): SigningKey {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  const raw = Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url");
  return { publicKey: raw, created: false, sign: (text) => sign(null, text, privateKey) };
}

type Check = AuditServiceVerifyRequest["check"];

function rpcsOf({ archive, database, clock }: TestArchive, settled: Settled = async () => ({ degraded: false })) {
  const store = createSqlTree(database);
  const rpcs = createProofRpcs({ archive, store, signingKey: testKey(), origin: "a log", settled, clock });
  const plain = <T extends object>(reply: T | EncodedReply): T => {
    if (reply instanceof EncodedReply) throw new Error("no message");
    return reply;
  };
  return {
    async checkpoint(treeSize = 0) {
      const call = testCall();
      const request = create(AuditServiceCheckpointRequestSchema, { treeSize: BigInt(treeSize) });
      const { checkpoint } = plain(await rpcs.checkpoint(request, call));
      if (checkpoint === undefined) throw new Error("no checkpoint");
      expect(call.said.servedBy).toBe(archive.kind);
      return checkpoint;
    },
    async verify(check: Check) {
      return plain(await rpcs.verify(create(AuditServiceVerifyRequestSchema, { check }), testCall()));
    },
  };
}

const treeOf = ({ checkpoint }: AuditServiceVerifyResponse) => ({
  size: Number(checkpoint?.treeSize),
  root: checkpoint?.rootHash ?? new Uint8Array(),
});

function inclusionOf({ proof }: AuditServiceVerifyResponse) {
  if (proof.case !== "inclusion") throw new Error("no proof of inclusion");
  return proof.value;
}

function consistencyOf({ proof }: AuditServiceVerifyResponse) {
  if (proof.case !== "consistency") throw new Error("no proof of consistency");
  return proof.value;
}

function rangeOf({ proof }: AuditServiceVerifyResponse) {
  if (proof.case !== "range") throw new Error("no report of a range");
  return proof.value;
}

const range = (firstLeafIndex = 0n, leafCount = 0): Check => ({
  case: "range",
  value: create(AuditRangeCheckSchema, { firstLeafIndex, leafCount }),
});
const inclusion = (id: string, treeSize = 0): Check => ({
  case: "inclusion",
  value: create(AuditInclusionCheckSchema, { id, treeSize: BigInt(treeSize) }),
});
const consistency = (oldSize: number, oldRootHash: Uint8Array = new Uint8Array(), newSize = 0): Check => ({
  case: "consistency",
  value: create(AuditConsistencyCheckSchema, {
    oldTreeSize: BigInt(oldSize),
    oldRootHash,
    newTreeSize: BigInt(newSize),
  }),
});

describe.each(KINDS)("a checkpoint of the archive in %s", (kind) => {
  it("is the signed root of the whole archive, or of as much of it as is asked for", async () => {
    await using started = await openArchive(kind);
    const { checkpoint } = rpcsOf(started);
    const none = await checkpoint();
    expect([none.treeSize, Buffer.from(none.rootHash)]).toEqual([0n, naiveRoot([])]);
    const leaves = (await fill(started, 300)).map(({ leaf }) => hashOfLeaf(leaf));
    for (const size of [0, 1, 2, 255, 256, 299, 300]) {
      const signed = await checkpoint(size);
      expect(Number(signed.treeSize)).toBe(size || 300);
      expect(Buffer.from(signed.rootHash)).toEqual(naiveRoot(leaves.slice(0, size || 300)));
      expect(isSigned(signed)).toBe(true);
      expect(signed.origin).toBe("a log");
    }
    await expect(checkpoint(301)).rejects.toMatchObject({ kind: "out_of_range", reason: "TREE_TOO_SMALL" });
  });

  it("is refused where the archive contradicts itself: nobody signs what was tampered with", async () => {
    await using started = await openArchive(kind);
    const { checkpoint } = rpcsOf(started);
    await fill(started, 300);
    await started.database.write("UPDATE audit_record SET leaf_hash = $1 WHERE leaf_index = 280", [Buffer.alloc(32)]);
    await expect(checkpoint()).rejects.toMatchObject({ kind: "precondition", reason: "ARCHIVE_DAMAGED" });
    await started.database.write("DELETE FROM audit_record WHERE leaf_index = 280");
    await expect(checkpoint()).rejects.toThrow("leaf 280 is missing");
    await started.database.write("DELETE FROM audit_head");
    await expect(checkpoint()).rejects.toThrow("lost its head");
  });
});

describe.each(KINDS)("a proof of inclusion from %s", (kind) => {
  it("convinces a client that trusts the checkpoint alone, for any record in any tree", async () => {
    await using started = await openArchive(kind);
    const { verify } = rpcsOf(started);
    const records = await fill(started, 300);
    for (const [leafIndex, treeSize] of [
      [0, 1],
      [0, 0],
      [255, 256],
      [255, 257],
      [256, 299],
      [299, 0],
      [299, 300],
    ] as const) {
      const record = records[leafIndex];
      if (record === undefined) throw new Error("no record");
      const answer = await verify(inclusion(idOf(record), treeSize));
      const proof = inclusionOf(answer);
      expect([answer.valid, answer.problem]).toEqual([true, ""]);
      expect(Buffer.from(proof.leafData)).toEqual(Buffer.from(record.leaf));
      expect(Number(proof.leafIndex)).toBe(leafIndex);
      expect(includes(hashOfLeaf(proof.leafData), leafIndex, treeOf(answer), proof.path)).toBe(true);
      expect(answer.checkpoint && isSigned(answer.checkpoint)).toBe(true);
    }
  });

  it("is not valid in a tree that is older than the record, and says so", async () => {
    await using started = await openArchive(kind);
    const { verify } = rpcsOf(started);
    await fill(started, 20);
    const answer = await verify(inclusion("app/11", 10));
    expect(answer).toMatchObject({ valid: false, checkpoint: { treeSize: 10n } });
    expect(answer.problem).toBe("the record is leaf 10, which a tree of 10 leaves does not have");
    await expect(verify(inclusion("app/11", 21))).rejects.toMatchObject({ reason: "TREE_TOO_SMALL" });
  });

  it("says of a record that is not there whether it may be on its way", async () => {
    await using started = await openArchive(kind);
    await fill(started, 3);
    await expect(rpcsOf(started).verify(inclusion("app/4"))).rejects.toMatchObject({
      kind: "not_found",
      reason: "RECORD_NOT_FOUND",
    });
    const away = rpcsOf(started, () =>
      Promise.reject(new UnavailableError("QUEUE_NOT_DRAINED", "the archiver is away")),
    );
    await expect(away.verify(inclusion("app/4"))).rejects.toMatchObject({
      kind: "precondition",
      reason: "NOT_ARCHIVED",
      retryAfterMs: expect.any(Number),
    });
    const unseen = rpcsOf(started, async () => ({ degraded: true }));
    await expect(unseen.verify(inclusion("app/4"))).rejects.toMatchObject({ reason: "NOT_ARCHIVED" });
    const arriving = rpcsOf(started, async () => {
      await fill(started, 1);
      return { degraded: true };
    });
    expect(await arriving.verify(inclusion("app/4"))).toMatchObject({ valid: true });
    await expect(arriving.verify(inclusion("no id"))).rejects.toMatchObject({ reason: "FIELD_INVALID" });
  });

  it("is not valid for a record that was changed, with or without its hash", async () => {
    await using started = await openArchive(kind);
    const { database } = started;
    const { verify } = rpcsOf(started);
    await fill(started, 300);
    const { leaf } = statedRecord("app", 8, 0, { actor: "user:mallory" });
    await database.write("UPDATE audit_record SET leaf = $1 WHERE sequence = 8", [leaf]);
    expect(await verify(inclusion("app/8"))).toMatchObject({
      valid: false,
      problem: "the record is not what was hashed",
    });
    await database.write("UPDATE audit_record SET leaf_hash = $1 WHERE sequence = 8", [hashOfLeaf(leaf)]);
    expect(await verify(inclusion("app/8"))).toMatchObject({
      valid: false,
      problem: "the path does not lead from the record to the root",
    });
    // Records beside it still have their proof as long as the path does not need what was changed: the root does not.
    expect(await verify(inclusion("app/290"))).toMatchObject({ valid: true });
  });
});

describe.each(KINDS)("a proof of consistency from %s", (kind) => {
  it("convinces a client that kept an older checkpoint", async () => {
    await using started = await openArchive(kind);
    const { verify, checkpoint } = rpcsOf(started);
    const kept = [];
    for (const count of [1, 99, 156, 200]) {
      await fill(started, count);
      kept.push(await checkpoint());
    }
    for (const [at, newer] of kept.entries()) {
      for (const older of kept.slice(0, at + 1)) {
        const answer = await verify(consistency(Number(older.treeSize), older.rootHash, Number(newer.treeSize)));
        expect([answer.valid, answer.problem]).toEqual([true, ""]);
        const oldTree = { size: Number(older.treeSize), root: older.rootHash };
        expect(isGrownFrom(oldTree, treeOf(answer), consistencyOf(answer).path)).toBe(true);
        expect(Buffer.from(treeOf(answer).root)).toEqual(Buffer.from(newer.rootHash));
      }
    }
    expect(await verify(consistency(100))).toMatchObject({ valid: true, checkpoint: { treeSize: 456n } });
  });

  it("is not valid when the past was rewritten or cut off", async () => {
    await using started = await openArchive(kind);
    const { verify, checkpoint } = rpcsOf(started);
    await fill(started, 100);
    const older = await checkpoint();
    await using rewritten = await openArchive(kind);
    await fill(rewritten, 120, { over: (sequence) => (sequence === 50 ? { actor: "user:mallory" } : {}) });
    const other = rpcsOf(rewritten);
    const answer = await other.verify(consistency(100, older.rootHash));
    expect(answer).toMatchObject({ valid: false, checkpoint: { treeSize: 120n } });
    expect(answer.problem).toBe("the first 100 leaves are not those of the older tree: its root was another");
    expect(Buffer.from(consistencyOf(answer).oldRootHash)).not.toEqual(Buffer.from(older.rootHash));
    const cut = await verify(consistency(101, older.rootHash));
    expect(cut).toMatchObject({ valid: false, problem: "the archive has 100 leaves, and the older tree had 101" });
    expect(cut.proof.case).toBeUndefined();
  });

  it("names all that is wrong with a request", async () => {
    await using started = await openArchive(kind);
    const { verify } = rpcsOf(started);
    await expect(verify(consistency(0, Buffer.alloc(31)))).rejects.toMatchObject({
      violations: [{ field: "consistency.old_tree_size" }, { field: "consistency.old_root_hash" }],
    });
    await expect(verify(consistency(9, Buffer.alloc(32), 8))).rejects.toMatchObject({
      violations: [{ field: "consistency.new_tree_size" }],
    });
    await expect(verify(consistency(1, Buffer.alloc(32), 2))).rejects.toMatchObject({ reason: "TREE_TOO_SMALL" });
    await expect(verify({ case: undefined })).rejects.toMatchObject({ violations: [{ field: "check" }] });
    await expect(verify(range(0n, 100_001))).rejects.toMatchObject({ violations: [{ field: "range.leaf_count" }] });
  });
});

describe.each(KINDS)("a check of a range in %s", (kind) => {
  it("goes through the archive a part at a time", async () => {
    await using started = await openArchive(kind);
    const { verify } = rpcsOf(started);
    await fill(started, 700);
    const seen = [];
    for (let first = 0n; ; ) {
      const answer = await verify(range(first, 300));
      expect([answer.valid, answer.problem, answer.checkpoint?.treeSize]).toEqual([true, "", 700n]);
      const report = rangeOf(answer);
      seen.push(report.checked);
      first = report.nextLeafIndex;
      if (first === 0n) break;
    }
    expect(seen).toEqual([300, 300, 100]);
    expect(rangeOf(await verify(range(700n)))).toMatchObject({ checked: 0, nextLeafIndex: 0n });
    expect(rangeOf(await verify(range(2n ** 60n)))).toMatchObject({ checked: 0, nextLeafIndex: 0n });
    expect(rangeOf(await verify(range()))).toMatchObject({ checked: 700, retired: 0, damagedLeafIndexes: [] });
  });

  it("names the leaves whose record is missing or is not what was hashed, the first 100 of them", async () => {
    await using started = await openArchive(kind);
    const { database } = started;
    const { verify } = rpcsOf(started);
    await fill(started, 700);
    const { leaf } = statedRecord("app", 8, 0, { actor: "user:mallory" });
    await database.write("UPDATE audit_record SET leaf = $1 WHERE leaf_index = 7", [leaf]);
    await database.write("DELETE FROM audit_record WHERE leaf_index = 300");
    await database.write("UPDATE audit_record SET occur_us = occur_us + 1 WHERE leaf_index = 699");
    const answer = await verify(range());
    expect(answer.valid).toBe(false);
    expect(answer.problem).toBe("leaf 7: the record is not what was hashed; and 2 more");
    expect(rangeOf(answer)).toMatchObject({ checked: 700, damagedLeafIndexes: [7n, 300n, 699n] });
    expect(await verify(range(8n, 10))).toMatchObject({ valid: true });
    const beside = await verify(range(400n, 10));
    expect(beside).toMatchObject({ valid: false, problem: "leaf 300 is missing" });
    expect(rangeOf(beside).damagedLeafIndexes).toEqual([]);
    await database.write("UPDATE audit_record SET leaf = $1", [leaf]);
    expect(rangeOf(await verify(range())).damagedLeafIndexes).toEqual(Array.from({ length: 100 }, (_, i) => BigInt(i)));
  });

  it("sees hashes that were changed along with the record, at every level up to the head", async () => {
    await using started = await openArchive(kind);
    const { database } = started;
    const { verify } = rpcsOf(started);
    await fill(started, 700);
    const { leaf } = statedRecord("app", 8, started.clock.now(), { actor: "user:0" });
    const forge = (index: number) =>
      database.write("UPDATE audit_record SET leaf = $1, leaf_hash = $2 WHERE leaf_index = $3", [
        leaf,
        hashOfLeaf(leaf),
        index,
      ]);
    await forge(7);
    const wrong = {
      valid: false,
      problem: expect.stringContaining("the hashes of the leaves 0 to 255 do not lead to"),
    };
    expect(await verify(range(100n, 5))).toMatchObject(wrong);
    expect(await verify(range(256n, 5))).toMatchObject({ valid: true });
    const hashes = (await createSqlTree(database).hashes(0, 0, 256)).map((hash) => Buffer.from(hash ?? []));
    await database.write("UPDATE audit_node SET hash = $1 WHERE level = 8 AND node_index = 0", [naiveRoot(hashes)]);
    const top = { valid: false, problem: "the hashes do not lead to the root of the log's head" };
    expect(await verify(range(100n, 5))).toMatchObject({ ...top, checkpoint: undefined });
    await database.write("DELETE FROM audit_node WHERE node_index = 0");
    expect((await verify(range(0n, 5))).problem).toContain("the hash that was kept of the leaves 0 to 255 is missing");
  });
});

import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { AuditCheckpointSchema } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createGrowingTree, hashOfLeaf, includes, isGrownFrom, isSigned } from "./audit-tree.ts";

/* The definitions of RFC 6962, section 2.1, word by word: slow, and plainly right. */

const sha256 = (...parts: Uint8Array[]) => createHash("sha256").update(Buffer.concat(parts)).digest();
const node = (left: Buffer, right: Buffer) => sha256(Buffer.of(1), left, right);

function split(n: number): number {
  let k = 1;
  while (2 * k < n) k *= 2;
  return k;
}

function rootOf(leaves: readonly Buffer[]): Buffer {
  if (leaves.length === 0) return sha256();
  if (leaves.length === 1) return leaves[0] ?? sha256();
  const k = split(leaves.length);
  return node(rootOf(leaves.slice(0, k)), rootOf(leaves.slice(k)));
}

function path(m: number, leaves: readonly Buffer[]): Buffer[] {
  if (leaves.length <= 1) return [];
  const k = split(leaves.length);
  return m < k
    ? [...path(m, leaves.slice(0, k)), rootOf(leaves.slice(k))]
    : [...path(m - k, leaves.slice(k)), rootOf(leaves.slice(0, k))];
}

function subproof(m: number, leaves: readonly Buffer[], whole: boolean): Buffer[] {
  if (m === leaves.length) return whole ? [] : [rootOf(leaves)];
  const k = split(leaves.length);
  return m <= k
    ? [...subproof(m, leaves.slice(0, k), whole), rootOf(leaves.slice(k))]
    : [...subproof(m - k, leaves.slice(k), false), rootOf(leaves.slice(0, k))];
}

const all = Array.from({ length: 20 }, (_, i) => hashOfLeaf(Buffer.from(`leaf ${i}`)));
const sizes = all.map((_, i) => i + 1);
const treeOf = (size: number) => ({ size, root: rootOf(all.slice(0, size)) });

describe("the tree as a client computes it", () => {
  it("has the root that the RFC defines, at every size", () => {
    const tree = createGrowingTree();
    expect(tree.root()).toEqual(rootOf([]));
    for (const [at, leaf] of all.entries()) {
      tree.add(leaf);
      expect(tree.root()).toEqual(rootOf(all.slice(0, at + 1)));
    }
    expect(tree.size).toBe(all.length);
  });

  it("takes every audit path of the RFC, and none for another leaf, place, size or root", () => {
    for (const size of sizes) {
      const leaves = all.slice(0, size);
      for (const [m, leaf] of leaves.entries()) {
        const proof = path(m, leaves);
        expect(includes(leaf, m, treeOf(size), proof)).toBe(true);
        expect(includes(sha256(leaf), m, treeOf(size), proof)).toBe(false);
        expect(includes(leaf, m, { size, root: sha256() }, proof)).toBe(false);
        expect(includes(leaf, m, treeOf(size), [...proof, leaf])).toBe(false);
        if (size > 1) expect(includes(leaf, (m + 1) % size, treeOf(size), proof)).toBe(false);
        if (size > 1) expect(includes(leaf, m, treeOf(size), proof.slice(1))).toBe(false);
      }
    }
  });

  it("takes every consistency proof of the RFC, and none for another older or newer tree", () => {
    for (const size of sizes) {
      for (const m of sizes.slice(0, size)) {
        const proof = subproof(m, all.slice(0, size), true);
        expect(isGrownFrom(treeOf(m), treeOf(size), proof)).toBe(true);
        expect(isGrownFrom({ size: m, root: sha256() }, treeOf(size), proof)).toBe(false);
        expect(isGrownFrom(treeOf(m), { size, root: sha256() }, proof)).toBe(false);
        if (m < size) expect(isGrownFrom(treeOf(m), treeOf(size), [])).toBe(false);
      }
    }
  });

  it("takes a checkpoint that its key signed, and none that says something else than was signed", () => {
    const { privateKey, publicKey } = generateKeyPairSync("ed25519");
    const rootHash = treeOf(5).root;
    const text = `a log\n5\n${rootHash.toString("base64")}\n2026-07-12T10:00:00.123Z\n`;
    const checkpoint = create(AuditCheckpointSchema, {
      origin: "a log",
      treeSize: 5n,
      rootHash,
      signTime: { seconds: BigInt(Date.UTC(2026, 6, 12, 10) / 1000), nanos: 123_000_000 },
      signedText: Buffer.from(text),
      signature: sign(null, Buffer.from(text), privateKey),
      publicKey: Buffer.from(publicKey.export({ format: "jwk" }).x ?? "", "base64url"),
    });
    expect(isSigned(checkpoint)).toBe(true);
    expect(isSigned({ ...checkpoint, treeSize: 6n })).toBe(false);
    expect(isSigned({ ...checkpoint, rootHash: sha256() })).toBe(false);
    expect(isSigned({ ...checkpoint, origin: "another log" })).toBe(false);
    expect(isSigned({ ...checkpoint, signature: Buffer.alloc(64) })).toBe(false);
  });
});

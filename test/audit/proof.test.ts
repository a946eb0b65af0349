import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { leafHash } from "../../src/audit/archive/merkle.ts";
import { verifyConsistency, verifyInclusion } from "../../src/audit/proof/proof.ts";
import { naiveConsistency, naiveLeafHash, naivePath, naiveRoot, reference } from "./rfc6962.ts";

const hashes = (hex: readonly string[]) => hex.map((one) => Buffer.from(one, "hex"));
const referenceRoot = (size: number) => Buffer.from(reference.roots[size - 1] ?? "", "hex");
const referenceLeaf = (index: number) => leafHash(reference.leaves[index] ?? Buffer.of(1));
const leavesOf = (size: number) => Array.from({ length: size }, (_, i) => naiveLeafHash(Buffer.from(`leaf ${i}`)));
const other = naiveLeafHash(Buffer.from("another"));

/** Every way in which a proof's path can be wrong by one step. */
function wrongPaths(path: readonly Buffer[]): Buffer[][] {
  return [
    ...path.map((_, at) => path.with(at, other)),
    [...path, other],
    [...path, ...path.slice(-1), Buffer.alloc(0)],
    [other, ...path],
    ...(path.length > 0 ? [path.slice(1), path.slice(0, -1)] : []),
  ];
}

describe("a proof of inclusion", () => {
  it.each(reference.paths)("is accepted as published for leaf $leaf of $size, and not otherwise", (vector) => {
    const { leaf: leafIndex, size: treeSize } = vector;
    const path = hashes(vector.path);
    const proof = { leafIndex, treeSize, leafHash: referenceLeaf(leafIndex), path, root: referenceRoot(treeSize) };
    expect(verifyInclusion(proof)).toBe(true);
    for (const wrong of wrongPaths(path)) expect(verifyInclusion({ ...proof, path: wrong })).toBe(false);
    expect(verifyInclusion({ ...proof, leafHash: other })).toBe(false);
    expect(verifyInclusion({ ...proof, root: other })).toBe(false);
    expect(verifyInclusion({ ...proof, leafIndex: treeSize })).toBe(false);
    expect(verifyInclusion({ ...proof, leafIndex: -1 })).toBe(false);
    expect(verifyInclusion({ ...proof, treeSize: treeSize * 2 })).toBe(false);
    expect(verifyInclusion({ ...proof, treeSize: 0 })).toBe(false);
  });

  it("made by the RFC's definition is accepted for every leaf of every tree, and for no other leaf of it", () => {
    const all = leavesOf(40);
    for (let treeSize = 1; treeSize <= all.length; treeSize++) {
      const leaves = all.slice(0, treeSize);
      const root = naiveRoot(leaves);
      for (const [leafIndex, leaf] of leaves.entries()) {
        const path = naivePath(leafIndex, leaves);
        expect(verifyInclusion({ leafIndex, treeSize, leafHash: leaf, path, root })).toBe(true);
        if (treeSize === 1) continue;
        expect(verifyInclusion({ leafIndex: (leafIndex + 1) % treeSize, treeSize, leafHash: leaf, path, root })).toBe(
          false,
        );
      }
    }
  });

  it("holds in trees that are larger than 32 bits count", () => {
    // One real path of 40 steps, up from leaf 0: the sizes are what is large, not the tree that was hashed.
    const treeSize = 2 ** 40;
    const path = leavesOf(40);
    const leaf = other;
    const root = path.reduce((hash, sibling) => naiveRoot([hash, sibling]), leaf);
    expect(verifyInclusion({ leafIndex: 0, treeSize, leafHash: leaf, path, root })).toBe(true);
    expect(verifyInclusion({ leafIndex: 2 ** 33, treeSize, leafHash: leaf, path, root })).toBe(false);
    const last = path.reduce((hash, sibling) => naiveRoot([sibling, hash]), leaf);
    expect(verifyInclusion({ leafIndex: treeSize - 1, treeSize, leafHash: leaf, path, root: last })).toBe(true);
  });
});

describe("a proof of consistency", () => {
  it.each(reference.consistency)("is accepted as published from $oldSize to $newSize, and not otherwise", (vector) => {
    const { oldSize, newSize } = vector;
    const path = hashes(vector.path);
    const proof = { oldSize, newSize, oldRoot: referenceRoot(oldSize), newRoot: referenceRoot(newSize), path };
    expect(verifyConsistency(proof)).toBe(true);
    for (const wrong of wrongPaths(path)) expect(verifyConsistency({ ...proof, path: wrong })).toBe(false);
    expect(verifyConsistency({ ...proof, oldRoot: other })).toBe(false);
    expect(verifyConsistency({ ...proof, newRoot: other })).toBe(false);
    expect(verifyConsistency({ ...proof, oldSize: 0 })).toBe(false);
    expect(verifyConsistency({ ...proof, oldSize: newSize + 1 })).toBe(false);
  });

  it("made by the RFC's definition is accepted for every pair of sizes, and never for another old tree", () => {
    const all = leavesOf(40);
    for (let newSize = 1; newSize <= all.length; newSize++) {
      const newRoot = naiveRoot(all.slice(0, newSize));
      for (let oldSize = 1; oldSize <= newSize; oldSize++) {
        const oldRoot = naiveRoot(all.slice(0, oldSize));
        const path = naiveConsistency(oldSize, all.slice(0, newSize));
        expect(verifyConsistency({ oldSize, newSize, oldRoot, newRoot, path })).toBe(true);
        const rewritten = naiveRoot(all.slice(0, oldSize).with(0, other));
        expect(verifyConsistency({ oldSize, newSize, oldRoot: rewritten, newRoot, path })).toBe(false);
      }
    }
  });

  it("cannot be made up: random paths are refused", () => {
    const someHash = fc.uint8Array({ minLength: 32, maxLength: 32 });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 64 }),
        fc.nat(64),
        fc.array(someHash, { maxLength: 8 }),
        (oldSize, more, path) => {
          const leaves = leavesOf(oldSize + more + 1);
          const proof = {
            oldSize,
            newSize: leaves.length,
            oldRoot: naiveRoot(leaves.slice(0, oldSize).with(0, other)),
            newRoot: naiveRoot(leaves),
            path,
          };
          expect(verifyConsistency(proof)).toBe(false);
        },
      ),
      { numRuns: 200 },
    );
  });
});

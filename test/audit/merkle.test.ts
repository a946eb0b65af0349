import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EMPTY_ROOT, Frontier, leafHash, type TreeNode } from "../../src/audit/archive/merkle.ts";
import { naiveLeafHash, naiveRoot, reference } from "./rfc6962.ts";

function grown(leaves: readonly Buffer[]): { frontier: Frontier; kept: TreeNode[] } {
  const frontier = new Frontier(0, new Uint8Array());
  const kept: TreeNode[] = [];
  for (const leaf of leaves) frontier.add(leaf, kept);
  return { frontier, kept };
}

describe("the growing tree", () => {
  it("has the published roots of the reference tree, at each of its sizes", () => {
    expect(EMPTY_ROOT.toString("hex")).toBe(reference.emptyRoot);
    const { frontier } = grown([]);
    expect(frontier.root().toString("hex")).toBe(reference.emptyRoot);
    const roots = reference.leaves.map((leaf) => {
      frontier.add(leafHash(leaf), []);
      return frontier.root().toString("hex");
    });
    expect(roots).toEqual(reference.roots);
  });

  it("hashes leaves of any length as the RFC says", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20_000 }), (leaf) => {
        expect(leafHash(leaf)).toEqual(naiveLeafHash(leaf));
      }),
      { numRuns: 200 },
    );
  });

  it("has the root of the RFC's definition at any size, also when it is taken up again from what was kept", () => {
    fc.assert(
      fc.property(fc.nat(700), fc.nat(700), fc.nat(2 ** 30), (size, stop, salt) => {
        const leaves = Array.from({ length: size }, (_, i) => naiveLeafHash(Buffer.from(`${salt} ${i}`)));
        const paused = grown(leaves.slice(0, stop)).frontier;
        const resumed = new Frontier(paused.size, paused.bytes());
        for (const leaf of leaves.slice(stop)) resumed.add(leaf, []);
        expect(resumed.size).toBe(size);
        expect(resumed.root()).toEqual(naiveRoot(leaves));
      }),
      { numRuns: 60 },
    );
  });

  it("gives away each perfect subtree of 256 and of 65,536 leaves when it is complete, once", () => {
    const leaves = Array.from({ length: 65_536 + 300 }, (_, i) => naiveLeafHash(Buffer.from(String(i))));
    const { kept } = grown(leaves);
    expect(kept.map(({ level, index }) => `${level}/${index}`).toSorted()).toEqual(
      [...Array.from({ length: 257 }, (_, index) => `8/${index}`), "16/0"].toSorted(),
    );
    for (const { level, index, hash } of [kept[0], kept[100], kept.at(-1), kept[256]].filter(
      (it) => it !== undefined,
    )) {
      expect(hash).toEqual(naiveRoot(leaves.slice(index * 2 ** level, (index + 1) * 2 ** level)));
    }
  });

  it("refuses to go on from a frontier that is not one of its size", () => {
    expect(() => new Frontier(3, Buffer.alloc(32))).toThrow("a tree of 3 leaves has 2 subtrees, but 1 are kept");
    expect(() => new Frontier(0, Buffer.alloc(32))).toThrow();
  });
});

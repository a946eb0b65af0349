import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Frontier, type TreeNode } from "../../src/audit/archive/merkle.ts";
import { verifyConsistency, verifyInclusion } from "../../src/audit/proof/proof.ts";
import { createSqlTree } from "../../src/audit/proof/sql-tree.ts";
import { createTree, DamagedTreeError, headRoot, type TreeHashes } from "../../src/audit/proof/tree.ts";
import { KINDS } from "./archives.ts";
import { naiveConsistency, naiveLeafHash, naivePath, naiveRoot } from "./rfc6962.ts";
import { fill, openArchive } from "./verify-archive.ts";

/** The hashes of a tree in memory, counting what is read of them. */
function treeOf(leaves: readonly Buffer[]) {
  const frontier = new Frontier(0, new Uint8Array());
  const kept: TreeNode[] = [];
  for (const leaf of leaves) frontier.add(leaf, kept);
  const nodes = new Map(kept.map(({ level, index, hash }) => [`${level}/${index}`, hash]));
  const read = { queries: 0, hashes: 0 };
  const hashes: Pick<TreeHashes, "hashes"> = {
    async hashes(level, first, count) {
      read.queries++;
      read.hashes += count;
      return Array.from({ length: count }, (_, i) =>
        level === 0 ? leaves[first + i] : nodes.get(`${level}/${first + i}`),
      );
    },
  };
  return { tree: createTree(hashes), read };
}

const leavesOf = (size: number) => Array.from({ length: size }, (_, i) => naiveLeafHash(Buffer.from(`leaf ${i}`)));

describe("the tree above the kept hashes", () => {
  const all = leavesOf(1_500);
  const { tree } = treeOf(all);
  const size = fc.integer({ min: 1, max: all.length });

  it("has the root of the RFC's definition at any size it ever had", async () => {
    expect(await tree.rootAt(0)).toEqual(naiveRoot([]));
    await fc.assert(
      fc.asyncProperty(size, async (at) => {
        expect(await tree.rootAt(at)).toEqual(naiveRoot(all.slice(0, at)));
      }),
    );
  });

  it("proves any leaf in any tree that has it, as the RFC defines", async () => {
    await fc.assert(
      fc.asyncProperty(size, fc.nat(), async (treeSize, at) => {
        const leaf = at % treeSize;
        expect(await tree.inclusionPath(leaf, treeSize)).toEqual(naivePath(leaf, all.slice(0, treeSize)));
      }),
    );
  });

  it("proves that any tree grew out of any smaller one, as the RFC defines", async () => {
    await fc.assert(
      fc.asyncProperty(size, fc.nat(), async (newSize, at) => {
        const oldSize = 1 + (at % newSize);
        expect(await tree.consistencyPath(oldSize, newSize)).toEqual(naiveConsistency(oldSize, all.slice(0, newSize)));
      }),
    );
  });

  it("reads a bounded part of a large tree: two blocks of each kept level for a proof, however large it is", async () => {
    const large = leavesOf(200_000);
    const { tree: largeTree, read } = treeOf(large);
    const newSize = large.length - 1;
    const newRoot = await largeTree.rootAt(newSize);
    const frontier = new Frontier(0, new Uint8Array());
    for (const leaf of large.slice(0, newSize)) frontier.add(leaf, []);
    expect(newRoot).toEqual(frontier.root());
    for (const leafIndex of [0, 1, 255, 256, 65_535, 65_536, 131_071, 199_679, 199_998]) {
      Object.assign(read, { queries: 0, hashes: 0 });
      const path = await largeTree.inclusionPath(leafIndex, newSize);
      expect(read.queries).toBeLessThanOrEqual(6);
      expect(read.hashes).toBeLessThanOrEqual(4 * 256 + 3);
      const leafHash = large[leafIndex] ?? Buffer.alloc(0);
      expect(verifyInclusion({ leafIndex, treeSize: newSize, leafHash, path, root: newRoot })).toBe(true);
    }
    for (const oldSize of [1, 255, 256, 65_536, 100_000, 131_072, 199_998]) {
      Object.assign(read, { queries: 0, hashes: 0 });
      const path = await largeTree.consistencyPath(oldSize, newSize);
      expect(read.queries).toBeLessThanOrEqual(6);
      const oldRoot = await largeTree.rootAt(oldSize);
      expect(verifyConsistency({ oldSize, newSize, oldRoot, newRoot, path })).toBe(true);
    }
  });
});

describe.each(KINDS)("the tree in %s", (kind) => {
  it("leads to the root of the head, and proves records and growth across restarts of the appender", async () => {
    await using started = await openArchive(kind);
    const store = createSqlTree(started.database);
    const tree = createTree(store);
    const roots: Uint8Array[] = [];
    for (const count of [1, 255, 300, 44]) {
      await fill(started, count);
      const head = await store.head();
      expect(await tree.rootAt(head.size)).toEqual(headRoot(head));
      roots.push(headRoot(head));
    }
    const sizes = [1, 256, 556, 600];
    const leafHashes = (await store.hashes(0, 0, 600)).map((hash) => Buffer.from(hash ?? []));
    for (const [i, newSize] of sizes.entries()) {
      const newRoot = roots[i] ?? Buffer.alloc(0);
      expect(newRoot).toEqual(naiveRoot(leafHashes.slice(0, newSize)));
      for (const [j, oldSize] of sizes.slice(0, i + 1).entries()) {
        const path = await tree.consistencyPath(oldSize, newSize);
        const oldRoot = roots[j] ?? Buffer.alloc(0);
        expect(verifyConsistency({ oldSize, newSize, oldRoot, newRoot, path })).toBe(true);
      }
      const path = await tree.inclusionPath(0, newSize);
      const leafHash = leafHashes[0] ?? Buffer.alloc(0);
      expect(verifyInclusion({ leafIndex: 0, treeSize: newSize, leafHash, path, root: newRoot })).toBe(true);
    }
  });

  it("says what is missing where hashes were taken away", async () => {
    await using started = await openArchive(kind);
    await fill(started, 600);
    const { database } = started;
    const tree = createTree(createSqlTree(database));
    await database.write("DELETE FROM audit_record WHERE leaf_index = 520");
    await expect(tree.rootAt(600)).rejects.toThrow(/leaf 520 is missing.*holdfast verify/);
    await expect(tree.rootAt(512)).resolves.toBeDefined();
    await database.write("DELETE FROM audit_node WHERE level = 8 AND node_index = 1");
    await expect(tree.rootAt(512)).rejects.toThrow(DamagedTreeError);
    await expect(tree.rootAt(512)).rejects.toThrow(/the hash that was kept of the leaves 256 to 511 is missing/);
  });
});

import { setImmediate as nextTurn } from "node:timers/promises";
import { KEPT_LEVELS } from "../archive/merkle.ts";
import {
  BLOCK,
  createTree,
  DamagedTreeError,
  describeNode,
  fold,
  headRoot,
  missingNode,
  sameHash,
  type TreeHashes,
  type TreeHead,
} from "./tree.ts";
import { type LeafRow, type LeafStore, leafFault } from "./tree-leaf.ts";

/** Who is told of what a check finds. */
export interface Findings {
  /** Each leaf that is there, as it is read; with what is wrong with it. */
  leaf(row: LeafRow, fault: string | undefined): void;
  missingLeaf(leafIndex: number): void;
  /** Hashes that do not agree. */
  tree(fault: string): void;
  /** All leaves before this one have been read. Awaited, so that a reader can do more, or stop by throwing. */
  reached(leafIndex: number): Promise<void> | void;
}

export interface RangeToCheck {
  readonly head: TreeHead;
  readonly first: number;
  readonly end: number;
}

/** So many rows at once, each up to 256 KiB. */
const ROWS = 128;

/**
 * Checks leaves from bottom to top: each record against its hash, the hashes of each block against the kept node above it, those
 * against the nodes above them, and what is at the top against the head. Damage in one block is not blamed on the others.
 */
export async function checkRange(
  store: TreeHashes & LeafStore,
  range: RangeToCheck,
  findings: Findings,
): Promise<void> {
  const { head, first, end } = range;
  const blocks = { first: Math.floor(first / BLOCK), end: Math.ceil(end / BLOCK) };
  for (let block = blocks.first; block < blocks.end; block++) {
    await checkLeaves(store, Math.max(first, block * BLOCK), Math.min(end, (block + 1) * BLOCK), findings);
    await checkBlock(store, range, { level: 0, block }, findings);
    // SQLite answers at once, and others want to be served meanwhile.
    await nextTurn();
    await findings.reached(Math.min(end, (block + 1) * BLOCK));
  }
  for (let level = KEPT_LEVELS; nodesAt(head, level) >= BLOCK; level += KEPT_LEVELS) {
    const width = 2 ** (level + KEPT_LEVELS);
    for (let block = Math.floor(first / width); block < Math.ceil(end / width); block++) {
      await checkBlock(store, range, { level, block }, findings);
      await nextTurn();
    }
  }
  await checkTop(store, head, findings);
}

async function checkLeaves(store: LeafStore, first: number, end: number, findings: Findings): Promise<void> {
  for (let at = first; at < end; ) {
    const upTo = Math.min(at + ROWS, end);
    for (const row of await store.leaves(at, upTo - at)) {
      for (; at < row.leafIndex; at++) findings.missingLeaf(at);
      findings.leaf(row, leafFault(row));
      at++;
    }
    for (; at < upTo; at++) findings.missingLeaf(at);
  }
}

interface Block {
  /** Of its nodes. */
  readonly level: number;
  readonly block: number;
}

/** The nodes of a block against the node above it that is kept, if they are complete. */
async function checkBlock(
  store: TreeHashes,
  { head, first, end }: RangeToCheck,
  { level, block }: Block,
  findings: Findings,
): Promise<void> {
  if ((block + 1) * BLOCK > nodesAt(head, level)) return;
  const parentLevel = level + KEPT_LEVELS;
  const nodes = await store.hashes(level, block * BLOCK, BLOCK);
  const [parent] = await store.hashes(parentLevel, block, 1);
  const present = nodes.filter((node) => node !== undefined);
  if (parent === undefined) {
    findings.tree(missingNode(parentLevel, block));
  } else if (present.length === BLOCK && !sameHash(fold(present), parent)) {
    findings.tree(`the hashes of ${describeNode(parentLevel, block)} do not lead to the one that was kept of them`);
  }
  const width = 2 ** level;
  for (const [at, node] of nodes.entries()) {
    const index = block * BLOCK + at;
    const isInRange = (index + 1) * width > first && index * width < end;
    // What is missing in the range itself was told of where it was looked at.
    if (node === undefined && !isInRange) findings.tree(missingNode(level, index));
  }
}

async function checkTop(store: TreeHashes, head: TreeHead, findings: Findings): Promise<void> {
  try {
    const root = await createTree(store).rootAt(head.size);
    if (!sameHash(root, headRoot(head))) findings.tree("the hashes do not lead to the root of the log's head");
  } catch (error) {
    if (!(error instanceof DamagedTreeError)) throw error;
    findings.tree(error.what);
  }
}

function nodesAt({ size }: TreeHead, level: number): number {
  return Math.floor(size / 2 ** level);
}

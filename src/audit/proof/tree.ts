import { Failure } from "../../infra/failure.ts";
import { EMPTY_ROOT, Frontier, KEPT_LEVELS, nodeHash } from "../archive/merkle.ts";

/** So many nodes of a level make one of the next level that is kept. */
export const BLOCK = 2 ** KEPT_LEVELS;

/** What was counted and hashed when the last record was appended. */
export interface TreeHead {
  readonly size: number;
  /** See Frontier. */
  readonly frontier: Uint8Array;
}

/** Where the hashes of the tree are kept. */
export interface TreeHashes {
  head(): Promise<TreeHead>;
  /**
   * `count` nodes of a level from `first` on: leaf hashes at level 0, roots of perfect subtrees at levels 8, 16, ... Undefined
   * where none is kept.
   */
  hashes(level: number, first: number, count: number): Promise<readonly (Uint8Array | undefined)[]>;
}

/** Roots and proofs (RFC 6962, section 2.1) at any size the log ever had. Rejects with DamagedTreeError when hashes are missing. */
export interface Tree {
  rootAt(size: number): Promise<Uint8Array>;
  /** From the leaf to the root. The leaf must be in the tree of this size. */
  inclusionPath(leaf: number, size: number): Promise<Uint8Array[]>;
  /** From a tree of more than 0 leaves to one that is not smaller. */
  consistencyPath(oldSize: number, newSize: number): Promise<Uint8Array[]>;
}

/** Hashes that the archive must have are missing, or contradict each other. */
export class DamagedTreeError extends Failure {
  readonly what: string;

  constructor(what: string) {
    super(
      "precondition",
      "ARCHIVE_DAMAGED",
      `the audit archive is damaged: ${what}; \`holdfast verify\` tells all of it`,
    );
    this.what = what;
  }
}

/** Leaves from `begin` up to `end`, which is not among them. */
interface Span {
  readonly begin: number;
  readonly end: number;
}

export function createTree(hashes: Pick<TreeHashes, "hashes">): Tree {
  const rootsOf = (spans: readonly Span[], size: number): Promise<Uint8Array[]> => {
    const reader = createReader(hashes, size);
    return inOrder(spans, (span) => spanRoot(reader, span));
  };
  return {
    async rootAt(size) {
      if (size === 0) return EMPTY_ROOT;
      return await spanRoot(createReader(hashes, size), { begin: 0, end: size });
    },
    inclusionPath: (leaf, size) => rootsOf(inclusionSpans(leaf, { begin: 0, end: size }), size),
    consistencyPath: (oldSize, newSize) =>
      rootsOf(consistencySpans(oldSize, { begin: 0, end: newSize }, true), newSize),
  };
}

/** The root that the head itself implies. */
export function headRoot({ size, frontier }: TreeHead): Uint8Array {
  try {
    return new Frontier(size, frontier).root();
  } catch {
    throw new DamagedTreeError(`the head of ${size} leaves has ${frontier.length} bytes of hashes`);
  }
}

export function sameHash(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}

/** The root of a perfect subtree, from as many nodes of one level as there are: a power of two. */
export function fold(nodes: readonly Uint8Array[]): Uint8Array {
  let level = nodes;
  while (level.length > 1) {
    const next: Uint8Array[] = [];
    for (let at = 0; at < level.length; at += 2) next.push(nodeHash(nodeAt(level, at), nodeAt(level, at + 1)));
    level = next;
  }
  return nodeAt(level, 0);
}

function nodeAt(nodes: readonly Uint8Array[], at: number): Uint8Array {
  const node = nodes[at];
  if (node === undefined) throw new RangeError(`${nodes.length} nodes make no perfect subtree`);
  return node;
}

type Reader = (level: number, index: number) => Promise<Uint8Array>;

/**
 * Reads nodes of the tree of this size. Those that are not kept are made of the block of kept ones that they are in; what is asked
 * for together shares blocks, so that a proof takes two of them a level: one at the leaf, one at the right edge.
 */
function createReader(hashes: Pick<TreeHashes, "hashes">, size: number): Reader {
  const blocks = new Map<string, readonly (Uint8Array | undefined)[]>();

  async function block(level: number, number: number): Promise<readonly (Uint8Array | undefined)[]> {
    const key = `${level}/${number}`;
    const known = blocks.get(key);
    if (known !== undefined) return known;
    const first = number * BLOCK;
    const count = Math.min(BLOCK, Math.floor(size / 2 ** level) - first);
    const read = await hashes.hashes(level, first, count);
    blocks.set(key, read);
    return read;
  }

  return async (level, index) => {
    const kept = level - (level % KEPT_LEVELS);
    const width = 2 ** (level - kept);
    const first = index * width;
    const within = first % BLOCK;
    const nodes = (await block(kept, (first - within) / BLOCK)).slice(within, within + width);
    return fold(
      nodes.map((node, at) => {
        if (node === undefined) throw new DamagedTreeError(missingNode(kept, first + at));
        return node;
      }),
    );
  };
}

/** That a hash is missing, in words. */
export function missingNode(level: number, index: number): string {
  return level === 0
    ? `leaf ${index} is missing`
    : `the hash that was kept of ${describeNode(level, index)} is missing`;
}

/** Such as "the leaves 256 to 511". */
export function describeNode(level: number, index: number): string {
  const width = 2 ** level;
  return `the leaves ${index * width} to ${(index + 1) * width - 1}`;
}

/** A span that begins where a subtree does consists of perfect subtrees, the largest first. */
async function spanRoot(reader: Reader, { begin, end }: Span): Promise<Uint8Array> {
  const parts: { level: number; index: number }[] = [];
  for (let at = begin; at < end; ) {
    const [level, width] = largestPower(end - at);
    parts.push({ level, index: at / width });
    at += width;
  }
  const roots = await inOrder(parts, ({ level, index }) => reader(level, index));
  return roots.reduceRight((right, left) => nodeHash(left, right));
}

/** One after the other: the first one reads what the others find read. */
async function inOrder<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const done: R[] = [];
  for (const item of items) done.push(await work(item));
  return done;
}

/** PATH of RFC 6962, section 2.1.1. */
function inclusionSpans(leaf: number, tree: Span): Span[] {
  if (tree.end - tree.begin <= 1) return [];
  const [left, right] = split(tree);
  if (leaf < right.begin) return [...inclusionSpans(leaf, left), right];
  return [...inclusionSpans(leaf, right), left];
}

/** SUBPROOF of RFC 6962, section 2.1.2. `known`: the verifier has the root of the tree that ends with the old size. */
function consistencySpans(oldSize: number, tree: Span, known: boolean): Span[] {
  if (oldSize === tree.end) return known ? [] : [tree];
  const [left, right] = split(tree);
  if (oldSize <= right.begin) return [...consistencySpans(oldSize, left, known), right];
  return [...consistencySpans(oldSize, right, false), left];
}

/** The left part has the largest power of two that is less than the whole. */
function split({ begin, end }: Span): readonly [left: Span, right: Span] {
  const [, width] = largestPower(end - begin - 1);
  return [
    { begin, end: begin + width },
    { begin: begin + width, end },
  ];
}

function largestPower(atMost: number): readonly [exponent: number, power: number] {
  let [exponent, power] = [0, 1];
  for (; power * 2 <= atMost; power *= 2) exponent++;
  return [exponent, power];
}

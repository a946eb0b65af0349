import { hash } from "node:crypto";

/** RFC 6962, section 2.1, with SHA-256: leaves are hashed after a zero byte, inner nodes after a one. */
export const HASH_BYTES = 32;
/** The root of a tree without leaves. */
export const EMPTY_ROOT: Buffer = hash("sha256", new Uint8Array(), "buffer");
/** Every so many levels the roots of perfect subtrees are kept: 256 leaves, 65,536 leaves, ... */
export const KEPT_LEVELS = 8;

const inner = Buffer.alloc(1 + 2 * HASH_BYTES);
inner[0] = 1;
let scratch = Buffer.alloc(4096);

export function leafHash(leaf: Uint8Array): Buffer {
  const length = leaf.length + 1;
  if (scratch.length < length) scratch = Buffer.alloc(2 * length);
  scratch[0] = 0;
  scratch.set(leaf, 1);
  return hash("sha256", scratch.subarray(0, length), "buffer");
}

export function nodeHash(left: Uint8Array, right: Uint8Array): Buffer {
  inner.set(left, 1);
  inner.set(right, 1 + HASH_BYTES);
  return hash("sha256", inner, "buffer");
}

/** The root of a perfect subtree: it covers the leaves from index * 2^level. */
export interface TreeNode {
  readonly level: number;
  readonly index: number;
  readonly hash: Buffer;
}

/**
 * The right edge of a growing tree: the roots of the perfect subtrees that it consists of. All that is needed to append, and to
 * know the root.
 */
export class Frontier {
  #size: number;
  /** By level; empty where the size has a zero bit. */
  readonly #roots: (Buffer | undefined)[] = [];

  constructor(size: number, bytes: Uint8Array) {
    this.#size = size;
    const levels: number[] = [];
    for (let rest = size, level = 0; rest > 0; rest = Math.floor(rest / 2), level++)
      if (rest % 2 === 1) levels.push(level);
    if (bytes.length !== levels.length * HASH_BYTES) {
      throw new Error(
        `a tree of ${size} leaves has ${levels.length} subtrees, but ${bytes.length / HASH_BYTES} are kept`,
      );
    }
    // The largest comes first.
    for (const [at, level] of levels.reverse().entries()) {
      this.#roots[level] = Buffer.from(bytes.subarray(at * HASH_BYTES, (at + 1) * HASH_BYTES));
    }
  }

  get size(): number {
    return this.#size;
  }

  /** Adds a leaf. The nodes to keep that it completed are pushed to `kept`. */
  add(leaf: Buffer, kept: TreeNode[]): void {
    let node = leaf;
    let index = this.#size;
    let level = 0;
    for (; index % 2 === 1; level++) {
      const left = this.#roots[level];
      if (left === undefined) throw new Error("the frontier lacks a subtree");
      node = nodeHash(left, node);
      this.#roots[level] = undefined;
      index = (index - 1) / 2;
      if ((level + 1) % KEPT_LEVELS === 0) kept.push({ level: level + 1, index, hash: node });
    }
    this.#roots[level] = node;
    this.#size++;
  }

  root(): Buffer {
    let root: Buffer | undefined;
    for (const part of this.#roots) if (part !== undefined) root = root === undefined ? part : nodeHash(part, root);
    return root ?? EMPTY_ROOT;
  }

  bytes(): Buffer {
    return Buffer.concat(this.#roots.filter((root) => root !== undefined).reverse());
  }
}

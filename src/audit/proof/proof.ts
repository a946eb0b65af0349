import { HASH_BYTES, nodeHash } from "../archive/merkle.ts";

export interface InclusionProof {
  readonly leafIndex: number;
  readonly treeSize: number;
  readonly leafHash: Uint8Array;
  readonly path: readonly Uint8Array[];
  readonly root: Uint8Array;
}

export interface ConsistencyProof {
  readonly oldSize: number;
  readonly newSize: number;
  readonly oldRoot: Uint8Array;
  readonly newRoot: Uint8Array;
  readonly path: readonly Uint8Array[];
}

/** RFC 9162, section 2.1.3.2, which proves what RFC 6962, section 2.1.1 defines. */
export function verifyInclusion({ leafIndex, treeSize, leafHash, path, root }: InclusionProof): boolean {
  if (leafIndex < 0 || leafIndex >= treeSize || !areHashes([leafHash, root, ...path])) return false;
  const place = new Place(leafIndex, treeSize - 1);
  let hash = leafHash;
  for (const sibling of path) {
    if (place.atTop) return false;
    hash = place.climb() === "left" ? nodeHash(sibling, hash) : nodeHash(hash, sibling);
  }
  return place.atTop && Buffer.compare(hash, root) === 0;
}

/** RFC 9162, section 2.1.4.2. Of no tree of 0 leaves anything can be proved. */
export function verifyConsistency({ oldSize, newSize, oldRoot, newRoot, path }: ConsistencyProof): boolean {
  if (oldSize < 1 || oldSize > newSize || !areHashes([oldRoot, newRoot, ...path])) return false;
  if (oldSize === newSize) return path.length === 0 && Buffer.compare(oldRoot, newRoot) === 0;
  const place = new Place(oldSize - 1, newSize - 1);
  place.passCompleted();
  // The old tree is a perfect one, so its root is where the climb begins and is not repeated in the proof.
  const [start, ...siblings] = place.atLeftEdge ? [oldRoot, ...path] : path;
  if (start === undefined) return false;
  let [fromOld, fromNew] = [start, start];
  for (const sibling of siblings) {
    if (place.atTop) return false;
    if (place.climb() === "left") {
      fromOld = nodeHash(sibling, fromOld);
      fromNew = nodeHash(sibling, fromNew);
    } else {
      fromNew = nodeHash(fromNew, sibling);
    }
  }
  return place.atTop && Buffer.compare(fromOld, oldRoot) === 0 && Buffer.compare(fromNew, newRoot) === 0;
}

/** A node on its way up the tree, and the last node of its level. Sizes reach 2^53, so there are no bit operations on them. */
class Place {
  #node: number;
  #last: number;

  constructor(node: number, last: number) {
    this.#node = node;
    this.#last = last;
  }

  get atTop(): boolean {
    return this.#last === 0;
  }

  get atLeftEdge(): boolean {
    return this.#node === 0;
  }

  /** Goes up while the node completes its parent. */
  passCompleted(): void {
    while (this.#node % 2 === 1) this.#up();
  }

  /** Goes up to the next node that has a sibling, and says on which side the sibling is. */
  climb(): "left" | "right" {
    const isLeft = this.#node % 2 === 1 || this.#node === this.#last;
    // The last node of a level may have no sibling there: it is its own parent, as often as that is so.
    if (isLeft) while (this.#node % 2 === 0 && this.#node !== 0) this.#up();
    this.#up();
    return isLeft ? "left" : "right";
  }

  #up(): void {
    this.#node = Math.floor(this.#node / 2);
    this.#last = Math.floor(this.#last / 2);
  }
}

function areHashes(hashes: readonly Uint8Array[]): boolean {
  return hashes.every(({ length }) => length === HASH_BYTES);
}

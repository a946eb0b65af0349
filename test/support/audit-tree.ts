import { createHash, createPublicKey, verify } from "node:crypto";
import type { AuditCheckpoint } from "../../src/gen/holdfast/v1/audit_pb.js";

/*
 * RFC 6962 as a client would write it, from the RFC and not from the server's code, so that each can find the other's mistakes.
 * The checks of proofs follow RFC 9162, sections 2.1.3.2 and 2.1.4.2.
 */

const sha256 = (...parts: readonly Uint8Array[]): Buffer => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
};

export const hashOfLeaf = (data: Uint8Array): Buffer => sha256(Uint8Array.of(0), data);
const hashOfNode = (left: Uint8Array, right: Uint8Array): Buffer => sha256(Uint8Array.of(1), left, right);

/** The root of a tree that is given leaf by leaf. */
export interface GrowingTree {
  readonly size: number;
  add(leafHash: Uint8Array): void;
  root(): Buffer;
}

interface Subtree {
  readonly leaves: number;
  readonly hash: Buffer;
}

export function createGrowingTree(): GrowingTree {
  // Perfect subtrees side by side, each smaller than the one before it.
  const subtrees: Subtree[] = [];
  let size = 0;
  return {
    get size() {
      return size;
    },
    add(leafHash) {
      let added: Subtree = { leaves: 1, hash: Buffer.from(leafHash) };
      for (let last = subtrees.at(-1); last?.leaves === added.leaves; last = subtrees.at(-1)) {
        subtrees.pop();
        added = { leaves: 2 * added.leaves, hash: hashOfNode(last.hash, added.hash) };
      }
      subtrees.push(added);
      size++;
    },
    root() {
      const [last, ...others] = subtrees.map(({ hash }) => hash).reverse();
      if (last === undefined) return sha256();
      return others.reduce((right, left) => hashOfNode(left, right), last);
    },
  };
}

/** Whether an audit path leads from a leaf to the root. */
export function includes(
  leafHash: Uint8Array,
  leafIndex: number,
  tree: { readonly size: number; readonly root: Uint8Array },
  path: readonly Uint8Array[],
): boolean {
  if (leafIndex >= tree.size) return false;
  let [index, last] = [leafIndex, tree.size - 1];
  let hash: Buffer = Buffer.from(leafHash);
  for (const sibling of path) {
    if (last === 0) return false;
    if (index % 2 === 1 || index === last) {
      hash = hashOfNode(sibling, hash);
      while (index % 2 === 0 && index !== 0) [index, last] = [half(index), half(last)];
    } else {
      hash = hashOfNode(hash, sibling);
    }
    [index, last] = [half(index), half(last)];
  }
  return last === 0 && hash.equals(tree.root);
}

/** Whether the older tree is the beginning of the newer one. */
export function isGrownFrom(
  older: { readonly size: number; readonly root: Uint8Array },
  newer: { readonly size: number; readonly root: Uint8Array },
  path: readonly Uint8Array[],
): boolean {
  if (older.size > newer.size || older.size === 0) return false;
  if (older.size === newer.size) return path.length === 0 && Buffer.from(older.root).equals(newer.root);
  const isPerfect = Number.isInteger(Math.log2(older.size));
  const [first, ...rest] = isPerfect ? [older.root, ...path] : path;
  if (first === undefined) return false;
  let [index, last] = [older.size - 1, newer.size - 1];
  while (index % 2 === 1) [index, last] = [half(index), half(last)];
  let olderHash: Buffer = Buffer.from(first);
  let newerHash = olderHash;
  for (const sibling of rest) {
    if (last === 0) return false;
    if (index % 2 === 1 || index === last) {
      olderHash = hashOfNode(sibling, olderHash);
      newerHash = hashOfNode(sibling, newerHash);
      while (index % 2 === 0 && index !== 0) [index, last] = [half(index), half(last)];
    } else {
      newerHash = hashOfNode(newerHash, sibling);
    }
    [index, last] = [half(index), half(last)];
  }
  return last === 0 && olderHash.equals(older.root) && newerHash.equals(newer.root);
}

const half = (n: number) => Math.floor(n / 2);

/** Whether a checkpoint says what it signed, and its own key signed it. */
export function isSigned(checkpoint: AuditCheckpoint): boolean {
  const { origin, treeSize, rootHash, signTime, signedText, signature, publicKey } = checkpoint;
  const [first, second, third, time = "", end] = Buffer.from(signedText).toString("utf8").split("\n");
  const [seconds = 0n, nanos = 0] = [signTime?.seconds, signTime?.nanos];
  const says =
    first === origin &&
    second === String(treeSize) &&
    third === Buffer.from(rootHash).toString("base64") &&
    Date.parse(time) === Number(seconds) * 1000 + Math.floor(nanos / 1_000_000) &&
    end === "";
  const key = createPublicKey({
    key: { kty: "OKP", crv: "Ed25519", x: Buffer.from(publicKey).toString("base64url") },
    format: "jwk",
  });
  return says && verify(null, signedText, key, signature);
}

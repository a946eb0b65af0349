import type { AuditCheckpoint } from "../../gen/holdfast/v1/audit_pb.js";
import { Failure } from "../../infra/failure.ts";
import { checkpointFault } from "./checkpoint.ts";
import { createTree, DamagedTreeError, sameHash, type TreeHashes, type TreeHead } from "./tree.ts";

export interface Verdict {
  /** Undefined: the archive begins with the very leaves that were signed. */
  readonly fault: string | undefined;
  /** Whether another key than the trusted one signed it, rightly by itself: it proves nothing, and contradicts nothing. */
  readonly otherKey: boolean;
}

/** What is known of the archive. */
export interface FoundArchive {
  readonly head: TreeHead;
  /** No leaf before this one is known to be other than it was. */
  readonly intactUpTo: number;
  /** The key that is trusted. Undefined: each checkpoint's own. */
  readonly publicKey: Uint8Array | undefined;
}

export async function verdictOn(tree: TreeHashes, checkpoint: AuditCheckpoint, found: FoundArchive): Promise<Verdict> {
  const { publicKey = checkpoint.publicKey } = found;
  const wrong = checkpointFault(checkpoint, publicKey);
  if (wrong === undefined) return { fault: await contradiction(tree, checkpoint, found), otherKey: false };
  const isOther = !sameHash(publicKey, checkpoint.publicKey);
  if (!isOther || checkpointFault(checkpoint, checkpoint.publicKey) !== undefined)
    return { fault: wrong, otherKey: false };
  const differs = await contradiction(tree, checkpoint, found);
  const key = Buffer.from(checkpoint.publicKey).toString("base64");
  const itself = differs === undefined ? "the archive itself begins with what it signs" : `and ${differs}`;
  return { fault: `signed by another key, ${key}; ${itself}`, otherKey: differs === undefined };
}

/** How the archive differs from what was signed; undefined: not at all. */
async function contradiction(
  tree: TreeHashes,
  checkpoint: AuditCheckpoint,
  { head, intactUpTo }: FoundArchive,
): Promise<string | undefined> {
  const size = Number(checkpoint.treeSize);
  if (size > head.size) return `it covers ${size} leaves, and the archive has only ${head.size}`;
  try {
    const root = await createTree(tree).rootAt(size);
    if (!sameHash(root, checkpoint.rootHash)) {
      return `the first ${size} leaves are not those that were signed: they have another root`;
    }
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    return error instanceof DamagedTreeError ? error.what : error.message;
  }
  // The hashes that are kept may be those that were signed although the records below them are others.
  return intactUpTo < size ? "its root is kept here, but the archive below it is damaged" : undefined;
}

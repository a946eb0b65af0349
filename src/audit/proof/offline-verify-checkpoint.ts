import type { AuditCheckpoint } from "../../gen/holdfast/v1/audit_pb.js";
import { Failure } from "../../infra/failure.ts";
import { checkpointFault } from "./checkpoint.ts";
import { createTree, DamagedTreeError, sameHash, type TreeHashes } from "./tree.ts";

export interface Verdict {
  /** Undefined: the archive begins with the very leaves that were signed. */
  readonly fault: string | undefined;
  /** Whether another key than the trusted one signed it, rightly by itself: it proves nothing, and contradicts nothing. */
  readonly otherKey: boolean;
}

/** What is known of the archive. */
export interface FoundArchive {
  /** How many leaves there are. */
  readonly size: number;
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

/** Whether it is the data that cannot be read, rather than a database that does not answer. */
export function tellsOfDamage(error: Failure): boolean {
  return (
    error instanceof DamagedTreeError || /^(SQLITE_CORRUPT|SQLITE_NOTADB|XX00[12])/.test(error.metadata.code ?? "")
  );
}

/** How the archive differs from what was signed; undefined: not at all. */
async function contradiction(
  tree: TreeHashes,
  checkpoint: AuditCheckpoint,
  { size: archived, intactUpTo }: FoundArchive,
): Promise<string | undefined> {
  const size = Number(checkpoint.treeSize);
  if (size > archived) return `it covers ${size} leaves, and the archive has only ${archived}`;
  try {
    const root = await createTree(tree).rootAt(size);
    if (!sameHash(root, checkpoint.rootHash)) {
      return `the first ${size} leaves are not those that were signed: they have another root`;
    }
  } catch (error) {
    // Where damage was found already, that is to be told, whatever else there is.
    if (!(error instanceof Failure) || !(tellsOfDamage(error) || Number.isFinite(intactUpTo))) throw error;
    return error instanceof DamagedTreeError ? error.what : error.message;
  }
  // The hashes that are kept may be those that were signed although the records below them are others.
  return intactUpTo < size ? "its root is kept here, but the archive below it is damaged" : undefined;
}

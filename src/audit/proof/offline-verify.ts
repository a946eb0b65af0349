import type { AuditCheckpoint } from "../../gen/holdfast/v1/audit_pb.js";
import { Failure } from "../../infra/failure.ts";
import { KEPT_LEVELS } from "../archive/merkle.ts";
import { idOf } from "../record/record.ts";
import { droppedBy, RETENTION_PRODUCER } from "../retention/retention.ts";
import { checkpointFault } from "./checkpoint.ts";
import { createReviewCheck, type RowFinder } from "./offline-verify-reviews.ts";
import { createTree, DamagedTreeError, headRoot, sameHash, type TreeHashes, type TreeHead } from "./tree.ts";
import { checkRange } from "./tree-check.ts";
import type { LeafRow, LeafStore } from "./tree-leaf.ts";

/** The archive, for reading alone. */
export interface ArchiveReader extends TreeHashes, LeafStore, RowFinder {
  /** The lowest and the highest leaf that has a row; undefined when there is none. */
  bounds(): Promise<{ readonly lowest: number; readonly highest: number } | undefined>;
  /** The nodes that are kept, by level. */
  nodeLevels(): Promise<readonly { readonly level: number; readonly lowest: number; readonly highest: number }[]>;
  /** How many records retention says it dropped: in the log from this leaf on, and in what it has still to write there. */
  toldSince(leafIndex: number): Promise<{ readonly told: number; readonly untold: number }>;
}

export interface GivenCheckpoint {
  /** As people know it: the file. */
  readonly name: string;
  readonly checkpoint: AuditCheckpoint;
}

export interface VerifyOptions {
  readonly checkpoints: readonly GivenCheckpoint[];
  /** Undefined: each checkpoint's own, which only proves that whoever has that key signed it. */
  readonly publicKey: Uint8Array | undefined;
  onProgress?(checked: number, size: number): void;
}

export interface DamagedLeaf {
  readonly leafIndex: number;
  /** As the row says it; undefined when there is no row. */
  readonly id: string | undefined;
  readonly fault: string;
}

export interface CheckpointVerdict {
  readonly name: string;
  readonly checkpoint: AuditCheckpoint;
  /** Undefined: the archive begins with the very tree that was signed. */
  readonly fault: string | undefined;
}

/** What was found. Lists are cut off; the numbers are whole. */
export interface VerifyAccount {
  readonly sound: boolean;
  readonly size: number;
  readonly root: Uint8Array | undefined;
  /** How many leaves were looked at: fewer than there are when the reading broke off. */
  readonly checked: number;
  readonly retired: number;
  readonly damagedCount: number;
  readonly damaged: readonly DamagedLeaf[];
  readonly faultCount: number;
  /** What is wrong with no single leaf. */
  readonly faults: readonly string[];
  readonly checkpoints: readonly CheckpointVerdict[];
}

const LISTED = 1000;

/**
 * Walks through the whole archive and believes nothing that it can work out: records against hashes, hashes against the head and
 * the checkpoints, columns against records, reviews against statuses, what is gone against what retention says it dropped. A server
 * may be running on it.
 */
export async function verifyArchive(reader: ArchiveReader, options: VerifyOptions): Promise<VerifyAccount> {
  const damaged = new Map<number, DamagedLeaf>();
  const faults: string[] = [];
  let [damagedCount, faultCount, checked, retired, told] = [0, 0, 0, 0, 0];

  function fault(what: string): void {
    faultCount++;
    if (faults.length < LISTED) faults.push(what);
  }

  function damage(leafIndex: number, id: string | undefined, what: string): void {
    if (damaged.has(leafIndex)) return;
    damagedCount++;
    if (damaged.size < LISTED) damaged.set(leafIndex, { leafIndex, id, fault: what });
  }

  const reviews = createReviewCheck(reader, (row, what) => damage(row.leafIndex, idOf(row), what));

  function look(row: LeafRow, what: string | undefined): void {
    if (row.leaf === null) retired++;
    if (what !== undefined) damage(row.leafIndex, idOf(row), what);
    else if (row.leaf !== null && row.producer === RETENTION_PRODUCER) told += droppedBy(row.leaf);
    reviews.note(row);
  }

  async function walk(head: TreeHead): Promise<void> {
    const before = await reader.toldSince(head.size);
    await checkRange(
      reader,
      { head, first: 0, end: head.size },
      {
        leaf: look,
        missingLeaf: (leafIndex) => damage(leafIndex, undefined, "it is missing"),
        tree: fault,
        async reached(leafIndex) {
          await reviews.check();
          checked = leafIndex;
          options.onProgress?.(checked, head.size);
        },
      },
    );
    const after = await reader.toldSince(head.size);
    // A retention that is at work meanwhile may have dropped what was counted already, or not yet.
    if (retired < told + before.untold) {
      fault(`retention says it dropped ${told + before.untold} records, and only ${retired} are gone`);
    } else if (retired > told + after.told + after.untold) {
      const unexplained = retired - told - after.told - after.untold;
      fault(`${unexplained} records are gone that retention does not say it dropped`);
    }
    await checkEdges(reader, fault);
  }

  const head = await reader.head();
  try {
    await walk(head);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    const what = error instanceof DamagedTreeError ? error.what : error.message;
    fault(checked === head.size ? what : `after ${checked} leaves the archive cannot be read on: ${what}`);
  }
  const checkpoints: CheckpointVerdict[] = [];
  for (const { name, checkpoint } of options.checkpoints) {
    const wrong = await verdictOn(reader, head, checkpoint, options.publicKey);
    checkpoints.push({ name, checkpoint, fault: wrong });
  }
  return {
    sound: damagedCount === 0 && faultCount === 0 && checkpoints.every((one) => one.fault === undefined),
    ...{ size: head.size, root: rootOf(head), checked, retired, damagedCount, faultCount, faults, checkpoints },
    damaged: [...damaged.values()].toSorted((a, b) => a.leafIndex - b.leafIndex),
  };
}

/** Undefined when the head is damaged, which the walk tells of. */
function rootOf(head: TreeHead): Uint8Array | undefined {
  try {
    return headRoot(head);
  } catch (error) {
    if (!(error instanceof DamagedTreeError)) throw error;
    return undefined;
  }
}

/** Rows and nodes where the tree has none. The head is read last: the log may have grown. */
async function checkEdges(reader: ArchiveReader, fault: (what: string) => void): Promise<void> {
  const bounds = await reader.bounds();
  const levels = await reader.nodeLevels();
  const { size } = await reader.head();
  if (bounds !== undefined && bounds.lowest < 0) fault(`there is a record at ${bounds.lowest}, before the first leaf`);
  if (bounds !== undefined && bounds.highest >= size) {
    fault(`there is a record at ${bounds.highest}, but the head of the log counts ${size} leaves`);
  }
  for (const { level, lowest, highest } of levels) {
    const isKept = level > 0 && level % KEPT_LEVELS === 0 && lowest >= 0 && highest < Math.floor(size / 2 ** level);
    if (!isKept) fault(`hashes are kept at level ${level} where a tree of ${size} leaves has none`);
  }
}

async function verdictOn(
  reader: ArchiveReader,
  head: TreeHead,
  checkpoint: AuditCheckpoint,
  publicKey: Uint8Array | undefined,
): Promise<string | undefined> {
  const wrong = checkpointFault(checkpoint, publicKey ?? checkpoint.publicKey);
  if (wrong !== undefined) return wrong;
  const size = Number(checkpoint.treeSize);
  if (size > head.size) return `it covers ${size} leaves, and the archive has only ${head.size}`;
  try {
    const root = await createTree(reader).rootAt(size);
    return sameHash(root, checkpoint.rootHash)
      ? undefined
      : `the first ${size} leaves are not those that were signed: they have another root`;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    return error instanceof DamagedTreeError ? error.what : error.message;
  }
}

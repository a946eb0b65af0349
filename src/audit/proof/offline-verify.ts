import type { AuditCheckpoint } from "../../gen/holdfast/v1/audit_pb.js";
import { Failure } from "../../infra/failure.ts";
import { KEPT_LEVELS } from "../archive/merkle.ts";
import { idOf } from "../record/record.ts";
import { tellsOfDamage, type Verdict, verdictOn } from "./offline-verify-checkpoint.ts";
import { type AnnouncementStore, createRetirementCheck } from "./offline-verify-retired.ts";
import { createReviewCheck, type RowFinder } from "./offline-verify-reviews.ts";
import { DamagedTreeError, headRoot, type TreeHashes, type TreeHead } from "./tree.ts";
import { checkRange } from "./tree-check.ts";
import type { LeafRow, LeafStore } from "./tree-leaf.ts";

/** The archive, for reading alone. */
export interface ArchiveReader extends TreeHashes, LeafStore, RowFinder, AnnouncementStore {
  /** The lowest and the highest leaf that has a row; undefined when there is none. */
  bounds(): Promise<{ readonly lowest: number; readonly highest: number } | undefined>;
  /** The nodes that are kept, by level. */
  nodeLevels(): Promise<readonly { readonly level: number; readonly lowest: number; readonly highest: number }[]>;
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

export interface CheckpointVerdict extends Verdict {
  readonly name: string;
  readonly checkpoint: AuditCheckpoint;
}

/** What was found. Lists are cut off; the numbers are whole. */
export interface VerifyAccount {
  /** Nothing is damaged, and every checkpoint holds. */
  readonly sound: boolean;
  /** The archive agrees with itself, whatever the checkpoints say. */
  readonly consistent: boolean;
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
  let [damagedCount, faultCount, checked, retired] = [0, 0, 0, 0];
  /** No leaf before this one is known to be other than it was. */
  let intactUpTo = Number.POSITIVE_INFINITY;

  /** What does not say where it is may be anywhere. */
  function fault(what: string, from = 0): void {
    faultCount++;
    intactUpTo = Math.min(intactUpTo, from);
    if (faults.length < LISTED) faults.push(what);
  }

  function damage(leafIndex: number, id: string | undefined, what: string): void {
    if (damaged.has(leafIndex)) return;
    damagedCount++;
    intactUpTo = Math.min(intactUpTo, leafIndex);
    if (damaged.size < LISTED) damaged.set(leafIndex, { leafIndex, id, fault: what });
  }

  const reviews = createReviewCheck(reader, (row, what) => damage(row.leafIndex, idOf(row), what));
  const retirement = createRetirementCheck(reader);

  function look(row: LeafRow, what: string | undefined): void {
    if (row.leaf === null) retired++;
    const wrong = what ?? retirement.faultOf(row);
    if (wrong !== undefined) damage(row.leafIndex, idOf(row), wrong);
    reviews.note(row);
  }

  async function walk(head: TreeHead): Promise<void> {
    await retirement.read();
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
    const unannounced = await retirement.unannounced();
    if (unannounced !== undefined) fault(unannounced.what, unannounced.first);
    await checkEdges(reader, fault);
  }

  let head: TreeHead | undefined;
  try {
    head = await reader.head();
    await walk(head);
  } catch (error) {
    // A database that went away tells nothing about what is in it.
    if (!(error instanceof Failure) || !(tellsOfDamage(error) || damagedCount + faultCount > 0)) throw error;
    if (!(error instanceof DamagedTreeError) && head === undefined) throw error;
    const what = error instanceof DamagedTreeError ? error.what : error.message;
    if (head === undefined || checked === head.size) fault(what);
    else fault(`after ${checked} leaves the archive cannot be read on: ${what}`, checked);
  }
  const checkpoints: CheckpointVerdict[] = [];
  for (const { name, checkpoint } of options.checkpoints) {
    const found = { size: head?.size ?? 0, intactUpTo, publicKey: options.publicKey };
    checkpoints.push({ name, checkpoint, ...(await verdictOn(reader, checkpoint, found)) });
  }
  const consistent = damagedCount === 0 && faultCount === 0;
  return {
    ...{ consistent, sound: consistent && checkpoints.every((one) => one.fault === undefined) },
    ...{
      size: head?.size ?? 0,
      root: head && rootOf(head),
      checked,
      retired,
      damagedCount,
      faultCount,
      faults,
      checkpoints,
    },
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
async function checkEdges(reader: ArchiveReader, fault: (what: string, from?: number) => void): Promise<void> {
  const bounds = await reader.bounds();
  const levels = await reader.nodeLevels();
  const { size } = await reader.head();
  if (bounds !== undefined && bounds.lowest < 0) fault(`there is a record at ${bounds.lowest}, before the first leaf`);
  if (bounds !== undefined && bounds.highest >= size) {
    fault(`there is a record at ${bounds.highest}, but the head of the log counts ${size} leaves`, size);
  }
  for (const { level, lowest, highest } of levels) {
    const isKept = level > 0 && level % KEPT_LEVELS === 0 && lowest >= 0 && highest < Math.floor(size / 2 ** level);
    if (!isKept) fault(`hashes are kept at level ${level} where a tree of ${size} leaves has none`);
  }
}

import { fromBinary } from "@bufbuild/protobuf";
import { AuditReviewSchema, AuditStatus } from "../../gen/holdfast/v1/audit_pb.js";
import type { Archived } from "../archive/archive.ts";
import { leafHash } from "../archive/merkle.ts";
import type { SearchKeys } from "../record/keys.ts";
import { unseal } from "../record/leaf.ts";
import type { Sealed } from "../record/record.ts";

/** A row of the archive, whole. A key that is not stated is null. */
export interface LeafRow extends Archived {
  readonly leafHash: Uint8Array;
  readonly acceptUs: number;
  readonly outcome: number;
  readonly keys: Readonly<Record<keyof SearchKeys, number | null>>;
}

/** The rows behind the leaves of the tree. */
export interface LeafStore {
  /** `count` leaves from `first` on, in order; those that are missing are left out. */
  leaves(first: number, count: number): Promise<readonly LeafRow[]>;
}

/** What a row says that its leaf does not, in words; undefined when they agree. */
export function leafFault(row: LeafRow): string | undefined {
  const { leaf } = row;
  // Of a retired record only the hash is left, and that is checked with the tree.
  if (leaf === null) return undefined;
  if (Buffer.compare(leafHash(leaf), row.leafHash) !== 0) return "the record is not what was hashed";
  let record: Sealed;
  try {
    record = unseal(leaf);
  } catch {
    return "what was hashed is not an audit record";
  }
  return columnFault(row, record) ?? keyFault(row, record) ?? statusFault(row, record);
}

function columnFault(row: LeafRow, record: Sealed): string | undefined {
  if (row.producer !== record.producer || row.sequence !== record.sequence) {
    return `it is filed as ${row.producer}/${row.sequence}, and the record says ${record.producer}/${record.sequence}`;
  }
  if (row.acceptUs !== record.acceptUs) return "its accept_time is not that of the record";
  if (row.occurUs !== record.occurUs) return "its occur_time is not that of the record";
  if (row.outcome !== record.outcome) return "its outcome is not that of the record";
  return undefined;
}

function keyFault(row: LeafRow, record: Sealed): string | undefined {
  const keys = record.texts.keys();
  const wrong = keyNames.find((name) => row.keys[name] !== (keys[name] ?? null));
  return wrong === undefined ? undefined : `it would not be found by its ${keyTitles[wrong]}`;
}

const keyTitles: Readonly<Record<keyof SearchKeys, string>> = {
  actor: "actor",
  action: "action",
  resource: "resource",
  resourceType: "resource type",
  trace: "trace id",
  service: "service",
};
const keyNames: readonly (keyof SearchKeys)[] = ["actor", "action", "resource", "resourceType", "trace", "service"];

/** Only a review changes the status that a record was appended with. */
function statusFault(row: LeafRow, record: Sealed): string | undefined {
  const appended = record.pending ? AuditStatus.PENDING : AuditStatus.NOT_REQUIRED;
  if (row.review !== null || row.status === appended) return undefined;
  return `its status is ${AuditStatus[row.status] ?? row.status}, but it was appended as ${AuditStatus[appended]} and never reviewed`;
}

/** The last decision that a row names; "garbled" when it cannot be read. */
export function reviewOf({ review }: LeafRow) {
  if (review === null) return undefined;
  try {
    return fromBinary(AuditReviewSchema, review);
  } catch {
    return "garbled";
  }
}

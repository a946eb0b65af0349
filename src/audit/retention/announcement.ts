import { create } from "@bufbuild/protobuf";
import { type AuditEntry, AuditEntrySchema, AuditOutcome } from "../../gen/holdfast/v1/audit_pb.js";
import { open } from "../record/leaf.ts";
import { type LeafRange, parseLeaves, rangesOf, showLeaves } from "./leaf-ranges.ts";

/** The producer of the records that tell what was dropped. They are never dropped themselves. */
export const RETENTION_PRODUCER = "@retention";
const DROP_ACTION = "audit.retention.drop";

export interface DroppedRecords {
  /** In order, at least one. */
  readonly leaves: readonly number[];
  /** How many of them were too old; the others were too many. */
  readonly byAge: number;
  readonly oldestAcceptUs: number;
  readonly newestAcceptUs: number;
}

/** What the log says of records that are dropped. */
export function announcementOf({ leaves, byAge, oldestAcceptUs, newestAcceptUs }: DroppedRecords): AuditEntry {
  const reason = byAge === leaves.length ? "age" : byAge === 0 ? "count" : "age and count";
  return create(AuditEntrySchema, {
    actor: "holdfast",
    action: DROP_ACTION,
    outcome: AuditOutcome.SUCCESS,
    attributes: {
      ...{ count: leaves.length, reason, leaves: showLeaves(rangesOf(leaves)) },
      ...{ oldest_accept_time: timeOf(oldestAcceptUs), newest_accept_time: timeOf(newestAcceptUs) },
    },
  });
}

/** The leaves that a record of retention says it dropped; none when it cannot be read. */
export function announcedBy(leaf: Uint8Array): readonly LeafRange[] {
  let entry: AuditEntry;
  try {
    entry = open(leaf).entry;
  } catch {
    return [];
  }
  const leaves = entry.action === DROP_ACTION ? entry.attributes?.leaves : undefined;
  return typeof leaves === "string" ? parseLeaves(leaves) : [];
}

function timeOf(us: number): string {
  return new Date(Math.floor(us / 1000)).toISOString();
}

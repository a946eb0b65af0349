import { create, fromBinary } from "@bufbuild/protobuf";
import {
  type AuditDurability,
  type AuditRecord,
  AuditRecordSchema,
  AuditReviewSchema,
  AuditStatus,
  AuditDurability as Durability,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { Archived } from "../archive/archive.ts";
import { open, toTimestamp } from "./leaf.ts";
import { idOf, type RecordId } from "./record.ts";

/** A record of the archive as callers see it. `leaf` must not be null: it is not retired. */
export function archivedRecord(row: Archived & { readonly leaf: Uint8Array }): AuditRecord {
  const record = recordOf(row, row.leaf, Durability.ARCHIVED);
  record.status = row.status;
  record.leafIndex = BigInt(row.leafIndex);
  if (row.review !== null) record.review = fromBinary(AuditReviewSchema, row.review);
  return record;
}

/** A record that is on its way, which nobody can have reviewed yet. */
export function recordOf(id: RecordId, leaf: Uint8Array, durability: AuditDurability): AuditRecord {
  const { acceptUs, entry } = open(leaf);
  entry.occurTime ??= toTimestamp(acceptUs);
  return create(AuditRecordSchema, {
    id: idOf(id),
    producer: id.producer,
    sequence: BigInt(id.sequence),
    entry,
    acceptTime: toTimestamp(acceptUs),
    status: entry.status === AuditStatus.PENDING ? AuditStatus.PENDING : AuditStatus.NOT_REQUIRED,
    durability,
  });
}

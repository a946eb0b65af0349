import { create, equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { type AuditEntry, AuditLeafSchema, AuditStatus } from "../gen/holdfast/v1/audit_pb.js";
import type { RecordId, Sealed } from "./record.ts";

/** A record that was decoded for its content. */
export interface Opened {
  readonly acceptUs: number;
  readonly entry: AuditEntry;
}

/** Seals an entry that was checked. */
export function seal(id: RecordId, acceptUs: number, entry: AuditEntry): Sealed {
  const leaf = toBinary(
    AuditLeafSchema,
    create(AuditLeafSchema, {
      producer: id.producer,
      sequence: BigInt(id.sequence),
      acceptTime: toTimestamp(acceptUs),
      entry,
    }),
  );
  return sealedOf(id, acceptUs, entry, leaf);
}

/** Reads what a leaf says. Throws when the bytes are none. */
export function unseal(leaf: Uint8Array): Sealed {
  const { producer, sequence, acceptTime, entry } = fromBinary(AuditLeafSchema, leaf);
  if (producer === "" || sequence < 1n || acceptTime === undefined || entry === undefined) {
    throw new Error("these bytes are not an audit record");
  }
  return sealedOf({ producer, sequence: Number(sequence) }, microsecondsOf(acceptTime), entry, leaf);
}

/** Decodes a leaf for whoever reads the record. */
export function open(leaf: Uint8Array): Opened {
  const { acceptTime, entry } = fromBinary(AuditLeafSchema, leaf);
  if (acceptTime === undefined || entry === undefined) throw new Error("these bytes are not an audit record");
  return { acceptUs: microsecondsOf(acceptTime), entry };
}

/** Whether two leaves of one identity say the same, whenever they were accepted and in whatever order maps were written. */
export function sameContent(one: Uint8Array, other: Uint8Array): boolean {
  const [a, b] = [fromBinary(AuditLeafSchema, one), fromBinary(AuditLeafSchema, other)];
  return equals(AuditLeafSchema, { ...a, acceptTime: undefined }, { ...b, acceptTime: undefined });
}

/** Microseconds since 1970; what is finer is cut off. */
export function microsecondsOf({ seconds, nanos }: Timestamp): number {
  return Number(seconds) * 1_000_000 + Math.floor(nanos / 1000);
}

export function toTimestamp(us: number): Timestamp {
  const seconds = Math.floor(us / 1_000_000);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: (us - seconds * 1_000_000) * 1000 });
}

function sealedOf({ producer, sequence }: RecordId, acceptUs: number, entry: AuditEntry, leaf: Uint8Array): Sealed {
  return {
    producer,
    sequence,
    acceptUs,
    occurUs: entry.occurTime === undefined ? acceptUs : microsecondsOf(entry.occurTime),
    actor: entry.actor,
    action: entry.action,
    resourceType: entry.resource?.type ?? "",
    resourceId: entry.resource?.id ?? "",
    traceId: entry.context?.traceId ?? "",
    service: entry.service,
    outcome: entry.outcome,
    pending: entry.status === AuditStatus.PENDING,
    leaf,
  };
}

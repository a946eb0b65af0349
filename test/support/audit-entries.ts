import { create } from "@bufbuild/protobuf";
import { type AuditEntry, AuditEntrySchema, AuditOutcome, AuditStatus } from "../../src/gen/holdfast/v1/audit_pb.js";

/**
 * What a record of a load says follows from its identity, so that whoever finds it in the archive can tell whether it is what was
 * sent. About 300 bytes, of every kind of field.
 */
export function entryOf(producer: string, sequence: number): AuditEntry {
  const outcomes = [AuditOutcome.SUCCESS, AuditOutcome.FAILURE, AuditOutcome.DENIED, AuditOutcome.UNSPECIFIED];
  return create(AuditEntrySchema, {
    // Now and then the server is to fill it in.
    ...(sequence % 7 !== 0 && { occurTime: { seconds: 1_750_000_000n + BigInt(sequence), nanos: sequence % 1000 } }),
    actor: `user:${sequence % 97}`,
    action: `invoice.${sequence % 3 === 0 ? "update" : "create"}`,
    resource: { type: "invoice", id: `${producer}-${sequence % 1009}` },
    outcome: outcomes[sequence % outcomes.length] ?? AuditOutcome.UNSPECIFIED,
    service: "billing",
    context: { ipAddress: "192.0.2.7", traceId: `trace-${producer}-${sequence}`, userAgent: "a load/1.0" },
    status: sequence % 50 === 0 ? AuditStatus.PENDING : AuditStatus.UNSPECIFIED,
    attributes: { number: sequence, order: `order ${sequence * 31}`, filler: "x".repeat(80 + (sequence % 40)) },
    ...(sequence % 11 === 0 && { before: { amount: sequence }, after: { amount: sequence + 1, seen: true } }),
  });
}

/** The content of the record of a caller that leaves the naming to the server; found again by its resource. */
export function requestEntryOf(requestId: string, at: number): AuditEntry {
  return create(AuditEntrySchema, {
    actor: `caller:${requestId}`,
    action: "job.run",
    resource: { type: REQUEST_RESOURCE, id: `${requestId}#${at}` },
    attributes: { requestId, at, filler: "y".repeat(40) },
  });
}

/** The type of the resource by which the checker knows such a record. */
export const REQUEST_RESOURCE = "request";

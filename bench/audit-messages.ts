import { create, toBinary } from "@bufbuild/protobuf";
import {
  AuditDurability,
  AuditEntrySchema,
  AuditServiceAppendRequestSchema,
  AuditServiceAppendResponseSchema,
  AuditServiceListRequestSchema,
} from "../src/gen/holdfast/v1/audit_pb.js";
import { appendBytes, entryAt, FIRST_SEQUENCE, lengthDelimited, patchSequence } from "./audit-records.ts";
import type { LoadOptions } from "./h2-load.ts";

/** The messages of unary calls to the audit log, the same for the baseline and for Holdfast. */
const BODIES = 1_000;

/** One record a call. Each connection is one producer, under a name of this process, as a service with many callers would be. */
export function appendLoad(): Pick<LoadOptions, "bodies" | "patch"> {
  const producer = `bench-${Date.now().toString(36)}-0`;
  const named = toBinary(AuditServiceAppendRequestSchema, create(AuditServiceAppendRequestSchema, { producer }));
  const bodies = Array.from({ length: BODIES }, (_, number) =>
    Buffer.concat([named, lengthDelimited(2, appendBytes(toBinary(AuditEntrySchema, entryAt(number))))]),
  );
  const marker = appendBytes(new Uint8Array()).subarray(0, -2);
  const sequenceAt = (bodies[0]?.indexOf(marker) ?? 0) + 1;
  return {
    bodies,
    patch(bytes, at, connection, call) {
      bytes[at + named.length - 1] = "0".charCodeAt(0) + connection;
      patchSequence(bytes, at + sequenceAt, FIRST_SEQUENCE + call);
    },
  };
}

export const appendReply = () =>
  create(AuditServiceAppendResponseSchema, {
    acks: [{ id: `bench-abcdefgh-0/${FIRST_SEQUENCE}`, durability: AuditDurability.ARCHIVED }],
  });

export function listLoad(actors: readonly string[]): Pick<LoadOptions, "bodies"> {
  return {
    bodies: actors.map((actor) =>
      toBinary(AuditServiceListRequestSchema, create(AuditServiceListRequestSchema, { filter: { actors: [actor] } })),
    ),
  };
}

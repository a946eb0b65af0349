import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import {
  AuditAppendSchema,
  AuditEntrySchema,
  type AuditService,
  AuditServiceAppendRequestSchema,
} from "../gen/holdfast/v1/audit_pb.js";
import type { Rpcs } from "../infra/call.ts";
import type { ForceReleaseOptions } from "../lock/rpc/force-release-rpc.ts";

type Append = NonNullable<Rpcs<typeof AuditService>["append"]>;

/** The audit log takes ids of resources up to this long, and names of actors. */
const MOST_ID_BYTES = 512;
const MOST_ACTOR_BYTES = 256;

/** Keeps, in the audit log, that a lock is about to be taken from its holder. */
export function recordForced(append: Append): ForceReleaseOptions["record"] {
  return async ({ name, token, reason, requestId, holder }, call) => {
    const grant = holder?.grant;
    const entry = create(AuditEntrySchema, {
      actor: shortened(call.caller.name, MOST_ACTOR_BYTES),
      action: "lock.force_release",
      resource: { type: "lock", id: shortened(name, MOST_ID_BYTES) },
      service: "holdfast",
      attributes: {
        ...{ lock: name, reason, fencing_token: token },
        ...(grant && {
          holder: {
            ...{ fencing_token: grant.token, owner: grant.owner, purpose: grant.purpose, caller: grant.caller },
            ...{ instance_id: grant.instanceId, acquire_time: new Date(grant.acquireMs).toISOString() },
          },
        }),
      },
    });
    const request = create(AuditServiceAppendRequestSchema, {
      records: [create(AuditAppendSchema, { entry })],
      // The audit log has names of attempts of its own, for all that a caller appends.
      requestId: requestId === "" ? "" : `lock.force_release ${digestOf(`${name}\0${requestId}`)}`,
    });
    await append(request, call);
  };
}

/** What is too long ends in a digest of all of it. */
function shortened(text: string, mostBytes: number): string {
  if (Buffer.byteLength(text) <= mostBytes) return text;
  const digest = digestOf(text);
  const start = Buffer.from(text).subarray(0, mostBytes - digest.length - 4);
  // A character that was cut in two becomes one of three bytes.
  return `${start.toString().replace(/\uFFFD$/, "")}~${digest}`;
}

function digestOf(text: string): string {
  return createHash("sha256").update(text).digest("base64url");
}

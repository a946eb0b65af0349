import { create } from "@bufbuild/protobuf";
import {
  type AuditService,
  type AuditServiceAppendRequest,
  AuditServiceAppendResponseSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { CallContext, Rpcs } from "../../infra/call.ts";
import { Failure, type FieldViolation, InvalidFieldsError } from "../../infra/failure.ts";
import { Fields } from "../../infra/fields.ts";
import { checkBatchBytes, checkProducer, draft, draftEntry, isRefused } from "../record/draft.ts";
import { LIMITS } from "../record/entry.ts";
import { idOf, type Sealed } from "../record/record.ts";
import { checkMinimum, type IngestOptions, ingest } from "./ingest.ts";
import { type Kept, refusalOf } from "./intake.ts";
import type { ServerIdentity } from "./server-identity.ts";

export interface AppendOptions extends IngestOptions {
  readonly identity: ServerIdentity;
}

/** Append and Ingest: what comes in. */
export function createAppendRpcs(
  options: AppendOptions,
): Required<Pick<Rpcs<typeof AuditService>, "append" | "ingest">> {
  const { intake, room, identity, nowUs } = options;

  function draftsOf(request: AuditServiceAppendRequest, call: CallContext) {
    const { producer, records, requestId } = request;
    const acceptUs = nowUs();
    if (producer !== "") return records.map((record) => draft(producer, record, acceptUs));
    const count = records.length;
    const ids = requestId === "" ? identity.take(count) : identity.ofRequest(call.caller.name, requestId, count);
    return records.map((record, at) => {
      const id = ids[at];
      if (id === undefined) throw new Error("too few identities were given");
      return draftEntry(id, record, acceptUs);
    });
  }

  /** The records of a request, or the failure of the call when one of them is bad. */
  function sealedOf(request: AuditServiceAppendRequest, call: CallContext): Sealed[] {
    checkRequest(request);
    const sealed: Sealed[] = [];
    const violations: FieldViolation[] = [];
    let bytes = 0;
    for (const [at, made] of draftsOf(request, call).entries()) {
      if (!isRefused(made)) {
        sealed.push(made);
        bytes += made.leaf.length;
        continue;
      }
      const { refused } = made;
      if (!(refused instanceof InvalidFieldsError)) {
        throw new Failure(refused.kind, refused.reason, `records[${at}]: ${refused.message}`);
      }
      for (const { field, description } of refused.violations) {
        violations.push({ field: `records[${at}].${field}`, description });
      }
    }
    if (violations.length > 0) throw new InvalidFieldsError(violations);
    checkBatchBytes(sealed, bytes);
    return sealed;
  }

  return {
    async append(request, call) {
      const records = sealedOf(request, call);
      let bytes = 0;
      for (const { leaf } of records) bytes += leaf.length;
      const giveBack = await room.take(bytes, call.signal);
      let kept: Kept;
      try {
        kept = await intake.keep(records, request.minDurability);
      } finally {
        giveBack();
      }
      call.servedBy(kept.servedBy);
      if (kept.degraded) call.degraded();
      const acks = records.map((record, at) => {
        const exception = kept.exceptions?.get(at);
        if (exception !== undefined && exception.outcome !== "duplicate") throw refusalOf(record, exception.outcome);
        return { id: idOf(record), durability: (exception ?? kept).durability, duplicate: exception !== undefined };
      });
      return create(AuditServiceAppendResponseSchema, { acks });
    },
    ingest: (requests, call) => ingest(requests, call, options),
  };
}

function checkRequest({ producer, records, minDurability, requestId }: AuditServiceAppendRequest): void {
  const fields = new Fields();
  fields.count("records", records.length, LIMITS.batch);
  if (producer !== "") {
    checkProducer(fields, producer);
    const seen = new Set<bigint>();
    for (const [at, { sequence }] of records.entries()) {
      if (seen.has(sequence)) fields.refuse(`records[${at}].sequence`, `${sequence} comes twice in this batch`);
      seen.add(sequence);
    }
  } else {
    for (const [at, { sequence }] of records.entries()) {
      if (sequence !== 0n) fields.refuse(`records[${at}].sequence`, "has no meaning without a producer");
    }
  }
  checkMinimum(fields, "min_durability", minDurability);
  fields.requestId(requestId);
  fields.done();
}

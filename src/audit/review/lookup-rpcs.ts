import { create } from "@bufbuild/protobuf";
import {
  AuditLookup,
  AuditSequenceRangeSchema,
  type AuditService,
  AuditServiceGetResponseSchema,
  AuditServiceReconcileResponseSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { Rpcs } from "../../infra/call.ts";
import { invalidField } from "../../infra/failure.ts";
import { Fields } from "../../infra/fields.ts";
import { readToken, writeToken } from "../../infra/token.ts";
import type { SequenceRange } from "../archive/archive.ts";
import { refuseName } from "../record/name.ts";
import { isProducer, recordIdOf } from "../record/record-id.ts";
import { lookUp, type Tiers } from "./lookup.ts";
import { type HeldSequences, reconcile } from "./reconcile.ts";

export interface LookupRpcsOptions extends Tiers {
  readonly sequences: HeldSequences;
}

const LOOKUPS = {
  found: AuditLookup.FOUND,
  not_found: AuditLookup.NOT_FOUND,
  retired: AuditLookup.RETIRED,
} as const;

/** The RPCs that look into every tier: for one record, and for what is held of a producer. */
export function createLookupRpcs(
  options: LookupRpcsOptions,
): Required<Pick<Rpcs<typeof AuditService>, "get" | "reconcile">> {
  const { archive, queue, journal, sequences } = options;
  return {
    async get(request, call) {
      const fields = new Fields();
      const id = recordIdOf(fields, "id", request.id);
      fields.done();
      const found = await lookUp(options, id);
      call.servedBy(found.servedBy);
      if (found.outcome !== "found") return create(AuditServiceGetResponseSchema, { lookup: LOOKUPS[found.outcome] });
      if (found.degraded) call.degraded();
      return create(AuditServiceGetResponseSchema, { lookup: AuditLookup.FOUND, record: found.record });
    },

    async reconcile(request, call) {
      const fields = new Fields();
      const { producer } = request;
      if (!isProducer(producer)) refuseName(fields, "producer");
      const first = sequenceOf(fields, "first_sequence", request.firstSequence) ?? 1;
      const last = sequenceOf(fields, "last_sequence", request.lastSequence);
      if (last !== undefined && last < first) fields.refuse("last_sequence", "must not be less than first_sequence");
      const most = fields.pageSize(request.pageSize);
      fields.done();
      const question = `Reconcile ${producer} ${first} ${last}`;
      const page = request.pageToken === "" ? { first, last } : rangeOf(question, request.pageToken);
      const { ranges, next, lastHeld } = await reconcile({ queue, journal, sequences }, producer, page, most);
      call.servedBy(archive.kind);
      return create(AuditServiceReconcileResponseSchema, {
        ranges: ranges.map((range) =>
          create(AuditSequenceRangeSchema, {
            firstSequence: BigInt(range.first),
            lastSequence: BigInt(range.last),
            state: range.state,
          }),
        ),
        lastSequence: BigInt(lastHeld),
        nextPageToken: next === undefined ? "" : writeToken(question, [next.first, next.last]),
      });
    },
  };
}

/** What a page that is not the first is about. */
function rangeOf(question: string, token: string): SequenceRange {
  const [first, last] = readToken(question, token, 2) ?? [];
  if (first !== undefined && last !== undefined && first >= 1 && last >= first) return { first, last };
  throw invalidField("page_token", "is not a token that Reconcile returned for this producer and these sequences");
}

/** Undefined when it is 0, or refused. */
function sequenceOf(fields: Fields, field: string, value: bigint): number | undefined {
  if (value === 0n) return undefined;
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  fields.refuse(field, `must not be more than ${Number.MAX_SAFE_INTEGER}`);
  return undefined;
}

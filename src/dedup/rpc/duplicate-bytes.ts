import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { DedupOutcome, DedupServiceClaimResponseSchema } from "../../gen/holdfast/v1/dedup_pb.js";
import type { Claim } from "../record/claim.ts";

const { number: RESULT } = DedupServiceClaimResponseSchema.field.result;

/** The reply of a Claim that comes second. The result is put in as it is kept: it need not be read and written again. */
export function duplicateBytes(claim: Claim, value: Uint8Array | undefined): Uint8Array {
  const { attempt, completeMs, expireMs, owner } = claim;
  const reply = create(DedupServiceClaimResponseSchema, {
    ...{ outcome: DedupOutcome.DUPLICATE, attempt, owner },
    ...(completeMs !== undefined && { completeTime: timestampFromMs(completeMs) }),
    expireTime: timestampFromMs(expireMs),
  });
  const bytes = toBinary(DedupServiceClaimResponseSchema, reply);
  if (value === undefined) return bytes;
  return new BinaryWriter().raw(bytes).tag(RESULT, WireType.LengthDelimited).bytes(value).finish();
}

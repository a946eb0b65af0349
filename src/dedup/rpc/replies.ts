import { create, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { ValueSchema } from "../../gen/holdfast/v1/cache_pb.js";
import {
  type DedupClaim,
  DedupClaimSchema,
  type DedupServiceCompleteResponse,
  DedupServiceCompleteResponseSchema,
  DedupState,
} from "../../gen/holdfast/v1/dedup_pb.js";
import { EncodedReply } from "../../infra/call.ts";
import type { Answer } from "../dedup.ts";
import { type Claim, type ClaimId, stateOf } from "../record/claim.ts";
import type { Completed, Found } from "../truth/truth.ts";
import { claimBytes } from "./claim-bytes.ts";

export function claimReply(answer: Answer): EncodedReply {
  if (answer.kind === "copy" || answer.kind === "duplicate") return new EncodedReply(answer.reply);
  return new EncodedReply(claimBytes(answer.claim, answer.kind === "first", answer.nowMs));
}

export function completeReply(done: Completed): DedupServiceCompleteResponse {
  if (done.completed) {
    const expireTime = timestampFromMs(done.claim.expireMs);
    return create(DedupServiceCompleteResponseSchema, { completed: true, expireTime });
  }
  const { current } = done;
  return create(DedupServiceCompleteResponseSchema, current && { current: foundMessage(current) });
}

export function foundMessage({ claim, value, nowMs }: Found): DedupClaim {
  const message = claimMessage(claim, nowMs);
  if (value !== undefined) message.result = fromBinary(ValueSchema, value);
  return message;
}

const STATES = {
  in_progress: DedupState.IN_PROGRESS,
  abandoned: DedupState.ABANDONED,
  completed: DedupState.COMPLETED,
} as const;

/** Without its result. */
export function claimMessage(claim: Claim, nowMs: number): DedupClaim {
  const { id, token, owner, attempt, claimMs, leaseEndMs, completeMs, expireMs, resultBytes, status } = claim;
  return create(DedupClaimSchema, {
    id: { kind: kindOf(id) },
    state: STATES[stateOf(claim, nowMs) ?? "completed"],
    ...{ claimToken: BigInt(token), owner, attempt },
    claimTime: timestampFromMs(claimMs),
    ...(status === "in_progress" && { leaseExpireTime: timestampFromMs(leaseEndMs) }),
    ...(completeMs !== undefined && { completeTime: timestampFromMs(completeMs) }),
    expireTime: timestampFromMs(expireMs),
    resultBytes: resultBytes ?? 0,
  });
}

type Kind = NonNullable<NonNullable<MessageInitShape<typeof DedupClaimSchema>["id"]>["kind"]>;

function kindOf({ kind, text }: ClaimId): Kind {
  if (kind === "key") return { case: "key", value: text };
  return { case: "checksum", value: new Uint8Array(Buffer.from(text, "hex")) };
}

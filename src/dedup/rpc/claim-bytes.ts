import { DedupOutcome } from "../../gen/holdfast/v1/dedup_pb.js";
import { BackwardsWriter } from "../../infra/backwards-writer.ts";
import type { Claim } from "../record/claim.ts";

/**
 * Replies of Claim written straight into protobuf binary: making the messages and having them encoded costs more than deciding. A test
 * holds them to what the generated code reads.
 */
const OUTCOME = 0x08;
const CLAIM_TOKEN = 0x10;
const LEASE_EXPIRE_TIME = 0x1a;
const LEASE_REMAINING = 0x22;
const ATTEMPT = 0x28;
const RESULT = 0x32;
const COMPLETE_TIME = 0x3a;
const EXPIRE_TIME = 0x42;
const OWNER = 0x4a;

/** More than all but the owner and the result can take, with tags and lengths. */
const FIXED_BYTES = 128;

/** The reply of a Claim that comes second. The result is put in as it is kept: it need not be read and written again. */
export function duplicateBytes(claim: Claim, value: Uint8Array | undefined): Uint8Array {
  const { owner, completeMs } = claim;
  const writer = new BackwardsWriter(FIXED_BYTES + 3 * owner.length + (value?.length ?? 0));
  writer.scalarText(OWNER, owner);
  writer.time(EXPIRE_TIME, claim.expireMs);
  if (completeMs !== undefined) writer.time(COMPLETE_TIME, completeMs);
  if (value !== undefined) writer.bytes(RESULT, value);
  writer.number(ATTEMPT, claim.attempt);
  writer.number(OUTCOME, DedupOutcome.DUPLICATE);
  return writer.done();
}

/** The reply of a Claim that is the first, or meets another one at work. */
export function claimBytes(claim: Claim, isFirst: boolean, nowMs: number): Uint8Array {
  const { owner, leaseEndMs } = claim;
  const writer = new BackwardsWriter(FIXED_BYTES + 3 * owner.length);
  writer.scalarText(OWNER, owner);
  writer.time(EXPIRE_TIME, claim.expireMs);
  writer.number(ATTEMPT, claim.attempt);
  if (claim.status === "in_progress") {
    writer.micros(LEASE_REMAINING, Math.max(0, leaseEndMs - nowMs) * 1000);
    writer.time(LEASE_EXPIRE_TIME, leaseEndMs);
  }
  if (isFirst) writer.number(CLAIM_TOKEN, claim.token);
  writer.number(OUTCOME, isFirst ? DedupOutcome.FIRST : DedupOutcome.IN_PROGRESS);
  return writer.done();
}

import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  ConversationExpiry_Mode,
  type ConversationExpirySchema,
  type ConversationMessage,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { MOST_VALUES, type Prepared } from "./conversation-messages.ts";
import type { Lifetime } from "./conversation-source.ts";
import type { Moment } from "./values.ts";

export type Batch = ConversationMessage[];
export type Expiry = MessageInitShape<typeof ConversationExpirySchema>;

/** What goes into one request: below what the contract allows. */
const BATCH_MESSAGES = 1000;
const BATCH_BYTES = 3 * 1024 * 1024;

/** In their order, as many to a request as may be. */
export function batchesOf(messages: readonly Prepared[]): Batch[] {
  const batches: Batch[] = [];
  let batch: Batch = [];
  let total = 0;
  let totalValues = 0;
  for (const { message, bytes, values } of messages) {
    const isFull = batch.length === BATCH_MESSAGES || total + bytes > BATCH_BYTES || totalValues + values > MOST_VALUES;
    if (isFull && batch.length > 0) {
      batches.push(batch);
      batch = [];
      total = 0;
      totalValues = 0;
    }
    batch.push(message);
    total += bytes;
    totalValues += values;
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
}

/**
 * As much time as is left. It slides: a conversation that is written is not to die at the moment that was set when the old system
 * last wrote it.
 */
export function expiryOf(lifetime: Lifetime): Expiry | undefined {
  if (lifetime === undefined) return undefined;
  if (lifetime === "never") return { kind: { case: "never", value: true }, mode: ConversationExpiry_Mode.SLIDING };
  // One whose end comes while it is on its way is there for a moment still.
  return secondsLong(Math.max(0.001, (lifetime.endsAtMs - performance.now()) / 1000));
}

/** From the last write on. */
export function secondsLong(seconds: number): Expiry {
  const whole = Math.floor(seconds);
  const nanos = Math.floor((seconds - whole) * 1000) * 1_000_000;
  const value = { seconds: BigInt(whole), nanos };
  return { kind: { case: "ttl", value }, mode: ConversationExpiry_Mode.SLIDING };
}

/** Whether the one is known to be later than the other. */
export function isAfter(one: Moment | undefined, other: Moment | undefined): boolean {
  if (one === undefined || other === undefined) return false;
  return one.seconds === other.seconds ? one.nanos > other.nanos : one.seconds > other.seconds;
}

import { create } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import {
  ConversationPresence,
  type ConversationSummary,
  ConversationSummarySchema,
} from "../../gen/holdfast/v1/conversation_pb.js";
import type { Held, Presence } from "./conversation.ts";

export function timestampOf(us: number): Timestamp {
  const seconds = Math.floor(us / 1_000_000);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: (us - seconds * 1_000_000) * 1000 });
}

export function summaryOf(held: Held): ConversationSummary {
  const { confidenceScore, expiresUs, origin } = held;
  return create(ConversationSummarySchema, {
    collection: held.collection,
    id: held.id,
    version: BigInt(held.version),
    userId: held.userId,
    status: held.status,
    complexityLevel: held.complexityLevel,
    ...(confidenceScore !== undefined && { confidenceScore }),
    messageCount: BigInt(held.messageCount),
    stateBytes: BigInt(held.stateBytes),
    createTime: timestampOf(held.createdUs),
    updateTime: timestampOf(held.updatedUs),
    ...(expiresUs !== undefined && { expireTime: timestampOf(expiresUs) }),
    sliding: held.sliding,
    ...(origin && { origin: { collection: origin.collection, id: origin.id, version: BigInt(origin.version) } }),
  });
}

const PRESENCES = {
  live: ConversationPresence.LIVE,
  expired: ConversationPresence.EXPIRED,
  deleted: ConversationPresence.DELETED,
  never: ConversationPresence.NEVER_EXISTED,
} as const;

export function presenceFor(presence: Presence | "never" | undefined): ConversationPresence {
  return PRESENCES[presence ?? "never"];
}

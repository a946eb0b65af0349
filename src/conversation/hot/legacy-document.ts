import { fromBinary, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { ConversationMessageSchema } from "../../gen/holdfast/v1/conversation_pb.js";
import { jsonBytesOf } from "../record/json.ts";
import type { Whole } from "./copies-truth.ts";

/** How every document of ours ends, and no other. */
export const OWN_END = '"holdfast":true}}';

/**
 * A conversation as programs of old read it: the members of its state, its messages, and `_metadata`. Only the last messages
 * are in it; `_metadata.messages_omitted` says how many come before them. `_metadata.holdfast` tells it from one that such a program
 * wrote.
 */
export function legacyDocument({ held, state, messages }: Whole): Buffer {
  const document = jsonBytesOf(state);
  const omitted = held.messageCount - messages.length;
  const metadata = {
    case_id: held.id,
    updated_at: isoText(held.updatedUs),
    version: held.version,
    ...(omitted > 0 && { messages_omitted: omitted }),
    holdfast: true,
  };
  const tail = `"messages":${JSON.stringify(messages.map(messageOf))},"_metadata":${JSON.stringify(metadata)}}`;
  // In place of the brace that closes the state.
  const isEmpty = document.length === 2;
  return Buffer.concat([document.subarray(0, -1), Buffer.from(isEmpty ? tail : `,${tail}`)]);
}

function messageOf(body: Uint8Array): JsonValue {
  const message = fromBinary(ConversationMessageSchema, body);
  const { role, content, id, createTime } = message;
  const json = toJson(ConversationMessageSchema, message);
  const rest: JsonObject = typeof json === "object" && json !== null && !Array.isArray(json) ? json : {};
  return {
    role,
    content,
    ...(createTime && { timestamp: isoText(Number(createTime.seconds) * 1_000_000 + createTime.nanos / 1000) }),
    id,
    ...(rest.parts !== undefined && { parts: rest.parts }),
    ...(rest.metadata !== undefined && { metadata: rest.metadata }),
  };
}

/** As Python's datetime writes it, which does not read a "Z" in all versions in use. */
function isoText(us: number): string {
  const seconds = Math.floor(us / 1_000_000);
  const fraction = String(Math.floor(us - seconds * 1_000_000)).padStart(6, "0");
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${fraction}+00:00`;
}

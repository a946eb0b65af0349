import { fromBinary, type JsonObject, toJson } from "@bufbuild/protobuf";
import { ConversationMessageSchema } from "../../gen/holdfast/v1/conversation_pb.js";
import { canonicalText } from "./message-json.ts";

const CONTENT = ["role", "content", "parts", "metadata"] as const;

/** The fields by which the contents of two messages differ; each is a serialized ConversationMessage. */
export function differencesOf(one: Uint8Array, other: Uint8Array): readonly string[] {
  const [first, second] = [contentOf(one), contentOf(other)];
  const known = CONTENT.filter((name) => canonicalText(first[name] ?? null) !== canonicalText(second[name] ?? null));
  return known.length > 0 ? known : ["fields that this server does not know"];
}

function contentOf(bytes: Uint8Array): JsonObject {
  const json = toJson(ConversationMessageSchema, fromBinary(ConversationMessageSchema, bytes));
  return typeof json === "object" && json !== null && !Array.isArray(json) ? json : {};
}

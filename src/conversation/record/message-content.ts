import { createHash } from "node:crypto";
import { type JsonValue, toBinary } from "@bufbuild/protobuf";
import {
  type ConversationMessage,
  ConversationMessageSchema,
  type ConversationPart,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { canonicalText, jsonOf, NULL, valueFrom } from "./message-json.ts";

const HASH_BYTES = 16;

/** What a caller gave as a message, apart from its id and its place. */
export interface Content {
  /** A serialized ConversationMessage. */
  readonly bytes: Uint8Array;
  /** The same for the same content, however its maps are ordered. */
  readonly hash: Uint8Array;
}

export function contentOf(message: ConversationMessage): Content {
  const bytes = toBinary(ConversationMessageSchema, { ...withDecidedValues(message), id: "", position: 0n });
  const json = jsonIn(message);
  if (json.length === 0) return { bytes, hash: digest([bytes]) };
  const shell = toBinary(ConversationMessageSchema, { ...emptied(message), id: "", position: 0n });
  return { bytes, hash: digest([`${shell.length}:`, shell, canonicalText(json)]) };
}

function digest(contents: readonly (Uint8Array | string)[]): Uint8Array {
  const hash = createHash("sha256");
  for (const content of contents) hash.update(content);
  return hash.digest().subarray(0, HASH_BYTES);
}

/** The JSON in a message, in the order of its fields. */
function jsonIn({ metadata, parts }: ConversationMessage): JsonValue[] {
  const json: JsonValue[] = metadata === undefined ? [] : [metadata];
  for (const { kind } of parts) {
    if (kind.case === "data") json.push(kind.value);
    else if (kind.case === "toolCall" && kind.value.arguments !== undefined) json.push(kind.value.arguments);
    else if (kind.case === "toolResult" && kind.value.result !== undefined) json.push(jsonOf(kind.value.result));
  }
  return json;
}

/** The message with nothing in its JSON: what is left is serialized in one way only. */
function emptied(message: ConversationMessage): ConversationMessage {
  const metadata = message.metadata && {};
  return { ...message, ...(metadata && { metadata }), parts: message.parts.map(emptiedPart) };
}

function emptiedPart(part: ConversationPart): ConversationPart {
  const { kind } = part;
  if (kind.case === "data") return { ...part, kind: { case: "data", value: {} } };
  if (kind.case === "toolCall" && kind.value.arguments !== undefined) {
    return { ...part, kind: { case: "toolCall", value: { ...kind.value, arguments: {} } } };
  }
  if (kind.case === "toolResult" && kind.value.result !== undefined) {
    return { ...part, kind: { case: "toolResult", value: { ...kind.value, result: NULL } } };
  }
  return part;
}

/** Values of no kind are null: JSON, in which the message is read as well, has no other way to write them. */
function withDecidedValues(message: ConversationMessage): ConversationMessage {
  if (!message.parts.some(({ kind }) => kind.case === "toolResult" && kind.value.result !== undefined)) return message;
  const parts = message.parts.map((part): ConversationPart => {
    const { kind } = part;
    if (kind.case !== "toolResult" || kind.value.result === undefined) return part;
    const result = valueFrom(jsonOf(kind.value.result));
    return { ...part, kind: { case: "toolResult", value: { ...kind.value, result } } };
  });
  return { ...message, parts };
}

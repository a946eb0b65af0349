import { createHash } from "node:crypto";
import { type JsonValue, toBinary } from "@bufbuild/protobuf";
import {
  type ConversationMessage,
  ConversationMessageSchema,
  type ConversationPart,
  ConversationPartSchema,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { field, joined, type Part } from "./conversation-bytes.ts";
import { canonicalText, jsonOf, NULL, valueFrom } from "./message-json.ts";
import { structOfJson } from "./struct-writer.ts";
import { textField } from "./summary-bytes.ts";

const HASH_BYTES = 16;

/** What a caller gave as a message, apart from its id, its time and its place: a client that tries again may take the time anew. */
export interface Content {
  /** A serialized ConversationMessage without them. */
  readonly bytes: Uint8Array;
  /** The same for the same content, however its maps are ordered. */
  readonly hash: Uint8Array;
}

export function contentOf(message: ConversationMessage): Content {
  const bytes = bytesOf(message, message.parts.map(decidedPart));
  const json = jsonIn(message);
  if (json.length === 0) return { bytes, hash: digest([bytes]) };
  // With nothing in its JSON: what is left is serialized in one way only.
  const shell = bytesOf(
    message.metadata === undefined ? message : { ...message, metadata: {} },
    message.parts.map(emptiedPart),
  );
  return { bytes, hash: digest([`${shell.length}:`, shell, canonicalText(json)]) };
}

function digest(contents: readonly (Uint8Array | string)[]): Uint8Array {
  const hash = createHash("sha256");
  for (const content of contents) hash.update(content);
  return hash.digest().subarray(0, HASH_BYTES);
}

const { role: ROLE, content: CONTENT, parts: PARTS, metadata: METADATA } = ConversationMessageSchema.field;
const { text: TEXT } = ConversationPartSchema.field;

/** Serializes a message by hand, but for what is rare: the generated code takes most of the time of an append. */
function bytesOf(message: ConversationMessage, parts: readonly ConversationPart[]): Uint8Array {
  const { $typeName, role, content, metadata, $unknown = [] } = message;
  // What a newer client says beyond what is known here is kept.
  if ($unknown.length > 0) {
    const said = { $typeName, $unknown, role, content, parts: [...parts], ...(metadata && { metadata }) };
    return toBinary(ConversationMessageSchema, { ...said, id: "", position: 0n });
  }
  const fields: Part[] = [textField(ROLE.number, role), textField(CONTENT.number, content)];
  for (const part of parts) fields.push(partField(part));
  if (metadata !== undefined) fields.push(field(METADATA.number, structOfJson(metadata)));
  return joined(fields);
}

function partField(part: ConversationPart): Part {
  const { kind, $unknown = [] } = part;
  if (kind.case !== "text" || $unknown.length > 0) return field(PARTS.number, toBinary(ConversationPartSchema, part));
  // Written even when it is empty: it says what the part is.
  return field(PARTS.number, field(TEXT.number, Buffer.from(kind.value)));
}

/** The JSON in a message, in the order of its fields. */
export function jsonIn({ metadata, parts }: ConversationMessage): JsonValue[] {
  const json: JsonValue[] = metadata === undefined ? [] : [metadata];
  for (const { kind } of parts) {
    if (kind.case === "data") json.push(kind.value);
    else if (kind.case === "toolCall" && kind.value.arguments !== undefined) json.push(kind.value.arguments);
    else if (kind.case === "toolResult" && kind.value.result !== undefined) json.push(jsonOf(kind.value.result));
  }
  return json;
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
function decidedPart(part: ConversationPart): ConversationPart {
  const { kind } = part;
  if (kind.case !== "toolResult" || kind.value.result === undefined) return part;
  const result = valueFrom(jsonOf(kind.value.result));
  return { ...part, kind: { case: "toolResult", value: { ...kind.value, result } } };
}

import type { JsonValue } from "@bufbuild/protobuf";
import type {
  ConversationPart,
  ConversationReference,
  ConversationToolCall,
  ConversationToolResult,
} from "../../gen/holdfast/v1/conversation_pb.js";
import type { ConversationFields } from "./fields.ts";
import { jsonFault, jsonOf } from "./message-json.ts";

const LIMITS = {
  callIdBytes: 128,
  toolNameBytes: 256,
  uriBytes: 4096,
  mediaTypeBytes: 128,
  nameBytes: 256,
  sha256Bytes: 32,
} as const;

/** Checks one part of a message. */
export function checkPart(fields: ConversationFields, field: string, { kind }: ConversationPart): void {
  switch (kind.case) {
    case undefined:
      fields.refuse(field, "is required: set text, tool_call, tool_result, reference or data");
      return;
    case "text":
      return;
    case "toolCall":
      checkToolCall(fields, `${field}.tool_call`, kind.value);
      return;
    case "toolResult":
      checkToolResult(fields, `${field}.tool_result`, kind.value);
      return;
    case "reference":
      checkReference(fields, `${field}.reference`, kind.value);
      return;
    case "data":
      checkJson(fields, `${field}.data`, kind.value);
      return;
  }
}

export function checkJson(fields: ConversationFields, field: string, json: JsonValue): void {
  const fault = jsonFault(field, json);
  if (fault !== undefined) fields.refuse(fault.field, fault.description);
}

function checkToolCall(fields: ConversationFields, field: string, call: ConversationToolCall): void {
  fields.text(`${field}.id`, call.id, LIMITS.callIdBytes, true);
  fields.text(`${field}.name`, call.name, LIMITS.toolNameBytes);
  if (call.arguments !== undefined) checkJson(fields, `${field}.arguments`, call.arguments);
}

function checkToolResult(fields: ConversationFields, field: string, { callId, result }: ConversationToolResult): void {
  fields.text(`${field}.call_id`, callId, LIMITS.callIdBytes, true);
  if (result !== undefined) checkJson(fields, `${field}.result`, jsonOf(result));
}

function checkReference(fields: ConversationFields, field: string, reference: ConversationReference): void {
  const { uri, mediaType, sha256, name } = reference;
  fields.text(`${field}.uri`, uri, LIMITS.uriBytes);
  if (/^\s*data:/i.test(uri)) fields.refuse(`${field}.uri`, "must not be a data: URI; keep the data elsewhere");
  fields.text(`${field}.media_type`, mediaType, LIMITS.mediaTypeBytes, true);
  fields.text(`${field}.name`, name, LIMITS.nameBytes, true);
  if (sha256.length !== 0 && sha256.length !== LIMITS.sha256Bytes) {
    fields.refuse(`${field}.sha256`, `is ${sha256.length} bytes long; a SHA-256 has ${LIMITS.sha256Bytes}`);
  }
}

import { create, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { ConversationSchema } from "../../gen/holdfast/v1/conversation_pb.js";
import {
  isObject,
  type JsonRules,
  kindOf,
  namesOf,
  type Parsed,
  type ParsedObject,
  storableObject,
  textOf,
  Unfit,
} from "./conversation-json.ts";
import { messagesOf, type Prepared } from "./conversation-messages.ts";
import { type Moment, momentOf } from "./values.ts";

/** A document of the old system, as Holdfast keeps it. */
export interface ConversationDocument {
  readonly state: JsonObject;
  readonly stateBytes: number;
  readonly messages: readonly Prepared[];
  /** When the old system last changed it, if it says so. */
  readonly updated: Moment | undefined;
}

/** What the contract allows. */
const STATE_BYTES = 4 * 1024 * 1024;

/** By these a document is known. Any other object may be something else that happens to be kept under such a key. */
const KNOWN = ["_metadata", "messages", "user_id", "status", "context", "flow_type", "started_at", "created_at"];

export function isDocument(value: ParsedObject): boolean {
  return KNOWN.some((name) => Object.hasOwn(value, name));
}

/** Throws Unfit for what is no such document, or cannot be kept as it is. */
export function documentOf(value: Parsed, rules: JsonRules): ConversationDocument {
  if (!isObject(value)) throw new Unfit("UNKNOWN_LAYOUT", `is ${kindOf(value)}; wanted an object`);
  if (!isDocument(value)) {
    throw new Unfit("UNKNOWN_LAYOUT", `has none of ${KNOWN.join(", ")}; it has ${namesOf(value)}`);
  }
  const { messages, _metadata: about, ...rest } = value;
  if (about !== undefined && about !== null && !isObject(about)) {
    throw new Unfit("UNKNOWN_LAYOUT", `_metadata is ${kindOf(about)}; wanted {case_id, updated_at, version}`);
  }
  const state = storableObject(rest, "", rules);
  const stateBytes = toBinary(ConversationSchema, create(ConversationSchema, { state })).length;
  if (stateBytes > STATE_BYTES) {
    throw new Unfit(
      "STATE_TOO_LARGE",
      `without its messages it takes ${stateBytes} bytes; the limit is ${STATE_BYTES}`,
    );
  }
  return { state, stateBytes, messages: messagesOf(messages, rules), updated: updatedOf(value) };
}

function updatedOf(value: ParsedObject): Moment | undefined {
  const about = isObject(value._metadata) ? value._metadata : {};
  return momentOf(textOf(about.updated_at)) ?? momentOf(textOf(value.updated_at));
}

/**
 * Whether the server itself wrote it: a copy, for those who still read such documents. Where messages were left out, it is one even if
 * somebody wrote it again: it must not become a conversation that lacks them.
 */
export function isOwnCopy(value: Parsed): boolean {
  if (!isObject(value) || !isObject(value._metadata)) return false;
  return value._metadata.holdfast === true || value._metadata.messages_omitted !== undefined;
}

/** The id that a document gives itself, for one that stands under no key. */
export function idIn(value: ParsedObject): string | undefined {
  const about = isObject(value._metadata) ? value._metadata : {};
  return [about.case_id, value.case_id, value.conversation_id, value.id]
    .map(textOf)
    .find((id) => id !== undefined && id !== "");
}

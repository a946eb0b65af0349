import { create, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { ConversationSchema } from "../../gen/holdfast/v1/conversation_pb.js";
import { valuesIn } from "../../infra/json-values.ts";
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
import { MOST_VALUES, messagesOf, type Prepared } from "./conversation-messages.ts";
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

/** By any of these a document is known. Another object may be something else that happens to be kept under such a key. */
const KNOWN = [
  ...["_metadata", "messages", "user_id", "status", "context", "complexity_level", "confidence_score"],
  ...["flow_type", "started_at", "created_at", "updated_at"],
];

export function isDocument(value: ParsedObject): boolean {
  return KNOWN.some((name) => Object.hasOwn(value, name));
}

export interface DocumentRules extends JsonRules {
  /** Take any object for a document: the user said what is one. */
  readonly anyLayout: boolean;
}

/** Throws Unfit for what is no such document, or cannot be kept as it is. */
export function documentOf(value: Parsed, rules: DocumentRules): ConversationDocument {
  if (!isObject(value)) throw new Unfit("UNKNOWN_LAYOUT", `is ${kindOf(value)}; wanted an object`);
  if (!rules.anyLayout && !isDocument(value)) {
    throw new Unfit(
      "UNKNOWN_LAYOUT",
      `is no conversation as far as can be told: it has ${namesOf(value)}, and none of ${KNOWN.join(", ")}. ` +
        "If it is one, name what to import, such as with --collection conversation: then every object is taken for one",
    );
  }
  const { messages, _metadata: about, ...rest } = value;
  const state = storableObject({ ...rest, ...remembered(about, rest) }, "", rules);
  const stateBytes = toBinary(ConversationSchema, create(ConversationSchema, { state })).length;
  if (stateBytes > STATE_BYTES) {
    throw new Unfit(
      "STATE_TOO_LARGE",
      `without its messages it takes ${stateBytes} bytes; the limit is ${STATE_BYTES}`,
    );
  }
  if (valuesIn(state, MOST_VALUES) > MOST_VALUES) {
    throw new Unfit("STATE_TOO_LARGE", `without its messages it holds more than ${MOST_VALUES} values`);
  }
  return { state, stateBytes, messages: messagesOf(messages, rules), updated: updatedOf(value) };
}

/** Where in the state stands what a document's `_metadata` said beyond what it always says. */
const OF_METADATA = "imported_metadata";

/**
 * What of `_metadata` is kept in the state. Its case_id is the id, and versions are given anew; when it was changed last is known from
 * nothing else where the document does not say so itself.
 */
function remembered(about: Parsed | undefined, rest: ParsedObject): ParsedObject {
  if (about === undefined || about === null) return {};
  if (!isObject(about)) return { [OF_METADATA]: about };
  const { case_id: _, version: __, updated_at: updated, ...others } = about;
  return {
    ...(updated !== undefined && rest.updated_at === undefined && { updated_at: updated }),
    ...(Object.keys(others).length > 0 && rest[OF_METADATA] === undefined && { [OF_METADATA]: others }),
  };
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

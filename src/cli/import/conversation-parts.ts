import { create, fromJson, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { NullValue, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import type { ConversationPartSchema } from "../../gen/holdfast/v1/conversation_pb.js";
import {
  isObject,
  isText,
  type JsonRules,
  kindOf,
  type Parsed,
  type ParsedObject,
  parseExactly,
  storable,
  storableObject,
  storableText,
  Unfit,
} from "./conversation-json.ts";

export type Part = MessageInitShape<typeof ConversationPartSchema>;

/** A part, and what was said of it that a part has no room for. */
export interface Converted {
  readonly part: Part;
  readonly rest: ParsedObject;
}

/** What the contract allows. */
const CALL_ID_BYTES = 128;
const TOOL_NAME_BYTES = 256;
const URI_BYTES = 4096;
const MEDIA_TYPE_BYTES = 128;

const NOTHING: ParsedObject = {};

export function textPart(text: string): Converted {
  return { part: { kind: { case: "text", value: text } }, rest: NOTHING };
}

/**
 * A part of a message's content, in the layouts of the usual model APIs. One of another layout, or that the contract has no such
 * part for, is kept whole as data.
 */
export function partOf(raw: Parsed, path: string, rules: JsonRules): Converted {
  if (typeof raw === "string") return textPart(storableText(raw, path, rules));
  if (!isObject(raw)) throw new Unfit("UNKNOWN_LAYOUT", `${path} is ${kindOf(raw)}; wanted a text or an object`);
  return textOf(raw, path, rules) ?? imageOf(raw) ?? toolUseOf(raw, path, rules) ?? dataOf(raw, path, rules);
}

function dataOf(raw: ParsedObject, path: string, rules: JsonRules): Converted {
  return { part: { kind: { case: "data", value: storableObject(raw, path, rules) } }, rest: NOTHING };
}

const TEXTS: ReadonlySet<Parsed | undefined> = new Set(["text", "input_text", "output_text"]);

function textOf({ type, text, ...rest }: ParsedObject, path: string, rules: JsonRules): Converted | undefined {
  if (!TEXTS.has(type) || typeof text !== "string") return undefined;
  return { ...textPart(storableText(text, `${path}.text`, rules)), rest };
}

/** `{type: "image_url", image_url: {url, detail}}`, `{type: "input_image", image_url}` or `{type: "image", source: {type: "url", url}}`. */
function imageOf({ type, ...members }: ParsedObject): Converted | undefined {
  if (type === "image_url" || type === "input_image") {
    const { image_url: image, ...rest } = members;
    const { url, ...more } = isObject(image) ? image : { url: image };
    return referenceOf(url, "image/*", { ...rest, ...(Object.keys(more).length > 0 && { image_url: more }) });
  }
  const { source, ...rest } = members;
  if ((type !== "image" && type !== "document") || !isObject(source)) return undefined;
  const { type: kind, url, media_type: mediaType, ...more } = source;
  if (kind !== "url") return undefined;
  const known = isShort(mediaType, 1, MEDIA_TYPE_BYTES) ? mediaType : type === "image" ? "image/*" : "";
  return referenceOf(url, known, { ...rest, ...(Object.keys(more).length > 0 && { source: more }) });
}

/** Undefined for what is carried along, not referred to. */
function referenceOf(uri: Parsed | undefined, mediaType: string, rest: ParsedObject): Converted | undefined {
  if (!isShort(uri, 1, URI_BYTES) || /^\s*data:/i.test(uri)) return undefined;
  return { part: { kind: { case: "reference", value: { uri, mediaType } } }, rest };
}

/** `{type: "tool_use", id, name, input}` and `{type: "tool_result", tool_use_id, content, is_error}`. */
function toolUseOf({ type, ...members }: ParsedObject, path: string, rules: JsonRules): Converted | undefined {
  if (type === "tool_use") {
    const { id = "", name, input = null, ...rest } = members;
    if (!isShort(id, 0, CALL_ID_BYTES) || !isShort(name, 1, TOOL_NAME_BYTES)) return undefined;
    if (input !== null && !isObject(input)) return undefined;
    const given = input === null ? {} : { arguments: storableObject(input, `${path}.input`, rules) };
    return { part: { kind: { case: "toolCall", value: { id, name, ...given } } }, rest };
  }
  if (type !== "tool_result") return undefined;
  const { tool_use_id: callId = "", content, is_error: isError = false, ...rest } = members;
  if (!isShort(callId, 0, CALL_ID_BYTES) || typeof isError !== "boolean") return undefined;
  return resultPart(callId, content, { path: `${path}.content`, rules, isError, rest });
}

interface ResultDetails {
  readonly path: string;
  readonly rules: JsonRules;
  readonly isError?: boolean;
  readonly rest?: ParsedObject;
}

/** What a tool answered. */
function resultPart(callId: string, answer: Parsed | undefined, details: ResultDetails): Converted {
  const { path, rules, isError = false, rest = NOTHING } = details;
  const result = answer === undefined ? {} : { result: asValue(storable(answer, path, rules)) };
  return { part: { kind: { case: "toolResult", value: { callId, isError, ...result } } }, rest };
}

function asValue(json: JsonValue): Value {
  if (json !== null) return fromJson(ValueSchema, json);
  return create(ValueSchema, { kind: { case: "nullValue", value: NullValue.NULL_VALUE } });
}

/** A call as `tool_calls` lists it: `{id, type: "function", function: {name, arguments}}`, the arguments being JSON in a text. */
export function callOf(raw: ParsedObject, path: string, rules: JsonRules): Converted {
  const { id = "", type = "function", function: called, ...rest } = raw;
  if (type !== "function" || !isObject(called)) return dataOf(raw, path, rules);
  const { name, arguments: given, ...more } = called;
  const args = argumentsOf(given, path, rules);
  if (!isShort(id, 0, CALL_ID_BYTES) || !isShort(name, 1, TOOL_NAME_BYTES) || args === undefined) {
    return dataOf(raw, path, rules);
  }
  const left = { ...rest, ...(Object.keys(more).length > 0 && { function: more }) };
  return { part: { kind: { case: "toolCall", value: { id, name, ...args } } }, rest: left };
}

/** Undefined: they are no object, or cannot be kept as one. A model may have written them wrong, or have been cut off. */
function argumentsOf(
  given: Parsed | undefined,
  path: string,
  rules: JsonRules,
): { readonly arguments?: ReturnType<typeof storableObject> } | undefined {
  if (given === undefined || given === null || given === "") return {};
  const place = `${path}.function.arguments`;
  if (isObject(given)) return { arguments: storableObject(given, place, rules) };
  if (typeof given !== "string") return undefined;
  try {
    const parsed = parseExactly(given);
    return isObject(parsed) ? { arguments: storableObject(parsed, place, rules) } : undefined;
  } catch (error) {
    // As text nothing of them is lost.
    if (error instanceof Unfit) return undefined;
    throw error;
  }
}

/** The answer of a tool, where the whole message is one: `{role: "tool", tool_call_id, content}`, of old `{role: "function", content}`. */
export function answerOf(message: ParsedObject, path: string, rules: JsonRules): Converted | undefined {
  const { role, tool_call_id: callId = role === "function" ? "" : undefined, content } = message;
  if ((role !== "tool" && role !== "function") || !isShort(callId, 0, CALL_ID_BYTES)) return undefined;
  return resultPart(callId, content, { path: `${path}.content`, rules });
}

/** Whether the contract takes it where it takes texts of so many bytes. */
function isShort(text: Parsed | undefined, fewest: number, most: number): text is string {
  if (!isText(text) || !text.isWellFormed() || text.includes("\0")) return false;
  const bytes = Buffer.byteLength(text);
  return bytes >= fewest && bytes <= most;
}

import {
  type DescField,
  type DescMessage,
  type JsonObject,
  type JsonValue,
  type MessageShape,
  ScalarType,
} from "@bufbuild/protobuf";
import {
  ConversationStateServiceAppendMessagesRequestSchema as AppendSchema,
  type ConversationStateServiceAppendMessagesRequest,
  type ConversationStateServicePatchRequest,
  type ConversationStateServiceSaveRequest,
  ConversationStateServicePatchRequestSchema as PatchSchema,
  ConversationStateServiceSaveRequestSchema as SaveSchema,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { CrowdedError, decode } from "../../infra/decode.ts";
import type { Failure, FieldViolation } from "../../infra/failure.ts";
import { kindlessValue } from "../../infra/wire-fault.ts";
import { BYTES, UNUSUAL, unlessUnusual, VARINT, WireReader } from "../../infra/wire-reader.ts";
import { joined } from "./conversation-bytes.ts";
import { jsonIn } from "./message-content.ts";
import { MOST_PARTS, tooManyInMessages, tooManyValues } from "./struct-values.ts";
import { structOfJson } from "./struct-writer.ts";
import { UNDECIDED } from "./undecided.ts";

/** What only the bytes of a request told: a value in its messages that sets no kind, which was decoded as null. */
interface Told {
  readonly undecided?: FieldViolation;
}

/** A request whose `state` was left as it came: serialized, and not looked at. Then the message has no `state`. */
export type SaveRequest = ConversationStateServiceSaveRequest & Told & { readonly stateBytes?: Uint8Array };
/** The same for `patch`. */
export type PatchRequest = ConversationStateServicePatchRequest & Told & { readonly patchBytes?: Uint8Array };
export type AppendRequest = ConversationStateServiceAppendMessagesRequest & Told & { readonly patchBytes?: Uint8Array };

/** Decodes a request in binary. Bytes of the state need not be a Struct: who checks it finds out. */
export function decodeSave(bytes: Uint8Array): SaveRequest {
  const { message, struct, told } = saves(bytes, ({ state, messages }) => [state, ...messages.flatMap(jsonIn)]);
  return Object.assign(message, told, struct && { stateBytes: struct });
}

export function decodePatch(bytes: Uint8Array): PatchRequest {
  const { message, struct, told } = patches(bytes, ({ patch }) => [patch]);
  return Object.assign(message, told, struct && { patchBytes: struct });
}

export function decodeAppend(bytes: Uint8Array): AppendRequest {
  const { message, struct, told } = appends(bytes, ({ patch, messages }) => [patch, ...messages.flatMap(jsonIn)]);
  return Object.assign(message, told, struct && { patchBytes: struct });
}

/** The serialized state of a request of either plane; undefined when it has none. */
export function stateBytesOf({ stateBytes, state }: SaveRequest): Uint8Array | undefined {
  return stateBytes ?? serialized(state);
}

export function patchBytesOf({ patchBytes, patch }: PatchRequest | AppendRequest): Uint8Array | undefined {
  return patchBytes ?? serialized(patch);
}

function serialized(json: JsonObject | undefined): Uint8Array | undefined {
  return json && structOfJson(json);
}

interface Parted<Desc extends DescMessage> {
  readonly message: MessageShape<Desc>;
  readonly struct: Uint8Array | undefined;
  readonly told: Told | undefined;
}

/** The JSON in what was decoded. */
type JsonIn<Desc extends DescMessage> = (message: MessageShape<Desc>) => readonly (JsonValue | undefined)[];

type PartedDecoder<Desc extends DescMessage> = (bytes: Uint8Array, jsonOf: JsonIn<Desc>) => Parted<Desc>;

/**
 * Decodes requests of one type but for one field. What is not written in the usual way is decoded whole. Throws a Failure for one
 * that would hold up everyone else.
 */
function partedDecoder<Desc extends DescMessage>(desc: Desc, but: DescField): PartedDecoder<Desc> {
  const tags = new Set(desc.fields.map(tagOf));
  const tag = tagOf(but);
  return (bytes, jsonOf) => {
    const found = unlessUnusual(() => find(bytes, tag, tags));
    if (found === undefined) {
      const message = decodeBounded(desc, bytes, () => tooManyValues(but.name));
      return { message, struct: undefined, told: toldBy(desc, bytes, jsonOf(message)) };
    }
    const hasStruct = found !== NOT_FOUND;
    const rest = hasStruct ? joined([bytes.subarray(0, found.start), bytes.subarray(found.end)]) : bytes;
    const message = decodeBounded(desc, rest, () => tooManyInMessages("messages"));
    const struct = hasStruct ? bytes.subarray(found.content, found.end) : undefined;
    return { message, struct, told: toldBy(desc, rest, jsonOf(message)) };
  };
}

/** Where there is no null, nothing is looked for. */
function toldBy(desc: DescMessage, bytes: Uint8Array, json: readonly (JsonValue | undefined)[]): Told | undefined {
  if (!json.some((value) => value !== undefined && hasNull(value))) return undefined;
  const field = kindlessValue(desc, bytes);
  return field === undefined ? undefined : { undecided: { field, description: UNDECIDED } };
}

function hasNull(json: JsonValue): boolean {
  if (typeof json !== "object") return false;
  if (json === null) return true;
  for (const value of Array.isArray(json) ? json : Object.values(json)) if (hasNull(value)) return true;
  return false;
}

function decodeBounded<Desc extends DescMessage>(
  desc: Desc,
  bytes: Uint8Array,
  tooMany: () => Failure,
): MessageShape<Desc> {
  try {
    return decode(desc, bytes, MOST_PARTS);
  } catch (error) {
    throw error instanceof CrowdedError ? tooMany() : error;
  }
}

/** As it stands before a field of these requests, which have neither floats nor packed lists. */
function tagOf({ number, fieldKind, scalar }: DescField): number {
  const isVarint = fieldKind === "enum" || (fieldKind === "scalar" && scalar !== ScalarType.STRING);
  return (number << 3) | (isVarint ? VARINT : BYTES);
}

/** Where a field of a message lies, and its content. */
interface Found {
  readonly start: number;
  readonly content: number;
  readonly end: number;
}

const NOT_FOUND: Found = { start: 0, content: 0, end: 0 };

function find(bytes: Uint8Array, wanted: number, tags: ReadonlySet<number>): Found {
  const reader = new WireReader(bytes);
  const { length } = bytes;
  let found = NOT_FOUND;
  while (reader.at < length) {
    const start = reader.at;
    const tag = reader.varint();
    if (!tags.has(tag)) throw UNUSUAL;
    if ((tag & 7) === VARINT) {
      skipVarint(reader);
      continue;
    }
    const end = reader.endOfBytes(length);
    if (tag === wanted) {
      // What comes twice is merged with itself.
      if (found !== NOT_FOUND) throw UNUSUAL;
      found = { start, content: reader.at, end };
    }
    reader.at = end;
  }
  if (reader.at !== length) throw UNUSUAL;
  return found;
}

/** Of 64 bits, which may be more than a number holds. */
function skipVarint(reader: WireReader): void {
  for (let bytes = 1; ((reader.bytes[reader.at++] ?? 0) & 0x80) !== 0; bytes++) if (bytes === 10) throw UNUSUAL;
}

const saves = partedDecoder(SaveSchema, SaveSchema.field.state);
const patches = partedDecoder(PatchSchema, PatchSchema.field.patch);
const appends = partedDecoder(AppendSchema, AppendSchema.field.patch);

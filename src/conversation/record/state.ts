import { type Struct, StructSchema } from "@bufbuild/protobuf/wkt";
import { ConversationSchema } from "../../gen/holdfast/v1/conversation_pb.js";
import { CrowdedError, decode } from "../../infra/decode.ts";
import { Failure } from "../../infra/failure.ts";
import type { Fields } from "../../infra/fields.ts";
import { NUMBER, STRING } from "../../infra/struct-tags.ts";
import { wireFault } from "../../infra/wire-fault.ts";
import { unlessUnusual, WireReader } from "../../infra/wire-reader.ts";
import type { State, StateFacts } from "./conversation.ts";
import { field as messageField, messageOf } from "./conversation-bytes.ts";
import { LIMITS } from "./fields.ts";
import { jsonOfStruct } from "./message-json.ts";
import { eachMember, type Member } from "./struct-members.ts";
import { faultsOf, MOST_FAULTS } from "./struct-scan.ts";
import { MOST_PARTS, refuseTooManyValues, tooManyValues } from "./struct-values.ts";
import { structOfJson } from "./struct-writer.ts";
import { undecidedIn } from "./undecided.ts";

/** The limit that the contract states. */
export const MOST_STATE_BYTES = 4 * 1024 * 1024;

/** Checks a state that a caller sent, as serialized google.protobuf.Struct. Undefined when something was refused. */
export function checkState(fields: Fields, field: string, bytes: Uint8Array): State | undefined {
  const plain = checkStruct(fields, field, bytes);
  return plain && stateOf(plain);
}

/** A state that two were merged to which are in order, with what is known of it. Throws when it is too large. */
export function mergedState(plain: Uint8Array): State {
  refuseTooLarge("state", plain);
  refuseTooManyValues("state", plain);
  return stateOf(plain);
}

function stateOf(plain: Uint8Array): State {
  return { ...factsOf(plain), bytes: plain };
}

/** Checks what is to be a state, or to be merged into one. Returns it plainly written; undefined when something was refused. */
export function checkStruct(fields: Fields, field: string, bytes: Uint8Array): Uint8Array | undefined {
  refuseTooLarge(field, bytes);
  let plain = bytes;
  let faults = unlessUnusual(() => faultsOf(bytes, field));
  if (faults === undefined) {
    const struct = decoded(fields, field, bytes);
    if (struct === undefined) return undefined;
    plain = structOfJson(jsonOfStruct(struct));
    refuseTooLarge(field, plain);
    faults = [...undecidedIn(struct, field).take(MOST_FAULTS), ...faultsOf(plain, field)];
  }
  for (const { field: member, description } of faults) fields.refuse(member, description);
  const isReserved = refusesReserved(fields, field, plain);
  return faults.length > 0 || isReserved ? undefined : plain;
}

const CONVERSATION_STATE = 2;

/** As protobuf understands it: what comes twice is merged, what nobody knows is left out. */
function decoded(fields: Fields, field: string, bytes: Uint8Array): Struct | undefined {
  try {
    return decode(StructSchema, bytes, MOST_PARTS);
  } catch (error) {
    if (error instanceof CrowdedError) throw tooManyValues(field);
    const why = error instanceof Error ? error.message : "not readable";
    const fault = wireFault(ConversationSchema, messageOf(messageField(CONVERSATION_STATE, bytes)));
    // As it stands in the request, where the state may have another name.
    const place = field + (fault?.field.slice("state".length) ?? "");
    fields.refuse(place, `is not a valid google.protobuf.Struct: ${fault?.description ?? why}`);
    return undefined;
  }
}

function refuseTooLarge(field: string, { length }: Uint8Array): void {
  if (length <= MOST_STATE_BYTES) return;
  throw new Failure(
    "too_large",
    "STATE_TOO_LARGE",
    `${field}: is ${length} bytes long, encoded; the limit is ${MOST_STATE_BYTES}`,
    { metadata: { field, bytes: String(length), limit: String(MOST_STATE_BYTES) } },
  );
}

const RESERVED = new Map([
  ["messages", "is not part of the state: messages have their own RPCs"],
  ["_metadata", "is not part of the state: the server keeps it"],
]);

function refusesReserved(fields: Fields, field: string, plain: Uint8Array): boolean {
  let refused = false;
  eachTop(plain, (name) => {
    const why = RESERVED.get(name);
    if (why === undefined) return;
    fields.refuse(`${field}.${name}`, why);
    refused = true;
  });
  return refused;
}

/** What a state says of itself at the top level. */
export function factsOf(plain: Uint8Array): StateFacts {
  let userId = "";
  let status = "";
  let complexityLevel = "";
  let confidenceScore: number | undefined;
  eachTop(plain, (name, bytes, member) => {
    switch (name) {
      case "user_id":
        userId = knownText(bytes, member);
        break;
      case "status":
        status = knownText(bytes, member);
        break;
      case "complexity_level":
        complexityLevel = knownText(bytes, member);
        break;
      case "confidence_score":
        if (bytes[member.valueStart] === NUMBER) confidenceScore = bytes.readDoubleLE(member.valueStart + 1);
        break;
    }
  });
  return { userId, status, complexityLevel, confidenceScore };
}

const LONGEST_NAME = "confidence_score".length;

/** Members with names that might be known. */
function eachTop(plain: Uint8Array, visit: (name: string, bytes: Buffer, member: Member) => void): void {
  const bytes = Buffer.from(plain.buffer, plain.byteOffset, plain.byteLength);
  eachMember(bytes, 0, bytes.length, (member) => {
    const { keyStart, keyEnd } = member;
    if (keyEnd - keyStart <= LONGEST_NAME) visit(bytes.toString("latin1", keyStart, keyEnd), bytes, member);
  });
}

/** The text of a member; empty when it is none, or one that no column can hold. */
function knownText(bytes: Buffer, { valueStart, end }: Member): string {
  if (bytes[valueStart] !== STRING) return "";
  const reader = new WireReader(bytes);
  reader.at = valueStart + 1;
  const last = reader.endOfBytes(end);
  if (last - reader.at > LIMITS.knownBytes) return "";
  const text = bytes.toString("utf8", reader.at, last);
  return text.includes("\0") ? "" : text;
}

import type { DescMessage, JsonObject, MessageShape } from "@bufbuild/protobuf";
import {
  type ConversationStateServiceAppendMessagesRequest,
  ConversationStateServiceAppendMessagesRequestSchema,
  type ConversationStateServicePatchRequest,
  ConversationStateServicePatchRequestSchema,
  type ConversationStateServiceSaveRequest,
  ConversationStateServiceSaveRequestSchema,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { decode } from "../../infra/decode.ts";
import { BYTES, FIXED64, UNUSUAL, VARINT, WireReader } from "../../infra/wire-reader.ts";
import { structOfJson } from "./struct-writer.ts";

/** A request whose `state` was left as it came: serialized, and not looked at. Then the message has no `state`. */
export type SaveRequest = ConversationStateServiceSaveRequest & { readonly stateBytes?: Uint8Array };
/** The same for `patch`. */
export type PatchRequest = ConversationStateServicePatchRequest & { readonly patchBytes?: Uint8Array };
export type AppendRequest = ConversationStateServiceAppendMessagesRequest & { readonly patchBytes?: Uint8Array };

/** Decodes a request in binary. Bytes of the state need not be a Struct: who checks it finds out. */
export function decodeSave(bytes: Uint8Array): SaveRequest {
  const { message, struct } = decodeBut(ConversationStateServiceSaveRequestSchema, STATE, bytes);
  return struct === undefined ? message : Object.assign(message, { stateBytes: struct });
}

export function decodePatch(bytes: Uint8Array): PatchRequest {
  const { message, struct } = decodeBut(ConversationStateServicePatchRequestSchema, PATCH, bytes);
  return struct === undefined ? message : Object.assign(message, { patchBytes: struct });
}

export function decodeAppend(bytes: Uint8Array): AppendRequest {
  const { message, struct } = decodeBut(ConversationStateServiceAppendMessagesRequestSchema, APPEND_PATCH, bytes);
  return struct === undefined ? message : Object.assign(message, { patchBytes: struct });
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

const STATE = (ConversationStateServiceSaveRequestSchema.field.state.number << 3) | BYTES;
const PATCH = (ConversationStateServicePatchRequestSchema.field.patch.number << 3) | BYTES;
const APPEND_PATCH = (ConversationStateServiceAppendMessagesRequestSchema.field.patch.number << 3) | BYTES;

interface Parted<Desc extends DescMessage> {
  readonly message: MessageShape<Desc>;
  readonly struct: Uint8Array | undefined;
}

/** Decodes a message but for one field. What is not written in the usual way is decoded whole. */
function decodeBut<Desc extends DescMessage>(desc: Desc, tag: number, bytes: Uint8Array): Parted<Desc> {
  try {
    const { rest, struct } = part(bytes, tag);
    return { message: decode(desc, rest), struct };
  } catch (thrown) {
    if (thrown !== UNUSUAL) throw thrown;
    return { message: decode(desc, bytes), struct: undefined };
  }
}

/** Takes one field out of a serialized message. */
function part(bytes: Uint8Array, tag: number): { readonly rest: Uint8Array; readonly struct: Uint8Array | undefined } {
  const reader = new WireReader(bytes);
  const { length } = bytes;
  const rest: Uint8Array[] = [];
  const found: Uint8Array[] = [];
  let kept = 0;
  while (reader.at < length) {
    const start = reader.at;
    const key = reader.varint();
    switch (key & 7) {
      case VARINT:
        skipVarint(reader);
        break;
      case FIXED64:
        reader.at += 8;
        break;
      case FIXED32:
        reader.at += 4;
        break;
      case BYTES: {
        const end = reader.endOfBytes(length);
        if (key === tag) {
          found.push(bytes.subarray(reader.at, end));
          rest.push(bytes.subarray(kept, start));
          kept = end;
        }
        reader.at = end;
        break;
      }
      default:
        throw UNUSUAL;
    }
  }
  if (reader.at !== length) throw UNUSUAL;
  if (found.length === 0) return { rest: bytes, struct: undefined };
  rest.push(bytes.subarray(kept));
  // A message that comes twice is merged with itself, and that is what its bytes one behind the other mean, too.
  return { rest: joined(rest), struct: joined(found) };
}

const FIXED32 = 5;

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const [only] = pieces;
  return pieces.length === 1 && only !== undefined ? only : Buffer.concat(pieces);
}

/** Of 64 bits, which may be more than a number holds. */
function skipVarint(reader: WireReader): void {
  for (let bytes = 0; ((reader.bytes[reader.at++] ?? 0) & 0x80) !== 0; ) if (++bytes === 10) throw UNUSUAL;
}

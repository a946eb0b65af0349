import type { Fields } from "../../infra/fields.ts";
import { NULL, STRUCT } from "../../infra/struct-tags.ts";
import { WireReader } from "../../infra/wire-reader.ts";
import type { Merge } from "../change/order.ts";
import { field, fieldOf, joined, type Part } from "./conversation-bytes.ts";
import { checkStruct, mergedState } from "./state.ts";
import { eachMember, intact, type Member } from "./struct-members.ts";

/** Merges a patch, and tells it: plainly written. */
export type PatchMerge = Merge & { readonly patch: Uint8Array };

/** Checks a merge patch that a caller sent, as serialized google.protobuf.Struct. Undefined when something was refused. */
export function createMerge(fields: Fields, path: string, patch: Uint8Array): PatchMerge | undefined {
  const plain = checkStruct(fields, path, patch);
  // What is merged of two that are in order is in order, unless it is too large.
  return plain && Object.assign((state: Uint8Array) => mergedState(mergePatch(state, plain)), { patch: plain });
}

/**
 * Merges a JSON merge patch (RFC 7396) into a state, both as structs that were checked. What the patch does not touch is copied as it
 * is, in its place; what it adds comes last.
 */
export function mergePatch(state: Uint8Array, patch: Uint8Array): Uint8Array {
  if (patch.length === 0) return state;
  return intact(() => joined(merged(objectOf(state), objectOf(patch))));
}

/** The bytes of a struct, which may lie within another. */
interface StructBytes {
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
}

function objectOf(bytes: Uint8Array): StructBytes {
  return { bytes: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), start: 0, end: bytes.length };
}

/** What is merged where there was no object. */
const NOTHING: StructBytes = objectOf(new Uint8Array());

/** The entries of the merged struct. */
function merged(target: StructBytes, patch: StructBytes): readonly Part[] {
  const changes = membersOf(patch);
  const parts: Part[] = [];
  let copied = target.start;
  eachMember(target.bytes, target.start, target.end, (member) => {
    const name = nameOf(target, member);
    const change = changes.get(name);
    if (change === undefined) return;
    changes.delete(name);
    // What was not touched since the last one that was is copied at once.
    if (copied < member.entryStart) parts.push(target.bytes.subarray(copied, member.entryStart));
    copied = member.end;
    pushChanged(parts, patch, change, innerOf(target, member));
  });
  if (copied < target.end) parts.push(target.bytes.subarray(copied, target.end));
  for (const change of changes.values()) pushChanged(parts, patch, change, NOTHING);
  return parts;
}

const [ENTRY, KEY, VALUE, STRUCT_VALUE] = [1, 1, 2, 5];

/** Adds what a member of the patch comes to: nothing, an object merged into the one that is there, or the member as it is. */
function pushChanged(parts: Part[], patch: StructBytes, change: Member, there: StructBytes): void {
  const { bytes } = patch;
  const kind = bytes[change.valueStart];
  if (kind === NULL) return;
  if (kind !== STRUCT) {
    parts.push(bytes.subarray(change.entryStart, change.end));
    return;
  }
  const key = field(KEY, bytes.subarray(change.keyStart, change.keyEnd));
  const object = fieldOf(STRUCT_VALUE, merged(there, innerOf(patch, change)));
  parts.push(field(ENTRY, key, field(VALUE, object)));
}

function membersOf(object: StructBytes): Map<string, Member> {
  const members = new Map<string, Member>();
  eachMember(object.bytes, object.start, object.end, (member) => members.set(nameOf(object, member), member));
  return members;
}

/** Every byte becomes a character of its own: quicker than decoding, and as good for telling names apart. */
function nameOf({ bytes }: StructBytes, { keyStart, keyEnd }: Member): string {
  return bytes.toString("latin1", keyStart, keyEnd);
}

/** The struct that a member holds; nothing when it holds something else. */
function innerOf({ bytes }: StructBytes, { valueStart, end }: Member): StructBytes {
  if (bytes[valueStart] !== STRUCT) return NOTHING;
  const reader = new WireReader(bytes);
  reader.at = valueStart + 1;
  const last = reader.endOfBytes(end);
  return { bytes, start: reader.at, end: last };
}

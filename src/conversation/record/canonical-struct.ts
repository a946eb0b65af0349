import { WireReader } from "../../infra/wire-reader.ts";
import { LIST, STRUCT } from "./struct-fields.ts";
import { eachMember, type Member } from "./struct-members.ts";

/**
 * The bytes of a struct that is plainly written, with the members of each object in the order of their names: the same for the same
 * JSON, however a client orders its maps. They are as many as before, since members only change places.
 */
export function canonicalStruct(plain: Uint8Array): Buffer {
  const from = Buffer.from(plain.buffer, plain.byteOffset, plain.byteLength);
  const to = Buffer.allocUnsafe(from.length);
  putStruct({ from, to }, 0, from.length, 0);
  return to;
}

interface Copy {
  readonly from: Buffer;
  readonly to: Buffer;
}

/** Each puts what lies from `start` to `end` at a place in the copy. */
function putStruct(copy: Copy, start: number, end: number, at: number): void {
  const { from, to } = copy;
  const members: (Member & { readonly name: string })[] = [];
  eachMember(from, start, end, (member) => {
    // Every byte becomes a character of its own: quicker than decoding, and as good for an order.
    members.push({ ...member, name: from.toString("latin1", member.keyStart, member.keyEnd) });
  });
  members.sort((one, other) => (one.name < other.name ? -1 : one.name > other.name ? 1 : 0));
  let place = at;
  for (const { entryStart, valueStart, end: last } of members) {
    from.copy(to, place, entryStart, valueStart);
    putValue(copy, valueStart, last, place + valueStart - entryStart);
    place += last - entryStart;
  }
}

function putValue(copy: Copy, start: number, end: number, at: number): void {
  const { from, to } = copy;
  const kind = from[start];
  if (kind !== STRUCT && kind !== LIST) {
    from.copy(to, at, start, end);
    return;
  }
  const reader = new WireReader(from);
  reader.at = start + 1;
  const last = reader.endOfBytes(end);
  const inside = reader.at;
  from.copy(to, at, start, inside);
  if (kind === STRUCT) putStruct(copy, inside, last, at + inside - start);
  else putList(copy, inside, last, at + inside - start);
}

function putList(copy: Copy, start: number, end: number, at: number): void {
  const { from, to } = copy;
  const reader = new WireReader(from);
  reader.at = start;
  while (reader.at < end) {
    const item = reader.at;
    reader.varint();
    const last = reader.endOfBytes(end);
    from.copy(to, at + item - start, item, reader.at);
    putValue(copy, reader.at, last, at + reader.at - start);
    reader.at = last;
  }
}

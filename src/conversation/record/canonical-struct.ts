import { LIST, STRUCT } from "../../infra/struct-tags.ts";
import { WireReader } from "../../infra/wire-reader.ts";
import { eachMember, type Member } from "./struct-members.ts";

/**
 * The bytes of a struct that is plainly written, with the members of each object in the order of their names: the same for the same
 * JSON, however a client orders its maps. They are as many as before, since members only change places.
 */
export function canonicalStruct(plain: Uint8Array): Buffer {
  const from = Buffer.from(plain.buffer, plain.byteOffset, plain.byteLength);
  return new CanonicalWriter(from).write();
}

/** Up to here a loop is quicker than having bytes copied from outside. */
const SHORT = 64;

class CanonicalWriter {
  readonly #from: Buffer;
  readonly #reader: WireReader;
  readonly #to: Buffer;
  #at = 0;

  constructor(from: Buffer) {
    this.#from = from;
    this.#reader = new WireReader(from);
    this.#to = Buffer.allocUnsafe(from.length);
  }

  write(): Buffer {
    this.#struct(0, this.#from.length);
    return this.#to;
  }

  #struct(start: number, end: number): void {
    const from = this.#from;
    const members: Member[] = [];
    let isOrdered = true;
    eachMember(from, start, end, (member) => {
      const before = members.at(-1);
      isOrdered &&= before === undefined || compareNames(from, before, member) < 0;
      members.push(member);
    });
    if (!isOrdered) members.sort((one, other) => compareNames(from, one, other));
    for (const { entryStart, valueStart, end: last } of members) this.#valueOf(entryStart, valueStart, last);
  }

  #list(start: number, end: number): void {
    const reader = this.#reader;
    let item = start;
    while (item < end) {
      reader.at = item;
      reader.varint();
      const last = reader.endOfBytes(end);
      this.#valueOf(item, reader.at, last);
      item = last;
    }
  }

  /** Writes a value, with what stands before it from `start` on. */
  #valueOf(start: number, valueStart: number, end: number): void {
    const kind = this.#from[valueStart];
    if (kind !== STRUCT && kind !== LIST) {
      this.#copy(start, end);
      return;
    }
    const reader = this.#reader;
    reader.at = valueStart + 1;
    const last = reader.endOfBytes(end);
    const inside = reader.at;
    this.#copy(start, inside);
    if (kind === STRUCT) this.#struct(inside, last);
    else this.#list(inside, last);
  }

  #copy(start: number, end: number): void {
    const from = this.#from;
    const to = this.#to;
    const at = this.#at;
    this.#at += end - start;
    if (end - start > SHORT) from.copy(to, at, start, end);
    else for (let i = start; i < end; i++) to[at + i - start] = from[i] ?? 0;
  }
}

/** Byte by byte: any order does that stays the same. */
function compareNames(bytes: Buffer, one: Member, other: Member): number {
  const length = Math.min(one.keyEnd - one.keyStart, other.keyEnd - other.keyStart);
  for (let i = 0; i < length; i++) {
    const difference = (bytes[one.keyStart + i] ?? 0) - (bytes[other.keyStart + i] ?? 0);
    if (difference !== 0) return difference;
  }
  return one.keyEnd - one.keyStart - (other.keyEnd - other.keyStart);
}

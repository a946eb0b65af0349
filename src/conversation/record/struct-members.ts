import { unlessUnusual, WireReader } from "../../infra/wire-reader.ts";

/**
 * The top-level members of a struct that is plainly written: where the bytes of each lie. An entry is the member with its tag and
 * length; its value is a serialized google.protobuf.Value. What is inside is not read.
 */
export interface Member {
  readonly entryStart: number;
  readonly keyStart: number;
  readonly keyEnd: number;
  readonly valueStart: number;
  readonly end: number;
}

/** Goes through the members of the struct that lies between two places. */
export function eachMember(bytes: Buffer, start: number, end: number, visit: (member: Member) => void): void {
  const reader = new WireReader(bytes);
  reader.at = start;
  while (reader.at < end) {
    const entryStart = reader.at;
    reader.varint();
    const last = reader.endOfBytes(end);
    reader.varint();
    const keyEnd = reader.endOfBytes(last);
    const keyStart = reader.at;
    reader.at = keyEnd;
    reader.varint();
    reader.endOfBytes(last);
    visit({ entryStart, keyStart, keyEnd, valueStart: reader.at, end: last });
    reader.at = last;
  }
}

/** Reads a struct that was checked when it was stored, and that only damage can have made unreadable since. */
export function intact<T>(read: () => T): T {
  const value = unlessUnusual(read);
  if (value === undefined) throw new Error("a state is damaged: its bytes are no google.protobuf.Struct");
  return value;
}

import { BYTES, FIXED64, VARINT } from "./wire-reader.ts";

const tag = (field: number, type: number) => (field << 3) | type;

/** The tags of google.protobuf.Struct and what it is made of, as they stand before each field. */
export const STRUCT_ENTRY = tag(1, BYTES);
export const ENTRY_KEY = tag(1, BYTES);
export const ENTRY_VALUE = tag(2, BYTES);
export const LIST_VALUE = tag(1, BYTES);

/** What a Value holds. */
export const NULL = tag(1, VARINT);
export const NUMBER = tag(2, FIXED64);
export const STRING = tag(3, BYTES);
export const BOOL = tag(4, VARINT);
export const STRUCT = tag(5, BYTES);
export const LIST = tag(6, BYTES);

/**
 * Arrays as Postgres takes them in its binary form, for statements that insert many rows at once: `unnest($1::bigint[])`. A few
 * bytes an element, where text would have to be quoted here and parsed there.
 */
const OID = { int8: 20, text: 25, bytea: 17, float8: 701 } as const;
const HEADER = 20;

export function bigintArray(values: readonly (number | null | undefined)[]): Uint8Array {
  const bytes = Buffer.allocUnsafe(HEADER + values.length * 12);
  let at = writeHeader(bytes, OID.int8, values.length);
  for (const value of values) {
    if (value === null || value === undefined) {
      at = bytes.writeInt32BE(-1, at);
      continue;
    }
    at = bytes.writeInt32BE(8, at);
    const high = Math.floor(value / 0x1_0000_0000);
    at = bytes.writeInt32BE(high, at);
    at = bytes.writeUInt32BE(value - high * 0x1_0000_0000, at);
  }
  return bytes.subarray(0, at);
}

export function byteaArray(values: readonly (Uint8Array | null)[]): Uint8Array {
  let length = HEADER;
  for (const value of values) length += 4 + (value?.length ?? 0);
  const bytes = Buffer.allocUnsafe(length);
  let at = writeHeader(bytes, OID.bytea, values.length);
  for (const value of values) {
    at = bytes.writeInt32BE(value === null ? -1 : value.length, at);
    if (value === null) continue;
    bytes.set(value, at);
    at += value.length;
  }
  return bytes;
}

export function doubleArray(values: readonly (number | null)[]): Uint8Array {
  const bytes = Buffer.allocUnsafe(HEADER + values.length * 12);
  let at = writeHeader(bytes, OID.float8, values.length);
  for (const value of values) {
    at = bytes.writeInt32BE(value === null ? -1 : 8, at);
    if (value !== null) at = bytes.writeDoubleBE(value, at);
  }
  return bytes.subarray(0, at);
}

export function textArray(values: readonly (string | null)[]): Uint8Array {
  let length = HEADER;
  for (const value of values) length += 4 + (value === null ? 0 : Buffer.byteLength(value));
  const bytes = Buffer.allocUnsafe(length);
  let at = writeHeader(bytes, OID.text, values.length);
  for (const value of values) {
    if (value === null) {
      at = bytes.writeInt32BE(-1, at);
      continue;
    }
    const written = bytes.write(value, at + 4);
    bytes.writeInt32BE(written, at);
    at += 4 + written;
  }
  return bytes;
}

/** One dimension that begins at 1. */
function writeHeader(bytes: Buffer, oid: number, length: number): number {
  bytes.writeInt32BE(1, 0);
  bytes.writeInt32BE(1, 4);
  bytes.writeInt32BE(oid, 8);
  bytes.writeInt32BE(length, 12);
  bytes.writeInt32BE(1, 16);
  return HEADER;
}

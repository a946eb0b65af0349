import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

/* Protobuf written by hand: what no encoder would write. */

export const bytes = (field: number, value: Uint8Array | string) =>
  new BinaryWriter()
    .tag(field, WireType.LengthDelimited)
    .bytes(typeof value === "string" ? Buffer.from(value) : value)
    .finish();
export const varint = (field: number, value: number | bigint) =>
  new BinaryWriter().tag(field, WireType.Varint).uint64(value).finish();
export const join = (...parts: readonly Uint8Array[]): Uint8Array => Buffer.concat(parts);

/** An entry of a Struct, and what its value may be. */
export const field = (key: string, value: Uint8Array) => join(bytes(1, key), bytes(2, value));
export const number = (value: number) => new BinaryWriter().tag(2, WireType.Bit64).double(value).finish();
export const text = (value: string) => bytes(3, value);

/** A Value of so many Structs within each other. */
export function deepValue(levels: number): Uint8Array {
  // From the inside out, without copying what is inside each time.
  const heads: Uint8Array[] = [];
  let length = 0;
  const wrap = (field: number, before = new Uint8Array()) => {
    const head = join(before, new BinaryWriter().tag(field, WireType.LengthDelimited).uint32(length).finish());
    heads.push(head);
    length += head.length;
  };
  for (let level = 0; level < levels; level++) {
    wrap(2, bytes(1, "k"));
    wrap(1);
    wrap(5);
  }
  return Buffer.concat(heads.reverse());
}

/** For every text within the message, at any depth: its name, and the message with nothing but a text that is not UTF-8. */
export function textsOf(desc: DescMessage, prefix = "", within: readonly DescMessage[] = []): NamedBytes[] {
  // A Struct holds Structs without end.
  if (within.includes(desc)) return [];
  return desc.fields.flatMap((field) => {
    const name = `${prefix}${field.name}`;
    if (isText(field)) return [{ name, bytes: nested(field, notText) }];
    const inner = field.message === undefined ? [] : textsOf(field.message, `${name}.`, [...within, desc]);
    if (field.fieldKind !== "map") return inner.map((one) => ({ ...one, bytes: nested(field, one.bytes) }));
    const key = { name: `${name}, a key`, bytes: nested(field, nested({ number: 1 }, notText)) };
    const values = inner.map((one) => ({ ...one, bytes: nested(field, nested({ number: 2 }, one.bytes)) }));
    return [...(field.mapKey === ScalarType.STRING ? [key] : []), ...values];
  });
}

export interface NamedBytes {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const notText = new Uint8Array([0x61, 0xc3, 0x28]);

function isText(field: DescField): boolean {
  return (field.fieldKind === "scalar" || field.fieldKind === "list") && field.scalar === ScalarType.STRING;
}

function nested({ number }: Pick<DescField, "number">, bytes: Uint8Array): Uint8Array {
  return new BinaryWriter().tag(number, WireType.LengthDelimited).bytes(bytes).finish();
}

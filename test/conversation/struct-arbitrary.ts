import { create, fromBinary, type JsonObject, type JsonValue, toBinary } from "@bufbuild/protobuf";
import fc from "fast-check";
import { field, messageOf } from "../../src/conversation/record/conversation-bytes.ts";
import { ConversationSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";

const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 60 }),
  fc.string({ maxLength: 100 }),
  fc.constantFrom("", "\0", '"', "\\", "\u2028", "\ufeff", "😀", "__proto__", "constructor", "10", "user_id"),
);

/** Numbers at the edges of what a double can say. */
const edge = fc.constantFrom(
  ...[-0, 1e308, -Number.MAX_VALUE, Number.MIN_VALUE, 2 ** 53 + 1, -(2 ** 53), 2 ** 64, 1e21, 1e-7, Number.EPSILON],
);

export const anyJson: fc.Arbitrary<JsonValue> = fc.letrec<{ value: JsonValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constant(null),
    fc.boolean(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.integer(),
    edge,
    text,
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(text, tie("value"), { maxKeys: 5 }),
  ),
})).value;

/** What a state may be. */
export const anyObject: fc.Arbitrary<JsonObject> = fc.dictionary(text, anyJson, { maxKeys: 6 });

/** Bytes with some of them changed. */
export interface Spoilt {
  readonly at: number;
  readonly to: number;
}

export const anySpoiling: fc.Arbitrary<readonly Spoilt[]> = fc.array(
  fc.record({ at: fc.nat(), to: fc.oneof(fc.nat({ max: 64 }), fc.nat({ max: 255 })) }),
  { minLength: 1, maxLength: 3 },
);

export function spoil(bytes: Uint8Array, spoiling: readonly Spoilt[]): Uint8Array {
  const spoilt = Uint8Array.from(bytes);
  if (bytes.length > 0) for (const { at, to } of spoiling) spoilt[at % bytes.length] = to;
  return spoilt;
}

const STATE = 2;

/** A struct as the generated code writes it. */
export function encodedStruct(state: JsonObject): Uint8Array {
  const bytes = toBinary(ConversationSchema, create(ConversationSchema, { state }));
  // Its tag is one byte, and its length is as long as it takes.
  const start = 1 + bytes.subarray(1).findIndex((byte) => byte < 0x80) + 1;
  return bytes.subarray(start);
}

/** A struct as the generated code reads it. Throws when it is none. */
export function decodedStruct(bytes: Uint8Array): JsonObject {
  return fromBinary(ConversationSchema, messageOf(field(STATE, bytes))).state ?? {};
}

import type { Struct, Value } from "@bufbuild/protobuf/wkt";
import type { FieldViolation } from "../../infra/failure.ts";
import { stepTo } from "../../infra/json-path.ts";

/**
 * Why a google.protobuf.Value that sets no kind is refused: protobuf reads it as null, and a client that knows no way to write a
 * value writes it so, without a word to its caller.
 */
export const UNDECIDED =
  "is a value of no kind, which clients write for undefined and for a bigint: send null, a number or a text";

/** Where values of a struct say nothing. */
export function* undecidedIn({ fields }: Struct, path: string): Generator<FieldViolation> {
  for (const [name, value] of Object.entries(fields)) yield* undecidedValues(value, path + stepTo(name));
}

function* undecidedValues({ kind }: Value, path: string): Generator<FieldViolation> {
  if (kind.case === undefined) yield { field: path, description: UNDECIDED };
  else if (kind.case === "structValue") yield* undecidedIn(kind.value, path);
  else if (kind.case === "listValue") {
    for (const [place, value] of kind.value.values.entries()) yield* undecidedValues(value, `${path}[${place}]`);
  }
}

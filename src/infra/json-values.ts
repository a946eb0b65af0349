import type { JsonValue } from "@bufbuild/protobuf";

/** How many values there are within: members of objects and elements of lists, at any depth. Stops soon after `most`. */
export function valuesIn(json: JsonValue, most: number): number {
  if (typeof json !== "object" || json === null) return 0;
  const inner = Array.isArray(json) ? json : Object.values(json);
  let values = inner.length;
  for (const value of inner) {
    if (values > most) break;
    values += valuesIn(value, most - values);
  }
  return values;
}

import type { JsonObject, JsonValue } from "@bufbuild/protobuf";

/** The names on the way of a JSON pointer (RFC 6901), unescaped. Undefined when the text is none. */
export function parsePointer(pointer: string): readonly string[] | undefined {
  if (pointer === "") return [];
  if (!pointer.startsWith("/") || /~(?![01])/.test(pointer)) return undefined;
  // "~01" is "~1" and not "/", so "~0" comes last.
  const plain = (name: string) => name.replaceAll("~1", "/").replaceAll("~0", "~");
  return pointer.slice(1).split("/").map(plain);
}

/** What a pointer's path leads to. Undefined when there is nothing. */
export function valueAt(root: JsonObject | undefined, path: readonly string[]): JsonValue | undefined {
  let value: JsonValue | undefined = root;
  for (const name of path) {
    if (typeof value !== "object" || value === null) return undefined;
    if (Array.isArray(value)) value = /^(0|[1-9]\d*)$/.test(name) ? value[Number(name)] : undefined;
    else value = Object.hasOwn(value, name) ? value[name] : undefined;
  }
  return value;
}

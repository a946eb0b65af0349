import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { likeness, type Mapping } from "./roles.ts";
import { objectOf, unpacked, wordOf } from "./values.ts";

/** Fields under which queues and log writers put the record itself. */
const ENVELOPES: ReadonlySet<string> = new Set(
  "data payload message record event entry body json audit log eventdata auditdata auditrecord content value".split(
    " ",
  ),
);

/**
 * A foreign record as JSON: texts that hold JSON are taken apart, and a record that stands inside one field of another is taken out,
 * with the fields around it beside its own.
 */
export function fieldsOf(raw: Readonly<Record<string, unknown>>, mapping: Mapping): JsonObject {
  const outer: JsonObject = Object.fromEntries(
    Object.entries(raw).flatMap(([name, value]): [string, JsonValue][] => {
      const json = jsonOf(value);
      return json === null ? [] : [[name, json]];
    }),
  );
  if (likeness(mapping.rolesOf(outer)) > 0) return outer;
  const envelope = Object.keys(outer).find((name) => {
    const inner = objectOf(outer[name]);
    return ENVELOPES.has(wordOf(name)) && inner !== undefined && likeness(mapping.rolesOf({ ...outer, ...inner })) > 0;
  });
  const inner = envelope === undefined ? undefined : objectOf(outer[envelope]);
  if (envelope === undefined || inner === undefined) return outer;
  const around = Object.entries(outer).filter(([name]) => name !== envelope);
  return Object.fromEntries([
    ...Object.entries(inner).filter(([, value]) => value !== null),
    ...around.map(([name, value]): [string, JsonValue] => [name in inner ? `${envelope}_${name}` : name, value]),
  ]);
}

function jsonOf(value: unknown): JsonValue {
  switch (typeof value) {
    case "string":
      return unpacked(value);
    case "bigint":
      return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
    case "number":
    case "boolean":
      return value;
    case "object":
      if (value === null) return null;
      if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
      return isJson(value) ? value : String(value);
    default:
      return null;
  }
}

/** What sources give is either a plain value or came out of JSON.parse. */
function isJson(value: object): value is JsonObject | JsonValue[] {
  return Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype;
}

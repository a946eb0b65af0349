import { create, fromJson, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { NullValue, type Struct, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import type { FieldViolation } from "../../infra/failure.ts";
import { MOST_LEVELS, TOO_DEEP } from "../../infra/json-levels.ts";

/** What is wrong with the JSON in a field, if anything: the first fault is enough. It may be nested as deep as a state. */
export function jsonFault(field: string, json: JsonValue): FieldViolation | undefined {
  return faultOf(field, json, 1);
}

function faultOf(field: string, json: JsonValue, level: number): FieldViolation | undefined {
  switch (typeof json) {
    case "number":
      return Number.isFinite(json) ? undefined : { field, description: `must not be ${json}: JSON has no such number` };
    case "string":
      return json.isWellFormed() ? undefined : { field, description: "is not text: it has half a surrogate pair" };
    case "boolean":
      return undefined;
  }
  if (json === null) return undefined;
  if (level > MOST_LEVELS) return { field, description: TOO_DEEP };
  if (Array.isArray(json)) {
    for (const [at, item] of json.entries()) {
      const fault = faultOf(`${field}[${at}]`, item, level + 1);
      if (fault !== undefined) return fault;
    }
    return undefined;
  }
  for (const name of Object.keys(json)) {
    if (!name.isWellFormed()) return { field, description: "has a name that is not text: half a surrogate pair" };
    const fault = faultOf(`${field}.${name}`, json[name] ?? null, level + 1);
    if (fault !== undefined) return fault;
  }
  return undefined;
}

/** The same text for the same JSON, however its objects are ordered. */
export function canonicalText(json: JsonValue): string {
  return JSON.stringify(sorted(json));
}

function sorted(json: JsonValue): JsonValue {
  if (typeof json !== "object" || json === null) return json;
  if (Array.isArray(json)) return json.map(sorted);
  // Names are not compared as the locale would, but they are all different, so any order that stays the same will do.
  const members = Object.entries(json).map(([name, value]): [string, JsonValue] => [name, sorted(value)]);
  return Object.fromEntries(members.sort(([one], [other]) => (one < other ? -1 : 1)));
}

/** A value as JSON. One that says no kind is null, as it is within a Struct. */
export function jsonOf({ kind }: Value): JsonValue {
  switch (kind.case) {
    case undefined:
    case "nullValue":
      return null;
    case "structValue":
      return jsonOfStruct(kind.value);
    case "listValue":
      return kind.value.values.map(jsonOf);
    default:
      return kind.value;
  }
}

export function jsonOfStruct({ fields }: Struct): JsonObject {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, jsonOf(value)]));
}

/** The same the other way: in what it makes, every value says its kind, as JSON needs it. */
export function valueFrom(json: JsonValue): Value {
  return json === null ? NULL : fromJson(ValueSchema, json);
}

export const NULL = create(ValueSchema, { kind: { case: "nullValue", value: NullValue.NULL_VALUE } });

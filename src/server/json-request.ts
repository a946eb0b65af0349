import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf";
import type { JsonGuard } from "../infra/call.ts";
import { refuseCrowdedJson } from "../infra/decode.ts";
import { Failure, type FieldViolation } from "../infra/failure.ts";
import { stepTo } from "../infra/json-path.ts";
import { didYouMean } from "../infra/suggest.ts";
import { malformed } from "./codec.ts";
import { jsonFault } from "./json-fault.ts";

/**
 * Decodes JSON requests of one type. Refuses, with the path of each, fields that do not exist, times that are written in another
 * form than protobuf's, and what is no text, no object or no JSON at all: the library behind this names no path for them. Whatever
 * else is wrong is left to it.
 *
 * A body that is not UTF-8 is refused, too: decoded leniently, it would be stored as something else.
 */
export function createJsonDecoder(desc: DescMessage, guard?: JsonGuard): { decode(bytes?: Uint8Array): string } {
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  return {
    decode(bytes) {
      const text = utf8.decode(bytes);
      refuseCrowdedJson(text);
      guard?.(text);
      const violations: FieldViolation[] = [];
      inspect(desc, parsed(desc, text), "", violations);
      if (violations.length === 0) return text;
      const message = violations.map(({ field, description }) => `${field}: ${description}`).join("; ");
      throw new Failure("invalid", "MALFORMED_REQUEST", message, { violations });
    },
  };
}

function parsed(desc: DescMessage, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw malformed(desc, error, jsonFault(text));
  }
}

function inspect(desc: DescMessage, json: unknown, path: string, violations: FieldViolation[]): void {
  switch (desc.typeName) {
    case "google.protobuf.Duration":
      if (isDuration(json)) return;
      violations.push({ field: path, description: `is ${shown(json)}, wanted ${durationLike(json)}` });
      return;
    case "google.protobuf.Timestamp":
      if (typeof json === "string" && timestamp.test(json)) return;
      violations.push({ field: path, description: `is ${shown(json)}, wanted a time such as "2030-01-31T12:00:00Z"` });
      return;
  }
  if (desc.typeName === "google.protobuf.Struct" && !isObject(json)) {
    violations.push({ field: path, description: `is ${shown(json)}, wanted an object` });
    return;
  }
  // The other well-known types are any JSON there is.
  const tooDeep = desc.typeName.startsWith("google.protobuf.") ? beyond(json) : undefined;
  if (tooDeep !== undefined)
    violations.push({ field: path + tooDeep, description: `nests more than ${MOST_LEVELS} levels` });
  if (desc.typeName.startsWith("google.protobuf.") || !isObject(json)) return;
  for (const [name, value] of Object.entries(json)) {
    const field = fieldOf(desc, name);
    const here = path === "" ? name : `${path}.${name}`;
    if (field === undefined) {
      violations.push({ field: here, description: `is not a field of ${desc.typeName}${hint(desc, name)}` });
    } else if (value !== null) {
      inspectField(field, value, path === "" ? field.name : `${path}.${field.name}`, violations);
    }
  }
}

function inspectField(field: DescField, value: unknown, path: string, violations: FieldViolation[]): void {
  const { message } = field;
  if (message === undefined) {
    if (field.fieldKind === "scalar" && field.scalar === ScalarType.STRING) inspectText(value, path, violations);
    return;
  }
  if (field.fieldKind === "message") inspect(message, value, path, violations);
  else if (field.fieldKind === "list" && Array.isArray(value)) {
    for (const [index, item] of value.entries())
      if (item !== null) inspect(message, item, `${path}[${index}]`, violations);
  } else if (field.fieldKind === "map" && isObject(value)) {
    for (const [key, item] of Object.entries(value))
      if (item !== null) inspect(message, item, `${path}[${key}]`, violations);
  }
}

function inspectText(value: unknown, path: string, violations: FieldViolation[]): void {
  if (typeof value !== "string") violations.push({ field: path, description: `is ${shown(value)}, wanted a text` });
  else if (!value.isWellFormed()) {
    violations.push({ field: path, description: "is not text: it has half a surrogate pair" });
  }
}

/** Where JSON is nested deeper than the library goes, or any RPC allows: there it would be refused without its path. */
function beyond(json: unknown): string | undefined {
  return isDeeper(json, 1) ? pathBeyond(json, 1) : undefined;
}

/** Nearly all of it is not: no names are looked at. */
function isDeeper(json: unknown, level: number): boolean {
  if (typeof json !== "object" || json === null) return false;
  if (level > MOST_LEVELS) return true;
  for (const value of Array.isArray(json) ? json : Object.values(json)) if (isDeeper(value, level + 1)) return true;
  return false;
}

function pathBeyond(json: unknown, level: number): string {
  if (typeof json !== "object" || json === null || level > MOST_LEVELS) return "";
  const [key, value] = Object.entries(json).find(([, inner]) => isDeeper(inner, level + 1)) ?? [];
  if (key === undefined) return "";
  return (Array.isArray(json) ? `[${key}]` : stepTo(key)) + pathBeyond(value, level + 1);
}

const MOST_LEVELS = 32;

function fieldOf(desc: DescMessage, name: string): DescField | undefined {
  return desc.fields.find((field) => field.jsonName === name || field.name === name);
}

/** The field that was meant: of this message, or of one inside it, such as `expiry.ttl` for `ttl`. */
function hint(desc: DescMessage, name: string): string {
  const inside = desc.fields.flatMap(({ jsonName, fieldKind, message }) =>
    fieldKind === "message" && message !== undefined && fieldOf(message, name) ? `${jsonName}.${name}` : [],
  );
  if (inside.length > 0) return `; did you mean ${inside.join(" or ")}?`;
  const names = desc.fields.map(({ jsonName }) => jsonName);
  return didYouMean(name, names) || `; there are ${names.join(", ") || "none"}`;
}

const timestamp = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$/;

function isDuration(json: unknown): boolean {
  return typeof json === "string" && /^-?\d{1,12}(\.\d{1,9})?s$/.test(json);
}

const seconds = new Map([
  ["ms", 0.001],
  ["", 1],
  ["s", 1],
  ["m", 60],
  ["min", 60],
  ["h", 3600],
  ["d", 86_400],
]);

/** The form wanted, with what was written in it where that can be told. */
function durationLike(json: unknown): string {
  const [, amount, unit = ""] = /^(\d{1,9}(?:\.\d{1,3})?) ?([a-z]*)$/.exec(String(json)) ?? [];
  const factor = seconds.get(unit);
  const exact = amount === undefined || factor === undefined ? undefined : Number((Number(amount) * factor).toFixed(6));
  return exact === undefined ? `seconds with an s, such as "300s"` : `seconds with an s: "${exact}s"`;
}

function shown(json: unknown): string {
  const text = JSON.stringify(json) ?? "";
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function isObject(json: unknown): json is Readonly<Record<string, unknown>> {
  return typeof json === "object" && json !== null && !Array.isArray(json);
}

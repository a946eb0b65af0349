import type { Timestamp } from "@bufbuild/protobuf/wkt";
import {
  type AuditAttributeMatch,
  type AuditFilter,
  AuditOutcome,
  AuditStatus,
} from "../../gen/holdfast/v1/audit_pb.js";
import { type Fields, textFault } from "../../infra/fields.ts";
import { microsecondsOf } from "../record/leaf.ts";
import { parsePointer } from "./json-pointer.ts";

const VALUES = 100;
const ATTRIBUTES = 10;
const POINTER_BYTES = 256;
const POINTER_LEVELS = 8;
/** What these are in a record: nothing longer can match. */
const BYTES = {
  actor: 256,
  action: 256,
  resourceType: 128,
  resourceId: 512,
  service: 128,
  producer: 129,
  traceId: 128,
};

/** An AuditFilter that was checked. What is empty or undefined matches everything. */
export interface Filter {
  readonly actors: ReadonlySet<string>;
  /** Actions are one of these, or begin with one of `actionPrefixes`. */
  readonly actions: ReadonlySet<string>;
  readonly actionPrefixes: ReadonlySet<string>;
  readonly resourceType: string;
  readonly resourceId: string;
  readonly outcomes: ReadonlySet<number>;
  readonly statuses: ReadonlySet<number>;
  readonly services: ReadonlySet<string>;
  readonly producers: ReadonlySet<string>;
  readonly traceId: string;
  /** From here on. */
  readonly start: Instant | undefined;
  /** Before this. */
  readonly end: Instant | undefined;
  readonly attributes: readonly AttributeMatch[];
}

/** A time as exact as callers may give it. */
export interface Instant {
  /** Microseconds since 1970; those that no record can have are brought to the nearest that is a safe integer. */
  readonly us: number;
  /** Nanoseconds beyond them: 0 to 999. */
  readonly nanos: number;
}

export interface AttributeMatch {
  readonly path: readonly string[];
  readonly value: string | number | boolean | null;
}

/** Reads a filter. What is wrong is refused as a part of `field`, and the result is then of no use. */
export function filterOf(fields: Fields, field: string, filter: AuditFilter | undefined): Filter {
  const actions = texts(fields, `${field}.actions`, filter?.actions, BYTES.action, "*");
  const resourceType = filter?.resourceType ?? "";
  const resourceId = filter?.resourceId ?? "";
  fields.text(`${field}.resource_type`, resourceType, BYTES.resourceType, true);
  fields.text(`${field}.resource_id`, resourceId, BYTES.resourceId, true);
  if (resourceId !== "" && resourceType === "") fields.refuse(`${field}.resource_type`, "must be set with resource_id");
  fields.text(`${field}.trace_id`, filter?.traceId ?? "", BYTES.traceId, true);
  return {
    actors: new Set(texts(fields, `${field}.actors`, filter?.actors, BYTES.actor)),
    actions: new Set(actions.filter((action) => !action.endsWith("*"))),
    actionPrefixes: new Set(actions.filter((action) => action.endsWith("*")).map((action) => action.slice(0, -1))),
    resourceType,
    resourceId,
    outcomes: new Set(values(fields, `${field}.outcomes`, filter?.outcomes, outcomeFault)),
    statuses: new Set(values(fields, `${field}.statuses`, filter?.statuses, statusFault)),
    services: new Set(texts(fields, `${field}.services`, filter?.services, BYTES.service)),
    producers: new Set(texts(fields, `${field}.producers`, filter?.producers, BYTES.producer)),
    traceId: filter?.traceId ?? "",
    start: instant(fields, `${field}.start_time`, filter?.startTime),
    end: instant(fields, `${field}.end_time`, filter?.endTime),
    attributes: attributes(fields, `${field}.attributes`, filter?.attributes),
  };
}

/** The filter as a text: the same for two that say the same, in whatever order. "{}" matches everything. */
export function serializeFilter(filter: Filter): string {
  const said: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(filter)) {
    if (value instanceof Set) {
      if (value.size > 0) said[name] = [...value].sort();
    } else if (Array.isArray(value)) {
      if (value.length > 0) said[name] = [...new Set(value.map((part) => JSON.stringify(part)))].sort();
    } else if (value !== undefined && value !== "") said[name] = value;
  }
  return JSON.stringify(said);
}

function hasFew(fields: Fields, field: string, length: number, most: number): boolean {
  if (length <= most) return true;
  fields.refuse(field, `has ${length} elements; the limit is ${most}`);
  return false;
}

function texts(
  fields: Fields,
  field: string,
  given: readonly string[] = [],
  mostBytes: number,
  ending = "",
): readonly string[] {
  if (!hasFew(fields, field, given.length, VALUES)) return [];
  for (const [at, text] of given.entries()) {
    const isPrefix = ending !== "" && text.endsWith(ending);
    const fault = textFault(isPrefix ? text.slice(0, -ending.length) : text, mostBytes, isPrefix);
    if (fault !== undefined) fields.refuse(`${field}[${at}]`, fault);
  }
  return given;
}

function values(
  fields: Fields,
  field: string,
  given: readonly number[] = [],
  faultOf: (value: number) => string | undefined,
): readonly number[] {
  if (!hasFew(fields, field, given.length, VALUES)) return [];
  for (const [at, value] of given.entries()) {
    const fault = faultOf(value);
    if (fault !== undefined) fields.refuse(`${field}[${at}]`, fault);
  }
  return given;
}

function outcomeFault(value: number): string | undefined {
  return value in AuditOutcome ? undefined : "is not an outcome that this server knows";
}

function statusFault(value: number): string | undefined {
  if (value === AuditStatus.UNSPECIFIED) return "must not be UNSPECIFIED";
  return value in AuditStatus ? undefined : "is not a status that this server knows";
}

function instant(fields: Fields, field: string, time: Timestamp | undefined): Instant | undefined {
  if (time === undefined) return undefined;
  const seconds = Number(time.seconds);
  // The years 1 to 9999, as Timestamp has them.
  if (seconds < -62_135_596_800 || seconds > 253_402_300_799 || time.nanos < 0 || time.nanos > 999_999_999) {
    fields.refuse(field, "is not a timestamp");
    return undefined;
  }
  const us = Math.max(Number.MIN_SAFE_INTEGER, Math.min(microsecondsOf(time), Number.MAX_SAFE_INTEGER));
  return { us, nanos: time.nanos % 1000 };
}

function attributes(fields: Fields, field: string, given: readonly AuditAttributeMatch[] = []): AttributeMatch[] {
  if (!hasFew(fields, field, given.length, ATTRIBUTES)) return [];
  return given.flatMap((match, at) => attribute(fields, `${field}[${at}]`, match) ?? []);
}

function attribute(fields: Fields, field: string, { pointer, value }: AuditAttributeMatch): AttributeMatch | undefined {
  const path = pointerPath(fields, `${field}.pointer`, pointer);
  const wanted = scalar(fields, `${field}.value`, value);
  return path === undefined || wanted === undefined ? undefined : { path, value: wanted };
}

function pointerPath(fields: Fields, field: string, pointer: string): readonly string[] | undefined {
  const path = parsePointer(pointer);
  const fault = textFault(pointer, POINTER_BYTES, true);
  if (fault !== undefined) fields.refuse(field, fault);
  else if (path === undefined) fields.refuse(field, 'is not a JSON pointer, such as "/order/id"');
  else if (path.length > POINTER_LEVELS) {
    fields.refuse(field, `has ${path.length} levels; the limit is ${POINTER_LEVELS}`);
  } else return path;
  return undefined;
}

function scalar(
  fields: Fields,
  field: string,
  value: AuditAttributeMatch["value"],
): AttributeMatch["value"] | undefined {
  const kind = value?.kind;
  switch (kind?.case) {
    case "stringValue":
    case "boolValue":
      return kind.value;
    case "numberValue":
      if (Number.isFinite(kind.value)) return kind.value;
      fields.refuse(field, "must be finite");
      return undefined;
    case "nullValue":
      return null;
    case "structValue":
    case "listValue":
      fields.refuse(field, "must be a string, a number, a bool or null");
      return undefined;
    default:
      fields.refuse(field, "must be set");
      return undefined;
  }
}

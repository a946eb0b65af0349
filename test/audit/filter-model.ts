import { create, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { toTimestamp } from "../../src/audit/record/leaf.ts";
import {
  type AuditEntry,
  AuditEntrySchema,
  type AuditFilter,
  AuditFilterSchema,
  type AuditOutcome,
  type AuditStatus,
} from "../../src/gen/holdfast/v1/audit_pb.js";

/** A record as a filter sees it. */
export interface Facts {
  readonly producer: string;
  readonly occurUs: number;
  readonly status: number;
  readonly entry: AuditEntry;
}

export const BASE_US = 1_700_000_000_000_000;

const someone = fc.constantFrom("ann", "bob", "cid", "ann*", "Ann", "ünal", "ann ");
const something = fc.constantFrom("a", "a.b", "a.b.c", "a.bc", "b", "a*", "a.\u{10ffff}x", "z");
const scalar = fc.constantFrom<JsonValue>("1", 1, 0, -0, true, false, null, "", "x");
const attributes = fc.option(
  fc.record(
    {
      n: scalar,
      "a/b": scalar,
      "m~n": scalar,
      list: fc.array(scalar, { maxLength: 2 }),
      deep: fc.record({ x: scalar }),
    },
    { requiredKeys: [] },
  ),
  { nil: undefined },
);

/** Entries of a few words, so that any two have much in common. */
export const anyEntry: fc.Arbitrary<AuditEntry> = fc
  .record({
    us: fc.integer({ min: 0, max: 40 }),
    nanos: fc.constantFrom(0, 0, 0, 1, 500, 999),
    actor: someone,
    action: something,
    resource: fc.option(fc.record({ type: fc.constantFrom("t", "u"), id: fc.constantFrom("1", "2", "3") }), {
      nil: undefined,
    }),
    outcome: fc.integer({ min: 0, max: 3 }),
    service: fc.constantFrom("", "billing", "auth"),
    context: fc.option(fc.record({ traceId: fc.constantFrom("", "trace1", "trace2") }), { nil: undefined }),
    status: fc.integer({ min: 0, max: 2 }),
    attributes,
  })
  .map(({ us, nanos, ...rest }) => {
    const occurTime = toTimestamp(BASE_US + us);
    return create(AuditEntrySchema, { ...rest, occurTime: { ...occurTime, nanos: occurTime.nanos + nanos } });
  });

const few = <T>(values: fc.Arbitrary<T>) => fc.array(values, { minLength: 1, maxLength: 3 });
const time = fc.record({
  us: fc.oneof(fc.integer({ min: -1, max: 41 }), fc.integer({ min: 0, max: 200 })),
  nanos: fc.constantFrom(0, 1, 500),
});
const match = fc.record({
  pointer: fc.constantFrom(
    "",
    "/n",
    "/a~1b",
    "/m~0n",
    "/list/0",
    "/list/-",
    "/list/01",
    "/deep/x",
    "/deep",
    "/none/x",
    "/n/x",
  ),
  value: scalar,
});

const fields = {
  actors: few(someone),
  actions: few(fc.oneof(something, fc.constantFrom("a.*", "*", "a.b*", "q*", "a.\u{10ffff}*", "\u{10ffff}*"))),
  resource: fc.constantFrom({ type: "t", id: "" }, { type: "t", id: "1" }, { type: "u", id: "2" }),
  outcomes: few(fc.integer({ min: 0, max: 3 })),
  statuses: few(fc.integer({ min: 1, max: 4 })),
  services: few(fc.constantFrom("billing", "auth", "none")),
  producers: few(fc.constantFrom("p1", "p2", "p3", "p4")),
  traceId: fc.constantFrom("trace1", "trace3"),
  start: time,
  end: time,
  attributes: few(match),
};

/** Filters of up to three fields, so that they leave something. */
export const anyFilter: fc.Arbitrary<AuditFilter> = fc
  .tuple(fc.record(fields), fc.shuffledSubarray(Object.keys(fields), { maxLength: 3 }))
  .map(([all, chosen]) => {
    const said: Partial<typeof all> = Object.fromEntries(Object.entries(all).filter(([name]) => chosen.includes(name)));
    const { resource, start, end, attributes = [], ...rest } = said;
    const init: MessageInitShape<typeof AuditFilterSchema> = {
      ...rest,
      resourceType: resource?.type ?? "",
      resourceId: resource?.id ?? "",
      attributes: attributes.map(({ pointer, value }) => ({ pointer, value: { kind: kindOf(value) } })),
    };
    return create(AuditFilterSchema, { ...init, ...timed("startTime", start), ...timed("endTime", end) });
  });

function timed(name: "startTime" | "endTime", at: { us: number; nanos: number } | undefined) {
  if (at === undefined) return {};
  const time = toTimestamp(BASE_US + at.us);
  return { [name]: { ...time, nanos: time.nanos + at.nanos } };
}

function kindOf(value: JsonValue) {
  if (typeof value === "string") return { case: "stringValue" as const, value };
  if (typeof value === "number") return { case: "numberValue" as const, value };
  if (typeof value === "boolean") return { case: "boolValue" as const, value };
  return { case: "nullValue" as const, value: 0 };
}

/** What the contract says of a filter, word by word and however slow. */
export function wants(filter: AuditFilter, { producer, occurUs, status, entry }: Facts): boolean {
  const nanos = (time: { seconds: bigint; nanos: number }) => time.seconds * 1_000_000_000n + BigInt(time.nanos);
  const at = entry.occurTime === undefined ? BigInt(occurUs) * 1000n : nanos(entry.occurTime);
  const any = <T>(values: readonly T[], fits: (value: T) => boolean) => values.length === 0 || values.some(fits);
  const isAction = (wanted: string) =>
    wanted.endsWith("*") ? entry.action.startsWith(wanted.slice(0, -1)) : entry.action === wanted;
  return [
    any(filter.actors, (wanted) => wanted === entry.actor),
    any(filter.actions, isAction),
    filter.resourceType === "" || filter.resourceType === entry.resource?.type,
    filter.resourceId === "" || filter.resourceId === entry.resource?.id,
    any(filter.outcomes, (wanted: AuditOutcome) => wanted === entry.outcome),
    any(filter.statuses, (wanted: AuditStatus) => wanted === status),
    any(filter.services, (wanted) => wanted === entry.service),
    any(filter.producers, (wanted) => wanted === producer),
    filter.traceId === "" || filter.traceId === entry.context?.traceId,
    filter.startTime === undefined || at >= nanos(filter.startTime),
    filter.endTime === undefined || at < nanos(filter.endTime),
    filter.attributes.every(({ pointer, value }) => {
      const found = walk(entry.attributes, pointer.split("/").slice(1));
      return value?.kind.case === "nullValue" ? (found ?? null) === null : found === value?.kind.value;
    }),
  ].every((fits) => fits);
}

function walk(value: JsonValue | undefined, [name, ...rest]: readonly string[]): JsonValue | undefined {
  if (name === undefined) return value;
  if (Array.isArray(value)) {
    const index = value.findIndex((_, at) => String(at) === name);
    return index === -1 ? undefined : walk(value[index], rest);
  }
  if (typeof value !== "object" || value === null) return undefined;
  const found = Object.entries(value).find(([key]) => key.replaceAll("~", "~0").replaceAll("/", "~1") === name);
  return walk(found?.[1], rest);
}

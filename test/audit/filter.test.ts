import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { microsecondsOf } from "../../src/audit/record/leaf.ts";
import { filterOf, serializeFilter } from "../../src/audit/search/filter.ts";
import { matches, statusAsAppended } from "../../src/audit/search/filter-match.ts";
import {
  AuditEntrySchema,
  type AuditFilter,
  AuditFilterSchema,
  AuditStatus,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { Fields } from "../../src/infra/fields.ts";
import { anyEntry, anyFilter, wants } from "./filter-model.ts";

type FilterInit = MessageInitShape<typeof AuditFilterSchema>;

function read(init: FilterInit | AuditFilter) {
  const fields = new Fields();
  const filter = filterOf(fields, "filter", create(AuditFilterSchema, init));
  return { filter, refused: fields.violations.map(({ field }) => field) };
}

const ofLength = (length: number) => Array.from({ length }, (_, at) => `v${at}`);
const levels = (count: number) => "/x".repeat(count);

describe("a filter", () => {
  it("matches what the contract says, whatever it asks for", () => {
    fc.assert(
      fc.property(anyFilter, fc.array(anyEntry, { minLength: 20, maxLength: 20 }), (given, entries) => {
        const { filter, refused } = read(given);
        expect(refused).toEqual([]);
        for (const [at, entry] of entries.entries()) {
          const occurUs = entry.occurTime === undefined ? 0 : microsecondsOf(entry.occurTime);
          const facts = { producer: `p${at % 4}`, occurUs, status: 1 + (at % 4), entry };
          expect(matches(filter, facts)).toBe(wants(given, facts));
        }
      }),
      { numRuns: 500 },
    );
  });

  it("that is empty or unset matches every record", () => {
    const facts = {
      producer: "p",
      occurUs: 1,
      status: 1,
      entry: create(AuditEntrySchema, { actor: "a", action: "b" }),
    };
    expect(matches(read({}).filter, facts)).toBe(true);
    expect(matches(filterOf(new Fields(), "filter", undefined), facts)).toBe(true);
  });

  it("does not find in attributes what JavaScript's objects bring along", () => {
    const { filter } = read({
      attributes: [{ pointer: "/constructor/name", value: { kind: { case: "stringValue", value: "Object" } } }],
    });
    const entry = create(AuditEntrySchema, { actor: "a", action: "b", attributes: { x: 1 } });
    expect(matches(filter, { producer: "p", occurUs: 1, status: 1, entry })).toBe(false);
  });

  it("takes times that no record can have", () => {
    const entry = create(AuditEntrySchema, { actor: "a", action: "b" });
    const facts = { producer: "p", occurUs: 1, status: 1, entry };
    const early = { seconds: -62_135_596_800n, nanos: 0 };
    const late = { seconds: 253_402_300_799n, nanos: 999_999_999 };
    expect(matches(read({ startTime: early, endTime: late }).filter, facts)).toBe(true);
    expect(matches(read({ startTime: late }).filter, facts)).toBe(false);
    expect(matches(read({ endTime: early }).filter, facts)).toBe(false);
  });

  it.each<[string, FilterInit, string]>([
    ["more than 100 actors", { actors: ofLength(101) }, "filter.actors"],
    ["more than 100 actions", { actions: ofLength(101) }, "filter.actions"],
    ["more than 100 services", { services: ofLength(101) }, "filter.services"],
    ["more than 100 producers", { producers: ofLength(101) }, "filter.producers"],
    ["more than 100 outcomes", { outcomes: Array(101).fill(1) }, "filter.outcomes"],
    ["more than 100 statuses", { statuses: Array(101).fill(1) }, "filter.statuses"],
    ["an empty actor", { actors: ["a", ""] }, "filter.actors[1]"],
    ["an actor that is too long", { actors: ["a".repeat(257)] }, "filter.actors[0]"],
    ["an empty action", { actions: [""] }, "filter.actions[0]"],
    ["a NUL", { services: ["a\0"] }, "filter.services[0]"],
    ["a resource without its type", { resourceId: "1" }, "filter.resource_type"],
    ["an outcome that is none", { outcomes: [9] }, "filter.outcomes[0]"],
    ["the status UNSPECIFIED", { statuses: [1, 0] }, "filter.statuses[1]"],
    ["a status that is none", { statuses: [9] }, "filter.statuses[0]"],
    ["a time that is none", { startTime: { seconds: 1n, nanos: -1 } }, "filter.start_time"],
    ["a time after the year 9999", { endTime: { seconds: 253_402_300_800n } }, "filter.end_time"],
    ["a trace that is too long", { traceId: "t".repeat(129) }, "filter.trace_id"],
  ])("refuses %s", (_, init, field) => {
    expect(read(init).refused).toEqual([field]);
  });

  it.each<[string, string, NonNullable<FilterInit["attributes"]>[number]["value"], string]>([
    ["a pointer that is none", "x", { kind: { case: "boolValue", value: true } }, "pointer"],
    ["a wrong escape", "/x~2", { kind: { case: "boolValue", value: true } }, "pointer"],
    ["more than 8 levels", levels(9), { kind: { case: "boolValue", value: true } }, "pointer"],
    ["a pointer that is too long", `/${"x".repeat(256)}`, { kind: { case: "boolValue", value: true } }, "pointer"],
    ["no value", "/x", undefined, "value"],
    ["a value of no kind", "/x", {}, "value"],
    ["a list", "/x", { kind: { case: "listValue", value: {} } }, "value"],
    ["an object", "/x", { kind: { case: "structValue", value: { fields: {} } } }, "value"],
    ["a number that is none", "/x", { kind: { case: "numberValue", value: Number.NaN } }, "value"],
  ])("refuses an attribute with %s", (_, pointer, value, part) => {
    const filter = create(AuditFilterSchema, { attributes: [{ pointer, ...(value && { value }) }] });
    expect(read(filter).refused).toEqual([`filter.attributes[0].${part}`]);
  });

  it("takes as much as the contract allows", () => {
    const value = { kind: { case: "boolValue" as const, value: true } };
    const { refused } = read({
      actors: ofLength(100),
      actions: [`${"a".repeat(256)}*`, "*"],
      attributes: Array.from({ length: 10 }, () => ({ pointer: levels(8), value })),
    });
    expect(refused).toEqual([]);
    const eleven = Array.from({ length: 11 }, () => ({ pointer: "/x", value }));
    expect(read({ attributes: eleven }).refused).toEqual(["filter.attributes"]);
  });

  it("names everything that is wrong at once", () => {
    expect(read({ actors: [""], statuses: [0], resourceId: "1" }).refused).toEqual([
      "filter.resource_type",
      "filter.actors[0]",
      "filter.statuses[0]",
    ]);
  });

  it("is the same text in whatever order and however often it is said", () => {
    fc.assert(
      fc.property(anyFilter, (one) => {
        const turned = create(AuditFilterSchema, {
          ...one,
          actors: [...one.actors, ...one.actors].reverse(),
          actions: one.actions.toReversed(),
          statuses: one.statuses.toReversed(),
          attributes: one.attributes.toReversed(),
        });
        expect(serializeFilter(read(turned).filter)).toBe(serializeFilter(read(one).filter));
      }),
    );
    expect(serializeFilter(read({}).filter)).toBe("{}");
  });

  it("is another text when it says something else", () => {
    const value = { kind: { case: "stringValue" as const, value: "1" } };
    const different: FilterInit[] = [
      {},
      { actors: ["a"] },
      { actors: ["a", "b"] },
      { actors: ["a,b"] },
      { actions: ["a"] },
      { actions: ["a*"] },
      { actions: ["*"] },
      { resourceType: "a" },
      { resourceType: "a", resourceId: "b" },
      { outcomes: [0] },
      { outcomes: [1] },
      { statuses: [1] },
      { services: ["a"] },
      { producers: ["a"] },
      { traceId: "a" },
      { startTime: { seconds: 1n } },
      { startTime: { seconds: 1n, nanos: 1 } },
      { endTime: { seconds: 1n } },
      { attributes: [{ pointer: "/a/b", value }] },
      { attributes: [{ pointer: "/a~1b", value }] },
      { attributes: [{ pointer: "/a/b", value: { kind: { case: "numberValue", value: 1 } } }] },
    ];
    const texts = different.map((init) => serializeFilter(read(init).filter));
    expect(new Set(texts).size).toBe(different.length);
  });

  it("compares a status as it was appended for whoever wants that", () => {
    const appended = (status: AuditStatus) => statusAsAppended(create(AuditEntrySchema, { status }));
    expect(appended(AuditStatus.PENDING)).toBe(AuditStatus.PENDING);
    expect(appended(AuditStatus.UNSPECIFIED)).toBe(AuditStatus.NOT_REQUIRED);
    expect(appended(AuditStatus.NOT_REQUIRED)).toBe(AuditStatus.NOT_REQUIRED);
  });
});

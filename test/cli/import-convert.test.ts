import { toJson } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { createConverter } from "../../src/cli/import/convert.ts";
import { createMapping, pairsOf } from "../../src/cli/import/roles.ts";
import type { Moment } from "../../src/cli/import/values.ts";
import { UsageError } from "../../src/cli/usage.ts";
import { AuditDecision, AuditEntrySchema } from "../../src/gen/holdfast/v1/audit_pb.js";

interface Given {
  readonly map?: readonly string[];
  /** Default: what spares each record here a time. */
  readonly defaults?: readonly string[];
  readonly time?: Moment;
}

function converted(raw: Record<string, unknown>, { map = [], defaults = ["time=import"], time }: Given = {}) {
  const mapping = createMapping(map);
  const made = createConverter({ mapping, defaults: pairsOf("--default", defaults) })(raw, time);
  if ("fault" in made) return { fault: made.fault };
  return { entry: toJson(AuditEntrySchema, made.entry), review: made.review };
}

const entryOf = (raw: Record<string, unknown>, given?: Given) => converted(raw, given).entry;

describe("a foreign record", () => {
  it("of the Python module's table becomes an entry about a memory", () => {
    const row = {
      id: 7n,
      memory_id: "m-1",
      operation: "update",
      user_id: 42n,
      status: "pending",
      created_at: "2024-01-02 03:04:05",
      metadata: '{"score": 0.5, "tags": ["a"]}',
      reviewed_by: null,
      reviewed_at: null,
    };
    expect(converted(row)).toEqual({
      entry: {
        occurTime: "2024-01-02T03:04:05Z",
        actor: "42",
        action: "update",
        resource: { type: "memory", id: "m-1" },
        status: "AUDIT_STATUS_PENDING",
        attributes: { id: 7, metadata: { score: 0.5, tags: ["a"] } },
      },
      review: undefined,
    });
  });

  it("of a NestJS service becomes an entry with its context and states", () => {
    const line = {
      timestamp: 1704164645123,
      userId: "u1",
      action: "invoice.update",
      resourceType: "invoice",
      resourceId: 9,
      result: "failed",
      service: "billing",
      request: { ip: "192.0.2.1", userAgent: "curl", correlationId: "t1", method: "PUT" },
      sessionId: "s1",
      oldValue: { amount: 1 },
      newValue: 2,
      extra: [1, null],
    };
    expect(entryOf(line)).toEqual({
      occurTime: "2024-01-02T03:04:05.123Z",
      actor: "u1",
      action: "invoice.update",
      resource: { type: "invoice", id: "9" },
      outcome: "AUDIT_OUTCOME_FAILURE",
      service: "billing",
      context: { ipAddress: "192.0.2.1", userAgent: "curl", traceId: "t1", sessionId: "s1" },
      before: { amount: 1 },
      after: { value: 2 },
      attributes: { request: { method: "PUT" }, extra: [1, null] },
    });
  });

  it("that stands in a field of another is taken out, with what is around it", () => {
    const inner = { user: "u1", action: "a", memory_id: "m", timestamp: 1 };
    const expected = {
      actor: "u1",
      action: "a",
      resource: { type: "memory", id: "m" },
      occurTime: "1970-01-01T00:00:01Z",
    };
    expect(entryOf({ data: JSON.stringify(inner) })).toEqual(expected);
    expect(entryOf({ payload: inner, retry: "2", timestamp: 5 })).toEqual({
      ...expected,
      attributes: { retry: "2", payload_timestamp: 5 },
    });
  });

  it("keeps what nothing else has a place for, whatever it is called", () => {
    const raw = JSON.parse(
      '{"actor": "a", "action": "b", "__proto__": 1, "constructor": "c", "status": "archived", "result": "maybe", "context": "web", "resource": {"kind": "x"}, "comment": "none", "empty": null}',
    );
    expect(entryOf(raw)).toEqual({
      actor: "a",
      action: "b",
      attributes: JSON.parse(
        '{"__proto__": 1, "constructor": "c", "status": "archived", "result": "maybe", "context": "web", "resource": {"kind": "x"}, "comment": "none"}',
      ),
    });
  });

  it("keeps integers beyond 2^53 and bytes as text", () => {
    const row = { actor: "a", action: "b", big: 9_007_199_254_740_993n, small: 5n, bytes: new Uint8Array([1, 2, 255]) };
    expect(entryOf(row)).toMatchObject({ attributes: { big: "9007199254740993", small: 5, bytes: "AQL/" } });
  });

  it("names a resource in any of the ways that are in use", () => {
    const of = (raw: Record<string, unknown>, given?: Given) => entryOf({ action: "a", actor: "b", ...raw }, given);
    const resource = (type: string, id: string) => ({ resource: { type, id } });
    expect(of({ resource: { type: "t", id: 1 } })).toMatchObject(resource("t", "1"));
    expect(of({ resource: { type: "t", id: "1", name: "n" } })).toMatchObject({
      ...resource("t", "1"),
      attributes: { resource: { name: "n" } },
    });
    expect(of({ resource: "doc", resource_id: "1" })).toMatchObject(resource("doc", "1"));
    expect(of({ entityType: "doc", entityId: "1" })).toMatchObject(resource("doc", "1"));
    expect(of({ resource_id: "1" })).toMatchObject(resource("resource", "1"));
    expect(of({ resource_id: "1" }, { defaults: ["time=import", "resource_type=memory"] })).toMatchObject(
      resource("memory", "1"),
    );
    expect(of({ target: "1" })).toMatchObject(resource("resource", "1"));
    expect(of({ resource_type: "t" })).toMatchObject({ attributes: { resource_type: "t" } });
    expect(of({ resource_type: "t" })).not.toHaveProperty("resource");
  });

  it("without an actor or an action is refused, unless it was said what to write then", () => {
    const row = { memory_id: "m", timestamp: 1, actor: "", action: "x" };
    expect(converted(row)).toEqual({ fault: "has no actor; --default actor=TEXT would say what to write" });
    expect(converted({ ...row, actor: { role: "root" } }).fault).toContain("has no actor");
    expect(entryOf({ ...row, actor: { role: "root" } }, { defaults: ["actor=old"] })).toMatchObject({ actor: "old" });
    expect(converted({ ...row, actor: "a", action: null }).fault).toContain("has no action; --default action=TEXT");
    expect(entryOf({ memory_id: "m", timestamp: 1 }, { defaults: ["actor=old", "action=x"] })).toMatchObject({
      actor: "old",
      action: "x",
    });
    expect(entryOf({ actor: { id: 5, email: "e" }, action: "a" })).toMatchObject({
      actor: "5",
      attributes: { actor: { id: 5, email: "e" } },
    });
  });

  it("without a time is refused, unless its source or the user says what it is then", () => {
    const row = { actor: "a", action: "x", time: "" };
    expect(converted(row, { defaults: [] }).fault).toBe("has no time; --default time=import would say what to write");
    expect(entryOf(row)).toEqual({ actor: "a", action: "x" });
    expect(entryOf(row, { defaults: ["time=2024-01-02"] })).toMatchObject({ occurTime: "2024-01-02T00:00:00Z" });
    const time = { seconds: 5n, nanos: 0 };
    expect(entryOf(row, { time })).toMatchObject({ occurTime: "1970-01-01T00:00:05Z" });
    expect(entryOf({ ...row, time: 7 }, { time })).toMatchObject({ occurTime: "1970-01-01T00:00:07Z" });
    expect(converted({ ...row, time: "import" }).fault).toContain('"import" is not a time');
    expect(() => entryOf(row, { defaults: ["time=soon"] })).toThrow(/--default time=soon is not a time.*or import/);
  });

  it("is read as the user says, where that is not what its names suggest", () => {
    const row = { who: "ada", action: "a", user: "machine" };
    expect(entryOf(row)).toMatchObject({ actor: "machine", attributes: { who: "ada" } });
    expect(entryOf(row, { map: ["actor=who"] })).toMatchObject({ actor: "ada", attributes: { user: "machine" } });
    expect(() => createMapping(["actor"])).toThrow(UsageError);
    expect(() => createMapping(["colour=who"])).toThrow(/one of time, actor/);
  });

  it("that was decided on waits in its entry, and the decision is beside it", () => {
    const row = { memory_id: "m", user: "u", action: "a", status: "Approved", reviewer: "bob", comment: "fine" };
    expect(converted(row)).toEqual({
      entry: { actor: "u", action: "a", resource: { type: "memory", id: "m" }, status: "AUDIT_STATUS_PENDING" },
      review: { decision: AuditDecision.APPROVE, reviewer: "bob", comment: "fine" },
    });
    const unsigned = { ...row, status: "REJECTED", reviewer: null, reviewed_at: "2024-01-01" };
    expect(converted(unsigned).fault).toBe(
      'was decided on ("REJECTED"), but has no reviewer; --default reviewer=TEXT would say what to write',
    );
    expect(converted(unsigned, { defaults: ["time=import", "reviewer=old system"] }).review).toEqual({
      decision: AuditDecision.REJECT,
      reviewer: "old system",
      comment: "fine [decided 2024-01-01]",
    });
  });

  it("says the same before and after it was decided on, so that it can be imported both times", () => {
    const waiting = {
      id: 1,
      memory_id: "m",
      user: "u",
      action: "a",
      status: "pending",
      reviewer: null,
      reviewed_at: null,
      comment: null,
    };
    const decided = { ...waiting, status: "approved", reviewer: "bob", reviewed_at: "2024-01-01", comment: "fine" };
    expect(entryOf(decided)).toEqual(entryOf(waiting));
  });

  it.each<[Record<string, unknown>, string]>([
    [{}, "it has no fields"],
    [{ level: "info", msg: "started" }, "it has level, msg"],
    [{ action: "a" }, "it has action"],
    [{ timestamp: 1, status: "ok" }, "it has timestamp, status"],
    [{ actor: "a", action: "b", time: "soon" }, '"soon" is not a time'],
  ])("that is none is not understood, and what it has is said: %j", (raw, why) => {
    expect(converted(raw).fault).toContain(why);
  });
});

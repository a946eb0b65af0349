import { create, equals, fromBinary, type JsonValue, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { status } from "@grpc/grpc-js";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type AuditEntry,
  AuditEntrySchema,
  AuditService,
  AuditServiceAppendRequestSchema,
  AuditServiceIngestRequestSchema,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { type AuditClient, createAuditClient } from "../support/audit-client.ts";
import { bytes, deepValue, field, join, number, text, varint } from "../support/bad-bytes.ts";
import { type BadCaller, complaints, createBadCaller, gauge } from "../support/bad-caller.ts";
import { createFrameSender, type FrameSender, frame } from "../support/bad-frames.ts";
import { many } from "../support/bad-value.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { residentMiB } from "../support/resident-memory.ts";
import { until } from "../support/until.ts";

let server: HoldfastProcess;
let caller: BadCaller;
let frames: FrameSender;
let audit: AuditClient;
beforeAll(async () => {
  // Postgres is the pickiest about what a text may hold.
  server = await startHoldfast({ DATABASE_URL: await freshDatabase() });
  caller = createBadCaller(server.grpcAddress);
  frames = createFrameSender(server.grpcAddress);
  audit = createAuditClient(server.grpcAddress);
});
afterAll(async () => {
  caller[Symbol.dispose]();
  frames[Symbol.dispose]();
  audit[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
});

const { method } = AuditService;
const path = (name: string) => `/${AuditService.typeName}/${name}`;

const who = join(bytes(2, "a"), bytes(3, "b"));

let lastProducer = 0;
/** An Append of one record with these bytes for its entry. */
async function append(entry: Uint8Array, sequence: Uint8Array = varint(1, 1)) {
  const producer = `p${++lastProducer}`;
  const ending = await caller.send(path("Append"), join(bytes(1, producer), bytes(2, join(sequence, bytes(2, entry)))));
  return { ...ending, id: `${producer}/1` };
}

/** Whether what is held is what the bytes say to whoever decodes them. */
async function isKept(id: string, entry: Uint8Array): Promise<boolean> {
  const held = (await audit.get(id))?.entry;
  if (held === undefined) return false;
  const said = fromBinary(AuditEntrySchema, entry);
  // The server fills it in.
  if (said.occurTime === undefined && held.occurTime !== undefined) said.occurTime = held.occurTime;
  return equals(AuditEntrySchema, held, said);
}

const struct = (...fields: readonly Uint8Array[]) => bytes(9, join(...fields.map((field) => bytes(1, field))));
describe("a record written in another way than usual", () => {
  const long = (...groups: number[]) => new Uint8Array(groups);
  const kept: readonly [string, Uint8Array, JsonValue?][] = [
    ["an own __proto__", join(who, struct(field("__proto__", text("x")))), JSON.parse('{"__proto__":"x"}')],
    [
      "an own __proto__ deep inside",
      join(who, struct(field("a", bytes(5, bytes(1, field("__proto__", bytes(5, bytes(1, field("y", number(1)))))))))),
      JSON.parse('{"a":{"__proto__":{"y":1}}}'),
    ],
    [
      "names that objects have",
      join(who, struct(...["constructor", "toString", "hasOwnProperty", ""].map((key) => field(key, text(key))))),
    ],
    ["its fields in another order", join(bytes(3, "b"), struct(field("k", number(1))), bytes(2, "a"))],
    ["an actor twice, of which the last counts", join(who, bytes(2, "last"))],
    ["attributes twice, which are merged", join(who, struct(field("a", number(1))), struct(field("b", number(2))))],
    [
      "a key twice, of which the last counts",
      join(who, struct(field("a", number(1)), field("a", number(2)))),
      { a: 2 },
    ],
    ["a value before its key", join(who, struct(join(bytes(2, number(1)), bytes(1, "k")))), { k: 1 }],
    ["a key that is left out", join(who, struct(bytes(2, number(1)))), { "": 1 }],
    ["a resource in two parts", join(who, bytes(4, bytes(1, "t")), bytes(4, bytes(2, "i")))],
    ["a number in more bytes than it needs", join(who, long(0x28, 0x81, 0x80, 0x80, 0x00))],
    ["a length in more bytes than it needs", join(who, long(0x32, 0x81, 0x00, 0x73))],
    ["a bool of 2", join(who, struct(field("k", varint(4, 2)))), { k: true }],
    ["a null of 7", join(who, struct(field("k", varint(1, 7)))), { k: null }],
    [
      "a value of two kinds, of which the last counts",
      join(who, struct(field("k", join(number(1), text("x"))))),
      { k: "x" },
    ],
    ["a value of no kind, which is null", join(who, struct(field("k", new Uint8Array()))), { k: null }],
    ["a key without a value, which is null", join(who, struct(bytes(1, "k"))), { k: null }],
    ["an empty Struct, list and text", join(who, bytes(9, ""), bytes(6, ""))],
    ["a field that nobody knows", join(who, bytes(99, "from tomorrow"))],
    ["a time before 1970", join(who, bytes(1, new BinaryWriter().tag(1, WireType.Varint).int64(-5).finish()))],
  ];
  it.each(kept)("is kept as it is meant: %s", async (_what, entry, attributes) => {
    const { code, message, id } = await append(entry);
    expect(code, message).toBe("OK");
    expect(await isKept(id, entry)).toBe(true);
    if (attributes === undefined) return;
    const [listed] = await audit.list({ producers: [id.slice(0, id.indexOf("/"))] });
    expect(JSON.stringify(listed?.entry?.attributes)).toBe(JSON.stringify(attributes));
  });

  const attributes = "records[0].entry.attributes";
  const refused: readonly [string, Uint8Array, string?][] = [
    ["NaN", join(who, struct(field("k", number(Number.NaN)))), attributes],
    ["infinity", join(who, struct(field("k", number(Number.POSITIVE_INFINITY)))), attributes],
    [
      "NaN in a list in an object",
      join(who, struct(field("k", bytes(5, bytes(1, field("l", bytes(6, bytes(1, number(Number.NaN))))))))),
      attributes,
    ],
    ["an outcome beyond 32 bits", join(who, varint(5, 2n ** 40n + 77n))],
    ["a status of approval", join(who, varint(8, 3)), "records[0].entry.status"],
    ["a status of none, written last", join(who, varint(8, 2), varint(8, 4)), "records[0].entry.status"],
    ["an actor that is taken back", join(who, bytes(2, "")), "records[0].entry.actor"],
    ["a NUL in a service", join(who, bytes(6, "\0")), "records[0].entry.service"],
    ["a text of half a character", join(who, struct(field("k", bytes(3, new Uint8Array([0xf0, 0x9f, 0x98])))))],
    [
      "a key of a surrogate",
      join(who, struct(join(bytes(1, new Uint8Array([0xed, 0xa0, 0x80])), bytes(2, number(1))))),
    ],
    ["an attribute that ends after its Struct", join(who, new Uint8Array([0x4a, 0x02, 0x0a, 0x7f]))],
    ["a double of four bytes", join(who, struct(join(bytes(1, "k"), bytes(2, new Uint8Array([0x11, 1, 2, 3, 4])))))],
  ];
  it.each(refused)("is refused: %s", async (_what, entry, blamed) => {
    const { code, reason, fields, id } = await append(entry);
    expect(code).toBe("INVALID_ARGUMENT");
    expect(reason).toBe(blamed === undefined ? reason : "FIELD_INVALID");
    if (blamed !== undefined) expect(fields).toEqual([blamed]);
    expect(await audit.get(id)).toBeUndefined();
  });

  it.each([
    ["0", varint(1, 0)],
    ["none", new Uint8Array()],
    ["2^53", varint(1, 2n ** 53n)],
    ["2^53 + 1", varint(1, 2n ** 53n + 1n)],
    ["2^64 - 1", varint(1, 2n ** 64n - 1n)],
    ["two, of which the last is 0", join(varint(1, 5), varint(1, 0))],
  ])("is refused with a sequence of %s", async (_what, sequence) => {
    expect(await append(who, sequence)).toMatchObject({ code: "INVALID_ARGUMENT", fields: ["records[0].sequence"] });
  });
});

describe("changed bytes", () => {
  const rich = create(AuditEntrySchema, {
    occurTime: { seconds: 1_700_000_000n, nanos: 5_000 },
    actor: "user:42",
    action: "memory.update",
    resource: { type: "memory", id: "m1" },
    outcome: 1,
    service: "billing",
    context: { ipAddress: "::1", userAgent: "u", traceId: "t", requestId: "r", sessionId: "s" },
    status: 2,
    attributes: { text: "\u00fc", number: 1.5, nested: { list: [1, null, true, { a: "b" }] } },
    before: { a: 1 },
    after: { a: [] },
  });
  const good = toBinary(AuditEntrySchema, rich);
  const change = fc.oneof(
    fc.record({ at: fc.nat(), remove: fc.constant(1), insert: fc.uint8Array({ minLength: 1, maxLength: 1 }) }),
    fc.record({ at: fc.nat(), remove: fc.nat(8), insert: fc.uint8Array({ maxLength: 8 }) }),
  );
  const changed = fc.array(change, { minLength: 1, maxLength: 3 }).map((changes) => {
    let entry: Uint8Array = good;
    for (const { at, remove, insert } of changes) {
      const start = at % (entry.length + 1);
      entry = join(entry.subarray(0, start), insert, entry.subarray(start + remove));
    }
    return entry;
  });

  it("in a record are refused, or the record is kept as it is said", async () => {
    let keptCount = 0;
    const property = fc.asyncProperty(changed, async (entry) => {
      const { code, message, id } = await append(entry);
      if (code === "OK") {
        keptCount++;
        expect(await isKept(id, entry), Buffer.from(entry).toString("hex")).toBe(true);
      } else {
        expect(code, message).toBe("INVALID_ARGUMENT");
        expect(await audit.get(id)).toBeUndefined();
      }
    });
    await fc.assert(property, { numRuns: 1_000, seed: 7430 });
    expect(keptCount).toBeGreaterThan(50);
  });

  it("in the messages of an Ingest end it or are refused, and it ends well otherwise", async () => {
    const open = toBinary(
      AuditServiceIngestRequestSchema,
      create(AuditServiceIngestRequestSchema, {
        message: { case: "open", value: { producer: "fuzzed" } },
      }),
    );
    const batch = toBinary(
      AuditServiceIngestRequestSchema,
      create(AuditServiceIngestRequestSchema, {
        message: {
          case: "batch",
          value: { batch: 1n, records: many(2, (i) => ({ sequence: BigInt(i + 1), entry: rich })) },
        },
      }),
    );
    const harm = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
    const property = fc.asyncProperty(fc.constantFrom(0, 1), harm, async (which, changes) => {
      const messages = [open, batch].map((message) => Buffer.from(message));
      const target = messages[which];
      for (const [at, byte] of changes) if (target !== undefined) target[at % target.length] = byte;
      const { grpcStatus, message } = await frames.send(path("Ingest"), join(...messages.map((one) => frame(one))));
      expect([status.OK, status.INVALID_ARGUMENT], `${message} ${target?.toString("hex")}`).toContain(grpcStatus);
    });
    await fc.assert(property, { numRuns: 500, seed: 7431 });
  });

  it("in a whole Append are refused, or it is taken as it is said", async () => {
    const request = create(AuditServiceAppendRequestSchema, {
      producer: "whole",
      records: [
        { sequence: 1n, entry: rich },
        { sequence: 2n, entry: { actor: "a", action: "b" } },
      ],
      minDurability: 3,
      requestId: "r",
    });
    const harm = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
    const property = fc.asyncProperty(harm, async (changes) => {
      const message = Buffer.from(toBinary(AuditServiceAppendRequestSchema, request));
      for (const [at, byte] of changes) message[at % message.length] = byte;
      const { code } = await caller.send(path("Append"), message);
      expect(code, message.toString("hex")).toMatch(/^(OK|INVALID_ARGUMENT|ALREADY_EXISTS)$/);
    });
    await fc.assert(property, { numRuns: 500, seed: 7432 });
  });
});

describe("messages made to hurt", () => {
  it.each([31, 100, 1_000, 10_000, 100_000])(
    "are refused, not followed to the end of the stack: %i levels",
    async (levels) => {
      const value = deepValue(levels);
      const entry = join(who, struct(field("k", value)));
      expect(await append(entry)).toMatchObject({ code: "INVALID_ARGUMENT" });
      const filter = bytes(1, bytes(12, join(bytes(1, "/a"), bytes(2, value))));
      for (const rpc of ["List", "ListPending", "Export", "Tail"]) {
        const ending = await caller.send(path(rpc), filter, { stream: rpc === "Export" || rpc === "Tail" });
        expect(ending, rpc).toMatchObject({ code: "INVALID_ARGUMENT" });
      }
    },
  );

  const empties = (tag: number) => Buffer.alloc(15_000_000, Buffer.from([tag, 0]));
  const nested = (...tags: number[]) =>
    tags.reduceRight((inner, tag) => bytes(tag, inner), empties(0x0a) as Uint8Array);
  const crowds: readonly [string, Uint8Array][] = [
    ["records", empties(0x12)],
    ["fields that nobody knows", empties(0x7a)],
    ["groups", Buffer.alloc(15_000_000, 0x0b)],
    ["records of nothing but a number", Buffer.alloc(15_000_000, Buffer.from([0x12, 2, 8, 1]))],
    ["whole records", Buffer.alloc(15_000_000, bytes(2, join(varint(1, 1), bytes(2, who))))],
    ["attributes of one record", nested(2, 2, 9)],
    ["values in a list of one attribute", nested(2, 2, 9, 1, 2, 6)],
  ];
  it.each(crowds)("of millions of %s cost little memory, and an answer", async (_what, body) => {
    const atRest = residentMiB(server.pid);
    const refused = (code: string) => expect(code).toMatch(/^(INVALID_ARGUMENT|RESOURCE_EXHAUSTED)$/);
    for (let round = 0; round < 3; round++) {
      const endings = await Promise.all(many(4, () => caller.send(path("Append"), join(bytes(1, "p"), body))));
      for (const { code } of endings) refused(code);
      const { grpcStatus } = await frames.send(
        path("Ingest"),
        join(frame(bytes(1, bytes(1, "p"))), frame(bytes(2, body))),
      );
      refused(status[grpcStatus ?? -1] ?? "");
    }
    // The bytes themselves, of four at a time.
    expect(residentMiB(server.pid) - atRest).toBeLessThan(250);
  });
});

it("all of it can be read and proven, and none is an error of the server, which has no call left under way", async () => {
  const records = await audit.list();
  expect(records.length).toBeGreaterThan(100);
  const entries: (AuditEntry | undefined)[] = records.map(({ entry }) => entry);
  expect(entries).not.toContain(undefined);
  expect((await audit.range(0n, 100_000)).problem).toBe("");
  const exported: string[] = [];
  const { ended } = audit.follow(method.export, {}, ({ data }) => exported.push(Buffer.from(data).toString()));
  expect(await ended).toBeUndefined();
  const lines = exported.join("").split("\n").slice(0, -1);
  expect(lines.map((line) => JSON.parse(line).id).sort()).toEqual(records.map(({ id }) => id).sort());
  await until(async () => (await gauge(server.httpUrl, "holdfast_calls_waiting")) === 0, { what: "no call under way" });
  expect(server.exited()).toBeUndefined();
  expect(complaints(server.output())).toEqual([]);
});

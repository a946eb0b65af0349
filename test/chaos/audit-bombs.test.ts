import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type AuditEntry, AuditEntrySchema } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createAuditClient } from "../support/audit-client.ts";
import { entryOf } from "../support/audit-entries.ts";
import { accountOf, createRecorder } from "../support/audit-recorder.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { until } from "../support/until.ts";

/*
 * Promises: attributes that are made to hurt are refused by name, record by record; the rest of their batch is kept, the largest that
 * are allowed are kept as they are, and the server goes on.
 */

const KiB = 1024;
const LEVELS = 30;
const VALUES = 4_096;

interface Bomb {
  readonly of: string;
  readonly entry: AuditEntry;
  readonly error: { readonly code: string; readonly reason?: string; readonly field?: string };
}

function withAttributes(attributes: JsonObject): AuditEntry {
  return create(AuditEntrySchema, { actor: "a", action: "bomb", attributes });
}

/** With attributes that only bytes can state, as another language's client would send them. */
function withBytes(attributes: Uint8Array): AuditEntry {
  const entry = create(AuditEntrySchema, { actor: "a", action: "bomb" });
  entry.$unknown = [{ no: 9, wireType: WireType.LengthDelimited, data: new BinaryWriter().bytes(attributes).finish() }];
  return entry;
}

function nested(levels: number, wrap: (inner: JsonValue) => JsonValue = (inner) => ({ inner })): JsonObject {
  let inner: JsonValue = "end";
  for (let level = 1; level < levels; level++) inner = wrap(inner);
  return { inner };
}

/** The bytes of a Struct of one field. `value` are those of its Value. */
function structOf(value: Uint8Array): Uint8Array {
  const field = new BinaryWriter().tag(1, WireType.LengthDelimited).string("n");
  field.tag(2, WireType.LengthDelimited).bytes(value);
  return new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(field.finish()).finish();
}

const numberValue = (value: number) => new BinaryWriter().tag(2, WireType.Bit64).double(value).finish();

const ATTRIBUTES = { code: "INVALID_ARGUMENT", field: "entry.attributes" };
const many = (values: number): JsonObject =>
  Object.fromEntries(Array.from({ length: values }, (_, at) => [`k${at}`, at]));

const bombs: Bomb[] = [
  { of: "31 levels of objects", entry: withAttributes(nested(LEVELS + 1)), error: ATTRIBUTES },
  { of: "31 levels of lists", entry: withAttributes(nested(LEVELS + 1, (inner) => [inner])), error: ATTRIBUTES },
  { of: "4,097 values side by side", entry: withAttributes(many(VALUES + 1)), error: ATTRIBUTES },
  { of: "4,097 values in a list", entry: withAttributes({ all: Array(VALUES).fill(0) }), error: ATTRIBUTES },
  { of: "60,000 values", entry: withAttributes({ all: Array(60_000).fill(true) }), error: ATTRIBUTES },
  { of: "not a number", entry: withBytes(structOf(numberValue(Number.NaN))), error: ATTRIBUTES },
  { of: "infinity", entry: withBytes(structOf(numberValue(Number.NEGATIVE_INFINITY))), error: ATTRIBUTES },
  {
    of: "more than 256 KiB",
    entry: withAttributes({ text: "x".repeat(256 * KiB) }),
    error: { code: "RESOURCE_EXHAUSTED", reason: "RECORD_TOO_LARGE" },
  },
];

/** What is allowed, to the last value. */
const largest: AuditEntry[] = [
  withAttributes(nested(LEVELS)),
  withAttributes(nested(LEVELS, (inner) => [inner])),
  withAttributes(many(VALUES)),
  withAttributes({ text: "x".repeat(255 * KiB) }),
];

describe("attributes that are made to hurt", () => {
  let server: HoldfastProcess;
  beforeAll(async () => {
    server = await startHoldfast();
  });
  afterAll(() => server[Symbol.asyncDispose]());

  it("are refused one by one, each by its name, and the records beside them are kept", async () => {
    using client = createAuditClient(server.grpcAddress);
    const stream = await client.ingest("bombed");
    // A good record before and after each bad one.
    const records = bombs.flatMap(({ entry }, at) => [
      { sequence: BigInt(2 * at + 1), entry: entryOf("bombed", 2 * at + 1) },
      { sequence: BigInt(2 * at + 2), entry },
    ]);
    const last = records.length + 1;
    stream.send([...records, { sequence: BigInt(last), entry: entryOf("bombed", last) }]);
    await until(() => stream.acks.length === 1, { what: "the ack" });
    const refusals = bombs.map(({ error }, at) => ({ index: 2 * at + 1, sequence: BigInt(2 * at + 2), error }));
    expect(stream.acks[0]?.refusals).toMatchObject(refusals);
    expect(stream.acks[0]).toMatchObject({ appended: bombs.length + 1, duplicates: 0 });
    stream.finish();
    expect(await stream.ended).toBeUndefined();
    const recorder = createRecorder("bombed");
    for (let sequence = 1; sequence <= last; sequence += 2) await recorder.repeat(client, [sequence]);
    const { faults, archived } = await accountOf(server.env, recorder.claims);
    expect({ faults, archived }).toEqual({ faults: {}, archived: bombs.length + 1 });
  });

  it.each(bombs)("fail a whole Append, which names the field and appends nothing: $of", async ({ entry, error }) => {
    using client = createAuditClient(server.grpcAddress);
    const good = { sequence: 1n, entry: entryOf("p", 1) };
    const { code, reason, field } = error;
    const call = client.append([good, { sequence: 2n, entry }], { producer: "p" });
    const fields = field === undefined ? [] : [`records[1].${field}`];
    await expect(call).rejects.toMatchObject({ code, ...(reason && { reason }), fields });
    expect(await client.get("p/1")).toBeUndefined();
  });

  it("are kept as they are when they are just small enough", async () => {
    using client = createAuditClient(server.grpcAddress);
    const stream = await client.ingest("large");
    stream.send(largest.map((entry, at) => ({ sequence: BigInt(at + 1), entry })));
    await until(() => stream.acks.length === 1, { what: "the ack" });
    expect(stream.acks[0]).toMatchObject({ appended: largest.length, refusals: [] });
    for (const [at, entry] of largest.entries()) {
      expect((await client.get(`large/${at + 1}`))?.entry?.attributes).toEqual(entry.attributes);
    }
    stream.cancel();
  });

  it.each([90, 1_000, 5_000])("do not hurt the server that reads %i levels of them", async (levels) => {
    using client = createAuditClient(server.grpcAddress);
    let value = numberValue(1);
    for (let level = 1; level < levels; level++) {
      value = new BinaryWriter().tag(5, WireType.LengthDelimited).bytes(structOf(value)).finish();
    }
    const record = { sequence: 1n, entry: withBytes(structOf(value)) };
    // Deeper than a decoder goes, the whole message cannot be read.
    await expect(client.append([record], { producer: "deep" })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    const stream = await client.ingest("deep");
    stream.send([record]);
    const answered = async () =>
      stream.acks.length > 0 || (await Promise.race([stream.ended, "not yet"])) !== "not yet";
    await until(answered, { what: "an answer on the stream" });
    if (stream.acks.length > 0) expect(stream.acks[0]?.refusals).toMatchObject([{ index: 0, error: ATTRIBUTES }]);
    else expect(await stream.ended).toMatchObject({ code: "INVALID_ARGUMENT" });
    const recorder = createRecorder("sound");
    await recorder.append(client, 10);
    expect(server.exited()).toBeUndefined();
  });
});

import { create, equals, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AuditEntrySchema, AuditOrder, AuditService } from "../../src/gen/holdfast/v1/audit_pb.js";
import { type AppendInit, type AuditClient, createAuditClient, type EntryInit } from "../support/audit-client.ts";
import { complaints } from "../support/bad-caller.ts";
import { many, nestedStruct } from "../support/bad-value.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { until } from "../support/until.ts";

const RECORD_BYTES = 256 * 1024;
const BATCH_BYTES = 4 * 1024 * 1024;
const { method } = AuditService;

/** An entry that takes so many bytes, encoded. */
function entryOf(bytes: number): EntryInit {
  const of = (text: string) => create(AuditEntrySchema, { actor: "a", action: "b", attributes: { text } });
  const size = (length: number) => toBinary(AuditEntrySchema, of("x".repeat(length))).length;
  // The lengths written before the text grow with it.
  let length = bytes;
  while (size(length) > bytes) length -= size(length) - bytes;
  const entry = of("x".repeat(length));
  expect(toBinary(AuditEntrySchema, entry).length).toBe(bytes);
  return entry;
}

const small = { actor: "a", action: "b" };
const sequenced = (entries: readonly EntryInit[], from = 1): AppendInit[] =>
  entries.map((entry, i) => ({ sequence: BigInt(from + i), entry }));

const topologies: readonly [string, () => Promise<Record<string, string>>][] = [
  ["embedded", async () => ({})],
  ["cluster", async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() })],
];

describe.each(topologies)("the audit log of a server that is %s", (_, envOf) => {
  let server: HoldfastProcess;
  let audit: AuditClient;
  beforeAll(async () => {
    server = await startHoldfast(await envOf());
    audit = createAuditClient(server.grpcAddress);
  });
  afterAll(async () => {
    audit[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  async function isHeld(id: string, entry: EntryInit): Promise<boolean> {
    const held = (await audit.get(id))?.entry;
    if (held === undefined) return false;
    // The server fills it in.
    const { occurTime } = held;
    return equals(AuditEntrySchema, held, create(AuditEntrySchema, { ...entry, ...(occurTime && { occurTime }) }));
  }

  async function acksOf(producer: string, batches: readonly (readonly AppendInit[])[]) {
    const stream = await audit.ingest(producer);
    for (const batch of batches) stream.send([...batch]);
    stream.finish();
    const why = await stream.ended;
    return { why, acks: stream.acks };
  }

  it.each(["p", "p".repeat(128)])(
    "keeps a record of 256 KiB, and refuses one a byte longer, of %s",
    async (producer) => {
      const [largest, larger] = [entryOf(RECORD_BYTES), entryOf(RECORD_BYTES + 1)];
      const most = Number.MAX_SAFE_INTEGER - 1;
      await audit.append(sequenced([largest], most), { producer });
      expect(await isHeld(`${producer}/${most}`, largest)).toBe(true);
      const refused = { code: "RESOURCE_EXHAUSTED", reason: "RECORD_TOO_LARGE" };
      await expect(audit.append(sequenced([small, larger], 1), { producer })).rejects.toMatchObject(refused);
      await expect(audit.append([{ entry: larger }])).rejects.toMatchObject(refused);
      expect(await audit.get(`${producer}/1`)).toBeUndefined();

      const { acks, why } = await acksOf(producer, [sequenced([small, larger, largest])]);
      expect(why).toBeUndefined();
      expect(acks).toMatchObject([{ appended: 2, refusals: [{ index: 1, sequence: 2n, error: refused }] }]);
      expect(await isHeld(`${producer}/3`, largest)).toBe(true);
    },
  );

  it("keeps 1,000 records at once", async () => {
    expect(await audit.append(sequenced(many(1_000, () => small)), { producer: "thousand" })).toHaveLength(1_000);
    const { acks } = await acksOf("thousand", [
      sequenced(
        many(1_000, () => small),
        1_001,
      ),
    ]);
    expect(acks).toMatchObject([{ appended: 1_000 }]);
  });

  it("keeps a batch of 4 MiB, and refuses one a byte longer", async () => {
    const largest = sequenced(many(16, () => entryOf(BATCH_BYTES / 16)));
    const larger = [...largest.slice(0, 15), ...sequenced([entryOf(BATCH_BYTES / 16 - 100), entryOf(101)], 16)];
    const refused = { code: "RESOURCE_EXHAUSTED", reason: "BATCH_TOO_LARGE" };
    await expect(audit.append(larger, { producer: "heavy" })).rejects.toMatchObject(refused);
    expect(await audit.get("heavy/1")).toBeUndefined();
    expect(await audit.append(largest, { producer: "heavy" })).toHaveLength(16);
    const { acks, why } = await acksOf("heavier", [largest, sequenced([small], 100), larger]);
    expect(acks).toMatchObject([{ appended: 16 }, { appended: 1 }]);
    expect(why).toMatchObject(refused);
    expect(await audit.get("heavier/17")).toBeUndefined();
  });

  const object = (count: number) => Object.fromEntries(many(count, (i) => [`k${i}`, i]));
  const odd: JsonObject = JSON.parse(
    '{"__proto__":{"x":1},"constructor":"c","toString":null,"":[],"a":{"__proto__":2}}',
  );
  it.each<[string, JsonObject]>([
    ["of 30 levels", nestedStruct(30)],
    ["of 4,096 values", object(4_096)],
    ["of 4,096 values in a list", { all: many(4_095, () => null) }],
    ["of names that objects have", odd],
    [
      "of the largest and the smallest numbers",
      { a: Number.MAX_VALUE, b: -Number.MAX_VALUE, c: 5e-324, d: -0, e: 2 ** 53 },
    ],
    ["of odd characters", { text: "\u{1f600}\u2028\ufeff" }],
    ["that is empty", {}],
  ])("keeps attributes and states as they are: %s", async (_what, struct) => {
    const entry = { ...small, attributes: struct, before: struct, after: struct };
    const [ack] = await audit.append([{ entry }]);
    const kept = await audit.get(ack?.id ?? "");
    for (const state of [kept?.entry?.attributes, kept?.entry?.before, kept?.entry?.after]) {
      expect(JSON.stringify(state)).toBe(JSON.stringify(struct));
    }
    const [listed] = await audit.list({ producers: [kept?.producer ?? ""] });
    expect(JSON.stringify(listed?.entry?.attributes)).toBe(JSON.stringify(struct));
  });

  it("keeps the first and the last times there are, and finds them in their order", async () => {
    const times = [
      { seconds: -8_520_336_000n, nanos: 0 },
      { seconds: -8_520_336_000n, nanos: 1_000 },
      { seconds: -1n, nanos: 999_999_999 },
      { seconds: 0n, nanos: 0 },
      { seconds: 7_258_118_399n, nanos: 999_999_999 },
    ];
    await audit.append(sequenced(times.map((occurTime) => ({ ...small, occurTime }))), { producer: "times" });
    const filter = { producers: ["times"] };
    const listed = async (more: object = {}) => {
      const records = await audit.list({ ...filter, ...more }, { order: AuditOrder.OLDEST_FIRST, pageSize: 1 });
      return records.map(({ entry }) => ({ seconds: entry?.occurTime?.seconds, nanos: entry?.occurTime?.nanos }));
    };
    expect(await listed()).toEqual(times);
    const [first, last] = [{ seconds: -62_135_596_800n }, { seconds: 253_402_300_799n, nanos: 999_999_999 }];
    expect(await listed({ startTime: first, endTime: last })).toEqual(times);
    expect(await listed({ startTime: last })).toEqual([]);
    expect(await listed({ endTime: first })).toEqual([]);
    expect(await listed({ startTime: { seconds: -1n, nanos: 999_999_999 } })).toEqual(times.slice(2));
    expect(await listed({ endTime: { seconds: -1n, nanos: 999_999_999 } })).toEqual(times.slice(0, 2));
  });

  it("takes a larger page for 1,000, and 0 for 100", async () => {
    await audit.append(sequenced(many(1_000, () => small)), { producer: "pages" });
    await audit.append(
      sequenced(
        many(1_000, () => small),
        1_001,
      ),
      { producer: "pages" },
    );
    const filter = { producers: ["pages"] };
    for (const [pageSize, length] of [
      [0, 100],
      [1, 1],
      [1_000, 1_000],
      [1_001, 1_000],
      [2 ** 31 - 1, 1_000],
    ] as const) {
      const { reply } = await audit.call(method.list, { filter, pageSize });
      expect(reply.records.length, `for ${pageSize}`).toBe(length);
    }
  });

  it("takes 100 values in each field of a filter, 10 attributes of 8 levels, and texts of every byte allowed", async () => {
    const long = (bytes: number) =>
      many(100, (i) =>
        String(i)
          .padStart(bytes, "é".repeat(bytes))
          .slice(-bytes / 2),
      );
    const entry = {
      actor: "é".repeat(128),
      action: "a".repeat(256),
      resource: { type: "t".repeat(128), id: "i".repeat(512) },
      service: "s".repeat(128),
      context: {
        ipAddress: "1".repeat(64),
        userAgent: "u".repeat(1_024),
        traceId: "t".repeat(128),
        requestId: "r".repeat(128),
        sessionId: "s".repeat(128),
      },
      attributes: { a: { b: { c: { d: { e: { f: { g: { h: "deep" } } } } } } } },
    };
    const [ack] = await audit.append([{ entry }]);
    const pointer = "/a/b/c/d/e/f/g/h";
    const value = { kind: { case: "stringValue" as const, value: "deep" } };
    const filter = {
      actors: [...long(256).slice(1), entry.actor],
      actions: [...long(256).slice(1), entry.action],
      resourceType: entry.resource.type,
      resourceId: entry.resource.id,
      outcomes: many(100, (i) => i % 4),
      statuses: many(100, (i) => 1 + (i % 4)),
      services: [...long(128).slice(1), entry.service],
      producers: [...many(99, String), ack?.id.split("/")[0] ?? ""],
      traceId: entry.context.traceId,
      startTime: { seconds: 0n },
      attributes: many(10, () => ({ pointer, value })),
    };
    expect((await audit.list(filter)).map(({ id }) => id)).toEqual([ack?.id]);
    const tail = await audit.tail({ filter });
    tail.cancel();
    expect(tail.events[0]?.event.case).toBe("opened");
  });

  it("takes a comment of 8 KiB, and names and ids of every byte allowed", async () => {
    const producer = "p".repeat(128);
    const sequence = BigInt(Number.MAX_SAFE_INTEGER);
    const requestId = "r".repeat(128);
    await audit.append([{ sequence, entry: { ...small, status: 2 } }], { producer });
    const id = `${producer}/${sequence}`;
    const review = { id, decision: 1, reviewer: "é".repeat(128), comment: "c".repeat(8_192), requestId };
    expect(await audit.review(review)).toMatchObject({
      applied: true,
      record: { review: { comment: review.comment } },
    });
    expect((await audit.call(method.isApproved, { target: { case: "id", value: id } })).reply.approved).toBe(true);
    const { reply } = await audit.call(method.reconcile, { producer, firstSequence: sequence, lastSequence: sequence });
    expect(reply.ranges).toMatchObject([{ firstSequence: sequence, lastSequence: sequence, state: 4 }]);
    const stream = await audit.subscribe({ group: "g".repeat(128), consumer: "é".repeat(64), maxInFlight: 10_000 });
    stream.finish();
    expect(await stream.ended).toBeUndefined();
  });

  it("ends a page at 2 MiB, and gives the rest on the next ones", async () => {
    const entries = many(16, () => entryOf(RECORD_BYTES));
    await audit.append(sequenced(entries), { producer: "wide" });
    const { reply } = await audit.call(method.list, { filter: { producers: ["wide"] }, pageSize: 1_000 });
    expect(reply.records.length).toBeGreaterThan(0);
    expect(reply.records.length).toBeLessThanOrEqual(8);
    expect((await audit.list({ producers: ["wide"] })).length).toBe(16);
  });

  it("can prove all of it, and has nothing to log as an error", async () => {
    await until(async () => (await audit.range(0n, 100_000)).valid, { what: "the archive to be what was hashed" });
    expect(server.exited()).toBeUndefined();
    expect(complaints(server.output())).toEqual([]);
  });
});

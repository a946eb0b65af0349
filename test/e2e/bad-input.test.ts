import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, type DescField, type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  CacheOutcome,
  CacheService,
  CacheServiceDeleteManyResponseSchema,
  CacheServiceGetManyResponseSchema,
  CacheServiceSetManyResponseSchema,
  SetItemSchema,
  SetOutcome,
} from "../../src/gen/holdfast/v1/cache_pb.js";
import { HealthService } from "../../src/gen/holdfast/v1/health_pb.js";
import { type BadCaller, complaints, createBadCaller } from "../support/bad-caller.ts";
import { badValues, goodRequests, text } from "../support/bad-fields.ts";
import { badRows, leftOut, type RequestFields, rpcName } from "../support/bad-rows.ts";
import { badTopologies } from "../support/bad-topologies.ts";
import { type BadValue, MAX_INT64, many } from "../support/bad-value.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { scratchDirectory } from "../support/scratch.ts";

const tables = { goodRequests, badValues };
const methods = [CacheService, HealthService].flatMap((service) => service.methods);
const goodOf = (method: DescMethod): RequestFields => goodRequests[rpcName(method)] ?? {};
const rows = badRows(methods, tables);

const itemRows = SetItemSchema.fields.flatMap((field) =>
  badItemValues(field).map(({ what, fields, blamed }) => ({
    title: `${field.name}: ${what}`,
    item: { key: "bad", value: text("bad"), ...fields },
    blamed,
  })),
);

function badItemValues({ name }: DescField): readonly BadValue[] {
  return badValues[`SetItem.${name}`] ?? badValues[name] ?? [];
}

it("the table has a request for every RPC, and an entry for every field", () => {
  expect(leftOut(methods, tables)).toEqual([]);
  for (const field of SetItemSchema.fields) {
    expect(badValues, "what is bad for this field of SetItem?").toHaveProperty([
      `SetItem.${field.name}` in badValues ? `SetItem.${field.name}` : field.name,
    ]);
  }
});

describe.each(badTopologies)("a server that is %s", (_, envOf) => {
  let server: HoldfastProcess;
  let caller: BadCaller;
  beforeAll(async () => {
    server = await startHoldfast(await envOf());
    caller = createBadCaller(server.grpcAddress);
  });
  afterAll(async () => {
    caller[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  const call = (rpc: DescMethod, request: RequestFields) => caller.call(rpc, request);

  async function reply(method: DescMethod, request: RequestFields): Promise<Buffer> {
    const ending = await call(method, request);
    if (ending.reply === undefined) throw new Error(`${rpcName(method)}: ${ending.code} ${ending.message}`);
    return ending.reply;
  }

  it.each(methods.map((method) => ({ title: rpcName(method), method })))("answers $title", async ({ method }) => {
    expect(await call(method, goodOf(method))).toMatchObject({ code: "OK" });
  });

  it.each(rows)("refuses $title", async ({ method, request, expected }) => {
    expect(await call(method, request)).toMatchObject(expected);
  });

  it.each(itemRows)("blames the one bad item of a SetMany, and stores the others: $title", async ({ item, blamed }) => {
    const bytes = await reply(CacheService.method.setMany, {
      items: [{ key: "one", value: text("1") }, item, { key: "three", value: text("3") }],
    });
    const { results } = fromBinary(CacheServiceSetManyResponseSchema, bytes);
    expect(results.map(({ outcome }) => outcome)).toEqual([
      SetOutcome.STORED,
      SetOutcome.UNSPECIFIED,
      SetOutcome.STORED,
    ]);
    expect(results[1]?.error).toMatchObject({ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field: blamed });
  });

  it.each([
    ["empty", ""],
    ["too long", "k".repeat(1_025)],
    ["with a NUL", "\0"],
  ])("blames the one bad key of a batch, and serves the others: %s", async (_what, key) => {
    await reply(CacheService.method.set, { key: "here", value: text("here") });
    const read = fromBinary(
      CacheServiceGetManyResponseSchema,
      await reply(CacheService.method.getMany, { keys: [key, "here"] }),
    );
    expect(read.results).toMatchObject([{ error: { field: "key" } }, { outcome: CacheOutcome.HIT }]);
    const deleted = fromBinary(
      CacheServiceDeleteManyResponseSchema,
      await reply(CacheService.method.deleteMany, { keys: ["here", key] }),
    );
    expect(deleted.results).toMatchObject([{ existed: true }, { error: { field: "key" } }]);
  });

  const ttl = (seconds: bigint, nanos = 0) => ({ kind: { case: "ttl", value: { seconds, nanos } } });
  const { method } = CacheService;
  const accepted: readonly [string, DescMethod, RequestFields][] = [
    ["a key of 1,024 bytes in 512 characters", method.set, { key: "é".repeat(512), value: text("") }],
    ["a key of the oddest characters", method.set, { key: "a b/c{d}*?[e]\\\n\u{1f600}%", value: text("") }],
    ["a namespace of 128 bytes", method.set, { namespace: "n".repeat(128), key: "k", value: text("") }],
    ["a value of 4 MiB", method.set, { key: "k", value: { kind: { case: "raw", value: new Uint8Array(4 << 20) } } }],
    ["a text with a NUL", method.set, { key: "k", value: text("a\0b") }],
    ["64 tags of 256 bytes", method.set, { key: "k", value: text(""), tags: many(64, (i) => `${i}`.padEnd(256, "t")) }],
    ["a ttl of ten years", method.set, { key: "k", value: text(""), expiry: ttl(315_360_000n) }],
    ["a ttl of a nanosecond", method.set, { key: "k", value: text(""), expiry: ttl(0n, 1) }],
    ["a ttl of one and a half milliseconds", method.touch, { key: "good", expiry: ttl(0n, 1_500_000) }],
    ["a lease of a nanosecond", method.get, { key: "leased 1", leaseTtl: { nanos: 1 } }],
    ["a lease of ten minutes", method.get, { key: "leased 2", leaseTtl: { seconds: 600n }, waitTimeout: {} }],
    ["a lease of half a millisecond more", method.get, { key: "leased 3", leaseTtl: { seconds: 1n, nanos: 500_000 } }],
    ["a wait of 30 seconds", method.get, { key: "leased 4", leaseTtl: { seconds: 1n }, waitTimeout: { seconds: 30n } }],
    ["a batch of 1,000", method.getMany, { keys: many(1_000, String) }],
    ["a batch of one key 1,000 times", method.setMany, { items: many(1_000, () => ({ key: "k", value: text("") })) }],
    ["the largest page", method.listKeys, { pageSize: 2 ** 31 - 1 }],
    [
      "the largest expected version",
      method.compareAndSet,
      { ...goodOf(method.compareAndSet), expectedVersion: 2n ** 64n - 1n },
    ],
    ["the largest delta", method.increment, { key: "large", delta: MAX_INT64 }],
    ["a request id of 128 bytes", method.increment, { key: "c", requestId: "r".repeat(128) }],
    ["a hundred patterns", method.warm, { patterns: many(100, (i) => `p${i}-*`), wait: true }],
    ["a pattern of the oddest characters", method.warm, { patterns: ["a-b/{c}[d]\\(e)|^$.+*?"], wait: true }],
    ["a heartbeat each second", method.watch, { heartbeatInterval: { seconds: 1n } }],
    ["a heartbeat each five minutes", method.watch, { heartbeatInterval: { seconds: 300n } }],
    ["a report each hour", HealthService.method.watch, { interval: { seconds: 3_600n } }],
  ];
  it.each(accepted)("takes %s", async (_what, rpc, request) => {
    expect(await call(rpc, request)).toMatchObject({ code: "OK" });
  });

  it("takes a forged lease for one that is lost", async () => {
    for (const leaseToken of [`1.1.${"A".repeat(16)}`, `${"9".repeat(16)}.${"9".repeat(16)}.${"A".repeat(16)}`]) {
      for (const key of ["good", "absent"]) {
        const ending = await call(method.set, { key, value: text("forged"), leaseToken });
        expect(ending).toMatchObject({ code: "OK" });
        const { outcome } = fromBinary(method.set.output, ending.reply ?? Buffer.alloc(0));
        expect(outcome, `${key} with ${leaseToken}`).not.toBe(SetOutcome.STORED);
      }
    }
  });

  it.each([
    "sql:a\0b",
    "sql:\ud800",
    'redis:["99999999999999999999999",""]',
    'redis:["x",""]',
    "redis:{}",
    'redis:["-1",""]',
    "memory:\0",
  ])("answers or refuses a page token with the forged cursor %j, and nothing worse", async (cursor) => {
    const pageToken = Buffer.from(JSON.stringify(["default", "", cursor])).toString("base64url");
    expect((await call(method.listKeys, { pageToken })).code).toMatch(/^(OK|INVALID_ARGUMENT|ABORTED)$/);
  });

  it("refuses to count what is not a counter, and past 64 bits", async () => {
    await reply(method.set, { key: "words", value: text("words") });
    expect(await call(method.increment, { key: "words" })).toMatchObject({
      code: "FAILED_PRECONDITION",
      domain: "holdfast",
      reason: "VALUE_NOT_A_COUNTER",
    });
    const over = { key: "over", initial: MAX_INT64, delta: 1n };
    expect(await call(method.increment, over)).toMatchObject({ code: "OUT_OF_RANGE", reason: "COUNTER_OVERFLOW" });
    const under = { key: "under", initial: -MAX_INT64 - 1n, delta: -1n };
    expect(await call(method.increment, under)).toMatchObject({ code: "OUT_OF_RANGE", reason: "COUNTER_OVERFLOW" });
  });

  it("names every field that is wrong, and at most 16 of them", async () => {
    const request = { key: "", value: text("", "c".repeat(200)), expiry: ttl(0n), tags: [""] };
    const { fields } = await call(method.set, request);
    expect(fields).toEqual(["key", "value.content_type", "expiry.ttl", "tags[0]"]);
    const ending = await call(method.invalidateTags, { tags: many(1_000, () => "") });
    expect(ending).toMatchObject({ code: "INVALID_ARGUMENT", fields: many(16, (i) => `tags[${i}]`) });
    expect(ending.message.length).toBeLessThanOrEqual(1_024);
  });

  it("refuses a message longer than it reads at all", async () => {
    const huge = { key: "k", value: { kind: { case: "raw", value: new Uint8Array(18 << 20) } } };
    const expected = { code: "RESOURCE_EXHAUSTED", domain: "holdfast", reason: "REQUEST_TOO_LARGE" };
    expect(await call(method.set, huge)).toMatchObject(expected);
  });

  it("serves on, and has nothing to log as an error", async () => {
    expect(await call(method.get, { key: "good" })).toMatchObject({ code: "OK" });
    expect(server.exited()).toBeUndefined();
    expect(complaints(server.output())).toEqual([]);
  });
});

describe("a server with policies", () => {
  const config = `
cache:
  strict_namespaces: true
  namespaces:
    small: { max_bytes: 10 }
`;

  it("refuses namespaces it was not told of, and values longer than a policy allows", async () => {
    const directory = scratchDirectory("config");
    const file = join(directory.path, "holdfast.yaml");
    writeFileSync(file, config);
    await using server = await startHoldfast({ HOLDFAST_CONFIG: file });
    using caller = createBadCaller(server.grpcAddress);
    const unknown = {
      code: "INVALID_ARGUMENT",
      domain: "holdfast",
      reason: "NAMESPACE_UNKNOWN",
      fields: ["namespace"],
    };
    for (const method of methods) {
      const named = method.input.fields.some(({ name }) => name === "namespace");
      if (!named) continue;
      const request = create(method.input, { ...goodOf(method), namespace: "unknown" });
      const options = { stream: method.methodKind === "server_streaming" };
      const path = `/${method.parent.typeName}/${method.name}`;
      expect(await caller.send(path, toBinary(method.input, request), options), rpcName(method)).toMatchObject(unknown);
    }

    const { set, setMany, compareAndSet } = CacheService.method;
    const large = { namespace: "small", key: "k", value: { kind: { case: "text" as const, value: "eleven chars" } } };
    const refused = { code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", fields: ["value"] };
    const pathOf = (name: string) => `/${CacheService.typeName}/${name}`;
    expect(await caller.send(pathOf("Set"), toBinary(set.input, create(set.input, large)))).toMatchObject(refused);
    const swap = toBinary(compareAndSet.input, create(compareAndSet.input, large));
    expect(await caller.send(pathOf("CompareAndSet"), swap)).toMatchObject(refused);
    const batch = toBinary(setMany.input, create(setMany.input, { namespace: "small", items: [large] }));
    const { reply } = await caller.send(pathOf("SetMany"), batch);
    expect(fromBinary(setMany.output, reply ?? Buffer.alloc(0)).results[0]?.error).toMatchObject({ field: "value" });
    expect(complaints(server.output())).toEqual([]);
    directory.remove();
  });
});

import { type DescMethod, fromBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { type BadCaller, complaints, createBadCaller } from "../support/bad-caller.ts";
import {
  badConversationValues,
  goodConversationParts,
  goodConversationRequests,
  prepareConversations,
} from "../support/bad-conversation-fields.ts";
import { badRows, leftOut, type RequestFields, rpcName } from "../support/bad-rows.ts";
import { badTopologies } from "../support/bad-topologies.ts";
import { MAX_UINT64, many, nestedStruct } from "../support/bad-value.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";

const tables = {
  goodRequests: goodConversationRequests,
  badValues: badConversationValues,
  goodParts: goodConversationParts,
};
const { method, methods } = ConversationStateService;
const goodOf = (rpc: DescMethod): RequestFields => goodConversationRequests[rpcName(rpc)] ?? {};
const rows = badRows(methods, tables);
const message = goodConversationParts.ConversationMessage;

it("the table has a request for every RPC, and an entry for every field", () => {
  expect(leftOut(methods, tables)).toEqual([]);
});

describe.each(badTopologies)("the conversations of a server that is %s", (_, envOf) => {
  let server: HoldfastProcess;
  let caller: BadCaller;
  beforeAll(async () => {
    server = await startHoldfast(await envOf());
    caller = createBadCaller(server.grpcAddress);
    await prepareConversations(call);
  });
  afterAll(async () => {
    caller[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  const call = (rpc: DescMethod, request: RequestFields) => caller.call(rpc, request);

  /** What is there of the good one, without its messages. */
  async function good() {
    const { reply } = await call(method.get, { id: "good" });
    return fromBinary(method.get.output, reply ?? Buffer.alloc(0)).conversation;
  }

  it.each(methods.map((rpc) => ({ title: rpcName(rpc), rpc })))("answers $title", async ({ rpc }) => {
    const restored = rpc === method.restore && { version: (await good())?.summary?.version };
    expect(await call(rpc, { ...goodOf(rpc), ...restored })).toMatchObject({ code: "OK" });
  });

  it.each(rows)("refuses $title", async ({ method: rpc, request, expected }) => {
    expect(await call(rpc, request)).toMatchObject(expected);
  });

  it("changes nothing when it refuses", async () => {
    const before = await good();
    for (const { method: rpc, request } of rows) {
      // What is large was sent once already.
      if (JSON.stringify(request, plain).length > 10_000) continue;
      await call(rpc, request);
    }
    expect(await good()).toEqual(before);
  });

  const ttl = (seconds: bigint, nanos = 0) => ({ kind: { case: "ttl", value: { seconds, nanos } } });
  const said = (more: RequestFields) => ({ id: "taken", create: true, messages: [{ ...message, ...more }] });
  const accepted: readonly [string, DescMethod, RequestFields][] = [
    ["an id of 512 bytes in 256 characters", method.save, { id: "é".repeat(256), state: {} }],
    ["an id of the oddest characters", method.save, { id: "a b/c{d}*?[e]\\\n\u{1f600}%:", state: {} }],
    ["a collection of 128 bytes", method.save, { collection: "c".repeat(128), id: "k", state: {} }],
    ["a state of 30 levels", method.save, { id: "deep", state: nestedStruct(30) }],
    ["a state of almost 4 MiB", method.save, { id: "large", state: { k: "x".repeat(4 * 2 ** 20 - 100) } }],
    [
      "a state of odd names",
      method.save,
      { id: "odd", state: { "": 1, "\0": "\0", toString: null, a: { messages: 1 } } },
    ],
    [
      "known members of other types",
      method.save,
      { id: "odd", state: { status: 7, user_id: {}, confidence_score: "x" } },
    ],
    ["a status with a NUL", method.save, { id: "odd", state: { status: "a\0b" } }],
    ["a ttl of a nanosecond", method.save, { id: "gone", state: {}, expiry: ttl(0n, 1) }],
    ["a ttl of ten years", method.extendTtl, { id: "good", expiry: ttl(315_360_000n) }],
    ["a request id of 128 bytes", method.patch, { id: "good", patch: {}, requestId: "r".repeat(128) }],
    ["1,000 messages", method.appendMessages, { ...said({}), messages: many(1_000, () => message) }],
    ["a message of almost 256 KiB", method.appendMessages, said({ content: "x".repeat(255 * 1024) })],
    ["a message of a NUL", method.appendMessages, said({ content: "\0" })],
    [
      "a message without content, of parts",
      method.appendMessages,
      said({ content: "", parts: [goodConversationParts.ConversationPart] }),
    ],
    ["a message from the year 1", method.appendMessages, said({ createTime: { seconds: -62_135_596_800n } })],
    ["a message that says its place", method.appendMessages, said({ position: MAX_UINT64 })],
    ["metadata of 30 levels", method.appendMessages, said({ metadata: nestedStruct(30) })],
    ["16 roles", method.listMessages, { id: "good", roles: many(16, String) }],
    ["a place beyond all", method.listMessages, { id: "good", afterPosition: MAX_UINT64 }],
    ["the largest page", method.list, { pageSize: 2 ** 31 - 1 }],
    ["100 statuses", method.list, { filter: { statuses: many(100, String) } }],
    ["the last second of 9999", method.list, { updatedSince: { seconds: 253_402_300_799n, nanos: 999_999_999 } }],
    ["the largest limit", method.cleanup, { limit: 2 ** 31 - 1, dryRun: true }],
    ["the delete of nothing, at any version", method.delete, { id: "absent", expectedVersion: MAX_UINT64 }],
    ["a heartbeat each five minutes", method.watch, { heartbeatInterval: { seconds: 300n } }],
  ];
  it.each(accepted)("takes %s", async (_what, rpc, request) => {
    expect(await call(rpc, request)).toMatchObject({ code: "OK" });
  });

  it("names every field that is wrong", async () => {
    const bad = {
      ...{ collection: "a/b", id: "", state: { n: Number.NaN, messages: [] }, expiry: ttl(0n), requestId: "\0" },
      messages: [message, { id: "\0", parts: [{}] }],
    };
    const { fields } = await call(method.save, bad);
    expect(fields).toEqual(
      expect.arrayContaining([
        ...["collection", "id", "state.n", "state.messages", "expiry.ttl", "request_id"],
        ...["messages[1].id", "messages[1].role", "messages[1].parts[0]"],
      ]),
    );
  });

  it("names at most 16 fields of many that are wrong", async () => {
    const ending = await call(method.appendMessages, { id: "good", messages: many(1_000, () => ({})) });
    expect(ending).toMatchObject({ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID" });
    expect(ending.fields).toHaveLength(16);
    expect(ending.message.length).toBeLessThanOrEqual(1_024);
  });

  it("answers or refuses tokens of its own in which the numbers were changed, and nothing worse", async () => {
    for (const n of [1, 2])
      await call(method.save, { collection: "paged", id: `p${n}`, state: {}, messages: [message, message] });
    const paged: readonly [DescMethod, RequestFields, "pageToken" | "resumeToken"][] = [
      [method.list, { collection: "paged", pageSize: 1 }, "pageToken"],
      [method.listMessages, { collection: "paged", id: "p1", pageSize: 1 }, "pageToken"],
      [method.watch, { collection: "paged" }, "resumeToken"],
    ];
    for (const [rpc, request, field] of paged) {
      const { reply } = await call(rpc, request);
      const answer = fromBinary(rpc.output, reply ?? Buffer.alloc(0));
      const token =
        "nextPageToken" in answer ? String(answer.nextPageToken) : String(Reflect.get(answer, "resumeToken"));
      const parts = Buffer.from(token, "base64url").toString().split(" ");
      expect(parts.length, rpc.name).toBeGreaterThan(2);
      for (const at of parts.keys()) {
        for (const number of ["-1", "0", "", "1e300", "0.5", "x", "9007199254740991", "-9007199254740991"]) {
          const changed = Buffer.from(parts.with(at, number).join(" ")).toString("base64url");
          const given =
            field === "pageToken" ? { pageToken: changed } : { start: { case: "resumeToken", value: changed } };
          const { code, message: why } = await call(rpc, { ...request, ...given });
          expect(code, `${rpc.name}, ${parts.with(at, number)}: ${why}`).toMatch(/^(OK|INVALID_ARGUMENT|ABORTED)$/);
        }
      }
    }
  });

  it("serves on, and has nothing to log as an error", async () => {
    expect(await call(method.get, goodOf(method.get))).toMatchObject({ code: "OK" });
    expect(server.exited()).toBeUndefined();
    expect(complaints(server.output())).toEqual([]);
  });
});

/** For JSON.stringify, which knows no such numbers. */
function plain(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

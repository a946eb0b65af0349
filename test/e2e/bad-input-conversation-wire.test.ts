import {
  create,
  type DescMethod,
  equals,
  fromBinary,
  type JsonObject,
  type JsonValue,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConversationMessageSchema, ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { bytes, deepValue, field, join, number, text, textsOf, varint } from "../support/bad-bytes.ts";
import { type BadCaller, complaints, createBadCaller, gauge } from "../support/bad-caller.ts";
import { goodConversationRequests, prepareConversations } from "../support/bad-conversation-fields.ts";
import { rpcName } from "../support/bad-rows.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { residentMiB } from "../support/resident-memory.ts";
import { until } from "../support/until.ts";

let server: HoldfastProcess;
let caller: BadCaller;
beforeAll(async () => {
  server = await startHoldfast({ DATABASE_URL: await freshDatabase(), REDIS_URL: await freshRedis() });
  caller = createBadCaller(server.grpcAddress);
  await prepareConversations((rpc, request) => send(rpc, toBinary(rpc.input, create(rpc.input, { ...request }))));
});
afterAll(async () => {
  caller[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
});

const { method, methods } = ConversationStateService;
const send = (rpc: DescMethod, request: Uint8Array) =>
  caller.send(`/${ConversationStateService.typeName}/${rpc.name}`, request, { stream: rpc.methodKind !== "unary" });
const goodBytes = (rpc: DescMethod) =>
  toBinary(rpc.input, create(rpc.input, { ...goodConversationRequests[rpcName(rpc)] }));

let last = 0;
/** A Save of these bytes for its state, to an id of its own. */
async function save(state: Uint8Array, more = new Uint8Array()) {
  const id = `s${++last}`;
  return { ...(await send(method.save, join(bytes(2, id), bytes(3, state), more))), id };
}

async function read(id: string) {
  const request = create(method.get.input, { id, lastMessages: 10 });
  const { code, message, reply } = await send(method.get, toBinary(method.get.input, request));
  expect(code, message).toBe("OK");
  return fromBinary(method.get.output, reply ?? Buffer.alloc(0));
}

const struct = (...fields: readonly Uint8Array[]) => join(...fields.map((one) => bytes(1, one)));

/** Whether what is held is what the bytes say to whoever decodes them. */
async function isKept(id: string, state: Uint8Array): Promise<boolean> {
  const { conversation } = await read(id);
  const held = toBinary(method.save.input, create(method.save.input, { state: conversation?.state ?? { none: true } }));
  const said = fromBinary(method.save.input, bytes(3, state));
  const same = fromBinary(method.save.input, held);
  return equals(method.save.input, same, said);
}

describe("a text that is not UTF-8", () => {
  const rows = methods.flatMap((rpc) =>
    textsOf(rpc.input).map(({ name, bytes: request }) => ({ title: `${rpcName(rpc)}, ${name}`, rpc, request })),
  );
  it.each(rows)("is refused: $title", async ({ rpc, request }) => {
    const refused = { code: "INVALID_ARGUMENT", domain: "holdfast" };
    const { reason, ...ending } = await send(rpc, join(goodBytes(rpc), request));
    expect(ending).toMatchObject(refused);
    // A patch is looked at as it came, and its members are told by name.
    expect(["MALFORMED_REQUEST", "FIELD_INVALID"]).toContain(reason);
  });
});

describe("a state written in another way than usual", () => {
  const kept: readonly [string, Uint8Array, JsonValue][] = [
    ["an own __proto__", struct(field("__proto__", text("x"))), JSON.parse('{"__proto__":"x"}')],
    [
      "an own __proto__ deep inside",
      struct(field("a", bytes(5, bytes(1, field("__proto__", bytes(5, bytes(1, field("y", number(1))))))))),
      JSON.parse('{"a":{"__proto__":{"y":1}}}'),
    ],
    ["a key twice, of which the last counts", struct(field("a", number(1)), field("a", number(2))), { a: 2 }],
    ["a value before its key", struct(join(bytes(2, number(1)), bytes(1, "k"))), { k: 1 }],
    ["a key that is left out", struct(bytes(2, number(1))), { "": 1 }],
    ["a bool of 2", struct(field("k", varint(4, 2))), { k: true }],
    ["a null of 7", struct(field("k", varint(1, 7))), { k: null }],
    ["two kinds, of which the last counts", struct(field("k", join(number(1), text("x")))), { k: "x" }],
    ["a field that nobody knows", struct(join(field("k", number(1)), bytes(99, "from tomorrow"))), { k: 1 }],
    [
      "a length in more bytes than it needs",
      struct(join(bytes(1, "k"), new Uint8Array([0x12, 0x83, 0, 0x1a, 1, 120]))),
      { k: "x" },
    ],
  ];
  it.each(kept)("is kept as it is meant: %s", async (_what, state, json) => {
    const { code, message, id } = await save(state);
    expect(code, message).toBe("OK");
    expect(JSON.stringify((await read(id)).conversation?.state)).toBe(JSON.stringify(json));
    const patch = join(bytes(2, id), bytes(3, struct(field("later", number(1)))));
    expect(await send(method.patch, patch)).toMatchObject({ code: "OK" });
    expect((await read(id)).conversation?.state).toMatchObject({ later: 1 });
  });

  const list = (...values: readonly Uint8Array[]) => bytes(6, join(...values.map((one) => bytes(1, one))));
  const refused: readonly [string, Uint8Array, string][] = [
    ["NaN", struct(field("k", number(Number.NaN))), "state.k"],
    ["infinity", struct(field("k", number(Number.POSITIVE_INFINITY))), "state.k"],
    [
      "NaN in a list in an object",
      struct(field("k", bytes(5, bytes(1, field("l", list(number(0), number(Number.NaN))))))),
      "state.k.l[1]",
    ],
    ["NaN beside what is unusual", struct(field("a", varint(1, 7)), field("k", number(Number.NaN))), "state.k"],
    ["a value of no kind", struct(field("k", new Uint8Array())), "state.k"],
    ["a key without a value", struct(bytes(1, "k")), "state.k"],
    ["an element of no kind", struct(field("k", list(number(0), new Uint8Array()))), "state.k[1]"],
    ["messages, written twice", struct(field("messages", text("x")), field("messages", list())), "state.messages"],
    ["a text of half a character", struct(field("k", bytes(3, new Uint8Array([0xf0, 0x9f, 0x98])))), "state.k"],
    ["an entry that ends after its Struct", new Uint8Array([0x0a, 0x7f, 0x0a]), "state"],
    ["a double of four bytes", struct(join(bytes(1, "k"), bytes(2, new Uint8Array([0x11, 1, 2, 3, 4])))), "state.k"],
    ["a group", new Uint8Array([0x0b, 0x0a, 0]), "state"],
  ];
  it.each(refused)("is refused: %s", async (_what, state, blamed) => {
    const ending = await save(state);
    expect(ending).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(ending.fields, ending.reason).toEqual([blamed]);
    expect((await read(ending.id)).conversation).toBeUndefined();
    const patch = join(bytes(2, "good"), bytes(3, state));
    expect(await send(method.patch, patch)).toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});

describe("a value of no kind in a message", () => {
  const none = { k: undefined } as unknown as JsonObject;
  const rows: readonly [string, MessageInitShape<typeof ConversationMessageSchema>, string][] = [
    ["metadata", { metadata: none }, "metadata.k"],
    ["data", { parts: [{ kind: { case: "data", value: none } }] }, "parts[0].data.k"],
    ["a result", { parts: [{ kind: { case: "toolResult", value: { result: {} } } }] }, "parts[0].tool_result.result"],
  ];
  it.each(rows)("is refused: %s", async (_what, given, blamed) => {
    const message = create(ConversationMessageSchema, { role: "user", content: "x", ...given });
    const ending = await save(struct(), bytes(6, toBinary(ConversationMessageSchema, message)));
    expect(ending).toMatchObject({ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID" });
    expect(ending.fields).toEqual([`messages[0].${blamed}`]);
    expect((await read(ending.id)).conversation).toBeUndefined();
  });
});

describe("changed bytes", () => {
  const rich = toBinary(
    method.save.input,
    create(method.save.input, {
      state: { text: "\u00fc", number: 1.5, nested: { list: [1, null, true, { a: "b" }] }, user_id: "u", status: "s" },
    }),
  ).subarray(2);
  const message = create(ConversationMessageSchema, {
    ...{ id: "m", role: "user", content: "\u00fc", createTime: { seconds: 1_700_000_000n, nanos: 5_000 } },
    metadata: { a: [1, { b: null }] },
    parts: [
      { kind: { case: "toolCall", value: { id: "c", name: "tool", arguments: { x: 1 } } } },
      { kind: { case: "toolResult", value: { callId: "c", result: { kind: { case: "numberValue", value: 2 } } } } },
      { kind: { case: "reference", value: { uri: "s3://b/k", sha256: new Uint8Array(32) } } },
      { kind: { case: "data", value: { d: "e" } } },
    ],
  });
  const change = fc.record({ at: fc.nat(), remove: fc.nat(4), insert: fc.uint8Array({ maxLength: 4 }) });
  const harmed = (good: Uint8Array) =>
    fc.array(change, { minLength: 1, maxLength: 3 }).map((changes) => {
      let entry = good;
      for (const { at, remove, insert } of changes) {
        const start = at % (entry.length + 1);
        entry = join(entry.subarray(0, start), insert, entry.subarray(start + remove));
      }
      return entry;
    });

  it("in a state are refused, or it is kept as it is said", async () => {
    let keptCount = 0;
    const property = fc.asyncProperty(harmed(rich), async (state) => {
      const { code, message: why, id } = await save(state);
      if (code === "OK") {
        keptCount++;
        expect(await isKept(id, state), Buffer.from(state).toString("hex")).toBe(true);
      } else expect(code, why).toBe("INVALID_ARGUMENT");
    });
    await fc.assert(property, { numRuns: 600, seed: 7440 });
    expect(keptCount).toBeGreaterThan(20);
  });

  it("in a message are refused, or it is kept as it is said", async () => {
    let keptCount = 0;
    const property = fc.asyncProperty(harmed(toBinary(ConversationMessageSchema, message)), async (given) => {
      const { code, message: why, id } = await save(struct(), bytes(6, given));
      if (code !== "OK") {
        expect(code, why).toMatch(/^(INVALID_ARGUMENT|RESOURCE_EXHAUSTED)$/);
        return;
      }
      keptCount++;
      const [held] = (await read(id)).messages;
      const said = fromBinary(ConversationMessageSchema, given);
      // What the server fills in.
      const { id: messageId = "", createTime, position = 0n } = held ?? {};
      expect({ id: said.id || messageId, role: said.role, content: said.content, parts: said.parts.length }).toEqual({
        ...{ id: messageId, role: held?.role, content: held?.content, parts: held?.parts.length },
      });
      expect(JSON.stringify(held?.metadata)).toBe(JSON.stringify(said.metadata));
      expect(said.createTime ?? createTime).toEqual(createTime);
      expect(position).toBe(1n);
    });
    await fc.assert(property, { numRuns: 500, seed: 7441 });
    expect(keptCount).toBeGreaterThan(20);
  });

  it("in any request are never more than a bad request", async () => {
    const ordinary = /^(OK|INVALID_ARGUMENT|UNIMPLEMENTED|FAILED_PRECONDITION|ABORTED|NOT_FOUND|ALREADY_EXISTS)$/;
    const rpcs = fc.constantFrom(...methods);
    const property = fc.asyncProperty(rpcs, fc.uint8Array({ maxLength: 24 }), fc.nat(), async (rpc, tail, at) => {
      const good = Buffer.from(goodBytes(rpc));
      if (good.length > 0) good[at % good.length] = at & 0xff;
      for (const request of [tail, join(goodBytes(rpc), tail), join(good, tail)]) {
        const { code, message: why } = await send(rpc, request);
        expect(code, `${rpc.name}: ${why} ${Buffer.from(request).toString("hex")}`).toMatch(ordinary);
      }
    });
    await fc.assert(property, { numRuns: 400, seed: 7442 });
  });
});

describe("messages made to hurt", () => {
  it.each([31, 100, 1_000, 10_000, 100_000])(
    "are refused, not followed to the end of the stack: %i levels",
    async (levels) => {
      const state = struct(field("k", deepValue(levels)));
      const tooDeep = /^(INVALID_ARGUMENT|RESOURCE_EXHAUSTED)$/;
      expect((await save(state)).code).toMatch(tooDeep);
      const id = bytes(2, "good");
      expect((await send(method.patch, join(id, bytes(3, state)))).code).toMatch(tooDeep);
      const said = join(bytes(2, "user"), bytes(3, "x"));
      expect((await send(method.appendMessages, join(id, bytes(3, join(said, bytes(6, state)))))).code).toMatch(
        tooDeep,
      );
      expect((await send(method.appendMessages, join(id, bytes(3, said), bytes(7, state)))).code).toMatch(tooDeep);
      const data = join(said, bytes(4, bytes(5, state)));
      expect((await send(method.appendMessages, join(id, bytes(3, data)))).code).toMatch(tooDeep);
    },
  );

  const empties = (tag: number) => Buffer.alloc(15_000_000, Buffer.from([tag, 0]));
  const crowds: readonly [string, DescMethod, Uint8Array][] = [
    ["messages", method.appendMessages, join(bytes(2, "good"), empties(0x1a))],
    ["parts", method.appendMessages, join(bytes(2, "good"), bytes(3, empties(0x22)))],
    ["fields that nobody knows", method.save, join(bytes(2, "good"), empties(0x7a))],
    ["members of a state", method.save, join(bytes(2, "good"), bytes(3, empties(0x0a)))],
    ["groups", method.patch, Buffer.alloc(15_000_000, 0x0b)],
    ["statuses", method.list, bytes(2, empties(0x0a))],
    ["roles", method.listMessages, join(bytes(2, "good"), empties(0x2a))],
  ];
  it.each(crowds)("of millions of %s cost little memory, and an answer", async (_what, rpc, request) => {
    const atRest = residentMiB(server.pid);
    const { code } = await send(rpc, request);
    expect(code).toMatch(/^(INVALID_ARGUMENT|RESOURCE_EXHAUSTED)$/);
    expect(residentMiB(server.pid) - atRest).toBeLessThan(1_000);
  });
});

it("none of it is an error of the server, which serves on and has no call left under way", async () => {
  expect(await send(method.save, goodBytes(method.save))).toMatchObject({ code: "OK" });
  await until(async () => (await gauge(server.httpUrl, "holdfast_calls_waiting")) === 0, { what: "no call under way" });
  expect(server.exited()).toBeUndefined();
  expect(complaints(server.output())).toEqual([]);
});

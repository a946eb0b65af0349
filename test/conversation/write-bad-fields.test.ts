import type { JsonObject } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { KINDS } from "./ledgers.ts";
import { type OpenWrites, openWrites, type Writes } from "./writes.ts";

type Rpc = "save" | "patch" | "append" | "delete" | "extend" | "restore" | "fork";

/** A request of each RPC in which nothing is wrong. */
const good: Record<Rpc, JsonObject> = {
  save: { id: "c", state: {} },
  patch: { id: "c", patch: {} },
  append: { id: "c", messages: [{ role: "user", content: "x" }] },
  delete: { id: "c" },
  extend: { id: "c" },
  restore: { id: "c", version: "7" },
  fork: { id: "c" },
};

const all: readonly Rpc[] = ["save", "patch", "append", "delete", "extend", "restore", "fork"];
const withExpiry: readonly Rpc[] = ["save", "patch", "append", "extend", "fork"];
const withRequestId: readonly Rpc[] = ["save", "patch", "append", "restore", "fork"];
const withFencing: readonly Rpc[] = ["save", "patch", "append", "delete", "restore"];

const of = (rpcs: readonly Rpc[], field: string, change: JsonObject) =>
  rpcs.map((rpc): [Rpc, string, JsonObject] => [rpc, field, change]);

const cases: readonly [Rpc, string, JsonObject][] = [
  ...of(all, "collection", { collection: "a/b" }),
  ...of(all, "collection", { collection: "c".repeat(129) }),
  ...of(all, "id", { id: "" }),
  ...of(all, "id", { id: "é".repeat(257) }),
  ...of(all, "id", { id: "a\0b" }),
  ...of(withExpiry, "expiry.ttl", { expiry: { ttl: "0s" } }),
  ...of(withExpiry, "expiry.ttl", { expiry: { ttl: "-1s" } }),
  ...of(withExpiry, "expiry.ttl", { expiry: { ttl: "315360000.001s" } }),
  ...of(withExpiry, "expiry.never", { expiry: { never: false } }),
  ...of(withExpiry, "expiry.mode", { expiry: { mode: 7 } }),
  ...of(withRequestId, "request_id", { requestId: "r".repeat(129) }),
  ...of(["patch", "delete", "restore"], "expected_version", { expectedVersion: "0" }),
  ["append", "expected_version", { expectedVersion: "0" }],
  ...of(withFencing, "fencing.lock", { fencing: { token: "1" } }),
  ...of(withFencing, "fencing.lock", { fencing: { lock: "/l", token: "1" } }),
  ...of(withFencing, "fencing.token", { fencing: { lock: "l" } }),
  ...of(withFencing, "fencing.token", { fencing: { lock: "l", token: "9007199254740992" } }),
  ["append", "messages", { messages: [] }],
  ["append", "messages[1].role", { messages: [{ role: "user", content: "x" }, { content: "x" }] }],
  ["append", "patch.messages", { patch: { messages: null } }],
  ["save", "messages[0].parts[0].tool_call.name", { messages: [{ role: "user", parts: [{ toolCall: {} }] }] }],
  ["save", "state._metadata", { state: { _metadata: 1 } }],
  ["patch", "patch._metadata", { patch: { _metadata: {} } }],
  ["restore", "version", { version: "0" }],
  ["fork", "target_collection", { targetCollection: "a b" }],
  ["fork", "target_id", { targetId: "i".repeat(513) }],
];

describe.each(KINDS)("a request to write that is wrong, over %s", (kind) => {
  let opened: OpenWrites;
  let writes: Writes;

  beforeAll(async () => {
    opened = await openWrites(kind);
    [writes] = opened.instances;
  });
  afterAll(() => opened[Symbol.asyncDispose]());

  it.each(cases)("is refused by %s with the name of the field: %s", async (rpc, field, change) => {
    await expect(writes[rpc]({ ...good[rpc], ...change })).rejects.toMatchObject({
      kind: "invalid",
      reason: "FIELD_INVALID",
      violations: [{ field }],
    });
  });

  it.each(all)("is told all that is wrong at once, by %s", async (rpc) => {
    await expect(writes[rpc]({ ...good[rpc], id: "", collection: "/" })).rejects.toMatchObject({
      violations: [{ field: "collection" }, { field: "id" }],
    });
  });

  it.each([
    ["save", "state"],
    ["patch", "patch"],
  ] as const)("is refused by %s without its %s", async (rpc, field) => {
    await expect(writes[rpc]({ id: "c" })).rejects.toMatchObject({ violations: [{ field }] });
  });

  const tooLarge: readonly [Rpc, string, JsonObject][] = [
    ["save", "STATE_TOO_LARGE", { state: { a: "x".repeat(4 * 1024 * 1024) } }],
    ["patch", "STATE_TOO_LARGE", { patch: { a: "x".repeat(4 * 1024 * 1024) } }],
    ["append", "MESSAGE_TOO_LARGE", { messages: [{ role: "u", content: "x".repeat(256 * 1024) }] }],
    ["save", "TOO_MANY_MESSAGES", { messages: Array.from({ length: 1001 }, () => ({ role: "u", content: "x" })) }],
  ];
  it.each(tooLarge)("is refused by %s when it is too large, with %s", async (rpc, reason, change) => {
    await expect(writes[rpc]({ ...good[rpc], ...change })).rejects.toMatchObject({ kind: "too_large", reason });
  });

  it("takes a version that no server ever gives out for one that is not there", async () => {
    const huge = "18446744073709551615";
    await writes.save({ id: "huge", state: {} });
    await expect(writes.save({ ...good.save, id: "huge", expectedVersion: huge })).rejects.toMatchObject({
      reason: "VERSION_CONFLICT",
      detail: { message: { expectedVersion: 2n ** 64n - 1n } },
    });
    const notKept = { kind: "not_found", reason: "VERSION_NOT_KEPT" };
    await expect(writes.restore({ id: "huge", version: huge })).rejects.toMatchObject(notKept);
    await expect(writes.fork({ id: "huge", version: huge })).rejects.toMatchObject(notKept);
  });
});

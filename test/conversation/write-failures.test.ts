import { fromBinary, type JsonObject } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { ConversationMessageSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { KINDS } from "./ledgers.ts";
import { openWrites, type Writes } from "./writes.ts";

const message = (content: string, more: JsonObject = {}): JsonObject => ({ role: "user", content, ...more });
const megabytes = (count: number) => "x".repeat(count * 1024 * 1024);

interface Case {
  readonly rpc: "save" | "patch" | "append" | "delete" | "restore" | "fork";
  /** The conversation that is blamed: of these, each is what its name says. */
  readonly id: "there" | "deleted" | "expired" | "never" | "large" | "full";
  readonly request?: JsonObject;
  readonly kind: string;
  readonly reason: string;
  readonly says: string;
  readonly metadata?: Readonly<Record<string, unknown>>;
}

const GONE = { kind: "precondition", reason: "CONVERSATION_DELETED" } as const;
const KEPT = { kind: "not_found", reason: "VERSION_NOT_KEPT", says: "version 7", metadata: { version: "7" } } as const;
/** Beyond all versions that there are, and all that a double tells from the next. */
const MOST = "18446744073709551615";
const BEYOND = { says: `version ${MOST}`, metadata: { version: MOST } };
const CONFLICT = { kind: "conflict", reason: "VERSION_CONFLICT", says: "version 7 was expected" } as const;
const STANDS = { expected_version: "7", current_version: expect.stringMatching(/^[1-9]/) };
const ABSENT = { expected_version: "7", current_version: "0" };

const CASES: readonly Case[] = [
  { ...GONE, rpc: "save", id: "deleted", request: { state: {} }, says: "expected_version 0" },
  { ...GONE, rpc: "append", id: "deleted", request: { create: true }, says: "expected_version 0" },
  { ...GONE, rpc: "patch", id: "deleted", kind: "not_found", says: "Save with expected_version 0" },
  { ...GONE, rpc: "append", id: "deleted", kind: "not_found", says: "Save with expected_version 0" },
  { ...GONE, rpc: "fork", id: "deleted", request: { id: "there", targetId: "deleted" }, says: "another target_id" },
  { ...GONE, rpc: "fork", id: "deleted", kind: "not_found", says: "Save with expected_version 0" },
  { rpc: "patch", id: "expired", kind: "not_found", reason: "CONVERSATION_EXPIRED", says: "has expired" },
  { rpc: "restore", id: "never", kind: "not_found", reason: "CONVERSATION_NOT_FOUND", says: "is not there" },
  { rpc: "fork", id: "never", kind: "not_found", reason: "CONVERSATION_NOT_FOUND", says: "is not there" },
  { ...KEPT, rpc: "restore", id: "there" },
  { ...KEPT, rpc: "fork", id: "there", request: { version: "7" } },
  { ...KEPT, ...BEYOND, rpc: "restore", id: "there", request: { version: MOST } },
  { ...KEPT, ...BEYOND, rpc: "fork", id: "there", request: { version: MOST } },
  { ...CONFLICT, rpc: "save", id: "there", request: { state: {}, expectedVersion: "7" }, metadata: STANDS },
  { ...CONFLICT, rpc: "patch", id: "there", request: { expectedVersion: "7" }, metadata: STANDS },
  { ...CONFLICT, rpc: "append", id: "there", request: { expectedVersion: "7" }, metadata: STANDS },
  { ...CONFLICT, rpc: "delete", id: "there", request: { expectedVersion: "7" }, metadata: STANDS },
  { ...CONFLICT, rpc: "restore", id: "deleted", request: { expectedVersion: "7" }, metadata: ABSENT },
  {
    ...{
      rpc: "append",
      id: "there",
      request: { messages: [message("new"), message("b", { id: "m1", role: "tool" })] },
    },
    ...{ kind: "already_exists", reason: "MESSAGE_ID_REUSED", says: "messages[1].id" },
    metadata: { field: "messages[1].id", message_id: "m1", position: "1", differs: "role, content" },
  },
  {
    ...{ rpc: "patch", id: "there", request: { requestId: "used" } },
    ...{ kind: "precondition", reason: "REQUEST_ID_REUSED", says: "request_id: it named another request" },
    metadata: { field: "request_id", request_id: "used" },
  },
  {
    ...{ rpc: "patch", id: "large", request: { patch: { more: megabytes(2) } } },
    ...{ kind: "too_large", reason: "STATE_TOO_LARGE", says: "the limit is 4194304" },
  },
  {
    ...{ rpc: "append", id: "large", request: { patch: { more: megabytes(2) } } },
    ...{ kind: "too_large", reason: "STATE_TOO_LARGE", says: "the limit is 4194304" },
  },
  {
    ...{ rpc: "append", id: "full", kind: "too_large", reason: "TOO_MANY_MESSAGES" },
    ...{ says: "would have 1000001 messages", metadata: { field: "messages" } },
  },
  {
    ...{ rpc: "fork", id: "full", request: { id: "there", targetId: "full" } },
    ...{ kind: "already_exists", reason: "CONVERSATION_EXISTS", says: "is there already" },
  },
];

/** What each RPC needs besides. */
const NEEDED: Readonly<Record<Case["rpc"], JsonObject>> = {
  save: {},
  patch: { patch: { a: 1 } },
  append: { messages: [message("x")] },
  delete: {},
  restore: { version: "7" },
  fork: { targetId: "copy" },
};

async function prepare(writes: Writes): Promise<void> {
  await writes.save({ id: "there", state: { n: 1 }, messages: [message("a", { id: "m1" })] });
  await writes.patch({ id: "there", patch: { n: 2 }, requestId: "used" });
  await writes.save({ id: "deleted", state: {} });
  await writes.delete({ id: "deleted" });
  await writes.save({ id: "expired", state: {}, expiry: { ttl: "1s" } });
  await writes.save({ id: "large", state: { much: megabytes(3) } });
  await writes.save({ id: "full", state: {} });
  await writes.database.write("UPDATE conversation SET message_count = 1000000 WHERE id = 'full'");
}

describe.each(KINDS)("a write over %s that is refused", (kind) => {
  it("names the conversation, and what else a program needs to know", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    await prepare(writes);
    opened.clock.move(1_000);
    for (const { rpc, id, request, says, metadata, ...failure } of CASES) {
      const error = await writes[rpc]({ id, ...NEEDED[rpc], ...request }).catch((thrown: unknown) => thrown);
      const about = { collection: "conversation", id, ...metadata };
      const told = { ...failure, message: expect.stringContaining(says), metadata: about };
      expect(error, `${rpc} ${id} ${failure.reason}`).toMatchObject(told);
    }
  });
});

describe.each(KINDS)("a message that comes again over %s", (kind) => {
  it("is the one that is there, with its own time, though a retry brings another time", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const said = (createTime: string) => ({
      ...{ id: "c1", messages: [message("a", { id: "m1", createTime, metadata: { a: 1 } })] },
    });
    await writes.append({ ...said("2026-01-02T03:04:05Z"), create: true });
    expect(await writes.append(said("2026-01-02T03:04:06Z"))).toMatchObject({
      ...{ appended: [{ id: "m1", position: "1", duplicate: true }], messageCount: "1" },
    });
    expect(await writes.save({ ...said("2026-01-02T03:04:07Z"), state: {} })).toMatchObject({
      appended: [{ duplicate: true }],
    });
    // Its own time is kept, not the later ones.
    const [row] = await writes.database.query<{ body: Uint8Array }>("SELECT body FROM conversation_message");
    const { createTime } = fromBinary(ConversationMessageSchema, Uint8Array.from(row?.body ?? []));
    expect(createTime?.seconds).toBe(BigInt(Date.parse("2026-01-02T03:04:05Z") / 1000));
  });

  it("tells what differs of those in the same commit, too", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const append = (more: JsonObject) =>
      writes.append({ id: "c1", create: true, messages: [message("a", { id: "m1", ...more })] });
    const others: readonly [JsonObject, string][] = [
      [{ role: "tool" }, "role"],
      [{ content: "b" }, "content"],
      [{ parts: [{ text: "c" }] }, "parts"],
      [{ content: "", parts: [{ data: { a: 1 } }], metadata: { a: 1 } }, "content, parts, metadata"],
    ];
    const [first, ...ended] = await Promise.allSettled([append({}), ...others.map(([more]) => append(more))]);
    expect(first).toMatchObject({ status: "fulfilled" });
    expect(ended.map((one) => (one.status === "rejected" ? one.reason.metadata.differs : one))).toEqual(
      others.map(([, differs]) => differs),
    );
  });
});

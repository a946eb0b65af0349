import { type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { NO_COPIES } from "../../src/conversation/hot/hot-copies.ts";
import { Failure } from "../../src/infra/failure.ts";
import { DAY_MS, DEFAULT_POLICY, KINDS } from "./ledgers.ts";
import { openWrites, timeInJson, type Writes } from "./writes.ts";

const id = "c1";
const message = (content: string, more: JsonObject = {}): JsonObject => ({ role: "user", content, ...more });

/** The version in a reply. */
function versionIn(reply: JsonObject): string {
  const { summary, conversation } = reply;
  const inside = (json: JsonObject[string] | undefined): JsonObject =>
    typeof json === "object" && json !== null && !Array.isArray(json) ? json : {};
  const found = inside(summary ?? inside(conversation).summary).version ?? reply.version;
  if (typeof found !== "string") throw new Error(`no version in ${JSON.stringify(reply)}`);
  return found;
}

/** The state and the message count, as a write that changes nothing but the version tells them. */
async function look(writes: Writes, of = id): Promise<JsonObject> {
  const { state, summary } = await writes.patch({ id: of, patch: {}, returnState: true });
  return { state: state ?? null, summary: summary ?? null };
}

/** The detail of the failure that a call ends with. */
async function detailOf(call: Promise<JsonObject>): Promise<JsonValue | undefined> {
  const failure: unknown = await call.then(
    () => undefined,
    (error) => error,
  );
  if (!(failure instanceof Failure)) throw new Error(`not a failure: ${failure}`);
  return failure.detail && toJson(failure.detail.desc, failure.detail.message);
}

describe.each(KINDS)("Save over %s", (kind) => {
  it("creates, then replaces the state and keeps the messages", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const state = { user_id: "u", status: "open", complexity_level: "high", confidence_score: 0.5, extra: [1] };
    const first = await writes.save({ id, state, messages: [message("a", { id: "m1" })] });
    expect(first).toEqual({
      summary: {
        ...{ collection: "conversation", id, version: versionIn(first), userId: "u", status: "open" },
        ...{ complexityLevel: "high", confidenceScore: 0.5, messageCount: "1", sliding: true },
        stateBytes: expect.any(String),
        createTime: timeInJson(opened.clock.now()),
        updateTime: timeInJson(opened.clock.now()),
        expireTime: timeInJson(opened.clock.now() + DAY_MS),
      },
      created: true,
      appended: [{ id: "m1", position: "1" }],
    });
    expect(writes.said).toEqual({ servedBy: kind, degraded: false });

    const second = await writes.save({ id, state: {}, messages: [message("b"), message("a", { id: "m1" })] });
    expect(second).toMatchObject({ summary: { messageCount: "2" } });
    expect(second).not.toHaveProperty("created");
    expect(second.appended).toEqual([
      { id: expect.stringMatching(/-/), position: "2" },
      { id: "m1", position: "1", duplicate: true },
    ]);
    expect(second.summary).not.toHaveProperty("status");
    expect(BigInt(versionIn(second))).toBeGreaterThan(BigInt(versionIn(first)));
    expect(await look(writes)).toMatchObject({ state: {} });
  });

  it("answers another attempt under the same name as the first, and writes nothing", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const request = { id, state: { a: 1 }, messages: [message("x")], requestId: "r1" };
    const first = await writes.save(request);
    await writes.save({ id, state: { a: 2 } });
    expect(await writes.save(request)).toEqual(first);
    expect(await look(writes)).toMatchObject({ state: { a: 2 }, summary: { messageCount: "1" } });
    // The same name for another RPC is another attempt.
    expect(await writes.patch({ id, patch: { b: 1 }, requestId: "r1", returnState: true })).toMatchObject({
      state: { a: 2, b: 1 },
    });
  });

  it("does not bring back what was deleted, unless it says that there must be nothing", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    await writes.save({ id, state: {}, messages: [message("x")] });
    await writes.delete({ id });
    const deleted = { kind: "precondition", reason: "CONVERSATION_DELETED" };
    await expect(writes.save({ id, state: {} })).rejects.toMatchObject(deleted);
    await expect(writes.append({ id, messages: [message("x")], create: true })).rejects.toMatchObject(deleted);
    const again = await writes.save({ id, state: {}, expectedVersion: "0" });
    expect(again.created).toBe(true);
    expect(again.summary).not.toHaveProperty("messageCount");
  });

  it("takes the expiry that is ordered, or else that of before, or else that of the policy", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    opened.policies.set("short", { ...DEFAULT_POLICY, ttlMs: 5_000, sliding: false });
    const inMs = (ms: number) => timeInJson(opened.clock.now() + ms);
    const [collection, state] = ["short", {}];
    const first = await writes.save({ collection, id, state });
    expect(first.summary).toMatchObject({ expireTime: inMs(5_000) });
    const fixed = { ttl: "60.000000001s", mode: "MODE_SLIDING" };
    expect((await writes.save({ collection, id, state, expiry: fixed })).summary).toMatchObject({
      ...{ expireTime: inMs(60_001), sliding: true },
    });
    opened.clock.move(1_000);
    expect((await writes.save({ collection, id, state })).summary).toMatchObject({ expireTime: inMs(60_001) });
    const forever = await writes.save({ collection, id, state, expiry: { never: true } });
    expect(forever.summary).not.toHaveProperty("expireTime");
  });
});

describe.each(KINDS)("a conflict over %s", (kind) => {
  const wrong = { expectedVersion: "5" };

  it("tells what is there instead, in the details of the error", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const state = { status: "open", n: 1 };
    const version = versionIn(await writes.save({ id, state, messages: [message("x")] }));
    const calls: readonly (() => Promise<JsonObject>)[] = [
      () => writes.save({ id, state: {}, ...wrong }),
      () => writes.patch({ id, patch: {}, ...wrong }),
      () => writes.append({ id, messages: [message("y")], ...wrong }),
      () => writes.delete({ id, ...wrong }),
      () => writes.restore({ id, version, ...wrong }),
    ];
    for (const call of calls) {
      await expect(call()).rejects.toMatchObject({
        ...{ kind: "conflict", reason: "VERSION_CONFLICT" },
        message: `expected_version: version 5 was expected, but the current version is ${version}`,
        detail: {
          desc: { typeName: "holdfast.v1.ConversationConflict" },
          message: {
            ...{ collection: "conversation", id, expectedVersion: 5n, presence: 1, currentVersion: BigInt(version) },
            ...{ currentState: state, currentMessageCount: 1n, stateOmitted: false },
          },
        },
      });
    }
    expect(writes.conflicts).toEqual(calls.map(() => "conversation"));
    const taken = writes.save({ id, state: {}, expectedVersion: "0" });
    await expect(taken).rejects.toMatchObject({
      message: `expected_version: no conversation was expected, but the current version is ${version}`,
    });
    expect(await writes.save({ id, state: {}, expectedVersion: version })).not.toHaveProperty("conflict");
  });

  it("leaves the state out of the details when it is larger than 4 KiB, but never out of the reply", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    // A member of one byte's name, whose text, value and entry say their lengths in two bytes each.
    const fits = { a: "x".repeat(4096 - 12) };
    expect((await writes.save({ id, state: fits })).summary).toMatchObject({ stateBytes: "4096" });
    const shown = await detailOf(writes.save({ id, state: {}, ...wrong }));
    expect(shown).toMatchObject({ currentState: fits });
    expect(shown).not.toHaveProperty("stateOmitted");
    const larger = { a: "x".repeat(4096 - 11) };
    await writes.save({ id, state: larger });
    const omitted = await detailOf(writes.save({ id, state: {}, ...wrong }));
    expect(omitted).toMatchObject({ stateOmitted: true });
    expect(omitted).not.toHaveProperty("currentState");
    const large = { a: "x".repeat(1_000_000), n: null };
    const version = versionIn(await writes.save({ id, state: large }));
    const conflict = {
      ...{ collection: "conversation", id, expectedVersion: "5", presence: "CONVERSATION_PRESENCE_LIVE" },
      ...{ currentVersion: version, currentState: large },
    };
    expect(await writes.save({ id, state: {}, ...wrong, returnConflict: true })).toEqual({ conflict });
    expect(await writes.patch({ id, patch: {}, ...wrong, returnConflict: true })).toEqual({ conflict });
    expect(writes.said).toEqual({ servedBy: kind, degraded: false });
  });

  it("with what is not there says whether it was deleted, has expired, or never was", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    await writes.save({ id: "deleted", state: {} });
    await writes.delete({ id: "deleted" });
    await writes.save({ id: "expired", state: {}, expiry: { ttl: "1s" } });
    opened.clock.move(1_000);
    const presences = {
      deleted: "CONVERSATION_PRESENCE_DELETED",
      expired: "CONVERSATION_PRESENCE_EXPIRED",
      never: "CONVERSATION_PRESENCE_NEVER_EXISTED",
    };
    for (const [gone, presence] of Object.entries(presences)) {
      const conflict = { collection: "conversation", id: gone, expectedVersion: "5", presence };
      expect(await writes.save({ id: gone, state: {}, ...wrong, returnConflict: true })).toEqual({ conflict });
      expect(await detailOf(writes.patch({ id: gone, patch: {}, ...wrong }))).toEqual(conflict);
    }
    await expect(writes.patch({ id: "never", patch: {}, ...wrong })).rejects.toThrow(
      "version 5 was expected, but the conversation is not there",
    );
  });
});

describe.each(KINDS)("Patch over %s", (kind) => {
  it("merges, and sends the state when it is asked for", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    await writes.save({ id, state: { a: { x: 1, y: 2 }, b: [1, 2], c: 3, status: "open" } });
    const reply = await writes.patch({ id, patch: { a: { y: null, z: 3 }, b: [9], c: null, status: "done" } });
    expect(reply).not.toHaveProperty("state");
    expect(reply.summary).toMatchObject({ status: "done" });
    const request = { id, patch: { d: 1 }, returnState: true, requestId: "r" };
    const merged = await writes.patch(request);
    expect(merged.state).toEqual({ a: { x: 1, z: 3 }, b: [9], status: "done", d: 1 });
    await writes.save({ id, state: {} });
    expect(await writes.patch(request)).toEqual(merged);
  });

  it("needs a conversation, and says why there is none", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    await writes.save({ id: "deleted", state: {} });
    await writes.delete({ id: "deleted" });
    await writes.save({ id: "expired", state: {}, expiry: { ttl: "1s" } });
    opened.clock.move(1_000);
    const reasons = {
      deleted: "CONVERSATION_DELETED",
      expired: "CONVERSATION_EXPIRED",
      never: "CONVERSATION_NOT_FOUND",
    };
    for (const [gone, reason] of Object.entries(reasons)) {
      const failure = { kind: "not_found", reason };
      await expect(writes.patch({ id: gone, patch: {} })).rejects.toMatchObject(failure);
      await expect(writes.append({ id: gone, messages: [message("x")] })).rejects.toMatchObject(failure);
      await expect(writes.restore({ id: gone, version: "7" })).rejects.toMatchObject(failure);
      await expect(writes.fork({ id: gone })).rejects.toMatchObject(failure);
    }
  });
});

describe.each(KINDS)("AppendMessages over %s", (kind) => {
  it("appends what is not there yet, in the order given, and patches the state in the same commit", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const first = await writes.append({
      id,
      messages: [message("a", { id: "m1" })],
      create: true,
      expectedVersion: "0",
    });
    expect(first).toMatchObject({ appended: [{ id: "m1", position: "1" }], messageCount: "1", created: true });
    const messages = [message("b", { id: "m2" }), message("a", { id: "m1" }), message("c")];
    const second = await writes.append({ id, messages, patch: { status: "open" }, expiry: { ttl: "60s" } });
    expect(second).toEqual({
      appended: [
        { id: "m2", position: "2" },
        { id: "m1", position: "1", duplicate: true },
        { id: expect.stringMatching(/-/), position: "3" },
      ],
      ...{ version: expect.any(String), messageCount: "3" },
      expireTime: timeInJson(opened.clock.now() + 60_000),
    });
    expect(BigInt(versionIn(second))).toBeGreaterThan(BigInt(versionIn(first)));
    expect(await look(writes)).toMatchObject({
      state: { status: "open" },
      summary: { status: "open", messageCount: "3" },
    });
  });

  it("writes nothing when every message is there, though its maps come in another order and the version is another", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const given = message("a", { id: "m1", metadata: { x: 1, y: { b: [1], a: 2 } } });
    const { version = "" } = await writes.append({ id, messages: [given], create: true });
    const reordered = { metadata: { y: { a: 2, b: [1] }, x: 1 }, id: "m1", content: "a", role: "user" };
    const again = await writes.append({ id, messages: [reordered], expectedVersion: "5", patch: { n: 1 } });
    expect(again).toMatchObject({
      appended: [{ id: "m1", position: "1", duplicate: true }],
      version,
      messageCount: "1",
    });
    const other = { ...given, metadata: { x: 2 } };
    await expect(writes.append({ id, messages: [message("b"), other] })).rejects.toMatchObject({
      ...{ kind: "already_exists", reason: "MESSAGE_ID_REUSED" },
      message: 'messages[1].id: "m1" is the message at position 1 already, with other content: metadata',
      metadata: { field: "messages[1].id", collection: "conversation", id, message_id: "m1", position: "1" },
    });
    expect(await look(writes)).toMatchObject({ state: {}, summary: { messageCount: "1" } });
  });

  it("answers a retry under the same name with the ids that the first one was given", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const request = { id, messages: [message("a"), message("a")], create: true, requestId: "r" };
    const first = await writes.append(request);
    await writes.append({ id, messages: [message("b")] });
    expect(await writes.append(request)).toEqual(first);
    expect(await look(writes)).toMatchObject({ summary: { messageCount: "3" } });
  });
});

describe.each(KINDS)("Delete and ExtendTtl over %s", (kind) => {
  it("tell what was there", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const { version = "" } = (await writes.save({ id, state: {} })).summary as JsonObject;
    const gone = { presence: "CONVERSATION_PRESENCE_NEVER_EXISTED" };
    expect(await writes.delete({ id: "never", expectedVersion: "5" })).toEqual(gone);
    expect(await writes.extend({ id: "never" })).toEqual(gone);

    const first = await writes.delete({ id, expectedVersion: version });
    expect(first).toEqual({ presence: "CONVERSATION_PRESENCE_LIVE", version: expect.any(String) });
    expect(BigInt(versionIn(first))).toBeGreaterThan(BigInt(String(version)));
    const again = { presence: "CONVERSATION_PRESENCE_DELETED", version: versionIn(first) };
    expect(await writes.delete({ id, expectedVersion: "5" })).toEqual(again);
    expect(await writes.extend({ id })).toEqual({ presence: "CONVERSATION_PRESENCE_DELETED" });

    await writes.save({ id: "expired", state: {}, expiry: { ttl: "1s" } });
    opened.clock.move(1_000);
    const expired = { presence: "CONVERSATION_PRESENCE_EXPIRED" };
    expect(await writes.delete({ id: "expired" })).toEqual(expired);
    expect(await writes.extend({ id: "expired", expiry: { ttl: "9s" } })).toEqual(expired);
  });

  it("give a new expiry, counted from now, and leave the version as it is", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    const version = versionIn(await writes.save({ id, state: {} }));
    opened.clock.move(500);
    expect(await writes.extend({ id, expiry: { ttl: "10s" } })).toEqual({
      presence: "CONVERSATION_PRESENCE_LIVE",
      expireTime: timeInJson(opened.clock.now() + 10_000),
    });
    expect(await writes.extend({ id })).toMatchObject({
      expireTime: timeInJson(opened.clock.now() + DAY_MS),
    });
    expect(await writes.extend({ id, expiry: { never: true } })).toEqual({ presence: "CONVERSATION_PRESENCE_LIVE" });
    expect(await writes.save({ id, state: {}, expectedVersion: version })).toHaveProperty("summary");
  });
});

describe.each(KINDS)("Restore over %s", (kind) => {
  it("makes an earlier version the current one, with its messages or with all of them", async () => {
    await using opened = await openWrites(kind);
    opened.policies.set("conversation", { ...DEFAULT_POLICY, history: 10 });
    const [writes] = opened.instances;
    const first = versionIn(await writes.save({ id, state: { n: 1, status: "a" }, messages: [message("x")] }));
    const second = versionIn(await writes.save({ id, state: { n: 2 }, messages: [message("y"), message("z")] }));
    const keeping = await writes.restore({ id, version: first, keepMessages: true, expectedVersion: second });
    expect(keeping).toMatchObject({
      conversation: { state: { n: 1, status: "a" }, summary: { status: "a", messageCount: "3" } },
    });
    const request = { id, version: first, requestId: "r" };
    const restored = await writes.restore(request);
    expect(restored).toMatchObject({ conversation: { state: { n: 1, status: "a" }, summary: { messageCount: "1" } } });
    await writes.save({ id, state: {} });
    expect(await writes.restore(request)).toEqual(restored);
    await expect(writes.restore({ id, version: "7" })).rejects.toMatchObject({ reason: "VERSION_NOT_KEPT" });
  });
});

describe.each(KINDS)("a write over %s", (kind) => {
  it("says that it is degraded while Redis could not be told of it", async () => {
    let complete = false;
    const copies = {
      ...NO_COPIES,
      cover: async () => ({ complete, lift: () => undefined, withdraw: () => undefined }),
    };
    await using opened = await openWrites(kind, { copies });
    const [writes] = opened.instances;
    const state = {};
    const calls: readonly (() => Promise<JsonObject>)[] = [
      () => writes.save({ id, state }),
      () => writes.fork({ id }),
      () => writes.append({ id, messages: [message("x")] }),
      () => writes.extend({ id }),
      () => writes.delete({ id }),
    ];
    for (const call of calls) {
      await call();
      expect(writes.said).toEqual({ servedBy: kind, degraded: true });
    }
    complete = true;
    await writes.save({ id: "c2", state });
    expect(writes.said).toEqual({ servedBy: kind, degraded: false });
  });
});

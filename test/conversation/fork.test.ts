import { fromBinary, type JsonObject, toJson } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import type { ForkCopies } from "../../src/conversation/rpc/fork-copies.ts";
import { createSqlForkCopies } from "../../src/conversation/rpc/sql-fork-copies.ts";
import { createSqlRemains } from "../../src/conversation/upkeep/sql-remains.ts";
import { ConversationMessageSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";
import type { MovedClock } from "../support/moved-clock.ts";
import { DEFAULT_POLICY, KINDS, messagesOf, type OpenLedger } from "./ledgers.ts";
import { openWrites, timeInJson, type Writes } from "./writes.ts";

const HOUR_MS = 3_600_000;
const id = "c1";
const COPY = { collection: "conversation", id: "copy" };

function messages(from: number, to: number): JsonObject[] {
  return Array.from({ length: to - from + 1 }, (_, at) => {
    const number = from + at;
    return { id: `m${number}`, role: "user", content: `message ${number}`, metadata: { number } };
  });
}

const idsOf = (from: number, to: number) => messages(from, to).map((message) => message.id);

async function appendAll(writes: Writes, to: number, of = id): Promise<void> {
  for (let first = 1; first <= to; first += 1000) {
    await writes.append({ id: of, messages: messages(first, Math.min(to, first + 999)), create: true });
  }
}

const summaryOf = ({ summary, conversation }: JsonObject): JsonObject => {
  const found = summary ?? objectOf(conversation).summary;
  return objectOf(found);
};

function objectOf(json: JsonObject[string] | undefined): JsonObject {
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw new Error("not an object");
  return json;
}

async function count({ database }: Pick<OpenLedger, "database">, table: string, more = ""): Promise<number> {
  const [row] = await database.query<{ count: number }>(`SELECT COUNT(*) AS count FROM ${table} ${more}`);
  return row?.count ?? 0;
}

/** Makes so many of the only message, past all that watches over them. */
async function multiplyMessages({ database }: Pick<OpenLedger, "database">, many: number): Promise<void> {
  const places = `WITH RECURSIVE place (n) AS (SELECT CAST(2 AS BIGINT) UNION ALL SELECT n + 1 FROM place WHERE n < ${many})`;
  const columns = "collection, id, generation, position, added, message_id, role, content_hash, body";
  await database.write(`INSERT INTO conversation_message (${columns}) ${places}
    SELECT collection, id, generation, n, added, message_id || '-' || n, role, content_hash, body
    FROM conversation_message CROSS JOIN place WHERE position = 1`);
  await database.write(`UPDATE conversation SET message_count = ${many}`);
}

/** Removes what is due until nothing is. */
async function sweep({ database }: Pick<OpenLedger, "database">, clock: MovedClock): Promise<void> {
  const remains = createSqlRemains(database);
  while (await remains.removeMessages(clock.now() * 1000));
}

/** Everything that a fork prepares is adopted, or else is to be removed at once, and is. */
async function expectNoRemains(writes: Writes, clock: MovedClock, messagesThere: number): Promise<void> {
  await sweep(writes, clock);
  expect(await count(writes, "conversation_garbage")).toBe(0);
  expect(await count(writes, "conversation_message")).toBe(messagesThere);
}

describe.each(KINDS)("Fork over %s", (kind) => {
  it("copies state and messages; neither sees later changes of the other", async () => {
    await using opened = await openWrites(kind);
    opened.policies.set("other", { ...DEFAULT_POLICY, ttlMs: 5_000, sliding: false });
    const [writes] = opened.instances;
    const state = { status: "open", user_id: "u", n: [1, { a: null }] };
    const source = summaryOf(await writes.save({ id, state, messages: messages(1, 3), expiry: { never: true } }));
    opened.clock.move(1_000);
    const forked = await writes.fork({ id, targetCollection: "other", targetId: "copy" });
    const nowMs = opened.clock.now();
    expect(forked).toEqual({
      conversation: {
        state,
        summary: {
          ...{ collection: "other", id: "copy", version: expect.any(String), userId: "u", status: "open" },
          ...{ messageCount: "3", stateBytes: source.stateBytes },
          ...{ createTime: timeInJson(nowMs), updateTime: timeInJson(nowMs) },
          expireTime: timeInJson(nowMs + 5_000),
          origin: { collection: "conversation", id, version: source.version },
        },
      },
    });
    expect(writes.said).toEqual({ servedBy: kind, degraded: false });

    const other = { collection: "other", id: "copy" };
    const appended = await writes.append({ ...other, messages: messages(3, 4), patch: { status: "closed" } });
    expect(appended.appended).toEqual([
      { id: "m3", position: "3", duplicate: true },
      { id: "m4", position: "4" },
    ]);
    await writes.append({ id, messages: messages(5, 6) });
    expect(await messagesOf(writes, other)).toEqual(["m1", "m2", "m3", "m4"]);
    expect(await messagesOf(writes, { collection: "conversation", id })).toEqual(["m1", "m2", "m3", "m5", "m6"]);
    expect((await writes.patch({ id, patch: {}, returnState: true })).state).toEqual(state);
    await writes.delete({ id });
    await expectNoRemains(writes, opened.clock, 4);
    const bodies = await writes.database.query<{ body: Uint8Array }>(
      "SELECT body FROM conversation_message ORDER BY position",
    );
    expect(
      bodies.map(({ body }) => toJson(ConversationMessageSchema, fromBinary(ConversationMessageSchema, body))),
    ).toEqual(messages(1, 4).map((message) => ({ ...message, createTime: expect.any(String) })));
  });

  it("copies an earlier version, with the messages that it had", async () => {
    await using opened = await openWrites(kind);
    opened.policies.set("conversation", { ...DEFAULT_POLICY, history: 10 });
    const [writes] = opened.instances;
    const first = summaryOf(await writes.save({ id, state: { n: 1 }, messages: messages(1, 2) }));
    const second = summaryOf(await writes.save({ id, state: { n: 2, status: "b" }, messages: messages(3, 4) }));
    await writes.restore({ id, version: String(first.version) });
    await writes.append({ id, messages: [{ id: "m3", role: "user", content: "another" }] });
    const forked = await writes.fork({ id, version: String(second.version), targetId: "copy" });
    expect(forked).toMatchObject({
      conversation: { state: { n: 2, status: "b" }, summary: { status: "b", messageCount: "4" } },
    });
    expect(await messagesOf(writes, COPY)).toEqual(idsOf(1, 4));
    await writes.fork({ id, version: String(first.version), targetId: "first" });
    expect(await messagesOf(writes, { ...COPY, id: "first" })).toEqual(idsOf(1, 2));
    const notKept = { kind: "not_found", reason: "VERSION_NOT_KEPT" };
    await expect(writes.fork({ id, version: "7" })).rejects.toMatchObject(notKept);
  });

  it("gives the copy an id of its own where the request has none", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    await writes.save({ id, state: {} });
    const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
    const ids = new Set<unknown>();
    for (const request of [{}, {}, { requestId: "r1" }, { requestId: "r2" }]) {
      const forked = summaryOf(await writes.fork({ id, ...request }));
      expect(forked.id).toMatch(uuid);
      ids.add(forked.id);
    }
    expect(ids.size).toBe(4);
  });

  it("answers a retry under the same name as the first time, and copies nothing", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    await writes.save({ id, state: { n: 1 }, messages: messages(1, 2) });
    for (const request of [
      { id, requestId: "r" },
      { id, targetId: "copy", requestId: "r" },
    ]) {
      const first = await writes.fork(request);
      await writes.append({ id, messages: [{ role: "user", content: "x" }], patch: { n: 2 } });
      const prepared = await count(writes, "conversation_message");
      expect(await writes.fork(request)).toEqual(first);
      expect(await count(writes, "conversation_message")).toBe(prepared);
    }
  });

  it("takes nobody's place, but that of what has expired", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    await writes.save({ id, state: { n: 1 }, messages: messages(1, 2) });
    await writes.save({ id: "copy", state: { n: 9 }, messages: messages(8, 9), expiry: { ttl: "1s" } });
    const exists = { kind: "already_exists", reason: "CONVERSATION_EXISTS" };
    await expect(writes.fork({ id, targetId: "copy" })).rejects.toMatchObject(exists);
    await expect(writes.fork({ id, targetId: id })).rejects.toMatchObject(exists);
    expect(await count(writes, "conversation_garbage")).toBe(0);

    await writes.save({ id: "deleted", state: {} });
    await writes.delete({ id: "deleted" });
    await expect(writes.fork({ id, targetId: "deleted" })).rejects.toMatchObject({
      ...{ kind: "precondition", reason: "CONVERSATION_DELETED" },
    });
    opened.clock.move(1_000);
    await writes.fork({ id, targetId: "copy" });
    expect(await messagesOf(writes, COPY)).toEqual(idsOf(1, 2));
    await expectNoRemains(writes, opened.clock, 4);
  });

  it("copies more than goes into one portion while others go on writing", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    await appendAll(writes, 2_500);
    // Longer ones fill a portion before it has all it may have.
    const long = (at: number) => ({ id: `long${at}`, role: "user", content: "x".repeat(200_000) });
    for (const at of [1, 2]) {
      await writes.append({ id, messages: Array.from({ length: 15 }, (_, n) => long(at * 100 + n)) });
    }
    let forking = true;
    const fork = writes.fork({ id, targetId: "copy" }).finally(() => {
      forking = false;
    });
    let appended = 0;
    while (forking) await writes.append({ id, messages: [{ id: `late${++appended}`, role: "user", content: "x" }] });
    const { messageCount } = summaryOf(await fork);
    const all = await messagesOf(writes, { collection: "conversation", id });
    expect(all).toHaveLength(2_530 + appended);
    // All that was there when it began, and nothing that came later than the version that it names.
    expect(await messagesOf(writes, COPY)).toEqual(all.slice(0, Number(messageCount)));
    expect(Number(messageCount)).toBeGreaterThanOrEqual(2_530);
    expect(Number(messageCount)).toBeLessThan(2_530 + appended);
  });

  it("of very many messages is made in small parts, with the writes of others in between", async () => {
    await using opened = await openWrites(kind);
    const [writes] = opened.instances;
    await writes.save({ id, state: {}, messages: messages(1, 1) });
    const many = 50_000;
    await multiplyMessages(writes, many);
    let forking = true;
    const fork = writes.fork({ id, targetId: "copy" }).finally(() => {
      forking = false;
    });
    let saved = 0;
    for (; forking; saved++) await writes.save({ id: "other", state: { saved } });
    expect(summaryOf(await fork)).toMatchObject({ messageCount: String(many) });
    expect(await count(writes, "conversation_message", "WHERE id = 'copy'")).toBe(many);
    // It takes a hundred parts.
    expect(saved).toBeGreaterThan(25);
  });

  it("is made by one of two that want the same id", async () => {
    await using opened = await openWrites(kind, { count: 2 });
    const [one, other = one] = opened.instances;
    await appendAll(one, 1_500);
    const ended = await Promise.allSettled([one, other].map((writes) => writes.fork({ id, targetId: "copy" })));
    expect(ended.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
    expect(ended.find(({ status }) => status === "rejected")).toMatchObject({
      reason: { reason: "CONVERSATION_EXISTS" },
    });
    expect(await messagesOf(one, COPY)).toEqual(idsOf(1, 1_500));
    await expectNoRemains(one, opened.clock, 3_000);
  });

  it("is made by one of two attempts of the same name, and both are told the same", async () => {
    await using opened = await openWrites(kind, { count: 2 });
    const [one, other = one] = opened.instances;
    await appendAll(one, 1_500);
    const request = { id, requestId: "r" };
    const [first, second] = await Promise.all([one.fork(request), other.fork(request)]);
    expect(second).toEqual(first);
    await expectNoRemains(one, opened.clock, 3_000);
  });
});

/** Forks, of which something happens in the middle of it. */
function interrupted(when: "before" | "after", happens: () => Promise<unknown>) {
  return (copies: ForkCopies): ForkCopies => ({
    ...copies,
    async copy(...given) {
      if (when === "before") await happens();
      const copied = await copies.copy(...given);
      if (when === "after") await happens();
      return copied;
    },
  });
}

describe.each(KINDS)("a Fork over %s that is overtaken", (kind) => {
  it.each(["before", "after"] as const)(
    "by the end of the original, %s its messages were copied, makes no copy",
    async (when) => {
      const happens = async () => {
        await writes.delete({ id });
        await sweep(writes, opened.clock);
      };
      await using opened = await openWrites(kind, { around: interrupted(when, happens) });
      const [writes] = opened.instances;
      await writes.save({ id, state: {}, messages: messages(1, 3) });
      await expect(writes.fork({ id, targetId: "copy" })).rejects.toMatchObject({
        ...{ kind: "not_found", reason: "CONVERSATION_DELETED" },
      });
      expect(await writes.delete({ id: "copy" })).toEqual({ presence: "CONVERSATION_PRESENCE_NEVER_EXISTED" });
      await expectNoRemains(writes, opened.clock, 0);
    },
  );

  it("by another life of the original makes no copy", async () => {
    const happens = async () => {
      await writes.delete({ id });
      await writes.save({ id, state: {}, expectedVersion: "0" });
    };
    await using opened = await openWrites(kind, { around: interrupted("after", happens) });
    const [writes] = opened.instances;
    await writes.save({ id, state: {}, messages: messages(1, 3) });
    await expect(writes.fork({ id, targetId: "copy" })).rejects.toMatchObject({ reason: "CONVERSATION_NOT_FOUND" });
    await expectNoRemains(writes, opened.clock, 0);
  });

  it("by a Restore that takes the messages of a version away makes no copy", async () => {
    let first = "";
    const happens = () => writes.restore({ id, version: first });
    await using opened = await openWrites(kind, { around: interrupted("before", happens) });
    opened.policies.set("conversation", { ...DEFAULT_POLICY, history: 1 });
    const [writes] = opened.instances;
    first = String(summaryOf(await writes.save({ id, state: {}, messages: messages(1, 1) })).version);
    await writes.save({ id, state: {}, messages: messages(2, 3) });
    opened.policies.set("conversation", { ...DEFAULT_POLICY, history: 0 });
    await expect(writes.fork({ id, targetId: "copy" })).rejects.toMatchObject({ reason: "VERSION_NOT_KEPT" });
    await expectNoRemains(writes, opened.clock, 1);
  });

  it("by another that takes the id leaves that one alone", async () => {
    const happens = () => writes.save({ id: "copy", state: { n: 9 }, messages: messages(8, 9) });
    await using opened = await openWrites(kind, { around: interrupted("after", happens) });
    const [writes] = opened.instances;
    await writes.save({ id, state: {}, messages: messages(1, 3) });
    await expect(writes.fork({ id, targetId: "copy" })).rejects.toMatchObject({ reason: "CONVERSATION_EXISTS" });
    await expectNoRemains(writes, opened.clock, 5);
    expect(await messagesOf(writes, COPY)).toEqual(["m8", "m9"]);
  });

  it("by its caller's hanging up stops, and leaves nothing", async () => {
    const caller = new AbortController();
    const hangUp = async () => caller.abort(new Error("the caller hung up"));
    await using opened = await openWrites(kind, { around: interrupted("before", hangUp) });
    const [writes] = opened.instances;
    await writes.save({ id, state: {}, messages: messages(1, 3) });
    await expect(writes.fork({ id, targetId: "copy" }, caller.signal)).rejects.toThrow("the caller hung up");
    await expectNoRemains(writes, opened.clock, 3);
  });

  it("by the removal of what it has copied, because it took so long, makes no copy", async () => {
    const happens = async () => {
      opened.clock.move(HOUR_MS);
      await sweep(writes, opened.clock);
    };
    await using opened = await openWrites(kind, { around: interrupted("after", happens) });
    const [writes] = opened.instances;
    await writes.save({ id, state: {}, messages: messages(1, 3) });
    await expect(writes.fork({ id, targetId: "copy" })).rejects.toMatchObject({ reason: "COPY_OUTLIVED" });
    await expectNoRemains(writes, opened.clock, 3);
  });
});

describe.each(KINDS)("the messages that a fork prepares over %s", (kind) => {
  it("are removed some time after the instance that wanted them ended; those that were adopted are not", async () => {
    await using opened = await openWrites(kind);
    const { clock } = opened;
    const [writes] = opened.instances;
    await writes.save({ id, state: {}, messages: messages(1, 3), expiry: { never: true } });
    await writes.fork({ id, targetId: "copy", expiry: { never: true } });
    const [source] = await writes.database.query<{ generation: number; version: number }>(
      "SELECT generation, version FROM conversation WHERE id = 'c1'",
    );
    if (source === undefined) throw new Error("there is no source");
    const copies = createSqlForkCopies({ database: writes.database, clock });
    const prepared = await copies.prepare({ ...COPY, id: "never" });
    const from = { collection: "conversation", id, ...source };
    expect(await copies.copy(from, prepared, new AbortController().signal)).toBe(3);
    await sweep(writes, clock);
    expect(await count(writes, "conversation_message")).toBe(9);
    clock.move(HOUR_MS);
    await expect(copies.copy(from, prepared, new AbortController().signal)).rejects.toMatchObject({
      kind: "unavailable",
    });
    await expectNoRemains(writes, clock, 6);
    expect(await messagesOf(writes, COPY)).toEqual(idsOf(1, 3));
  });

  it("never share a generation, whoever prepares them in the same moment", async () => {
    await using opened = await openWrites(kind, { count: 2 });
    const made = opened.instances.map(({ database }) => createSqlForkCopies({ database, clock: opened.clock }));
    const prepared = await Promise.all([...made, ...made, ...made].map((copies) => copies.prepare(COPY)));
    const generations = new Set(prepared.map(({ generation }) => generation));
    expect(generations.size).toBe(prepared.length);
    for (const generation of generations) expect(generation).toBeLessThan(opened.clock.now() * 1000);
  });
});

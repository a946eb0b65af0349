import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  ConversationOrder,
  ConversationPresence,
  ConversationStateService,
  ConversationChange_Kind as Kind,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import { CallFailed, type ConversationClient, createConversationClient } from "../support/conversation-client.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { until } from "../support/until.ts";

const topologies: readonly [name: string, env: () => Promise<Record<string, string>>][] = [
  ["embedded", async () => ({})],
  ["single", async () => ({ REDIS_URL: await freshRedis() })],
  ["cluster", async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() })],
  [
    "cluster over a Redis Cluster",
    async () => ({ REDIS_URL: await redisClusterUrl(), DATABASE_URL: await freshDatabase() }),
  ],
  ["sql-only", async () => ({ DATABASE_URL: await freshDatabase() })],
];

let startedCluster: ReturnType<typeof startRedisCluster> | undefined;
async function redisClusterUrl(): Promise<string> {
  startedCluster ??= startRedisCluster();
  const { urls } = await startedCluster;
  return String(urls[0]).replace("redis:", "redis-cluster:");
}
afterAll(async () => {
  const cluster = await startedCluster;
  await cluster?.stop();
});

const { method } = ConversationStateService;
const { LIVE, EXPIRED, DELETED, NEVER_EXISTED } = ConversationPresence;
const ttl = (ms: number) => ({
  kind: { case: "ttl" as const, value: { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 } },
});
const said = (text: string, id = "") => ({ id, role: "user", content: text });

async function failureOf(work: Promise<unknown>): Promise<CallFailed> {
  const thrown = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(thrown instanceof CallFailed)) throw new Error(`expected a failed call, got ${String(thrown)}`);
  return thrown;
}

describe.each(topologies)("conversations, %s", (_, envOf) => {
  let server: HoldfastProcess;
  let conversations: ConversationClient;
  let truth: string;
  let hot: string | undefined;

  beforeAll(async () => {
    const env = await envOf();
    server = await startHoldfast({ ...env, CONVERSATION_HISTORY: "5", CONVERSATION_SWEEP_INTERVAL: "200ms" });
    conversations = createConversationClient(server.grpcAddress);
    truth = env.DATABASE_URL === undefined ? "sqlite" : "postgres";
    hot = env.REDIS_URL === undefined ? undefined : "redis";
  });
  afterAll(async () => {
    conversations[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  it("gives back what was saved, and says what is known of it", async () => {
    const state = {
      user_id: "u",
      status: "open",
      complexity_level: "high",
      confidence_score: 0.5,
      a: [1, { b: null }],
    };
    const { version } = await conversations.save("saved", state, { messages: [said("one"), said("two")] });
    const { reply } = await conversations.get("saved", { lastMessages: 1 });
    expect(reply).toMatchObject({ presence: LIVE, conversation: { state } });
    expect(reply.messages).toMatchObject([{ content: "two", position: 2n }]);
    const summary = { version, userId: "u", status: "open", complexityLevel: "high", confidenceScore: 0.5 };
    expect(reply.conversation?.summary).toMatchObject({ ...summary, messageCount: 2n });
    const status = (await conversations.call(method.getStatus, { id: "saved" })).reply;
    expect(status).toMatchObject({ presence: LIVE, summary: { ...summary, messageCount: 2n } });
    const exists = (await conversations.call(method.exists, { id: "saved" })).reply;
    expect(exists).toMatchObject({ exists: true, presence: LIVE, version });
    expect((await conversations.get("nobody")).reply).toMatchObject({ presence: NEVER_EXISTED });
  });

  it("answers from the hot copy where there is one, never with an older version than was written", async () => {
    await conversations.save("hot", { n: 0 });
    if (hot !== undefined) {
      await until(async () => (await conversations.get("hot")).servedBy === hot, { what: "the hot copy" });
    }
    for (let n = 1; n <= 50; n++) {
      const { version } = await conversations.save("hot", { n });
      const { reply, degraded } = await conversations.get("hot");
      expect(reply.conversation).toMatchObject({ summary: { version }, state: { n } });
      expect(degraded).toBe(false);
    }
    expect((await conversations.get("hot", { bypassHotCopy: true })).servedBy).toBe(truth);
  });

  it("tells a writer who expected another version what is there instead", async () => {
    const first = await conversations.save("contested", { n: 1 }, { expectedVersion: 0n });
    const second = await conversations.save("contested", { n: 2 }, { expectedVersion: first.version });
    const stale = { expectedVersion: first.version };
    const conflict = { currentVersion: second.version, currentState: { n: 2 }, presence: LIVE };
    const refused = await failureOf(conversations.save("contested", { n: 3 }, stale));
    expect(refused).toMatchObject({ code: "ABORTED", reason: "VERSION_CONFLICT", conflict });
    const asked = { id: "contested", state: { n: 3 }, ...stale, returnConflict: true };
    expect((await conversations.call(method.save, asked)).reply).toMatchObject({ conflict });
    expect(await failureOf(conversations.save("contested", { n: 3 }, { expectedVersion: 0n }))).toMatchObject({
      ...{ code: "ABORTED", conflict: { expectedVersion: 0n, currentVersion: second.version } },
    });
    expect((await conversations.get("contested")).reply.conversation?.state).toEqual({ n: 2 });
  });

  it("loses no update of writers who try again after a conflict", async () => {
    await conversations.save("counter", { n: 0 });
    const writers = Array.from({ length: 8 }, async () => {
      for (let done = 0; done < 5; ) {
        const { reply } = await conversations.get("counter");
        const n = Number(reply.conversation?.state?.n);
        const expectedVersion = reply.conversation?.summary?.version ?? 0n;
        const saving = conversations.save("counter", { n: n + 1 }, { expectedVersion });
        if (await saving.then(() => true, isConflict)) done++;
      }
    });
    await Promise.all(writers);
    expect((await conversations.get("counter")).reply.conversation?.state).toEqual({ n: 40 });
  });

  it("keeps every message of writers who append at the same time, each batch together and in order, once", async () => {
    await conversations.save("busy", {});
    const batches = Array.from({ length: 40 }, (_item, batch) =>
      [0, 1, 2].map((at) => said(`${batch}/${at}`, `${batch}-${at}`)),
    );
    const appended = await Promise.all(batches.map((batch) => conversations.append("busy", batch)));
    const again = await conversations.append("busy", batches[7] ?? []);
    expect(again).toMatchObject((appended[7] ?? []).map(({ id, position }) => ({ id, position, duplicate: true })));
    const messages = await conversations.messages("busy");
    expect(messages.map(({ position }) => position)).toEqual(messages.map((_item, at) => BigInt(at + 1)));
    expect(messages).toHaveLength(120);
    for (const [batch, places] of appended.entries()) {
      const first = Number(places[0]?.position) - 1;
      expect(messages.slice(first, first + 3).map(({ id }) => id)).toEqual([0, 1, 2].map((at) => `${batch}-${at}`));
    }
    expect(await failureOf(conversations.append("busy", [said("other", "7-0")]))).toMatchObject({
      ...{ code: "ALREADY_EXISTS", reason: "MESSAGE_ID_REUSED" },
    });
    expect(await failureOf(conversations.append("nobody", [said("x")]))).toMatchObject({ code: "NOT_FOUND" });
  });

  it("merges patches of different members", async () => {
    await conversations.save("patched", { a: 1, gone: true, deep: { x: 1 } });
    const patches = [{ a: 2 }, { gone: null }, { deep: { y: 2 } }, { b: ["z"] }];
    await Promise.all(patches.map((patch) => conversations.call(method.patch, { id: "patched", patch })));
    expect((await conversations.get("patched")).reply.conversation?.state).toEqual({
      ...{ a: 2, deep: { x: 1, y: 2 }, b: ["z"] },
    });
  });

  it("answers a retry by its request_id as it answered the first time", async () => {
    const first = await conversations.save("retried", { n: 1 }, { requestId: "r" });
    await conversations.save("retried", { n: 2 });
    expect(await conversations.save("retried", { n: 1 }, { requestId: "r" })).toMatchObject({ version: first.version });
    expect((await conversations.get("retried")).reply.conversation?.state).toEqual({ n: 2 });
  });

  it("lists by status, user and time, every one once", async () => {
    const names = Array.from({ length: 25 }, (_item, at) => `l${String(at).padStart(2, "0")}`);
    for (const [at, id] of names.entries()) {
      await conversations.save(
        id,
        { status: at % 2 ? "odd" : "even", user_id: `u${at % 5}` },
        { collection: "listed" },
      );
    }
    const listed = async (request: object) =>
      (await conversations.list({ collection: "listed", pageSize: 7, ...request })).map(({ id }) => id);
    expect(await listed({})).toEqual(names.toReversed());
    expect(await listed({ order: ConversationOrder.OLDEST_FIRST })).toEqual(names);
    expect(await listed({ filter: { statuses: ["odd"], userId: "u1" } })).toEqual(["l21", "l11", "l01"]);
    await conversations.call(method.patch, { collection: "listed", id: "l03", patch: { x: 1 } });
    expect((await listed({ order: ConversationOrder.LAST_UPDATED_FIRST }))[0]).toBe("l03");
    const { reply } = await conversations.call(method.getStats, { collection: "listed" });
    expect(reply.collections).toMatchObject([{ collection: "listed", live: 25n }]);
  });

  it("is gone for everyone once it has expired, and its watchers are told", async () => {
    const watch = await conversations.watch({ collection: "short" });
    const { version } = await conversations.save("e", { n: 1 }, { collection: "short", expiry: ttl(700) });
    const collection = "short";
    const presence = async () => (await conversations.get("e", { collection })).reply.presence;
    await until(async () => (await presence()) === EXPIRED, { what: "the end" });
    expect(await failureOf(conversations.append("e", [said("late")], { collection }))).toMatchObject({
      ...{ code: "NOT_FOUND", reason: "CONVERSATION_EXPIRED" },
    });
    expect(await conversations.list({ collection })).toEqual([]);
    await until(() => watch.changes.length === 2, { what: "the news" });
    expect(watch.changes).toMatchObject([
      { kind: Kind.CREATED, version },
      { kind: Kind.EXPIRED, previousVersion: version, summary: { id: "e", version } },
    ]);
    watch.cancel();
    expect(await presence()).toBe(EXPIRED);
    const again = await conversations.save("e", { n: 2 }, { collection });
    expect(again.version).toBeGreaterThan(version);
    expect(await presence()).toBe(LIVE);
  });

  it("puts the end off by ExtendTtl and by writes, without a new version for the former", async () => {
    const { version } = await conversations.save("extended", {}, { expiry: ttl(60_000) });
    const expiry = ttl(7_200_000);
    const { reply } = await conversations.call(method.extendTtl, { id: "extended", expiry });
    expect(reply.presence).toBe(LIVE);
    const { summary } = (await conversations.get("extended")).reply.conversation ?? {};
    expect(summary).toMatchObject({ version, expireTime: reply.expireTime, sliding: true });
    const later = await conversations.save("extended", { n: 1 });
    expect(later.expireTime?.seconds).toBeGreaterThanOrEqual(reply.expireTime?.seconds ?? 0n);
    expect((await conversations.call(method.extendTtl, { id: "nobody", expiry })).reply.presence).toBe(NEVER_EXISTED);
  });

  it("keeps late writers out of what was deleted", async () => {
    const saved = await conversations.save("deleted", { n: 1 }, { messages: [said("m")] });
    const { reply } = await conversations.call(method.delete, { id: "deleted" });
    expect(reply.presence).toBe(LIVE);
    expect(reply.version).toBeGreaterThan(saved.version);
    expect((await conversations.get("deleted")).reply).toMatchObject({ presence: DELETED });
    expect((await conversations.call(method.delete, { id: "deleted" })).reply.presence).toBe(DELETED);
    const late = await failureOf(conversations.save("deleted", { n: 2 }));
    expect(late).toMatchObject({ code: "FAILED_PRECONDITION", reason: "CONVERSATION_DELETED" });
    const anew = await conversations.save("deleted", { n: 3 }, { expectedVersion: 0n });
    expect(anew.version).toBeGreaterThan(reply.version);
    expect(anew.messageCount).toBe(0n);
  });

  it("restores an earlier version with its messages, and forks one", async () => {
    const first = await conversations.save("told", { n: 1 }, { messages: [said("one", "m1")] });
    await conversations.save("told", { n: 2 }, { messages: [said("two", "m2")] });
    const versions = (await conversations.call(method.listVersions, { id: "told" })).reply.versions;
    expect(versions).toHaveLength(2);
    expect((await conversations.get("told", { version: first.version })).reply.conversation?.state).toEqual({ n: 1 });
    const forking = { id: "told", version: first.version, targetId: "forked" };
    const fork = (await conversations.call(method.fork, forking)).reply.conversation;
    expect(fork).toMatchObject({ summary: { id: "forked", messageCount: 1n }, state: { n: 1 } });
    await conversations.call(method.restore, { id: "told", version: first.version });
    expect((await conversations.get("told")).reply.conversation?.state).toEqual({ n: 1 });
    expect((await conversations.messages("told")).map(({ id }) => id)).toEqual(["m1"]);
    await conversations.append("forked", [said("mine")]);
    expect((await conversations.messages("forked")).map(({ content }) => content)).toEqual(["one", "mine"]);
    expect((await conversations.messages("told")).map(({ id }) => id)).toEqual(["m1"]);
  });

  it("tells watchers every change in order, and goes on where one broke off", async () => {
    const watch = await conversations.watch({ id: "watched", includeState: true, includeMessages: true });
    expect(watch.events[0]?.event).toMatchObject({ case: "opened", value: { presence: NEVER_EXISTED } });
    await conversations.save("watched", { n: 1 });
    await conversations.append("watched", [said("m")]);
    await until(() => watch.changes.length === 2, { what: "two changes" });
    watch.cancel();
    await conversations.call(method.patch, { id: "watched", patch: { n: 2 } });
    await conversations.call(method.delete, { id: "watched" });
    const request = { id: "watched", includeState: true, includeMessages: true };
    const start = { case: "resumeToken", value: watch.resumeToken() } as const;
    const resumed = await conversations.watch({ ...request, start });
    await until(() => resumed.changes.length === 2, { what: "the others" });
    resumed.cancel();
    const all = [...watch.changes, ...resumed.changes];
    expect(all.map(({ kind }) => kind)).toEqual([Kind.CREATED, Kind.APPENDED, Kind.UPDATED, Kind.DELETED]);
    expect(all[1]?.messages).toMatchObject([{ content: "m", position: 1n }]);
    for (const [at, { previousVersion }] of all.entries()) {
      expect(previousVersion).toBe(at === 0 ? 0n : all[at - 1]?.version);
    }
  });

  it("cleans up at once when it is told to, and says what", async () => {
    const collection = "cleaned";
    await conversations.save("gone", {}, { collection, expiry: ttl(1), messages: [said("m")] });
    await conversations.save("kept", {}, { collection });
    const removed = await until(
      async () => {
        const { reply } = await conversations.call(method.cleanup, { collection });
        // The sweeper may have been faster; then there is another to clean up.
        if (reply.removedConversations === 1n) return reply;
        await conversations.save("gone", {}, { collection, expiry: ttl(1), messages: [said("m")] });
        return undefined;
      },
      { what: "one to clean up", intervalMs: 5 },
    );
    expect(removed).toMatchObject({ removedMessages: 1n, removed: [{ collection, id: "gone" }], more: false });
    expect((await conversations.list({ collection })).map(({ id }) => id)).toEqual(["kept"]);
  });

  it("speaks JSON", async () => {
    const post = async (rpc: string, request: object) => {
      const reply = await fetch(`${server.httpUrl}/holdfast.v1.ConversationStateService/${rpc}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(request),
      });
      return [reply.status, await reply.json()];
    };
    const state = { text: "ü", list: [1, null, { deep: true }] };
    expect(await post("Save", { id: "json", state })).toMatchObject([200, { created: true }]);
    expect(await post("Get", { id: "json" })).toMatchObject([200, { conversation: { state } }]);
    expect(await post("Save", { id: "json", state: {}, expectedVersion: "1" })).toMatchObject([
      ...[409, { code: "aborted", details: expect.arrayContaining([]) }],
    ]);
  });

  it("keeps everything over a restart", async () => {
    await conversations.save("durable", { n: 1 }, { messages: [said("one"), said("two")] });
    await conversations.save("durable", { n: 2 });
    await conversations.save("buried", {});
    await conversations.call(method.delete, { id: "buried" });
    const before = await conversations.list();
    await server.restart();
    await until(() => conversations.get("durable"), { what: "the server" });
    expect(await conversations.list()).toEqual(before);
    expect((await conversations.get("durable")).reply.conversation?.state).toEqual({ n: 2 });
    expect((await conversations.messages("durable")).map(({ content }) => content)).toEqual(["one", "two"]);
    expect((await conversations.get("buried")).reply.presence).toBe(DELETED);
    expect((await conversations.call(method.listVersions, { id: "durable" })).reply.versions).toHaveLength(2);
  });
});

function isConflict(error: unknown): false {
  if (error instanceof CallFailed && error.code === "ABORTED") return false;
  throw error;
}

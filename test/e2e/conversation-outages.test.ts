import { Redis } from "ioredis";
import { describe, expect, it } from "vitest";
import { ConversationPresence, ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { CallFailed, type ConversationClient, createConversationClient } from "../support/conversation-client.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startPostgres } from "../support/postgres-server.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

const { method } = ConversationStateService;
const { LIVE, NEVER_EXISTED } = ConversationPresence;

/** Redis keeps what it acknowledged when it is killed, so that old copies come back with it. */
const KEEPING = { args: ["--appendonly", "yes", "--appendfsync", "always"] };
const SETTINGS = { CIRCUIT_BREAKER_RESET_TIMEOUT: "200", REDIS_CONNECT_TIMEOUT: "500ms" };

interface Open extends AsyncDisposable {
  readonly redis: RedisServer;
  readonly conversations: ConversationClient;
  /** A document in Redis, as other programs read it. */
  document(id: string): Promise<unknown>;
}

const topologies: readonly [name: string, env: () => Promise<Record<string, string>>][] = [
  ["single", async () => ({})],
  ["cluster", async () => ({ DATABASE_URL: await freshDatabase() })],
];

async function open(env: Record<string, string>): Promise<Open> {
  await using parts = new AsyncDisposableStack();
  const redis = parts.use(await startRedis(KEEPING));
  const server = parts.use(await startHoldfast({ ...SETTINGS, ...env, REDIS_URL: redis.url }));
  const conversations = parts.use(createConversationClient(server.grpcAddress));
  const reader = parts.adopt(new Redis(redis.url, { retryStrategy: () => 50 }), (it) => it.disconnect());
  reader.on("error", () => {
    // It comes and goes.
  });
  const kept = parts.move();
  return {
    ...{ redis, conversations },
    document: async (id) => JSON.parse((await reader.get(`conversation:${id}`)) ?? "null"),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

const isHot = ({ conversations }: Open, id: string) =>
  until(async () => (await conversations.get(id)).servedBy === "redis", { what: `a hot copy of ${id}` });

async function failureOf(work: Promise<unknown>): Promise<CallFailed> {
  const thrown = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(thrown instanceof CallFailed)) throw new Error(`expected a failed call, got ${String(thrown)}`);
  return thrown;
}

describe.each(topologies)("without Redis, %s", (_, envOf) => {
  it.each<[string, (redis: RedisServer) => Promise<void>, (redis: RedisServer) => Promise<void>]>([
    ["killed", (redis) => redis.kill(), (redis) => redis.restart()],
    ["frozen", async (redis) => redis.pause(), async (redis) => redis.resume()],
  ])(
    "reads and writes go on in SQL while it is %s, and nothing old comes back with it",
    async (_how, take, giveBack) => {
      await using opened = await open(await envOf());
      const { redis, conversations, document } = opened;
      await conversations.save("kept", { n: 1 });
      await conversations.save("deleted", { n: 1 });
      await isHot(opened, "kept");
      await isHot(opened, "deleted");
      await take(redis);
      const { version } = await conversations.save("kept", { n: 2 });
      await conversations.append("kept", [{ role: "user", content: "m" }]);
      await conversations.call(method.delete, { id: "deleted" });
      const answer = await conversations.get("kept");
      expect(answer).toMatchObject({ degraded: true, reply: { conversation: { state: { n: 2 } } } });
      expect(answer.servedBy).not.toBe("redis");
      expect(answer.reply.conversation?.summary?.version).toBeGreaterThan(version);
      await giveBack(redis);
      await until(
        async () => {
          const { reply, servedBy } = await conversations.get("kept");
          expect(reply.conversation?.state).toEqual({ n: 2 });
          expect((await conversations.get("deleted")).reply.presence).not.toBe(LIVE);
          return servedBy === "redis";
        },
        { what: "the hot copy", intervalMs: 5 },
      );
      await until(async () => ((await document("kept")) as { n?: number } | null)?.n === 2, { what: "the document" });
      await until(async () => (await document("deleted")) === null, { what: "the old document to go" });
    },
  );

  it("all that was in Redis can be flushed", async () => {
    await using opened = await open(await envOf());
    const { redis, conversations } = opened;
    const { version } = await conversations.save("kept", { n: 1 }, { messages: [{ role: "user", content: "m" }] });
    await isHot(opened, "kept");
    const admin = new Redis(redis.url);
    await admin.flushall();
    admin.disconnect();
    expect((await conversations.get("kept")).reply.conversation).toMatchObject({
      summary: { version },
      state: { n: 1 },
    });
    expect(await conversations.messages("kept")).toMatchObject([{ content: "m" }]);
    await isHot(opened, "kept");
  });
});

it("without Postgres, hot copies are read and marked, the rest fails for a while, and nothing is lost", async () => {
  await using postgres = await startPostgres();
  await using opened = await open({ DATABASE_URL: await postgres.createDatabase(), DATABASE_CONNECT_TIMEOUT: "500ms" });
  const { conversations } = opened;
  const { version } = await conversations.save("hot", { n: 1 }, { messages: [{ role: "user", content: "m" }] });
  await isHot(opened, "hot");
  const watch = await conversations.watch({ id: "hot" });
  await postgres.shutDown();
  const away = { code: "UNAVAILABLE", hasRetryInfo: true };
  expect(await failureOf(conversations.save("hot", { n: 2 }))).toMatchObject(away);
  expect(await failureOf(conversations.append("hot", [{ role: "user", content: "n" }]))).toMatchObject(away);
  expect(await failureOf(conversations.call(method.delete, { id: "hot" }))).toMatchObject(away);
  expect(await failureOf(conversations.call(method.cleanup, {}))).toMatchObject(away);
  expect(await failureOf(conversations.list())).toMatchObject(away);
  expect(await failureOf(conversations.get("cold"))).toMatchObject(away);
  expect(await failureOf(conversations.get("hot", { bypassHotCopy: true }))).toMatchObject(away);
  expect(await watch.ended).toMatchObject(away);
  const status = await until(
    async () => {
      const { reply, servedBy, degraded } = await conversations.call(method.getStatus, { id: "hot" });
      // A write that failed may have covered the copy, and its cover is taken away soon after.
      return degraded ? { ...reply, servedBy } : undefined;
    },
    { what: "an answer from the hot copy" },
  );
  expect(status).toMatchObject({ servedBy: "redis", presence: LIVE, summary: { version } });
  expect(await conversations.get("hot")).toMatchObject({
    ...{ servedBy: "redis", degraded: true, reply: { conversation: { summary: { version }, state: { n: 1 } } } },
  });
  await postgres.restart();
  const later = await until(() => conversations.save("hot", { n: 2 }, { expectedVersion: version }), {
    what: "Postgres to be back",
  });
  expect(later.version).toBeGreaterThan(version);
  expect((await conversations.get("hot")).reply.conversation?.state).toEqual({ n: 2 });
  expect(await conversations.messages("hot")).toMatchObject([{ content: "m" }]);
  expect((await conversations.get("cold")).reply.presence).toBe(NEVER_EXISTED);
});

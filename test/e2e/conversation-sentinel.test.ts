import { expect, it } from "vitest";
import { type ConversationClient, createConversationClient } from "../support/conversation-client.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startRedisSentinel } from "../support/redis-sentinel.ts";
import { until } from "../support/until.ts";

const IDS = ["a", "b", "c"];
const FAULTS = ["killed", "frozen"] as const;

/** Two instances over one Postgres and one Redis behind Sentinels, and a client of each. */
async function startTwo(redisUrl: string) {
  await using parts = new AsyncDisposableStack();
  const env = {
    ...{ DATABASE_URL: await freshDatabase(), REDIS_URL: redisUrl },
    ...{ CIRCUIT_BREAKER_RESET_TIMEOUT: "200", REDIS_CONNECT_TIMEOUT: "500ms" },
  };
  const clients = await Promise.all(
    ["one", "two"].map(async (name) => {
      const server = parts.use(await startHoldfast({ ...env, HOLDFAST_INSTANCE_ID: name }));
      return parts.use(createConversationClient(server.grpcAddress));
    }),
  );
  const kept = parts.move();
  return { clients, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

const versionOf = async (client: ConversationClient, id: string) => {
  const { reply, servedBy, degraded } = await client.get(id);
  return { version: reply.conversation?.summary?.version ?? 0n, servedBy, degraded };
};

it.each(FAULTS)("no version goes back and nothing is lost when the primary behind Sentinels is %s", async (fault) => {
  await using group = await startRedisSentinel();
  const hosts = group.sentinels.map(({ host, port }) => `${host}:${port}`).join(",");
  await using opened = await startTwo(`redis-sentinel://${hosts}/${group.name}`);
  const { clients } = opened;
  const faults: string[] = [];
  const acknowledged = new Map(IDS.map((id): [string, string[]] => [id, []]));
  const isHot = (client: ConversationClient, id: string) =>
    until(async () => (await client.get(id)).servedBy === "redis", { what: `a hot copy of ${id}`, timeoutMs: 60_000 });
  for (const id of IDS) {
    await clients[0]?.save(id, { n: 0 });
    for (const client of clients) await isHot(client, id);
  }
  let [isOver, degraded] = [false, 0];
  const work = clients.map(async (client, at) => {
    // What this instance said or did before is the least that it may say.
    const floors = new Map<string, bigint>();
    const look = async (id: string) => {
      const least = floors.get(id) ?? 0n;
      const seen = await versionOf(client, id);
      if (seen.version < least) faults.push(`${at}: ${id} is ${seen.version} in ${seen.servedBy}, not ${least}`);
      floors.set(id, seen.version > least ? seen.version : least);
      if (seen.degraded) degraded++;
    };
    for (let n = 0; !isOver; n++) {
      const id = IDS[n % IDS.length] ?? "";
      const message = `${at}-${n}`;
      await client.append(id, [{ id: message, role: "user", content: "m" }]);
      acknowledged.get(id)?.push(message);
      const { version } = await client.save(id, { n });
      floors.set(id, version);
      for (const one of IDS) await look(one);
    }
  });
  if (fault === "killed") await group.primary.kill();
  else group.primary.pause();
  await until(() => degraded > 0, { what: "the loss to be felt" });
  // After the failover copies are made and believed again, on the one that was promoted.
  for (const client of clients) {
    for (const id of IDS) {
      await until(async () => (await client.get(id)).servedBy === "redis", { what: "a copy", timeoutMs: 60_000 });
    }
  }
  if (fault === "frozen") group.primary.resume();
  isOver = true;
  await Promise.all(work);
  expect(faults).toEqual([]);
  for (const id of IDS) {
    const truth = (await clients[0]?.get(id, { bypassHotCopy: true }))?.reply.conversation?.summary?.version;
    for (const client of clients) {
      await isHot(client, id);
      expect((await versionOf(client, id)).version).toBe(truth);
      const messages = (await client.messages(id)).map((one) => one.id);
      expect(messages).toEqual(expect.arrayContaining(acknowledged.get(id) ?? []));
      expect(new Set(messages).size).toBe(messages.length);
    }
  }
});

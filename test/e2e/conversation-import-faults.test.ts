import { describe, expect, it } from "vitest";
import { ConversationPresence } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { type ConversationClient, createConversationClient } from "../support/conversation-client.ts";
import { directoryPerTest } from "../support/directory-per-test.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { atScale } from "../support/scale.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { countsIn, runImport, startImport, TOPOLOGIES } from "./import-run.ts";
import { expected, fillLegacy } from "./legacy-conversations.ts";

const directory = directoryPerTest("import-conversations");
const run = (server: HoldfastProcess, url: string) =>
  runImport(directory.path, server, "conversations", "--redis-url", url);
const start = (server: HoldfastProcess, url: string) =>
  startImport("the keys", server, "conversations", "--redis-url", url);
const idsIn = async (client: ConversationClient) => (await client.list()).map(({ id }) => id);
const contents = async (client: ConversationClient, id: string) =>
  (await client.messages(id)).map(({ content }) => content);
const some = (client: ConversationClient) =>
  until(async () => (await idsIn(client)).length > 200, { what: "some conversations" });

/** The one that is being put together, with a part of its messages. */
async function staged(client: ConversationClient, count: number) {
  const found = (await client.list()).find(
    (one) => one.id.startsWith("import-") && one.messageCount > 0n && one.messageCount < count,
  );
  return found?.id;
}

/** That everything was brought, and nothing else is left. */
async function expectAll(client: ConversationClient, short: number, long: readonly number[]): Promise<void> {
  const names = [...Array.from({ length: short }, (_, n) => `c-${n}`), ...long.map((_, n) => `long-${n}`)];
  expect((await idsIn(client)).toSorted()).toEqual(names.toSorted());
  for (const [n, count] of long.entries()) {
    expect(await contents(client, `long-${n}`)).toEqual(expected(`long-${n}`, count));
  }
  expect(await contents(client, "c-7")).toEqual(expected("c-7", 3));
}

const SHORT = atScale(1500, 1000);

describe.each(TOPOLOGIES)("conversations that are brought from a Redis into a server (%s)", (_, settings) => {
  it("are all there after an import that is killed in the middle and run again", async () => {
    const url = await freshRedis();
    const long = [3500, 3500, 3500, 3500];
    await fillLegacy(url, { short: SHORT, long });
    await using server = await startHoldfast(await settings());
    using client = createConversationClient(server.grpcAddress);
    const child = await start(server, url);
    await some(client);
    await child.kill();
    const rest = await run(server, url);
    expect(rest).toMatchObject({ code: 0, counts: { read: SHORT + 4, refused: 0 } });
    expect((rest.counts.imported ?? 0) + (rest.counts["already there"] ?? 0)).toBe(SHORT + 4);
    expect(rest.counts["already there"]).toBeGreaterThan(0);
    await expectAll(client, SHORT, long);
  });

  it("are accounted for when the import is interrupted, and the next one brings the rest", async () => {
    const url = await freshRedis();
    const long = [atScale(60_000, 15_000)];
    await fillLegacy(url, { short: SHORT, long });
    await using server = await startHoldfast(await settings());
    using client = createConversationClient(server.grpcAddress);
    const child = await start(server, url);
    await some(client);
    await child.stop("SIGINT");
    expect(child.exited()).toBe("exit code 1");
    expect(child.output()).toMatch(/broken off\nrun it again for the rest/);
    const { read, imported = 0, refused } = countsIn(child.output());
    expect({ read, refused }).toEqual({ read: imported, refused: 0 });
    expect(imported).toBeLessThan(SHORT + 1);
    // What it says to have brought is there, and nothing else.
    expect((await idsIn(client)).filter((id) => !id.startsWith("import-"))).toHaveLength(imported);
    expect(await run(server, url)).toMatchObject({
      ...{ code: 0, counts: { read: SHORT + 1, "already there": imported, imported: SHORT + 1 - imported } },
    });
    await expectAll(client, SHORT, long);
  });

  it("have no half of a long one among them when the import is killed within it; the next one goes on there", async () => {
    const url = await freshRedis();
    const count = atScale(20_000, 8_000);
    const long = [count];
    await fillLegacy(url, { short: 8, long });
    await using server = await startHoldfast(await settings());
    using client = createConversationClient(server.grpcAddress);
    const child = await start(server, url);
    await until(async () => (await staged(client, count)) !== undefined, { what: "a part of it" });
    await child.kill();
    const id = await staged(client, count);
    expect(id).toMatch(/^import-[0-9a-f]{32}-long-0$/);
    expect((await client.get("long-0")).reply.presence).toBe(ConversationPresence.NEVER_EXISTED);
    const again = await run(server, url);
    expect(again.stderr).not.toContain("given up");
    expect(again).toMatchObject({ code: 0, counts: { read: 9, refused: 0 } });
    await expectAll(client, 8, long);
    // It was put together in the same place.
    const { summary } = (await client.get("long-0")).reply.conversation ?? {};
    expect(summary?.origin?.id).toBe(id);
  });

  it("leave nothing beside them when an import is killed just before it would have removed that", async () => {
    const url = await freshRedis();
    await fillLegacy(url, { short: 8, long: [3000] });
    await using server = await startHoldfast(await settings());
    using client = createConversationClient(server.grpcAddress);
    expect(await run(server, url)).toMatchObject({ code: 0, counts: { imported: 9 } });
    const { origin } = (await client.get("long-0")).reply.conversation?.summary ?? {};
    if (origin === undefined) throw new Error("it was not put together elsewhere");
    await client.save(origin.id, {}, { expectedVersion: 0n });
    expect(await run(server, url)).toMatchObject({ code: 0, counts: { "already there": 9 } });
    await expectAll(client, 8, [3000]);
  });

  it("are there once when two imports bring them at the same time", async () => {
    const url = await freshRedis();
    const long = [5000, 5000];
    await fillLegacy(url, { short: 300, long });
    await using server = await startHoldfast(await settings());
    using client = createConversationClient(server.grpcAddress);
    const both = await Promise.all([run(server, url), run(server, url)]);
    for (const { code, counts } of both) expect({ code, counts }).toMatchObject({ code: 0, counts: { read: 302 } });
    const imported = both.reduce((sum, { counts }) => sum + (counts.imported ?? 0), 0);
    const there = both.reduce((sum, { counts }) => sum + (counts["already there"] ?? 0), 0);
    expect({ imported, there }).toEqual({ imported: 302, there: 302 });
    await expectAll(client, 300, long);
  });

  it("are all there although the server is killed and comes back", async () => {
    const url = await freshRedis();
    await fillLegacy(url, { short: SHORT, long: [6000] });
    await using server = await startHoldfast(await settings());
    using client = createConversationClient(server.grpcAddress);
    const importing = run(server, url);
    await some(client);
    await server.kill();
    await server.restart();
    const { code, counts, stderr } = await importing;
    expect({ code, counts }).toMatchObject({ code: 0, counts: { read: SHORT + 1, refused: 0 } });
    expect(stderr).toContain("trying again");
    await expectAll(client, SHORT, [6000]);
  });
});

describe("conversations that are brought from a Redis into a server", () => {
  it("are all there although its SQL goes away in the middle, and then its Redis", async () => {
    const url = await freshRedis();
    await fillLegacy(url, { short: SHORT, long: [6000] });
    const database = new URL(await freshDatabase());
    await using sql = await startTcpProxy(Number(database.port));
    database.port = String(sql.port);
    await using redis: RedisServer = await startRedis();
    await using server = await startHoldfast({ DATABASE_URL: database.href, REDIS_URL: redis.url });
    using client = createConversationClient(server.grpcAddress);
    const child = await start(server, url);
    await some(client);
    sql.cut();
    await until(() => child.output().includes("trying again"), { what: "an import that waits" });
    sql.restore();
    await until(() => child.output().includes("answers again"), { what: "an import that goes on" });
    await redis.kill();
    await until(() => child.exited() !== undefined, { what: "its end" });
    expect(child.exited()).toBe("exit code 0");
    expect(countsIn(child.output())).toMatchObject({ read: SHORT + 1, refused: 0 });
    await expectAll(client, SHORT, [6000]);
  });

  it("are not waited for any longer when that is interrupted while the server is away", async () => {
    const url = await freshRedis();
    await fillLegacy(url, { short: SHORT });
    await using server = await startHoldfast();
    using client = createConversationClient(server.grpcAddress);
    const child = await start(server, url);
    await some(client);
    await server.kill();
    await until(() => child.output().includes("trying again"), { what: "an import that waits" });
    await child.stop("SIGINT");
    expect(child.exited()).toBe("exit code 1");
    expect(child.output()).toMatch(/broken off\n[\s\S]*imported: \d+/);
  });
});

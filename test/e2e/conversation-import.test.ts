import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import {
  ConversationPresence,
  ConversationStateService,
  type ConversationStateServiceGetResponse,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import { startChild } from "../support/child.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { createRpcClient, type RpcClient } from "../support/rpc-client.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";
import { holdfast } from "./command.ts";

const { method } = ConversationStateService;
const root = join(import.meta.dirname, "../..");
const scratch = scratchDirectory("import-conversations");
afterAll(() => scratch.remove());
let directory = "";
let number = 0;
beforeEach(() => {
  directory = join(scratch.path, String(++number));
  mkdirSync(directory);
});
const path = (name: string) => join(directory, name);

function argsFor(server: HoldfastProcess, ...args: string[]): string[] {
  return ["import", "conversations", ...args, "--address", server.grpcAddress];
}

async function run(server: HoldfastProcess, ...args: string[]) {
  const { code, stdout, stderr } = await holdfast(argsFor(server, ...args), { cwd: directory });
  const counts = Object.fromEntries(
    [...stdout.matchAll(/^([a-z'(), -]+): (\d+)$/gm)].map(([, name = "", count]) => [name, Number(count)]),
  );
  return { code, stdout, stderr, counts };
}

/** As the old system kept one. */
function legacy(id: string, messages: number, more: object = {}): string {
  return JSON.stringify({
    user_id: `user-${id}`,
    messages: Array.from({ length: messages }, (_, at) => ({
      role: at % 2 === 0 ? "user" : "assistant",
      content: `message ${at} of ${id}`,
      timestamp: new Date(1_704_164_645_000 + at * 1000).toISOString().replace("Z", ""),
    })),
    context: { topic: id },
    ...{ complexity_level: "low", confidence_score: 0.5, status: "active", created_at: "2024-01-02T03:04:05" },
    _metadata: { case_id: id, updated_at: "2024-01-02T03:05:00", version: 1 },
    ...more,
  });
}

async function get(client: RpcClient, id: string, lastMessages = 0): Promise<ConversationStateServiceGetResponse> {
  return (await client.call(method.get, { id, lastMessages })).reply;
}

async function contents(client: RpcClient, id: string): Promise<string[]> {
  const all: string[] = [];
  for (let pageToken = ""; ; ) {
    const { reply } = await client.call(method.listMessages, { id, pageSize: 1000, pageToken });
    all.push(...reply.messages.map(({ content }) => content));
    pageToken = reply.nextPageToken;
    if (pageToken === "") return all;
  }
}

async function idsIn(client: RpcClient): Promise<string[]> {
  const all: string[] = [];
  for (let pageToken = ""; ; ) {
    const { reply } = await client.call(method.list, { pageSize: 1000, pageToken });
    all.push(...reply.conversations.map(({ id }) => id));
    pageToken = reply.nextPageToken;
    if (pageToken === "") return all;
  }
}

const expected = (id: string, count: number) => Array.from({ length: count }, (_, at) => `message ${at} of ${id}`);

const TOPOLOGIES: readonly [string, () => Promise<Record<string, string>>][] = [
  ["embedded", async () => ({})],
  ["cluster", async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() })],
];

describe.each(TOPOLOGIES)("conversations that are brought from a Redis into a server (%s)", (_, settings) => {
  it("are whole, with the time they have left; a second import finds all of them there", async () => {
    const url = await freshRedis();
    const redis = new Redis(url);
    for (let n = 0; n < 60; n++) await redis.set(`conversation:c-${n}`, legacy(`c-${n}`, n), "EX", 5000);
    await redis.set("conversation:for-ever", legacy("for-ever", 1));
    await redis.set("conversation:long", legacy("long", 2500), "EX", 5000);
    await redis.set("orchestration:o-1", JSON.stringify({ user_id: "u", flow_type: "f", status: "done" }), "EX", 500);
    redis.disconnect();
    await using server = await startHoldfast(await settings());
    using client = createRpcClient(server.grpcAddress);
    const first = await run(server, "--redis-url", url);
    expect(first).toMatchObject({ code: 0, counts: { read: 63, imported: 63, "already there": 0, refused: 0 } });

    const { conversation, messages } = await get(client, "c-59", 59);
    expect(conversation?.state).toEqual({
      ...{ user_id: "user-c-59", context: { topic: "c-59" }, complexity_level: "low", confidence_score: 0.5 },
      ...{ status: "active", created_at: "2024-01-02T03:04:05" },
    });
    expect(messages.map(({ content }) => content)).toEqual(expected("c-59", 59));
    expect(messages[1]).toMatchObject({ role: "assistant", createTime: { seconds: 1_704_164_646n } });
    expect(await contents(client, "long")).toEqual(expected("long", 2500));
    const { summary } = conversation ?? {};
    expect(summary).toMatchObject({ userId: "user-c-59", status: "active", messageCount: 59n, sliding: true });
    const leftSeconds = Number(summary?.expireTime?.seconds) - Date.now() / 1000;
    expect(leftSeconds).toBeLessThan(5001);
    expect(leftSeconds).toBeGreaterThan(4000);
    expect((await get(client, "for-ever")).conversation?.summary?.expireTime).toBeUndefined();
    const orchestration = { collection: "orchestration", id: "o-1" };
    expect((await client.call(method.getStatus, orchestration)).reply.summary).toMatchObject({ status: "done" });

    const versions = async () => (await get(client, "c-59")).conversation?.summary?.version;
    const before = await versions();
    const second = await run(server, "--redis-url", url);
    expect(second).toMatchObject({ code: 0, counts: { read: 63, imported: 0, "already there": 63, refused: 0 } });
    expect(await versions()).toBe(before);
    expect((await idsIn(client)).toSorted()).toEqual(
      [...Array.from({ length: 60 }, (_, n) => `c-${n}`), "for-ever", "long"].toSorted(),
    );
  });

  it("are all there after an import that is killed in the middle and run again", async () => {
    const url = await freshRedis();
    const redis = new Redis(url);
    const count = 1500;
    for (let n = 0; n < count; n++) await redis.set(`conversation:c-${n}`, legacy(`c-${n}`, 3));
    for (let n = 0; n < 4; n++) await redis.set(`conversation:long-${n}`, legacy(`long-${n}`, 3500));
    redis.disconnect();
    await using server = await startHoldfast(await settings());
    using client = createRpcClient(server.grpcAddress);
    const child = await startChild({
      command: process.execPath,
      args: [join(root, "src/main.ts"), ...argsFor(server, "--redis-url", url)],
      isReady: (line) => line.includes("the keys"),
    });
    await until(async () => (await idsIn(client)).length > 200, { what: "some conversations" });
    await child.kill();
    const rest = await run(server, "--redis-url", url);
    expect(rest).toMatchObject({ code: 0, counts: { read: count + 4, refused: 0 } });
    expect((rest.counts.imported ?? 0) + (rest.counts["already there"] ?? 0)).toBe(count + 4);
    expect(rest.counts["already there"]).toBeGreaterThan(0);
    expect((await idsIn(client)).filter((id) => id.startsWith("c-"))).toHaveLength(count);
    for (let n = 0; n < 4; n++) expect(await contents(client, `long-${n}`)).toEqual(expected(`long-${n}`, 3500));
    expect(await contents(client, "c-7")).toEqual(expected("c-7", 3));
  });

  it("have no half of a long one among them when the import is killed within it", async () => {
    const url = await freshRedis();
    const redis = new Redis(url);
    const count = 20_000;
    await redis.set("conversation:long", legacy("long", count));
    redis.disconnect();
    await using server = await startHoldfast(await settings());
    using client = createRpcClient(server.grpcAddress);
    const child = await startChild({
      command: process.execPath,
      args: [join(root, "src/main.ts"), ...argsFor(server, "--redis-url", url)],
      isReady: (line) => line.includes("the keys"),
    });
    const half = async () => {
      const { reply } = await client.call(method.list, {});
      return reply.conversations.some(({ messageCount }) => messageCount > 0n && messageCount < count);
    };
    await until(half, { what: "a part of it" });
    await child.kill();
    expect(await half()).toBe(true);
    expect((await get(client, "long")).presence).toBe(ConversationPresence.NEVER_EXISTED);
    expect(await run(server, "--redis-url", url)).toMatchObject({ code: 0, counts: { read: 1, imported: 1 } });
    expect(await contents(client, "long")).toEqual(expected("long", count));
  });

  it("are all there although the server is killed and comes back", async () => {
    const url = await freshRedis();
    const redis = new Redis(url);
    const count = 1500;
    for (let n = 0; n < count; n++) await redis.set(`conversation:c-${n}`, legacy(`c-${n}`, 3));
    await redis.set("conversation:long", legacy("long", 6000));
    redis.disconnect();
    await using server = await startHoldfast(await settings());
    using client = createRpcClient(server.grpcAddress);
    const importing = run(server, "--redis-url", url);
    await until(async () => (await idsIn(client)).length > 200, { what: "some conversations" });
    await server.kill();
    await server.restart();
    const { code, counts, stderr } = await importing;
    expect({ code, counts }).toMatchObject({ code: 0, counts: { read: count + 1, refused: 0 } });
    expect(stderr).toContain("trying again");
    expect((await idsIn(client)).filter((id) => id.startsWith("c-"))).toHaveLength(count);
    expect(await contents(client, "long")).toEqual(expected("long", 6000));
  });
});

describe("conversations that are brought in place, from the Redis that the server itself uses,", () => {
  it("are known for the server's copies afterwards, and stay readable for old programs", async () => {
    const url = await freshRedis();
    const redis = new Redis(url);
    for (let n = 0; n < 20; n++) await redis.set(`conversation:c-${n}`, legacy(`c-${n}`, n), "EX", 5000);
    await redis.set("conversation:long", legacy("long", 2200), "EX", 5000);
    await using server = await startHoldfast({ REDIS_URL: url });
    using client = createRpcClient(server.grpcAddress);
    expect(await run(server, "--redis-url", url)).toMatchObject({ code: 0, counts: { imported: 21, refused: 0 } });
    const copy = async (id: string) => JSON.parse((await redis.get(`conversation:${id}`)) ?? "{}");
    await until(async () => (await copy("long"))._metadata?.holdfast === true, { what: "the copy of the long one" });
    await until(async () => (await copy("c-7"))._metadata?.holdfast === true, { what: "the copy of a short one" });
    const { messages, ...state } = await copy("c-7");
    expect(messages.map(({ content }: { content: string }) => content)).toEqual(expected("c-7", 7));
    expect(state).toMatchObject({ user_id: "user-c-7", status: "active", _metadata: { case_id: "c-7" } });
    const own = "the server's own copies, passed over";
    await until(async () => (await run(server, "--redis-url", url)).stdout.includes(`${own}: 21`), {
      what: "copies of all",
    });
    expect(await contents(client, "long")).toEqual(expected("long", 2200));
    redis.disconnect();
  });

  it("are not lost to a write that is refused, or that does not reach SQL", async () => {
    const url = await freshRedis();
    const redis = new Redis(url);
    const document = legacy("c", 3);
    await redis.set("conversation:c", document);
    await using server = await startHoldfast({ REDIS_URL: url });
    using client = createRpcClient(server.grpcAddress);
    const late = client.call(method.save, { id: "c", state: {}, expectedVersion: 5n });
    await expect(late).rejects.toMatchObject({ reason: "VERSION_CONFLICT" });
    const none = client.call(method.appendMessages, { id: "c", messages: [{ role: "user", content: "x" }] });
    await expect(none).rejects.toMatchObject({ reason: "CONVERSATION_NOT_FOUND" });
    expect(await redis.get("conversation:c")).toBe(document);
    expect(await run(server, "--redis-url", url)).toMatchObject({ code: 0, counts: { imported: 1 } });
    expect(await contents(client, "c")).toEqual(expected("c", 3));
    redis.disconnect();
  });
});

describe("an import of conversations", () => {
  const NEWER = "newer there, left alone";
  const OLDER = "newer in the source, left alone (--update brings them)";

  function writeLegacy(documents: Readonly<Record<string, string>>): void {
    const members = Object.entries(documents).map(([key, text]) => `${JSON.stringify(key)}: ${text}`);
    writeFileSync(path("c.json"), `{${members.join(",\n")}}`);
  }

  it("leaves alone what was changed or deleted since", async () => {
    writeLegacy({
      "conversation:a": legacy("a", 2),
      "conversation:b": legacy("b", 2),
      "conversation:c": legacy("c", 2),
    });
    await using server = await startHoldfast();
    using client = createRpcClient(server.grpcAddress);
    expect(await run(server, "--file", "c.json")).toMatchObject({ code: 0, counts: { imported: 3 } });
    await client.call(method.appendMessages, { id: "a", messages: [{ role: "user", content: "later" }] });
    await client.call(method.patch, { id: "b", patch: { status: "closed" } });
    await client.call(method.delete, { id: "c" });
    const again = await run(server, "--file", "c.json", "--update");
    expect(again).toMatchObject({ code: 0, counts: { imported: 0, [NEWER]: 2, "deleted there, left alone": 1 } });
    expect(await contents(client, "a")).toEqual([...expected("a", 2), "later"]);
    expect((await get(client, "b")).conversation?.summary?.status).toBe("closed");
    expect((await get(client, "c")).presence).toBe(ConversationPresence.DELETED);
  });

  it("brings what was added in the source since, where that is asked for and nobody has written there", async () => {
    const soon = {
      _metadata: { case_id: "x", updated_at: new Date(Date.now() + 3_600_000).toISOString(), version: 2 },
    };
    writeLegacy({ "conversation:a": legacy("a", 2), "conversation:b": legacy("b", 2) });
    await using server = await startHoldfast();
    using client = createRpcClient(server.grpcAddress);
    await run(server, "--file", "c.json");
    await client.call(method.appendMessages, { id: "b", messages: [{ role: "user", content: "here" }] });
    writeLegacy({ "conversation:a": legacy("a", 5, soon), "conversation:b": legacy("b", 5, soon) });
    expect(await run(server, "--file", "c.json")).toMatchObject({ code: 0, counts: { [OLDER]: 2 } });
    expect(await contents(client, "a")).toEqual(expected("a", 2));
    const updated = await run(server, "--file", "c.json", "--update");
    expect(updated).toMatchObject({ code: 0, counts: { updated: 1, [OLDER]: 1 } });
    expect(await contents(client, "a")).toEqual(expected("a", 5));
    expect(await contents(client, "b")).toEqual([...expected("b", 2), "here"]);
    const third = await run(server, "--file", "c.json", "--update");
    expect(third).toMatchObject({ code: 0, counts: { "already there": 1, [OLDER]: 1 } });
  });

  it("tells of what was refused, by the server and by itself, and brings the rest", async () => {
    const tooLong = "x".repeat(600);
    writeLegacy({
      "conversation:good": legacy("good", 1),
      "conversation:text": '"{\\"status\\": NaN}"',
      "conversation:deep": `{"status": ${"[".repeat(40)}${"]".repeat(40)}}`,
      "conversation:large": JSON.stringify({ status: "x".repeat(10_000_000) }),
      "conversation:other": '{"colour": "red"}',
      [`conversation:${tooLong}`]: legacy("x", 1),
    });
    await using server = await startHoldfast();
    using client = createRpcClient(server.grpcAddress);
    const { code, counts, stdout } = await run(server, "--file", "c.json", "--rejects", "rejects.jsonl");
    expect({ code, counts }).toMatchObject({ code: 1, counts: { read: 6, imported: 1, refused: 5 } });
    expect(stdout).toMatch(/conversation:text: NOT_A_NUMBER: holds NaN/);
    expect(stdout).toMatch(/conversation:deep: NESTED_TOO_DEEP: status/);
    expect(stdout).toMatch(/conversation:xxx.*: FIELD_INVALID: id: is 600 bytes long/);
    const rejects = readFileSync(path("rejects.jsonl"), "utf8");
    const reasons = rejects
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line).reason);
    expect(reasons.toSorted()).toEqual([
      ...["FIELD_INVALID", "NESTED_TOO_DEEP", "NOT_A_NUMBER", "STATE_TOO_LARGE", "UNKNOWN_LAYOUT"],
    ]);
    writeFileSync(path("mended.jsonl"), rejects.replaceAll("NaN}", "0.5}"));
    const mended = await run(server, "--file", "mended.jsonl");
    expect(mended).toMatchObject({ code: 1, counts: { read: 5, imported: 1, refused: 4 } });
    expect((await get(client, "text")).conversation?.state).toEqual({ status: 0.5 });
  });

  it("takes another collection, and the time that its policy gives, where that is wanted", async () => {
    const url = await freshRedis();
    const redis = new Redis(url);
    await redis.set("chat:support:1", legacy("1", 1), "EX", 60);
    redis.disconnect();
    await using server = await startHoldfast();
    using client = createRpcClient(server.grpcAddress);
    const wanted = ["--redis-url", url, "--collection", "support=chat:support:", "--ttl", "policy"];
    expect(await run(server, ...wanted)).toMatchObject({ code: 0, counts: { imported: 1 } });
    const { reply } = await client.call(method.getStatus, { collection: "support", id: "1" });
    expect(Number(reply.summary?.expireTime?.seconds) - Date.now() / 1000).toBeGreaterThan(80_000);
  });

  it("that is only rehearsed sends nothing, needs no server and shows what it would send", async () => {
    writeLegacy({ "conversation:a": legacy("a", 2), "conversation:b": "{}" });
    const args = ["import", "conversations", "--file", "c.json", "--dry-run", "--address", "127.0.0.1:1"];
    const { code, stdout, stderr } = await holdfast(args, { cwd: directory });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^read: 2\nwould be sent: 1\nrefused: 1\n.*\n {2}conversation:b: UNKNOWN_LAYOUT/);
    expect(stderr).toContain('such as {"collection":"conversation","id":"a","state":{"user_id":"user-a"');
  });

  it("needs a key that may read and write conversations", async () => {
    writeLegacy({ "conversation:a": legacy("a", 2) });
    const file = path("keys.yaml");
    const make = async (name: string, scopes: string) =>
      (
        await holdfast(["keys", "create", "--name", name, "--scopes", scopes, "--file", file], { cwd: directory })
      ).stdout.trim();
    const reader = await make("reader", "conversation:read");
    const writer = await make("writer", "conversation:read,conversation:write");
    await using server = await startHoldfast({ HOLDFAST_API_KEYS_FILE: file });
    const args = argsFor(server, "--file", "c.json");
    const withKey = (key: string) => holdfast(args, { cwd: directory, env: { HOLDFAST_API_KEY: key } });
    expect(await withKey(reader)).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/given up: Save: PERMISSION_DENIED/),
    });
    expect(await withKey(writer)).toMatchObject({ code: 0, stdout: expect.stringContaining("imported: 1") });
  });

  it.each([
    [["a.json"], /unexpected a\.json; a file is given as --file a\.json/],
    [["--file", "a", "--redis-url", "redis://h"], /two sources/],
    [["--file", "a", "--ttl", "long"], /--ttl is "long"; wanted keep or policy/],
    [["--file", "a", "--collection", "a b"], /--collection is "a b"; wanted NAME or NAME=PREFIX/],
    [
      ["--file", "a", "--map", "actor=who"],
      /--map belongs to import audit-sqlite, import audit-stream, import audit-files/,
    ],
    [["--dry-run"], /which Redis\? Give --redis-url/],
  ])("that was not understood ends with exit code 2 and says why: %j", async (args, why) => {
    const { code, stderr } = await holdfast(["import", "conversations", ...args], { cwd: directory });
    expect(code).toBe(2);
    expect(stderr).toMatch(why);
  });
});

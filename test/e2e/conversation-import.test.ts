import { readFileSync, writeFileSync } from "node:fs";
import { Redis } from "ioredis";
import { describe, expect, it } from "vitest";
import { ConversationPresence, ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { type ConversationClient, createConversationClient } from "../support/conversation-client.ts";
import { directoryPerTest } from "../support/directory-per-test.ts";
import { freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { serverEntry } from "../support/server-entry.ts";
import { until } from "../support/until.ts";
import { holdfast, runCommand } from "./command.ts";
import { importArgs, runImport, TOPOLOGIES } from "./import-run.ts";
import { expected, legacy } from "./legacy-conversations.ts";

const { method } = ConversationStateService;
const directory = directoryPerTest("import-conversations");
const path = (name: string) => directory.of(name);
const run = (server: HoldfastProcess, ...args: string[]) => runImport(directory.path, server, "conversations", ...args);
const get = async (client: ConversationClient, id: string, lastMessages = 0) =>
  (await client.get(id, { lastMessages })).reply;
const contents = async (client: ConversationClient, id: string) =>
  (await client.messages(id)).map(({ content }) => content);

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
    using client = createConversationClient(server.grpcAddress);
    const first = await run(server, "--redis-url", url);
    expect(first).toMatchObject({ code: 0, counts: { read: 63, imported: 63, "already there": 0, refused: 0 } });

    const { conversation, messages } = await get(client, "c-59", 59);
    expect(conversation?.state).toEqual({
      ...{ user_id: "user-c-59", context: { topic: "c-59" }, complexity_level: "low", confidence_score: 0.5 },
      ...{ status: "active", created_at: "2024-01-02T03:04:05", updated_at: "2024-01-02T03:05:00" },
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
    expect((await client.list()).map(({ id }) => id).toSorted()).toEqual(
      [...Array.from({ length: 60 }, (_, n) => `c-${n}`), "for-ever", "long"].toSorted(),
    );
  });
});

describe("conversations that are brought in place, from the Redis that the server itself uses,", () => {
  it("are known for the server's copies afterwards, and stay readable for old programs", async () => {
    const url = await freshRedis();
    const redis = new Redis(url);
    for (let n = 0; n < 20; n++) await redis.set(`conversation:c-${n}`, legacy(`c-${n}`, n), "EX", 5000);
    await redis.set("conversation:long", legacy("long", 2200), "EX", 5000);
    await using server = await startHoldfast({ REDIS_URL: url });
    using client = createConversationClient(server.grpcAddress);
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
    using client = createConversationClient(server.grpcAddress);
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
  const APART = "newer in the source, but with other messages than are there, left alone";

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
    using client = createConversationClient(server.grpcAddress);
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
    using client = createConversationClient(server.grpcAddress);
    await run(server, "--file", "c.json");
    await client.call(method.appendMessages, { id: "b", messages: [{ role: "user", content: "here" }] });
    writeLegacy({ "conversation:a": legacy("a", 5, soon), "conversation:b": legacy("b", 5, soon) });
    expect(await run(server, "--file", "c.json")).toMatchObject({ code: 0, counts: { [OLDER]: 1, [APART]: 1 } });
    expect(await contents(client, "a")).toEqual(expected("a", 2));
    const updated = await run(server, "--file", "c.json", "--update");
    expect(updated).toMatchObject({ code: 0, counts: { updated: 1, [APART]: 1 } });
    expect(await contents(client, "a")).toEqual(expected("a", 5));
    expect(await contents(client, "b")).toEqual([...expected("b", 2), "here"]);
    const third = await run(server, "--file", "c.json", "--update");
    expect(third).toMatchObject({ code: 0, counts: { "already there": 1, [APART]: 1 } });
  });

  it("does not take messages with the same ids for the same messages", async () => {
    const source = (contents: readonly string[], updated: Date) =>
      writeLegacy({
        "conversation:a": JSON.stringify({
          messages: contents.map((content, at) => ({ id: `m-${at}`, role: "user", content })),
          _metadata: { case_id: "a", updated_at: updated.toISOString(), version: 1 },
        }),
      });
    const soon = new Date(Date.now() + 3_600_000);
    await using server = await startHoldfast();
    using client = createConversationClient(server.grpcAddress);
    source(["one", "two"], new Date(0));
    expect(await run(server, "--file", "c.json")).toMatchObject({ code: 0, counts: { imported: 1 } });
    expect(await run(server, "--file", "c.json")).toMatchObject({ code: 0, counts: { "already there": 1 } });
    source(["edited", "two"], new Date(0));
    expect(await run(server, "--file", "c.json", "--update")).toMatchObject({ code: 0, counts: { [NEWER]: 1 } });
    source(["edited", "two"], soon);
    expect(await run(server, "--file", "c.json", "--update")).toMatchObject({ code: 0, counts: { [APART]: 1 } });
    source(["one", "two", "three"], soon);
    expect(await run(server, "--file", "c.json", "--update")).toMatchObject({ code: 0, counts: { updated: 1 } });
    expect(await contents(client, "a")).toEqual(["one", "two", "three"]);
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
    using client = createConversationClient(server.grpcAddress);
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

  it("brings a line that could not be read once it is mended among what was refused", async () => {
    const unread = '{"key": "conversation:a", "value": {"user_id": "u", "confidence_score": NaN}, "ttl": 60}';
    writeFileSync(path("c.jsonl"), `{"key": "conversation:b", "value": {"status": "new"}}\n${unread}\n`);
    await using server = await startHoldfast();
    using client = createConversationClient(server.grpcAddress);
    const first = await run(server, "--file", "c.jsonl", "--rejects", "rejects.jsonl");
    expect(first).toMatchObject({ code: 1, counts: { read: 2, imported: 1, refused: 1 } });
    writeFileSync(path("mended.jsonl"), readFileSync(path("rejects.jsonl"), "utf8").replaceAll("NaN", "0.5"));
    const second = await run(server, "--file", "mended.jsonl");
    expect(second).toMatchObject({ code: 0, counts: { read: 1, imported: 1 } });
    expect((await get(client, "a")).conversation?.state).toEqual({ user_id: "u", confidence_score: 0.5 });
  });

  it("takes another collection, and the time that its policy gives, where that is wanted", async () => {
    const url = await freshRedis();
    const redis = new Redis(url);
    await redis.set("chat:support:1", legacy("1", 1), "EX", 60);
    redis.disconnect();
    await using server = await startHoldfast();
    using client = createConversationClient(server.grpcAddress);
    const wanted = ["--redis-url", url, "--collection", "support=chat:support:", "--ttl", "policy"];
    expect(await run(server, ...wanted)).toMatchObject({ code: 0, counts: { imported: 1 } });
    const { reply } = await client.call(method.getStatus, { collection: "support", id: "1" });
    expect(Number(reply.summary?.expireTime?.seconds) - Date.now() / 1000).toBeGreaterThan(80_000);
  });

  it("that is only rehearsed sends nothing, needs no server and shows what it would send", async () => {
    writeLegacy({ "conversation:a": legacy("a", 2), "conversation:b": "{}" });
    const args = ["import", "conversations", "--file", "c.json", "--dry-run", "--address", "127.0.0.1:1"];
    const { code, stdout, stderr } = await holdfast(args, { cwd: directory.path });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^read: 2\nwould be sent: 1\nrefused: 1\n.*\n {2}conversation:b: UNKNOWN_LAYOUT/);
    expect(stderr).toContain('such as {"collection":"conversation","id":"a","state":{"user_id":"user-a"');
  });

  it("that is only rehearsed says what it would do with what a server has, and does nothing", async () => {
    const soon = { _metadata: { updated_at: new Date(Date.now() + 3_600_000).toISOString() } };
    writeLegacy({
      "conversation:a": legacy("a", 2),
      "conversation:b": legacy("b", 2),
      "conversation:c": legacy("c", 1),
    });
    await using server = await startHoldfast();
    using client = createConversationClient(server.grpcAddress);
    await run(server, "--file", "c.json");
    await client.append("b", [{ role: "user", content: "here" }]);
    writeLegacy({
      ...{ "conversation:a": legacy("a", 5, soon), "conversation:b": legacy("b", 2), "conversation:c": legacy("c", 1) },
      ...{ "conversation:new": legacy("new", 1), "conversation:long": legacy("long", 1500), "conversation:bad": "[]" },
    });
    const before = await client.list();
    const rehearsed = await run(server, "--file", "c.json", "--dry-run", "--update");
    expect(rehearsed).toMatchObject({
      code: 1,
      counts: { "would be imported": 2, "would be updated": 1, "already there": 1, [NEWER]: 1, read: 6, refused: 1 },
    });
    expect(await client.list()).toEqual(before);
    const done = await run(server, "--file", "c.json", "--update");
    expect(done.counts).toMatchObject({ imported: 2, updated: 1, "already there": 1, [NEWER]: 1, read: 6, refused: 1 });
  });

  it("says which ones it left alone: the first of each kind, and all where that is asked for", async () => {
    const ids = Array.from({ length: 12 }, (_, n) => `c-${n}`);
    writeLegacy(Object.fromEntries(ids.map((id) => [`conversation:${id}`, legacy(id, 1)])));
    await using server = await startHoldfast();
    using client = createConversationClient(server.grpcAddress);
    await run(server, "--file", "c.json");
    for (const id of ids) await client.append(id, [{ role: "user", content: "here" }]);
    const { stdout } = await run(server, "--file", "c.json");
    expect(stdout).toMatch(/newer there, left alone: 12\n( {2}conversation:c-\d+\n){10} {2}and 2 more; --verbose/);
    const { stderr } = await run(server, "--file", "c.json", "--verbose");
    for (const id of ids) expect(stderr).toContain(`conversation:${id}: newer there, left alone\n`);
  });

  it("takes the first of those of one name, counts the same ones once more, and refuses the others by name", async () => {
    const line = (id: string, status: string) => `${JSON.stringify({ case_id: id, status })}\n`;
    writeFileSync(path("c.jsonl"), line("a", "1") + line("b", "1") + line("a", "1") + line("b", "2"));
    await using server = await startHoldfast();
    using client = createConversationClient(server.grpcAddress);
    const { code, counts, stdout } = await run(server, "--file", "c.jsonl");
    expect({ code, counts }).toMatchObject({
      ...{ code: 1, counts: { read: 4, imported: 2, "in the source once more, the same": 1, refused: 1 } },
    });
    expect(stdout).toMatch(/c\.jsonl:4: NAMED_TWICE: is another document of the name conversation\/b/);
    expect((await get(client, "b")).conversation?.state).toEqual({ case_id: "b", status: "1" });
  });

  it("takes what comes in from another program", async () => {
    writeFileSync(path("c.jsonl"), `${JSON.stringify({ id: "a", colour: "red" })}\n${JSON.stringify({ id: "b" })}\n`);
    await using server = await startHoldfast();
    using client = createConversationClient(server.grpcAddress);
    for (const [name, count] of [
      ["-", "imported: 2"],
      ["/dev/stdin", "already there: 2"],
    ] as const) {
      const args = importArgs(server, "conversations", "--file", name, "--collection", "conversation");
      const command = ["cat c.jsonl |", process.execPath, serverEntry(), ...args];
      const { code, stdout } = await runCommand("sh", ["-c", command.join(" ")], { cwd: directory.path });
      expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringContaining(count) });
    }
    expect((await get(client, "a")).conversation?.state).toEqual({ id: "a", colour: "red" });
  });

  it("brings calls of tools and what they answered as such", async () => {
    const call = { id: "t-1", type: "function", function: { name: "look", arguments: '{"at": 1}' } };
    const messages = [
      { role: "assistant", content: null, tool_calls: [call] },
      { role: "tool", tool_call_id: "t-1", content: "a dog" },
      { role: "user", content: [{ type: "image_url", image_url: { url: "https://example.com/1.png" } }] },
    ];
    writeLegacy({ "conversation:a": legacy("a", 0, { messages }) });
    await using server = await startHoldfast();
    using client = createConversationClient(server.grpcAddress);
    expect(await run(server, "--file", "c.json")).toMatchObject({ code: 0, counts: { imported: 1 } });
    const kinds = (await client.messages("a")).flatMap(({ parts }) => parts.map(({ kind }) => kind));
    expect(kinds).toMatchObject([
      { case: "toolCall", value: { id: "t-1", name: "look", arguments: { at: 1 } } },
      { case: "toolResult", value: { callId: "t-1", result: { kind: { value: "a dog" } } } },
      { case: "reference", value: { uri: "https://example.com/1.png", mediaType: "image/*" } },
    ]);
    expect(await run(server, "--file", "c.json")).toMatchObject({ code: 0, counts: { "already there": 1 } });
  });

  it("needs a key that may read and write conversations", async () => {
    writeLegacy({ "conversation:a": legacy("a", 2) });
    const file = path("keys.yaml");
    const make = async (name: string, scopes: string) =>
      (
        await holdfast(["keys", "create", "--name", name, "--scopes", scopes, "--file", file], { cwd: directory.path })
      ).stdout.trim();
    const reader = await make("reader", "conversation:read");
    const writer = await make("writer", "conversation:read,conversation:write");
    await using server = await startHoldfast({ HOLDFAST_API_KEYS_FILE: file });
    const args = importArgs(server, "conversations", "--file", "c.json");
    const withKey = (key: string) => holdfast(args, { cwd: directory.path, env: { HOLDFAST_API_KEY: key } });
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
    const { code, stderr } = await holdfast(["import", "conversations", ...args], { cwd: directory.path });
    expect(code).toBe(2);
    expect(stderr).toMatch(why);
  });
});

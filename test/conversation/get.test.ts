import { type JsonObject, toBinary, toJson } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { summaryOf } from "../../src/conversation/record/summary.ts";
import { summaryBytes } from "../../src/conversation/record/summary-bytes.ts";
import {
  ConversationSummarySchema,
  ConversationPresence as Presence,
  ConversationStateServiceGetResponseSchema as ReplySchema,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import { DAY_MS, DEFAULT_POLICY, KEY, KINDS } from "./ledgers.ts";
import { between, chosenCopies, failureOf, openReads, readsOf, versionIn } from "./reads.ts";

const { id } = KEY;
const message = (content: string, more: JsonObject = {}): JsonObject => ({ role: "user", content, ...more });
const shown = (reply: Parameters<typeof toJson<typeof ReplySchema>>[1]) => toJson(ReplySchema, reply);

describe.each(KINDS)("Get over %s", (kind) => {
  it("answers with the state, the summary and the last messages of one version", async () => {
    await using all = await openReads(kind);
    const { writes, reads } = all;
    const state = { user_id: "u", status: "open", deep: { list: [1, null, "x"] } };
    const saved = await writes.save({
      id,
      state,
      messages: ["a", "b", "c"].map((text) => message(text, { id: text })),
    });

    const reply = shown(await reads.get({ id, lastMessages: 2 }));
    expect(reply).toEqual({
      presence: "CONVERSATION_PRESENCE_LIVE",
      conversation: { summary: saved.summary, state },
      messages: [
        expect.objectContaining({ id: "b", content: "b", position: "2" }),
        expect.objectContaining({ id: "c", content: "c", position: "3" }),
      ],
    });
    expect(reads.said).toEqual({ servedBy: kind, degraded: false });
    expect((await reads.get({ id })).messages).toEqual([]);
    expect((await reads.get({ id, lastMessages: 1000 })).messages).toHaveLength(3);
  });

  it("tells what has expired, what was deleted and what never was apart, at once and for as long as it is remembered", async () => {
    await using all = await openReads(kind);
    const { writes, reads, clock } = all;
    const presence = async (of: string) => {
      const [got, there, status] = [
        await reads.get({ id: of }),
        await reads.exists({ id: of }),
        await reads.getStatus({ id: of }),
      ];
      expect(got.conversation === undefined).toBe(got.presence !== Presence.LIVE);
      expect(status.summary === undefined).toBe(got.presence !== Presence.LIVE);
      expect(there.exists).toBe(got.presence === Presence.LIVE);
      expect([there.presence, status.presence]).toEqual([got.presence, got.presence]);
      return got.presence;
    };
    await writes.save({ id: "short", state: {}, expiry: { ttl: "10s" } });
    await writes.save({ id: "ever", state: {}, expiry: { never: true } });
    await writes.save({ id: "gone", state: {} });
    await writes.delete({ id: "gone" });
    expect(await Promise.all(["short", "ever", "gone", "other"].map(presence))).toEqual([
      ...[Presence.LIVE, Presence.LIVE, Presence.DELETED, Presence.NEVER_EXISTED],
    ]);
    clock.move(9_999);
    expect(await presence("short")).toBe(Presence.LIVE);
    clock.move(1);
    expect(await presence("short")).toBe(Presence.EXPIRED);
    clock.move(DAY_MS);
    expect(await Promise.all(["short", "ever", "gone"].map(presence))).toEqual([
      ...[Presence.NEVER_EXISTED, Presence.LIVE, Presence.NEVER_EXISTED],
    ]);
  });

  it("sends fewer messages when the reply would pass 4 MiB", async () => {
    await using all = await openReads(kind);
    const { writes, reads } = all;
    const text = "x".repeat(250_000);
    await writes.save({ id, state: { large: "y".repeat(3_500_000) } });
    for (const one of [1, 2, 3, 4]) await writes.append({ id, messages: [message(text, { id: `m${one}` })] });
    expect((await reads.get({ id, lastMessages: 4 })).messages.map((sent) => sent.id)).toEqual(["m3", "m4"]);
    await writes.save({ id, state: { large: "y".repeat(4_100_000) } });
    const { messages, conversation } = await reads.get({ id, lastMessages: 4 });
    expect([messages.length, Object.keys(conversation?.state ?? {})]).toEqual([0, ["large"]]);
  });

  it("reads an earlier version with its own messages, and says when it is not kept", async () => {
    await using all = await openReads(kind);
    const { opened, writes, reads } = all;
    opened.policies.set("conversation", { ...DEFAULT_POLICY, history: 2 });
    const versions: bigint[] = [];
    for (const n of [1, 2, 3, 4]) {
      const saved = await writes.save({
        id,
        state: { n, status: `s${n}` },
        messages: [message(`${n}`, { id: `m${n}` })],
      });
      versions.push(versionIn(saved));
      all.clock.move(1000);
    }
    const [first, second, third, fourth] = versions;
    const look = async (version: bigint | undefined) => {
      const { conversation, messages } = await reads.get({ id, version: version ?? 0n, lastMessages: 10 });
      expect(conversation?.summary?.messageCount).toBe(BigInt(messages.length));
      expect(conversation?.summary?.version).toBe(version);
      expect(conversation?.summary?.status).toBe(`s${conversation?.state?.n}`);
      return [conversation?.state?.n, messages.map((sent) => sent.id).join(" ")];
    };
    expect(await look(fourth)).toEqual([4, "m1 m2 m3 m4"]);
    expect(await look(third)).toEqual([3, "m1 m2 m3"]);
    expect(await failureOf(reads.get({ id, version: first ?? 0n }))).toMatchObject({
      ...{ reason: "VERSION_NOT_KEPT", metadata: { collection: "conversation", id, version: String(first) } },
    });

    const restored = await writes.restore({ id, version: String(second) });
    expect(await look(versionIn(restored))).toEqual([2, "m1 m2"]);
    expect(await look(fourth)).toEqual([4, "m1 m2 m3 m4"]);
    for (const version of [7n, 2n ** 64n - 1n]) {
      expect(await failureOf(reads.get({ id, version }))).toMatchObject({
        kind: "not_found",
        reason: "VERSION_NOT_KEPT",
        message: expect.stringContaining(`version ${version} of`),
        metadata: { version: String(version) },
      });
    }
    await writes.delete({ id });
    expect(await reads.get({ id, version: fourth ?? 0n })).toMatchObject({ presence: Presence.DELETED });
    await writes.save({ id, state: {}, expectedVersion: "0" });
    expect(await failureOf(reads.get({ id, version: fourth ?? 0n }))).toMatchObject({ reason: "VERSION_NOT_KEPT" });
  });

  it("never mixes the state of one version with the messages of another, when they are taken away meanwhile", async () => {
    await using all = await openReads(kind);
    const { opened, writes, clock } = all;
    const policy = { ...DEFAULT_POLICY, history: 1 };
    opened.policies.set("conversation", policy);
    // The state says how many messages there are.
    const base = versionIn(await writes.save({ id, state: { n: 2 }, messages: [message("a"), message("b")] }));
    await writes.append({ id, messages: [message("c"), message("d")], patch: { n: 4 } });
    const reads = readsOf({
      ...{ clock, policyFor: () => policy },
      database: between(writes.database, "FROM conversation_message", async () => {
        await writes.restore({ id, version: String(base) });
        // No version that had them is kept any more.
        for (let more = 0; more < 2; more++) await writes.patch({ id, patch: {} });
      }),
    });
    const { conversation, messages } = await reads.get({ id, lastMessages: 10 });
    expect([conversation?.state, messages.map(({ content }) => content)]).toEqual([{ n: 2 }, ["a", "b"]]);
  });

  it("names every field that is wrong", async () => {
    await using all = await openReads(kind);
    const failure = await failureOf(
      all.reads.get({ collection: "a b", id: "", version: 1n, minVersion: 2n, lastMessages: -1 }),
    );
    expect(failure.violations.map(({ field }) => field)).toEqual(["collection", "id", "last_messages", "min_version"]);
    expect(await failureOf(all.reads.get({ id, lastMessages: 1001 }))).toMatchObject({
      violations: [{ field: "last_messages" }],
    });
    expect((await failureOf(all.reads.exists({}))).violations.map(({ field }) => field)).toEqual(["id"]);
    expect((await failureOf(all.reads.getStatus({ id: "x".repeat(513) }))).violations).toHaveLength(1);
  });
});

describe.each(KINDS)("Get with hot copies over %s", (kind) => {
  it("answers from the copy that was made by the read before, and sees at once that it expires", async () => {
    const copies = chosenCopies();
    await using all = await openReads(kind, copies);
    const { writes, reads, clock } = all;
    const saved = await writes.save({ id, state: { status: "s" }, expiry: { ttl: "10s" } });
    await reads.get({ id });
    expect(reads.said).toEqual({ servedBy: kind, degraded: false });
    expect(shown(await reads.get({ id }))).toMatchObject({
      conversation: { summary: saved.summary, state: { status: "s" } },
    });
    expect(reads.said).toEqual({ servedBy: "redis", degraded: false });
    expect(await reads.getStatus({ id })).toMatchObject({ summary: { status: "s" } });
    expect(reads.said).toEqual({ servedBy: "redis", degraded: false });
    expect(reads.usages.of("conversation")).toEqual({ hotHits: 2, sqlHits: 1, conflicts: 0 });
    clock.move(10_000);
    expect(await reads.get({ id })).toMatchObject({ presence: Presence.EXPIRED });
    expect(await reads.exists({ id })).toMatchObject({ presence: Presence.EXPIRED, exists: false });
  });

  it("passes over a copy that is older than min_version, or that is to be bypassed", async () => {
    const copies = chosenCopies();
    await using all = await openReads(kind, copies);
    const { writes, reads } = all;
    await writes.save({ id, state: { n: 1 } });
    await reads.get({ id });
    const [old] = copies.held.values();
    if (old === undefined) throw new Error("no copy was made");
    const version = versionIn(await writes.save({ id, state: { n: 2 } }));
    const stale = () => copies.fill([old]);

    stale();
    expect((await reads.get({ id })).conversation?.state).toEqual({ n: 1 });
    expect((await reads.get({ id, minVersion: version })).conversation?.state).toEqual({ n: 2 });
    stale();
    expect((await reads.get({ id, bypassHotCopy: true })).conversation?.state).toEqual({ n: 2 });
    stale();
    expect((await reads.get({ id, version })).conversation?.state).toEqual({ n: 2 });
    for (const minVersion of [version + 1n, 2n ** 60n + 1n]) {
      expect(await failureOf(reads.get({ id, minVersion }))).toMatchObject({
        ...{ kind: "precondition", reason: "VERSION_NOT_REACHED" },
        message: expect.stringContaining(`older than ${minVersion}`),
        metadata: { field: "min_version", collection: "conversation", id, version: String(version) },
      });
    }
  });

  it("answers from copies while SQL is away, marked, and does not guess what there is no copy of", async () => {
    const copies = chosenCopies();
    await using all = await openReads(kind, copies);
    const { writes, reads } = all;
    const version = versionIn(await writes.save({ id, state: { n: 1 }, messages: [message("a")] }));
    await writes.save({ id: "empty", state: { n: 2 } });
    for (const of of [id, "empty"]) await reads.get({ id: of });
    await writes.database.close();

    // That it is away is noticed by the first who asks it.
    const unavailable = { kind: "unavailable", reason: "SQL_UNAVAILABLE", retryAfterMs: expect.any(Number) };
    const calls = [
      ...[reads.get({ id: "other" }), reads.exists({ id: "other" }), reads.getStatus({ id: "other" })],
      ...[reads.get({ id, bypassHotCopy: true }), reads.get({ id, minVersion: version + 1n })],
      ...[reads.get({ id, lastMessages: 1 }), reads.listMessages({ id }), reads.list({})],
      ...[reads.listVersions({ id }), reads.getStats({})],
    ];
    for (const failure of await Promise.all(calls.map(failureOf))) expect(failure).toMatchObject(unavailable);
    const marked = { servedBy: "redis", degraded: true };
    expect((await reads.get({ id, minVersion: version, version })).conversation?.state).toEqual({ n: 1 });
    expect(reads.said).toEqual(marked);
    expect((await reads.get({ id: "empty", lastMessages: 5 })).conversation?.state).toEqual({ n: 2 });
    expect(reads.said).toEqual(marked);
    expect(await reads.exists({ id })).toMatchObject({ exists: true });
    expect(reads.said).toEqual(marked);
    expect(await reads.getStatus({ id })).toMatchObject({ summary: { messageCount: 1n } });
    expect(reads.said).toEqual(marked);
  });

  it("says that an answer of SQL is a fallback while Redis is away", async () => {
    const copies = chosenCopies();
    await using all = await openReads(kind, copies);
    const { writes, reads } = all;
    await writes.save({ id, state: { n: 1 } });
    copies.away = true;
    expect((await reads.get({ id })).conversation?.state).toEqual({ n: 1 });
    expect(reads.said).toEqual({ servedBy: kind, degraded: true });
    expect(await reads.exists({ id: "other" })).toMatchObject({ presence: Presence.NEVER_EXISTED });
    expect(reads.said).toEqual({ servedBy: kind, degraded: true });
  });

  it("reads a copy once for all who ask in one turn, and anew for those who ask later", async () => {
    const copies = chosenCopies();
    await using all = await openReads(kind, copies);
    const { writes, reads } = all;
    await writes.save({ id, state: { n: 1 } });
    await reads.get({ id });
    const before = copies.reads;
    await Promise.all(Array.from({ length: 50 }, () => reads.get({ id })));
    expect(copies.reads).toBe(before + 1);
    await reads.get({ id });
    expect(copies.reads).toBe(before + 2);
  });
});

describe("A summary in bytes", () => {
  const held = {
    ...({ collection: "conversation", id: "c1", stamp: 3, version: 2 ** 50, presence: "live", generation: 1 } as const),
    ...{ stateVersion: 1, cutVersion: 0, userId: "", status: "", complexityLevel: "", confidenceScore: undefined },
    ...{ messageCount: 0, stateBytes: 0, createdUs: 1_750_000_000_123_456, updatedUs: 1_750_000_000_000_000 },
    ...{ expiresUs: undefined, ttlMs: undefined, sliding: false, origin: undefined, keptUntilUs: undefined },
  };
  it.each([
    ["with nothing known", held],
    [
      "with all that can be known",
      {
        ...held,
        ...{ userId: "ü", status: "s".repeat(500), complexityLevel: "high", confidenceScore: 0.25, sliding: true },
        ...{ messageCount: 1_000_000, stateBytes: 4_194_304, expiresUs: 4_000_000_000_000_001 },
        origin: { collection: "orchestration", id: "o1", version: 7 },
      },
    ],
    ["from before 1970", { ...held, createdUs: -1, updatedUs: 0, confidenceScore: 0 }],
  ])("is what the generated code would write: %s", (_, one) => {
    expect(Buffer.from(summaryBytes(one))).toEqual(Buffer.from(toBinary(ConversationSummarySchema, summaryOf(one))));
  });
});

import { describe, expect, it } from "vitest";
import { COPIES_GONE_MS, LONGEST_COPY_MS, LONGEST_DOCUMENT_MS } from "../../src/conversation/hot/copy-store.ts";
import { documentScript } from "../../src/conversation/hot/redis-copy-scripts.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { freshRedis } from "../support/fresh.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { believing, type HotInstance, keyOf, openTruth, said, startHot, stateWith } from "./hot-parts.ts";

interface Document {
  readonly value?: number;
  readonly messages: readonly Record<string, unknown>[];
  readonly _metadata: {
    readonly case_id: string;
    readonly updated_at: string;
    readonly version: number;
    readonly messages_omitted?: number;
  };
}

async function open(documents = true): Promise<HotInstance> {
  const { database } = await openTruth();
  const one = await startHot({ database, redisUrl: await freshRedis(), documents });
  await believing(one);
  return one;
}

async function documentOf(one: HotInstance, name = "conversation:c"): Promise<Document | undefined> {
  const text = await one.redis.command("get", name);
  return typeof text === "string" ? (JSON.parse(text) as Document) : undefined;
}

/** Of the version that is the current one. */
async function currentDocument(one: HotInstance, id = "c"): Promise<Document> {
  const found = await until(
    async () => {
      const document = await documentOf(one, `conversation:${id}`);
      const { what } = await one.get(id);
      return document?._metadata.version === what?.held.version ? document : undefined;
    },
    { what: `the document of ${id}` },
  );
  if (found === undefined) throw new Error("no document");
  return found;
}

describe("the document of a conversation", () => {
  it("is what programs of old read: the members of the state, the messages and _metadata", async () => {
    const one = await open();
    await one.save("c", 1, [said("m1", "hello")]);
    const { _metadata, ...document } = await currentDocument(one);
    expect(document).toEqual({
      ...{ user_id: "u", status: "open", value: 1 },
      messages: [{ role: "user", content: "hello", timestamp: "2023-11-14T22:13:20.123456+00:00", id: "m1" }],
    });
    const held = (await one.get("c")).what?.held;
    expect(_metadata).toEqual({
      ...{ case_id: "c", updated_at: expect.any(String), version: held?.version, holdfast: true },
    });
    expect(_metadata.updated_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00$/);
    expect(Date.parse(_metadata.updated_at)).toBe(Math.floor((held?.updatedUs ?? 0) / 1000));
  });

  it("of another collection, and of an empty state, is named and made alike", async () => {
    const one = await open();
    const key = { collection: "orchestration", id: "o1" };
    await one.ledger.carryOut({ kind: "append", key, requestId: "", messages: [said("m1")], create: true });
    const there = async () => (await documentOf(one, "orchestration:o1")) !== undefined;
    await until(there, { what: "the document" });
    const document = (await documentOf(one, "orchestration:o1")) ?? {};
    expect(document).toMatchObject({ messages: [{ id: "m1" }], _metadata: { case_id: "o1" } });
    expect(Object.keys(document)).toEqual(["messages", "_metadata"]);
  });

  it("follows every change, and is gone while one is on its way", async () => {
    const one = await open();
    await one.save("c", 1);
    expect(await currentDocument(one)).toMatchObject({ value: 1, messages: [] });
    await one.append("c", "m1");
    expect(await currentDocument(one)).toMatchObject({ value: 1, messages: [{ id: "m1" }] });
    const held = (await one.get("c")).what?.held;
    if (held === undefined) throw new Error("it is not there");
    const cover = await one.copies.cover([{ ...held, stamp: held.stamp + 1 }]);
    expect(await documentOf(one)).toBeUndefined();
    cover.withdraw();
    expect(await currentDocument(one)).toMatchObject({ value: 1, messages: [{ id: "m1" }] });
    await one.ledger.carryOut({ kind: "delete", key: keyOf("c"), requestId: "" });
    expect(await documentOf(one)).toBeUndefined();
  });

  it("that another program wrote stays until what takes its place is committed", async () => {
    const one = await open();
    await one.save("c", 1);
    await currentDocument(one);
    const theirs = '{"messages": [], "_metadata": {"case_id": "c", "version": 7}}';
    await one.redis.command("set", "conversation:c", theirs);
    const held = (await one.get("c")).what?.held;
    if (held === undefined) throw new Error("it is not there");
    const cover = await one.copies.cover([{ ...held, stamp: held.stamp + 1 }]);
    expect(await one.redis.command("get", "conversation:c")).toBe(theirs);
    cover.withdraw();
    await one.save("c", 2);
    expect(await currentDocument(one)).toMatchObject({ value: 2 });
  });

  it("that another program wrote is put aside for a week at most when its place is taken, the first one of each", async () => {
    const one = await open();
    const aside = "{conversation:c}:holdfast:before";
    const precious = '{"user_id":"ada","messages":[{"role":"user","content":"precious"}]}';
    await one.redis.command("set", "conversation:c", precious);
    await one.save("c", 1);
    await currentDocument(one);
    expect(await one.redis.command("get", aside)).toBe(precious);
    const left = Number(await one.redis.command("pttl", aside));
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(LONGEST_DOCUMENT_MS);
    await one.redis.command("set", "conversation:c", '{"later": true}');
    await one.save("c", 2);
    await currentDocument(one);
    expect(await one.redis.command("get", aside)).toBe(precious);
    await one.redis.command("set", "conversation:c", precious, "px", 60_000);
    await one.redis.command("del", aside);
    await one.save("c", 3);
    await currentDocument(one);
    expect(Number(await one.redis.command("pttl", aside))).toBeLessThanOrEqual(60_000);
  });

  it("expires in Redis with its conversation, and before copies are taken to be gone where that never does", async () => {
    const one = await open();
    const never = { ttlMs: "never", sliding: undefined } as const;
    const soon = { ttlMs: 100_000, sliding: undefined } as const;
    const given = { kind: "save", requestId: "", messages: [], state: stateWith(1) } as const;
    await one.ledger.carryOut({ ...given, key: keyOf("never"), expiry: never });
    await one.ledger.carryOut({ ...given, key: keyOf("soon"), expiry: soon });
    await currentDocument(one, "never");
    await currentDocument(one, "soon");
    const longest = Number(await one.redis.command("pttl", "conversation:never"));
    expect(longest).toBeGreaterThan(6 * LONGEST_COPY_MS);
    expect(longest).toBeLessThanOrEqual(COPIES_GONE_MS - 2 * LONGEST_COPY_MS);
    const left = Number(await one.redis.command("pttl", "conversation:soon"));
    expect(left).toBeGreaterThan(50_000);
    expect(left).toBeLessThanOrEqual(100_000);
  });

  it("that Redis has brought back is dropped by a healing, though the copy be the right one", async () => {
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: await freshRedis(), documents: true });
    await believing(one);
    await one.save("c", 1);
    await currentDocument(one);
    const old = String(await one.redis.command("get", "conversation:c"));
    await one.ledger.carryOut({ kind: "delete", key: keyOf("c"), requestId: "" });
    const isCopied = async () => (await one.copies.readHeld(keyOf("c")))?.presence === "deleted";
    await until(isCopied, { what: "the copy" });
    await one.redis.command("set", "conversation:c", old);
    await database.write("UPDATE conversation SET unhealed = 1");
    await one.copies.heal();
    expect(await documentOf(one)).toBeUndefined();
    expect(await isCopied()).toBe(true);
  });

  it("holds only the last of many messages, and says how many it leaves out", async () => {
    const one = await open();
    await one.save("c", 1);
    await one.append("c", ...Array.from({ length: 120 }, (_, at) => `m${at + 1}`));
    const many = await currentDocument(one);
    expect(many.messages.map(({ id }) => id)).toEqual(Array.from({ length: 50 }, (_, at) => `m${at + 71}`));
    expect(many._metadata.messages_omitted).toBe(70);
    await one.save(
      "long",
      1,
      [1, 2, 3].map((at) => said(`l${at}`, "x".repeat(60_000))),
    );
    const long = await currentDocument(one, "long");
    expect(long.messages.map(({ id }) => id)).toEqual(["l2", "l3"]);
    expect(long._metadata.messages_omitted).toBe(1);
    await one.append("long", "l4");
    await one.save("long", 2, [said("l5", "x".repeat(200_000))]);
    const none = await currentDocument(one, "long");
    expect(none.messages).toEqual([]);
    expect(none._metadata.messages_omitted).toBe(5);
  });

  it("is made for what a reader brought back, and for an append that found no copy", async () => {
    const one = await open();
    await one.save("c", 1);
    await currentDocument(one);
    await one.redis.command("flushdb");
    expect((await one.value("c")).value).toBe(1);
    await currentDocument(one);
    await one.redis.command("flushdb");
    await one.append("c", "m1");
    expect(await currentDocument(one)).toMatchObject({ messages: [{ id: "m1" }] });
    expect(await one.copied("c")).toBe(1);
  });

  it("is made again after an outage in which it was dropped, or could not be made", async () => {
    await using server = await startRedis({ args: ["--appendonly", "yes", "--appendfsync", "always"] });
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: server.url, documents: true, failureThreshold: 1_000_000 });
    await believing(one);
    await one.save("c", 1);
    await currentDocument(one);
    server.pause();
    await one.save("c", 2);
    await one.save("new", 2);
    server.resume();
    for (const id of ["c", "new"]) {
      const there = async () => (await documentOf(one, `conversation:${id}`))?.value === 2;
      await until(there, { what: `the document of ${id}` });
    }
    await one.redis.command("flushdb");
    const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const held = await startHot({
      ...{ database, redisUrl: server.url, documents: true, failureThreshold: 1_000_000 },
      wrap: (redis) =>
        Object.create(redis, {
          run: {
            value: async (...[script, ...rest]: Parameters<Redis["run"]>) => {
              if (script === documentScript) {
                reached.resolve();
                await gate.promise;
              }
              return redis.run(script, ...rest);
            },
          },
        }),
    });
    await believing(held);
    await held.save("c", 3);
    await reached.promise;
    await server.kill();
    gate.resolve();
    await until(() => held.copies.condition().documents === 1, { what: "the document to wait again" });
    await server.restart();
    const there = async () => (await documentOf(held))?.value === 3;
    await until(there, { what: "the document" });
  });

  it("is made before the instance ends", async () => {
    const { database } = await openTruth();
    const redisUrl = await freshRedis();
    const one = await startHot({ database, redisUrl, documents: true });
    const reader = await startHot({ database, redisUrl });
    await believing(one, reader);
    for (let at = 0; at < 30; at++) await one.save(`c${at}`, at);
    await one.close();
    for (let at = 0; at < 30; at++)
      expect(await documentOf(reader, `conversation:c${at}`)).toMatchObject({ value: at });
  });

  it("is not made where they are switched off, and one that is there goes with the next change", async () => {
    const one = await open(false);
    await one.redis.command("set", "conversation:c", "{}");
    await one.save("c", 1);
    await until(async () => (await one.copied("c")) === 1, { what: "the copy" });
    expect(await documentOf(one)).toBeUndefined();
    expect(one.copies.condition().documents).toBe(0);
    expect(await documentOf(one)).toBeUndefined();
  });
});

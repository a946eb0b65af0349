import { describe, expect, it } from "vitest";
import { AT } from "../../src/conversation/hot/copy-bytes.ts";
import { copyKeys } from "../../src/conversation/hot/copy-keys.ts";
import { FILLED } from "../../src/conversation/hot/copy-store.ts";
import { fillScript } from "../../src/conversation/hot/redis-copy-scripts.ts";
import { freshRedis } from "../support/fresh.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { believing, keyOf, openTruth, startHot, stateWith } from "./hot-parts.ts";

describe("a hot copy", () => {
  it("is there after a save, an append, a new expiry and a deletion, and says what the truth says", async () => {
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: await freshRedis() });
    await believing(one);
    const check = async (what: string) => {
      await until(async () => (await one.copies.readHeld(keyOf("c"))) !== undefined, { what: `a copy after ${what}` });
      const { what: found, layer } = await one.get("c");
      expect(layer, what).toBe("redis");
      const copied = await one.copies.read(keyOf("c"));
      const [row] = await database.query<{ stamp: number; version: number; message_count: number }>(
        "SELECT stamp, version, message_count FROM conversation WHERE id = 'c'",
      );
      expect(copied?.held).toEqual(await one.copies.readHeld(keyOf("c")));
      expect(found?.held).toMatchObject({ stamp: row?.stamp, version: row?.version, messageCount: row?.message_count });
      return found;
    };
    await one.save("c", 1);
    expect(await check("a save")).toMatchObject({ state: stateWith(1).bytes, held: { userId: "u", status: "open" } });
    await one.append("c", "m1", "m2");
    expect(await check("an append")).toMatchObject({ state: stateWith(1).bytes, held: { messageCount: 2 } });
    const expiry = { ttlMs: 5_000_000, sliding: false };
    await one.ledger.carryOut({ kind: "extend", key: keyOf("c"), requestId: "", expiry });
    expect(await check("a new expiry")).toMatchObject({ held: { ttlMs: 5_000_000, sliding: false, messageCount: 2 } });
    await one.ledger.carryOut({ kind: "delete", key: keyOf("c"), requestId: "" });
    expect(await check("a deletion")).toMatchObject({ held: { presence: "deleted" } });
    await one.save("c", 2).catch(() => {});
    expect(await check("a refused save")).toMatchObject({ held: { presence: "deleted" } });
  });

  it("holds all that is held, whatever of it is there", async () => {
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: await freshRedis() });
    await believing(one);
    const state = { ...stateWith(1, "wärt".repeat(400)), confidenceScore: 0.25, complexityLevel: "høch" };
    const expiry = { ttlMs: "never", sliding: undefined } as const;
    await one.ledger.carryOut({ kind: "save", key: keyOf("ä{b}"), requestId: "", state, messages: [], expiry });
    const origin = { ...keyOf("ä{b}"), version: 7 };
    await one.ledger.carryOut({
      ...{ kind: "adopt", key: keyOf("copy"), requestId: "", generation: 5, state, messageCount: 0, origin, expiry },
    });
    for (const id of ["ä{b}", "copy"]) {
      await until(async () => (await one.copies.readHeld(keyOf(id))) !== undefined, { what: `a copy of ${id}` });
      const copy = await one.copies.read(keyOf(id));
      const { what: truth } = await (await startHot({ database, redisUrl: await freshRedis() })).get(id);
      expect(copy?.held).toEqual(truth?.held);
      expect(await one.copies.readHeld(keyOf(id))).toEqual(truth?.held);
      expect(Buffer.from(copy?.state ?? []).equals(state.bytes)).toBe(true);
    }
  });

  it("is made of what a reader found, when there is none", async () => {
    const { database } = await openTruth();
    const url = await freshRedis();
    const one = await startHot({ database, redisUrl: url });
    await believing(one);
    await one.save("c", 1);
    await one.redis.command("flushdb");
    expect(await one.value("c")).toEqual({ value: 1, layer: "sqlite" });
    await until(async () => (await one.value("c")).layer === "redis", { what: "the copy" });
  });

  it("lives in Redis for as long as its conversation, and a tombstone for as long as it is kept", async () => {
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: await freshRedis() });
    await believing(one);
    const left = async () => Number(await one.redis.command("pttl", copyKeys(keyOf("c")).copy));
    const copyOf = (presence: string) => async () => (await one.copies.readHeld(keyOf("c")))?.presence === presence;
    const expiry = { ttlMs: 5_000_000, sliding: false };
    await one.save("c", 1);
    await one.ledger.carryOut({ kind: "extend", key: keyOf("c"), requestId: "", expiry });
    const isShorter = async () => (await left()) <= 5_000_000;
    await until(isShorter, { what: "the copy to follow the expiry" });
    expect(await left()).toBeGreaterThan(4_000_000);
    await one.ledger.carryOut({ kind: "delete", key: keyOf("c"), requestId: "" });
    await until(copyOf("deleted"), { what: "the tombstone" });
    expect(await left()).toBeGreaterThan(86_000_000);
  });

  it("is not made of an old state and a newer summary", async () => {
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: await freshRedis() });
    await believing(one);
    const { copy } = copyKeys(keyOf("c"));
    await one.save("c", 1);
    await until(async () => (await one.copied("c")) === 1, { what: "the copy" });
    const [old] = await one.redis.getBuffers([copy]);
    if (old == null) throw new Error("no copy");
    await one.save("c", 2);
    await until(async () => (await one.copied("c")) === 2, { what: "the newer copy" });
    await one.redis.command("set", copy, old);
    await one.append("c", "m1");
    expect(await one.value("c")).toEqual({ value: 2, layer: "sqlite" });
    await until(async () => (await one.value("c")).layer === "redis", { what: "the copy after the append" });
    expect((await one.get("c")).what).toMatchObject({ state: stateWith(2).bytes, held: { messageCount: 1 } });
  });

  it("keeps its state while what is held with it grows and shrinks", async () => {
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: await freshRedis() });
    await believing(one);
    await one.save("c", 1);
    for (const ttlMs of [1_000_000, "never", 2_000_000] as const) {
      const expiry = { ttlMs, sliding: false };
      await one.ledger.carryOut({ kind: "extend", key: keyOf("c"), requestId: "", expiry });
      const hasIt = async () =>
        (await one.copies.readHeld(keyOf("c")))?.ttlMs === (ttlMs === "never" ? undefined : ttlMs);
      await until(hasIt, { what: `a ttl of ${ttlMs}` });
      expect(await one.copied("c")).toBe(1);
    }
  });

  it("of another truth that had the same Redis is not seen", async () => {
    const redisUrl = await freshRedis();
    const one = await startHot({ database: (await openTruth()).database, redisUrl });
    await believing(one);
    await one.save("c", 1);
    await until(async () => (await one.copied("c")) === 1, { what: "the copy" });
    const next = await startHot({ database: (await openTruth()).database, redisUrl });
    await believing(next);
    expect(await next.value("c")).toEqual({ value: undefined, layer: "sqlite" });
    await next.save("c", 2);
    await until(async () => (await next.copied("c")) === 2, { what: "the copy of the next truth" });
  });

  it("is put over a cover that has run out, and not over one that has not", async () => {
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: await freshRedis() });
    await believing(one);
    await one.save("c", 1);
    await until(async () => (await one.copied("c")) === 1, { what: "the copy" });
    const { copy } = copyKeys(keyOf("c"));
    const cover = async (untilMs: number) => {
      const digits = [9e15, untilMs].map((number) => String(number).padStart(16, "0")).join("");
      await one.redis.command("setrange", copy, AT.cover, digits);
    };
    await cover(Date.now() + 1_000_000);
    for (let i = 0; i < 3; i++) expect(await one.value("c")).toEqual({ value: 1, layer: "sqlite" });
    await cover(Date.now() - 1_000);
    expect(await one.value("c")).toEqual({ value: 1, layer: "sqlite" });
    await until(async () => (await one.value("c")).layer === "redis", { what: "the copy" });
  });

  it("that was held up on the way for too long is not stored", async () => {
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: await freshRedis() });
    await believing(one);
    const { copy, document } = copyKeys(keyOf("c"));
    const args = (notAfter: number) => ["life", notAfter, 0, 1, 1_000, "a copy", "", ""];
    const [now, late] = (await one.redis.run(fillScript, [copy, document], args(Date.now() - 1))) as number[];
    expect(FILLED[late ?? 0]).toBe("late");
    expect(await one.redis.command("exists", copy)).toBe(0);
    const [, filled] = (await one.redis.run(fillScript, [copy, document], args((now ?? 0) + 100_000))) as number[];
    expect(FILLED[filled ?? 5]).toBe("filled");
  });

  it("is none when what lies there is foreign, damaged, cut off, or of another conversation", async () => {
    const { database } = await openTruth();
    const url = await freshRedis();
    const one = await startHot({ database, redisUrl: url });
    await believing(one);
    await one.save("c", 1);
    await one.save("other", 2);
    const { copy } = copyKeys(keyOf("c"));
    await until(async () => (await one.copied("c")) === 1 && (await one.copied("other")) === 2, { what: "copies" });
    const [good] = await one.redis.getBuffers([copy]);
    const [other] = await one.redis.getBuffers([copyKeys(keyOf("other")).copy]);
    if (good == null || other == null) throw new Error("no copies");
    const damaged = Array.from({ length: good.length }, (_, at) => good.subarray(0, at));
    const digits = Buffer.from(good);
    digits.write("x".repeat(30), 108);
    for (const bytes of [Buffer.from("hello"), Buffer.alloc(400), digits, other, ...damaged]) {
      await one.redis.command("set", copy, bytes);
      expect(await one.copies.read(keyOf("c"))).toBeUndefined();
    }
    for (const bytes of [Buffer.from("hello"), digits, other]) {
      await one.redis.command("set", copy, bytes);
      expect(await one.copies.readHeld(keyOf("c"))).toBeUndefined();
    }
    await one.redis.command("del", copy);
    await one.redis.command("lpush", copy, "a list");
    expect(await one.copies.read(keyOf("c"))).toBeUndefined();
    expect(await one.copies.readHeld(keyOf("c"))).toBeUndefined();
    expect((await one.value("c")).value).toBe(1);
    await until(async () => (await one.copied("c")) === 1, { what: "the copy to be made anew" });
    await one.redis.command("del", copy);
    await one.redis.command("lpush", copy, "a list");
    await one.save("c", 3);
    await until(async () => (await one.copied("c")) === 3, { what: "the copy after a write" });
  });

  it("is dropped where Redis takes nothing that needs memory, and the change is not lost on others", async () => {
    const { database } = await openTruth("postgres");
    await using server = await startRedis({ args: ["--maxmemory-policy", "noeviction"] });
    const one = await startHot({ database, redisUrl: server.url });
    const other = await startHot({ database, redisUrl: server.url });
    await believing(one, other);
    await one.save("c", 1);
    await until(async () => (await other.copied("c")) === 1, { what: "the copy" });
    await one.redis.command("config", "set", "maxmemory", "1");
    await one.save("c", 2);
    expect(await other.value("c")).toEqual({ value: 2, layer: "postgres" });
    await one.redis.command("config", "set", "maxmemory", "0");
  });
});

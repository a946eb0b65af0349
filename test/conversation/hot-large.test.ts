import { describe, expect, it } from "vitest";
import { copyKeys } from "../../src/conversation/hot/copy-keys.ts";
import { fillScript } from "../../src/conversation/hot/redis-copy-scripts.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { freshRedis } from "../support/fresh.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { believing, copiesOf, type HotInstance, keyOf, openTruth, saveState, startHot, stateOf } from "./hot-parts.ts";

const MIB = 1024 * 1024;

const headOf = (one: HotInstance, id: string) =>
  until(() => one.copies.readHeld(keyOf(id)), { what: `the head of a copy of ${id}` });

/** The real Redis, to which copies come when the gate opens; tells how many bytes of them have set out. */
function held(redis: Redis, gate: Promise<void>, sent: number[]): Redis {
  return Object.create(redis, {
    run: {
      value: async (...[script, keys, args]: Parameters<Redis["run"]>) => {
        if (script === fillScript) {
          sent.push(args.reduce<number>((sum, one) => sum + (Buffer.isBuffer(one) ? one.length : 0), 0));
          await gate;
        }
        return redis.run(script, keys, args);
      },
    },
  });
}

describe("large states", () => {
  it("read by many at once while others write are nothing that covers would have to wait behind", async () => {
    await using server = await startRedis();
    const { database } = await openTruth("postgres");
    const one = await startHot({ database, redisUrl: server.url, commandTimeoutMs: 10_000 });
    await believing(one);
    const ids = Array.from({ length: 16 }, (_, at) => `large-${at}`);
    const state = stateOf(4 * MIB - 1_000);
    for (const id of ids) {
      await saveState(one, id, state);
      await headOf(one, id);
    }
    let isOver = false;
    const degraded: string[] = [];
    const write = async () => {
      for (let at = 0; !isOver; at++) {
        const { degraded: isDegraded } = await saveState(one, "small", stateOf(100));
        if (isDegraded) degraded.push(`write ${at}`);
      }
    };
    const writing = write();
    const found = await Promise.all(ids.map((id) => one.get(id)));
    for (const [at, { what, degraded: isDegraded }] of found.entries()) {
      expect(what?.state?.length).toBe(state.bytes.length);
      if (isDegraded) degraded.push(`read ${at}`);
    }
    isOver = true;
    await writing;
    expect(degraded).toEqual([]);
    expect([one.breaker.state, one.breaker.totalFailures]).toEqual(["closed", 0]);
    const stats = String(await one.redis.command("info", "stats"));
    for (const [, bytes] of stats.matchAll(/total_net_(?:in|out)put_bytes:(\d+)/g)) {
      expect(Number(bytes)).toBeLessThan(4 * MIB);
    }
  });

  it("are read from SQL, and all else of their conversation from its copy", async () => {
    await using server = await startRedis();
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: server.url, documents: true });
    await believing(one);
    const state = stateOf(300 * 1024);
    await saveState(one, "c", state);
    await until(async () => (await one.redis.command("exists", "conversation:c")) === 1, { what: "the document" });
    expect(await one.copies.readHeld(keyOf("c"))).toMatchObject({ stateBytes: state.bytes.length, messageCount: 0 });
    expect(await one.copies.read(keyOf("c"))).toBeUndefined();
    const { what, layer, degraded } = await one.get("c");
    expect([what?.state?.length, layer, degraded]).toEqual([state.bytes.length, "sqlite", false]);
    await one.append("c", "m");
    await until(async () => (await one.copies.readHeld(keyOf("c")))?.messageCount === 1, { what: "the copy" });
    expect((await one.get("c")).what).toMatchObject({ held: { messageCount: 1 }, state: state.bytes });
    const { copy } = copyKeys(keyOf("c"));
    expect(Number(await one.redis.command("strlen", copy))).toBeLessThan(1_000);
    await one.save("c", 7);
    await copiesOf([one], "c", 7);
    await saveState(one, "c", state);
    await until(async () => (await one.get("c")).what?.state?.length === state.bytes.length, {
      what: "the large state",
    });
    expect(await one.copied("c")).toBeUndefined();
  });

  it("of a size to be copied are sent a few at a time, and left out where too many wait", async () => {
    const { database } = await openTruth();
    const gate = Promise.withResolvers<void>();
    const sent: number[] = [];
    const one = await startHot({
      ...{ database, redisUrl: await freshRedis(), commandTimeoutMs: 60_000 },
      wrap: (redis) => held(redis, gate.promise, sent),
    });
    await believing(one);
    const ids = Array.from({ length: 120 }, (_, at) => `c${at}`);
    const state = stateOf(200 * 1024);
    await Promise.all(ids.map((id) => saveState(one, id, state)));
    expect(sent.length).toBeGreaterThan(0);
    expect(sent.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThan(3 * MIB);
    gate.resolve();
    for (const id of ids) {
      const isCopied = async () => (await one.get(id)).layer === "redis";
      await until(isCopied, { what: `the copy of ${id}, which a reader completes` });
      expect((await one.get(id)).what?.state?.length).toBe(state.bytes.length);
    }
    const small = sent.filter((bytes) => bytes < 100_000);
    expect(small.length).toBeGreaterThan(0);
  });
});

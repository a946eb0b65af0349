import { describe, expect, it, onTestFinished } from "vitest";
import { copyKeys } from "../../src/conversation/hot/copy-keys.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { freshRedis } from "../support/fresh.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { believing, copiesOf, keyOf, openTruth, saveState, startHot, stateOf } from "./hot-parts.ts";

/** The real Redis, that tells what has been asked for. */
function telling(redis: Redis, asked: string[]): Redis {
  return Object.create(redis, {
    getBuffers: {
      value: (keys: readonly string[]) => {
        asked.push(...keys);
        return redis.getBuffers(keys);
      },
    },
  });
}

async function slowRedis() {
  const redisUrl = new URL(await freshRedis());
  const proxy = await startTcpProxy(Number(redisUrl.port));
  onTestFinished(() => proxy.close());
  const direct = redisUrl.href;
  redisUrl.port = String(proxy.port);
  return { proxy, direct, slow: redisUrl.href };
}

describe("while Redis takes long to answer", () => {
  it("small copies are all asked for at once, whether or not their sizes are known", async () => {
    const { proxy, slow } = await slowRedis();
    const { database } = await openTruth();
    const writersAsked: string[] = [];
    const readersAsked: string[] = [];
    const options = { database, redisUrl: slow, commandTimeoutMs: 60_000 };
    const writer = await startHot({ ...options, wrap: (redis) => telling(redis, writersAsked) });
    const reader = await startHot({ ...options, wrap: (redis) => telling(redis, readersAsked) });
    await believing(writer, reader);
    const ids = Array.from({ length: 1_000 }, (_, at) => `c${at}`);
    await Promise.all(ids.map((id, at) => writer.save(id, at)));
    for (const [at, id] of ids.entries()) await copiesOf([writer], id, at);
    const known = ids.slice(0, 300);
    for (const id of known) await reader.value(id);
    await saveState(writer, "large", stateOf(200 * 1024));
    const isThere = async () => (await reader.copies.read(keyOf("large"))) !== undefined;
    await until(isThere, { what: "the large copy" });

    for (const [one, asked] of [
      [writer, writersAsked],
      [reader, readersAsked],
    ] as const) {
      asked.length = 0;
      proxy.freeze();
      const reads = Promise.all(ids.map((id) => one.copied(id)));
      await until(() => asked.length === ids.length, { what: "all of them to be asked for" });
      proxy.thaw();
      expect(await reads).toEqual(ids.map((_, at) => at));
    }
  });

  it("readers of large copies who would have to wait for too long are answered by SQL instead", async () => {
    const { proxy, direct, slow } = await slowRedis();
    const { database } = await openTruth();
    const asked: string[] = [];
    const writer = await startHot({ database, redisUrl: direct });
    const reader = await startHot({
      ...{ database, redisUrl: slow, commandTimeoutMs: 1_000, failureThreshold: 1_000_000 },
      wrap: (redis) => telling(redis, asked),
    });
    await believing(writer, reader);
    const ids = Array.from({ length: 100 }, (_, at) => `c${at}`);
    const state = stateOf(200 * 1024);
    for (const id of ids) {
      await saveState(writer, id, state);
      const isThere = async () => (await reader.copies.read(keyOf(id))) !== undefined;
      await until(isThere, { what: `the copy of ${id}` });
    }
    await writer.save("small", 1);
    await copiesOf([reader], "small", 1);
    asked.length = 0;
    proxy.freeze();
    const reads = ids.map((id) => reader.get(id));
    const small = reader.get("small");
    const found = await Promise.all(reads);
    expect(found.map(({ layer }) => layer)).toEqual(ids.map(() => "sqlite"));
    expect(asked.length).toBeGreaterThan(20);
    expect(asked.length).toBeLessThan(60);
    // It does not wait behind them.
    expect(asked).toContain(copyKeys(keyOf("small")).copy);
    await small;
    const before = asked.length;
    proxy.thaw();
    const isBack = () =>
      reader.redis.ping().then(
        () => true,
        () => false,
      );
    await until(isBack, { what: "Redis to answer again" });
    expect(asked.length).toBe(before);
  });
});

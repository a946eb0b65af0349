import { Redis } from "ioredis";
import { expect, it } from "vitest";
import { createCacheClient } from "../support/cache-client.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { startHoldingRelay } from "./holding-relay.ts";
import { countUnhealed, durableConfig, healed, SETTINGS } from "./outage.ts";

/*
 * Promise: a write that was held up on its way to Redis, and was answered from elsewhere meanwhile, does not undo what was written
 * after it through another instance, however late it arrives.
 */

it.each(["default", "truth"])(
  "a write to namespace %s that arrives at Redis late does not replace a later one",
  async (namespace) => {
    await using parts = new AsyncDisposableStack();
    const redis = parts.use(await startRedis());
    const relay = parts.use(await startHoldingRelay(redis.port));
    const shared = { DATABASE_URL: await freshDatabase(), HOLDFAST_CONFIG: durableConfig(parts) };
    const env = { ...SETTINGS, ...shared, HOLDFAST_LOG_LEVEL: "info" };
    const far = parts.use(await startHoldfast({ ...env, REDIS_URL: `redis://127.0.0.1:${relay.port}` }));
    const near = parts.use(await startHoldfast({ ...env, REDIS_URL: redis.url }));
    const instances = [far, near];
    const setup = { instances, unhealed: () => countUnhealed(instances) };
    await healed(setup);
    const throughFar = parts.use(createCacheClient(far.grpcAddress));
    const throughNear = parts.use(createCacheClient(near.grpcAddress));
    const operator = parts.adopt(new Redis(redis.url), (it) => it.disconnect());
    const scriptsRun = async () => {
      const stats = await operator.info("commandstats");
      return Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1] ?? 0);
    };

    await throughFar.put(namespace, "k", "first");
    await throughFar.put(namespace, "gone", "first");
    relay.holdFrom(`holdfast:cache:{${namespace}/k}`);
    const [held] = await Promise.all([
      throughFar.put(namespace, "k", "second"),
      throughFar.put(namespace, "gone", "second"),
    ]);
    expect(held.degraded).toBe(true);
    await until(() => relay.held === 1, { what: "the write to be held up" });
    const later = await throughNear.put(namespace, "k", "third");
    expect(later.reply.version > held.reply.version).toBe(true);
    const before = await scriptsRun();
    relay.release();
    await until(async () => (await scriptsRun()) > before, { what: "the late write to arrive" });
    await healed(setup);
    for (const client of [throughNear, throughFar]) {
      expect(await client.text(namespace, "k", true)).toBe("third");
      expect(await client.text(namespace, "k")).toBe("third");
    }
  },
);

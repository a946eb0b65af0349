import { describe, expect, it, onTestFinished } from "vitest";
import { tombstone } from "../../src/cache/record.ts";
import { createRedisStore } from "../../src/cache/redis.ts";
import type { CacheStore, Write } from "../../src/cache/store.ts";
import { createVersions } from "../../src/cache/version.ts";
import { systemClock } from "../../src/infra/clock.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { writeUnder } from "../conformance/cache-fences.ts";
import { freshRedis } from "../support/fresh.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { announcer, openRedis } from "./instance.ts";

const LOCK = "l";
const FENCE = "holdfast:fence:l";
const versions = createVersions(systemClock);
const now = () => versions.next();

function open(url: string): { redis: Redis; store: CacheStore } {
  const redis = openRedis(url, 20_000);
  onTestFinished(() => redis.close());
  return { redis, store: createRedisStore({ redis, announcer, clock: systemClock, newStamp: now }) };
}

function order(): Write {
  const draft = { ...tombstone(now(), systemClock.now()), deleted: false };
  return { key: "k", draft, guard: { kind: "none" }, announce: "no" };
}

/** How a write ends that asked SQL at that moment, and does not ask again. */
async function outcome(store: CacheStore, token: number, askedAt: number): Promise<string> {
  const [result] = await store.write("ns", [{ ...order(), fence: { lock: LOCK, token, askedAt } }]);
  return result?.stored ? "stored" : String(result?.why);
}

const under = (store: CacheStore, token: number) => writeUnder(store, "ns", [order()], [LOCK, token], now);

describe("a fence in Redis", () => {
  it("is made anew once it is gone, and not relied on by who asked SQL before that", async () => {
    const url = await freshRedis();
    const [{ store, redis }, { store: other }] = [open(url), open(url)];
    await under(store, 1);
    const askedAt = now();
    expect(await outcome(store, 1, askedAt)).toBe("stored");
    await under(other, 2);
    expect(await outcome(store, 1, askedAt)).toBe("fenced");
    await redis.command("del", FENCE);
    expect(await outcome(store, 1, askedAt)).toBe("forgotten");
    // It is known now; but who asks SQL only now is told of token 2, and who asked before must not be let pass.
    expect(await outcome(store, 1, askedAt)).toBe("forgotten");
    expect(await outcome(store, 2, now())).toBe("stored");
    expect(await outcome(store, 1, now())).toBe("fenced");
  });

  it("that a restarted server brings back is not relied on: it may be older than what was written since", async () => {
    await using server = await startRedis({ args: ["--save", ""] });
    const [{ store, redis }, { store: other }] = [open(server.url), open(server.url)];
    await under(store, 1);
    await redis.command("save");
    const askedAt = now();
    await under(other, 2);
    await server.kill();
    await server.restart();
    await until(() => redis.ping().catch(() => undefined), { what: "the server to be reached again" });
    expect(await redis.command("get", FENCE)).toMatch(/^1 /);
    expect(await outcome(store, 1, askedAt)).toBe("forgotten");
  });

  it("is not relied on by who is led to another server that has it, or to the same one after that was a replica", async () => {
    await using server = await startRedis();
    const { store, redis } = open(server.url);
    await under(store, 1);
    const askedAt = now();
    expect(await outcome(store, 1, askedAt)).toBe("stored");
    const other = openRedis(server.url, 20_000);
    onTestFinished(() => other.close());
    await other.command("replicaof", "127.0.0.1", "1");
    await other.command("replicaof", "no", "one");
    await until(() => redis.ping().catch(() => undefined), { what: "the server to be reached" });
    expect(await redis.command("get", FENCE)).toMatch(/^1 /);
    expect(await outcome(store, 1, askedAt)).toBe("forgotten");
    expect(await outcome(store, 1, now())).toBe("stored");
  });

  it("takes the place of what someone else has put there", async () => {
    const { store, redis } = open(await freshRedis());
    await redis.command("hset", FENCE, "a", "b");
    expect(await under(store, 2)).toMatchObject([{ stored: true }]);
    await redis.command("set", FENCE, "nonsense");
    expect(await under(store, 2)).toMatchObject([{ stored: true }]);
    expect(await outcome(store, 1, now())).toBe("fenced");
  });

  it("ends by itself when it has not been used for long", async () => {
    const { store, redis } = open(await freshRedis());
    await under(store, 1);
    const left = Number(await redis.command("pttl", FENCE));
    expect(left).toBeGreaterThan(500_000);
    expect(left).toBeLessThanOrEqual(600_000);
  });
});

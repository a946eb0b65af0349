import { describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import type { Authority, Lease } from "../../src/lock/authority/authority.ts";
import type { Heads } from "../../src/lock/authority/head.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { renewOrder, takeOrder } from "./authorities.ts";
import { epochOf, GrowingTokens } from "./growing-tokens.ts";
import { type OpenRedisAuthorities, openRedisAuthorities, type RedisAuthoritiesOptions } from "./redis-authorities.ts";
import { redisCommand } from "./redis-command.ts";
import { withBugs } from "./spoilt-redis.ts";

const MARKER = "holdfast:lock:{p00}:life";

interface Forgetting {
  /** What Redis keeps on its disk. */
  readonly args?: readonly string[];
  /** Before the grants that it forgets. */
  readonly before?: (opened: OpenRedisAuthorities) => Promise<unknown>;
  readonly forget: (server: RedisServer, opened: OpenRedisAuthorities) => Promise<unknown>;
}

const FORGETTINGS: Readonly<Record<string, Forgetting>> = {
  "was flushed": { forget: (_, { instances }) => instances[0].redis.command("flushall") },
  "comes back empty": {
    async forget(server) {
      await server.kill();
      server.forget();
      await server.restart();
    },
  },
  "comes back with older data": {
    before: ({ instances }) => instances[0].redis.command("save"),
    async forget(server) {
      await server.kill();
      await server.restart();
    },
  },
  "comes back with all its data": {
    args: ["--appendonly", "yes", "--appendfsync", "always"],
    async forget(server) {
      await server.kill();
      await server.restart();
    },
  },
  "lost one lock": { forget: (_, { instances }) => instances[0].redis.command("del", "holdfast:lock:{p00}:r:nightly") },
  "lost the marker": { forget: (_, { instances }) => instances[0].redis.command("del", MARKER) },
  "forgot its scripts": { forget: (_, { instances }) => instances[0].redis.command("script", "flush") },
};

async function goThrough({ args = [], before, forget }: Forgetting, options: RedisAuthoritiesOptions = {}) {
  await using server = await startRedis({ args });
  await using opened = await openRedisAuthorities({ ...options, url: server.url, count: 2 });
  const tokens = new GrowingTokens("nightly");
  for (const { authority } of opened.instances) await tokens.grow(authority, 2);
  await before?.(opened);
  for (const { authority } of opened.instances) await tokens.grow(authority, 3);
  await forget(server, opened);
  for (const { authority } of opened.instances) await tokens.grow(authority, 2);
}

/** A replica is made the primary, and does not know of the last grants. */
async function failOver(options: RedisAuthoritiesOptions = {}): Promise<void> {
  await using primary = await startRedis({ args: ["--repl-diskless-sync-delay", "0"] });
  await using replica = await startRedis({ args: ["--replicaof", "127.0.0.1", String(primary.port)] });
  await using opened = await openRedisAuthorities({ ...options, url: [primary.url, replica.url] });
  const [{ authority, redis }] = opened.instances;
  const tokens = new GrowingTokens("nightly");
  await tokens.grow(authority, 2);
  await until(async () => Number(await redis.command("wait", 1, 100)) === 1, { what: "the replica to follow" });
  await redisCommand(replica.url, "replicaof", "no", "one");
  await tokens.grow(authority, 3);
  await primary.kill();
  await tokens.grow(authority, 2);
}

/**
 * An instance begins a life with an epoch that it was given long ago; meanwhile another had a later one, and Redis was
 * flushed.
 */
async function forgetBetween(options: RedisAuthoritiesOptions = {}): Promise<void> {
  const epochTaken = Promise.withResolvers<void>();
  const goOn = Promise.withResolvers<void>();
  let isHeld = true;
  const spoilHeads = (heads: Heads): Heads => ({
    ...heads,
    async nextEpoch(mode, beyond) {
      const epoch = await heads.nextEpoch(mode, beyond);
      if (!isHeld) return epoch;
      isHeld = false;
      epochTaken.resolve();
      await goOn.promise;
      return epoch;
    },
  });
  await using opened = await openRedisAuthorities({ ...options, count: 2, spoilHeads });
  const [slow, quick = slow] = opened.instances;
  const late = slow.authority.take(takeOrder("nightly"));
  await epochTaken.promise;
  const { grant } = await leaseOf(quick.authority, "nightly");
  await quick.redis.command("flushdb");
  goOn.resolve();
  const taken = await late;
  expect(taken.kind === "granted" && taken.lease.grant.token, "the token of a later grant").toBeGreaterThan(
    grant.token,
  );
}

describe("fencing tokens over Redis", () => {
  it.each(Object.entries(FORGETTINGS))("are never given twice when Redis %s", async (_, forgetting) => {
    await goThrough(forgetting);
  });

  it("are never given twice when a replica takes over that knows less", async () => {
    await failOver();
  });

  it("are never given twice when the old primary, frozen meanwhile, is asked again", async () => {
    await using one = await startRedis();
    await using other = await startRedis();
    await using opened = await openRedisAuthorities({ url: [one.url, other.url], commandTimeoutMs: 300 });
    const [{ authority }] = opened.instances;
    const tokens = new GrowingTokens("nightly");
    await tokens.grow(authority, 2);
    const before = epochOf(tokens.last);
    const [old, next] = (await redisCommand(one.url, "exists", MARKER)) === 1 ? [one, other] : [other, one];
    old.pause();
    await tokens.grow(authority, 2);
    expect(epochOf(tokens.last)).toBeGreaterThan(before);
    await next.kill();
    old.resume();
    await tokens.grow(authority, 2);
  });

  it("are in one epoch for all instances that come upon a new life at once", async () => {
    await using opened = await openRedisAuthorities({ count: 4 });
    const { instances } = opened;
    const takeAll = async () => {
      const names = Array.from({ length: 20 }, (_, at) => `lock-${at}-${Math.random()}`);
      const taken = await Promise.all(
        names.flatMap((name) => instances.map(({ authority }) => authority.take(takeOrder(name)))),
      );
      return taken.flatMap((one) => (one.kind === "granted" ? [one.lease.grant.token] : []));
    };
    const first = await takeAll();
    expect(new Set(first).size).toBe(20);
    const later = await takeAll();
    expect(new Set(later.map(epochOf)).size).toBe(1);
    expect(Math.min(...later)).toBeGreaterThan(Math.max(...first));
  });

  it("are never smaller than those of the authority that decided before Redis", async () => {
    let floor = 0;
    await using opened = await openRedisAuthorities({ epochFloor: () => () => floor });
    const [{ authority }] = opened.instances;
    const tokens = new GrowingTokens("nightly");
    await tokens.grow(authority, 2);
    await opened.heads.become("postgres");
    const { epoch } = await opened.heads.become("redis");
    floor = epoch;
    await tokens.grow(authority, 2);
    expect(epochOf(tokens.last)).toBeGreaterThanOrEqual(epoch);
  });

  it.each(["that instance saw what it granted in", "only Redis knows what it granted in"])(
    "grow also when SQL is of a backup and counts from the beginning, while %s",
    async (who) => {
      await using redis = await startRedis();
      await using before = await openRedisAuthorities({ url: redis.url });
      await using after = await openRedisAuthorities({ url: redis.url });
      const tokens = new GrowingTokens("nightly");
      for (let life = 0; life < 3; life++) {
        await tokens.grow(before.instances[0].authority, 2);
        await redisCommand(redis.url, "hset", MARKER, "life", `0123456789 ${epochOf(tokens.last)}`);
      }
      if (who.startsWith("that")) {
        await tokens.grow(before.instances[0].authority, 1);
        await tokens.grow(after.instances[0].authority, 2);
        await redisCommand(redis.url, "flushdb");
      }
      await tokens.grow(after.instances[0].authority, 2);
    },
  );

  it("go on in a new epoch when one is used up", async () => {
    await using opened = await openRedisAuthorities();
    const [{ authority, redis }] = opened.instances;
    const tokens = new GrowingTokens("nightly");
    await tokens.grow(authority, 2);
    const before = epochOf(tokens.last);
    await redis.command("hset", MARKER, "count", 2 ** 32 - 3);
    await tokens.grow(authority, 5);
    expect(epochOf(tokens.last)).toBe(before + 1);
  });

  it("are not given while SQL is away in which a new life would be counted, and leases last meanwhile", async () => {
    let isAway = false;
    const spoilHeads = (heads: Heads): Heads => ({
      ...heads,
      nextEpoch: async (mode, beyond) => {
        if (isAway) throw new UnavailableError("SQL_UNAVAILABLE", "away");
        return await heads.nextEpoch(mode, beyond);
      },
    });
    await using opened = await openRedisAuthorities({ count: 2, spoilHeads });
    const [one, other = one] = opened.instances;
    const { authority, redis } = one;
    const { grant } = await leaseOf(authority, "nightly");
    isAway = true;
    expect(await authority.renew(renewOrder(grant))).toMatchObject({ kind: "renewed" });
    expect(await leaseOf(other.authority, "hourly")).toMatchObject({ grant: { name: "hourly" } });
    await redis.command("flushdb");
    for (const instance of opened.instances) {
      await expect(instance.authority.take(takeOrder("nightly"))).rejects.toMatchObject({
        reason: "LOCK_AUTHORITY_UNAVAILABLE",
      });
    }
    isAway = false;
    expect((await leaseOf(other.authority, "nightly")).grant.token).toBeGreaterThan(grant.token);
  });

  it("are not given in a new life when another authority decides by now", async () => {
    await using opened = await openRedisAuthorities();
    const [{ authority, redis }] = opened.instances;
    await leaseOf(authority, "nightly");
    await opened.heads.become("postgres");
    await redis.command("flushdb");
    await expect(authority.take(takeOrder("nightly"))).rejects.toMatchObject({ reason: "LOCK_AUTHORITY_CHANGING" });
  });

  it("are not given in an epoch that was taken before Redis forgot a later one", async () => {
    await forgetBetween();
  });
});

const COUNTED = "redis.call('HINCRBY', KEYS[1], 'count', 1)";
const IN_THIS_LIFE = "redis.call('HGET', KEYS[1], 'life') ~= ARGV[2] .. ' ' .. ARGV[3]";
const ASKED = "not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. ARGV[2], 1, true)";

describe("a planted bug shows", () => {
  it("where grants are counted by the record of a lock alone", async () => {
    const bugs = [
      { script: "lock-take", text: COUNTED, instead: "(token or 0) % 4294967296 + 1" },
      { script: "lock-take", text: IN_THIS_LIFE, instead: "false" },
    ];
    await expect(goThrough(of("was flushed"), { spoil: withBugs(bugs) })).rejects.toThrow("token of a later grant");
  });

  it("where the marker of a life does not say which life it is of", async () => {
    const bugs = [
      { script: "lock-take", text: ASKED, instead: "false" },
      { script: "lock-begin", text: "is == now", instead: "true" },
    ];
    const spoil = withBugs(bugs);
    await expect(goThrough(of("comes back with older data"), { spoil })).rejects.toThrow("token of a later grant");
    await expect(failOver({ spoil })).rejects.toThrow("token of a later grant");
  });

  it("where a life is begun by whoever has an epoch", async () => {
    const text = "if not wanted or wanted ~= present() or begin ~= ARGV[1] then return '' end";
    const spoil = withBugs([{ script: "lock-finish", text, instead: "wanted = present()" }]);
    await expect(forgetBetween({ spoil })).rejects.toThrow("token of a later grant");
  });
});

function of(title: keyof typeof FORGETTINGS): Forgetting {
  const forgetting = FORGETTINGS[title];
  if (forgetting === undefined) throw new Error(`nothing is known of a Redis that ${title}`);
  return forgetting;
}

async function leaseOf(authority: Authority, name: string): Promise<Lease> {
  const taken = await authority.take(takeOrder(name));
  if (taken.kind !== "granted") throw new Error(`not granted: ${taken.kind}`);
  return taken.lease;
}

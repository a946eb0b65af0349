import { describe, expect, it } from "vitest";
import { slotOf } from "../../src/infra/redis-slot.ts";
import { keysOf } from "../../src/lock/authority/redis-keys.ts";
import { onFreePort } from "../support/free-port.ts";
import { type RedisCluster, startRedisCluster } from "../support/redis-cluster.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { releaseOrder, takeOrder } from "./authorities.ts";
import { epochOf, GrowingTokens } from "./growing-tokens.ts";
import { openRedisAuthorities, type RedisAuthoritiesOptions } from "./redis-authorities.ts";
import { redisCommand } from "./redis-command.ts";
import { withBugs } from "./spoilt-redis.ts";

const NAMES = Array.from({ length: 200 }, (_, at) => `lock-${at}`);
const LAST_SLOT_OF_FIRST = 5_461;

function urlOf({ nodes }: RedisCluster): string {
  return `redis-cluster://${nodes.map(({ port }) => `127.0.0.1:${port}`).join(",")}`;
}

/** A replica of the first master, in sync with it. */
async function addReplica({ nodes }: RedisCluster): Promise<RedisServer> {
  const [master] = nodes;
  if (master === undefined) throw new Error("there is no master");
  // Who stops it must not wait until those that follow it know all.
  const quickly = ["--repl-diskless-sync-delay", "0", "--shutdown-timeout", "0", "--cluster-node-timeout", "2000"];
  const replica = await onFreePort((busPort) =>
    startRedis({ args: ["--cluster-enabled", "yes", "--cluster-port", String(busPort), ...quickly] }),
  );
  const [, bus] = /@(\d+)/.exec(await nodesOf(master.url)) ?? [];
  await redisCommand(master.url, "config", "set", "repl-diskless-sync-delay", 0, "shutdown-timeout", 0);
  await redisCommand(replica.url, "cluster", "meet", "127.0.0.1", master.port, Number(bus));
  const id = String(await redisCommand(master.url, "cluster", "myid"));
  await until(async () => (await redisCommand(replica.url, "cluster", "replicate", id)) === "OK", {
    what: "a replica",
  });
  const self = String(await redisCommand(replica.url, "cluster", "myid"));
  for (const { url } of nodes) {
    const isKnown = async () => new RegExp(`^${self} .*slave ${id} .*connected`, "m").test(await nodesOf(url));
    await until(isKnown, { what: "the cluster to know the replica" });
  }
  const known = async () => (await nodesOf(replica.url)).split("\n").filter((line) => / connected( |$)/.test(line));
  await until(async () => (await known()).length === nodes.length + 1, { what: "the replica to know the cluster" });
  await until(async () => (await replicationOf(master.url)).includes("state=online"), { what: "replication" });
  return replica;
}

async function nodesOf(url: string): Promise<string> {
  return String(await redisCommand(url, "cluster", "nodes"));
}

async function replicationOf(url: string): Promise<string> {
  return String(await redisCommand(url, "info", "replication"));
}

/**
 * The replica takes the slots over while it knows nothing of the last grants, and the master goes on, and sends callers
 * there.
 */
async function takeOver(options: RedisAuthoritiesOptions = {}): Promise<void> {
  await using cluster = await startRedisCluster();
  await using replica = await addReplica(cluster);
  const name = NAMES.find((one) => slotOf(keysOf(one, 64).record) <= LAST_SLOT_OF_FIRST) ?? "";
  const [{ url: master } = replica] = cluster.nodes;
  await using opened = await openRedisAuthorities({ ...options, url: urlOf(cluster), count: 2 });
  const tokens = new GrowingTokens(name);
  for (const { authority } of opened.instances) await tokens.grow(authority, 2);
  await redisCommand(replica.url, "config", "set", "masterauth", "wrong");
  await redisCommand(master, "client", "kill", "type", "replica");
  const isAlone = async () => (await replicationOf(master)).includes("connected_slaves:0");
  await until(isAlone, { what: "the master to have no replica" });
  for (const { authority } of opened.instances) await tokens.grow(authority, 3);
  await redisCommand(replica.url, "cluster", "failover", "takeover");
  const follows = async () => (await replicationOf(master)).includes("role:slave");
  await until(follows, { what: "the old master to follow the new one" });
  for (const { authority } of opened.instances) await tokens.grow(authority, 2);
}

describe("locks in a Redis Cluster", () => {
  it("are spread over all of it, and each is granted once", async () => {
    await using cluster = await startRedisCluster();
    await using opened = await openRedisAuthorities({ url: urlOf(cluster), count: 2 });
    const { instances } = opened;
    const [{ authority }] = instances;
    const taken = await Promise.all(
      NAMES.flatMap((name) => instances.map((instance) => instance.authority.take(takeOrder(name)))),
    );
    const grants = taken.flatMap((one) => (one.kind === "granted" ? [one.lease.grant] : []));
    expect(grants.map(({ name }) => name)).toEqual(NAMES);
    const partitions = new Set(NAMES.map((name) => keysOf(name, 64).partition));
    expect(partitions.size).toBeGreaterThan(50);
    const epochs = new Map<number, number>();
    for (const { name, token } of grants) {
      const { partition } = keysOf(name, 64);
      expect(epochs.get(partition) ?? epochOf(token), "the epoch of a partition").toBe(epochOf(token));
      epochs.set(partition, epochOf(token));
    }
    expect(new Set(await listed(authority))).toEqual(new Set(NAMES));
    await Promise.all(grants.map((grant) => authority.release(releaseOrder(grant))));
    expect(await listed(authority)).toEqual([]);
  });

  it("have tokens that grow when a replica takes over that knows less", async () => {
    await takeOver();
  });

  it("show a marker that does not say which life it is of", async () => {
    const spoil = withBugs([
      {
        script: "lock-take",
        text: "not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. ARGV[2], 1, true)",
        instead: "false",
      },
    ]);
    await expect(takeOver({ spoil })).rejects.toThrow("token of a later grant");
  });
});

async function listed(authority: Parameters<GrowingTokens["grow"]>[0]): Promise<string[]> {
  const names: string[] = [];
  let after: string | undefined;
  do {
    const page = await authority.list({ prefix: "lock-", owner: undefined, mayUse: () => true, limit: 50, after });
    names.push(...page.leases.map(({ grant }) => grant.name));
    after = page.after;
  } while (after !== undefined);
  return names;
}

import { setTimeout as delay } from "node:timers/promises";
import { Redis } from "ioredis";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { LockOutcome } from "../../src/gen/holdfast/v1/lock_pb.js";
import { type CacheClient, CallFailed, createCacheClient } from "../support/cache-client.ts";
import type { FencedWrite } from "../support/fenced-history.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { createLockClient, type LockClient, ms } from "../support/lock-client.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { durableConfig } from "./outage.ts";

export interface FencedRun {
  readonly history: readonly FencedWrite[];
  /** What is there in the end, by namespace and key. */
  readonly left: ReadonlyMap<string, string>;
  /** Why calls failed, and how often. */
  readonly failed: Readonly<Record<string, number>>;
}

export interface FencedScene {
  readonly redis: RedisServer;
  readonly instances: readonly HoldfastProcess[];
  flush(): Promise<void>;
}

const INSTANCES = 2;
const LOCKS = ["jobs/a", "jobs/b"];
const NAMESPACES = ["default", "durable"];
const HOLDERS_OF_EACH = 3;
const LEASE_MS = 150;
/** Holders go on for this long after their leases, as if they did not know. */
const ZOMBIE_MS = 400;
const PAUSE_MS = 3;

/**
 * Holders of a few locks take turns and write under them through several instances on one Redis and one Postgres, also after their
 * leases have ended, while `harm` is done.
 */
export async function runFenced(harm: (scene: FencedScene) => Promise<void>, root?: string): Promise<FencedRun> {
  await using parts = new AsyncDisposableStack();
  const redis = parts.use(await startRedis());
  const env = {
    REDIS_URL: redis.url,
    DATABASE_URL: await freshDatabase(),
    HOLDFAST_CONFIG: durableConfig(parts),
    // Redis is flushed and frozen; the locks are to go on, so that tokens do.
    LOCK_AUTHORITY: "postgres",
    // What is frozen for a while is waited for, and carried out late.
    REDIS_COMMAND_TIMEOUT: "10s",
  };
  const instances = await Promise.all(
    Array.from({ length: INSTANCES }, async () => parts.use(await startHoldfast(env, root))),
  );
  const clients = instances.map(({ grpcAddress }) => ({
    cache: parts.use(createCacheClient(grpcAddress, { deadlineMs: 30_000 })),
    locks: parts.use(createLockClient(grpcAddress, { deadlineMs: 30_000 })),
  }));
  for (const { cache } of clients) {
    const used = async () => (await cache.put("default", "warm-up", "x")).servedBy === "redis";
    await until(used, { what: "Redis to be used" });
  }
  const failed: Record<string, number> = {};
  const history: FencedWrite[] = [];
  const over = new AbortController();
  const holders = clients.flatMap((client) =>
    LOCKS.flatMap((lock) =>
      Array.from({ length: HOLDERS_OF_EACH }, () => holdOver({ ...client, lock, history, failed, over: over.signal })),
    ),
  );
  const operator = parts.adopt(new Redis(redis.url), (it) => it.disconnect());
  const flush = async () => {
    await operator.flushall();
  };
  await harm({ redis, instances, flush }).finally(() => over.abort());
  await Promise.all(holders);
  const [reader] = clients;
  const left = new Map<string, string>();
  for (const key of new Set(history.map((write) => write.key))) {
    const [namespace = "", name = ""] = key.split("/");
    const value = await reader?.cache.text(namespace, name, true);
    if (value !== undefined) left.set(key, value);
  }
  return { history, left, failed };
}

interface Holder {
  readonly cache: CacheClient;
  readonly locks: LockClient;
  readonly lock: string;
  readonly history: FencedWrite[];
  readonly failed: Record<string, number>;
  readonly over: AbortSignal;
}

async function holdOver(holder: Holder): Promise<void> {
  const { locks, lock, failed, over } = holder;
  while (!over.aborted) {
    try {
      const { outcome, lock: held } = await locks.acquire(lock, { ttl: ms(LEASE_MS), waitTimeout: ms(1_000) });
      if (outcome === LockOutcome.ACQUIRED && held !== undefined) await writeUnder(holder, Number(held.fencingToken));
    } catch (error) {
      note(failed, error);
      await delay(PAUSE_MS);
    }
  }
}

/** Until it is refused, or long after its lease. */
async function writeUnder(holder: Holder, token: number): Promise<void> {
  const end = performance.now() + LEASE_MS + ZOMBIE_MS * Math.random();
  for (let round = 0; performance.now() < end; round++) {
    const writes = NAMESPACES.flatMap((namespace) =>
      ["one", "two"].map((key) => writeOne(holder, token, namespace, key, round)),
    );
    const stored = await Promise.all(writes);
    if (stored.includes(false)) return;
    await delay(PAUSE_MS);
  }
}

async function writeOne(
  { cache, lock, history, failed }: Holder,
  token: number,
  namespace: string,
  name: string,
  round: number,
): Promise<boolean | undefined> {
  const key = `${name} of ${lock.replace("/", "-")}`;
  const value = `${token} ${round}`;
  const began = performance.now();
  let stored: boolean | undefined;
  let version: number | undefined;
  try {
    const { reply } = await cache.call(CacheService.method.set, {
      namespace,
      key,
      value: { kind: { case: "text", value } },
      fencing: { lock, token: BigInt(token) },
    });
    stored = true;
    version = Number(reply.version);
  } catch (error) {
    if (note(failed, error).startsWith("FENCING_")) stored = false;
  }
  const write = { lock, key: `${namespace}/${key}`, token, value, began, ended: performance.now(), stored };
  history.push(version === undefined ? write : { ...write, version });
  return stored;
}

function note(failed: Record<string, number>, error: unknown): string {
  if (!(error instanceof CallFailed)) throw error;
  const why = error.reason || error.code;
  failed[why] = (failed[why] ?? 0) + 1;
  return why;
}

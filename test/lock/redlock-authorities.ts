import { join } from "node:path";
import { createBreaker } from "../../src/infra/circuit-breaker.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { createSqlClock } from "../../src/infra/sql-clock.ts";
import type { Heads } from "../../src/lock/authority/head.ts";
import { createRedlockAuthority } from "../../src/lock/authority/redlock-authority.ts";
import type { RedlockServer } from "../../src/lock/authority/redlock-master.ts";
import { createSqlHeads } from "../../src/lock/authority/sql-heads.ts";
import { openRedis } from "../cache/instance.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { openTestDatabase } from "../support/test-database.ts";
import type { OpenAuthorities, OpenAuthority } from "./authorities.ts";

/** A Redis that knows nothing of the others, and the way to it. */
export interface TestMaster {
  readonly server: RedisServer;
  readonly way: TcpProxy;
  readonly url: string;
}

export interface TestMasters extends AsyncDisposable {
  readonly masters: readonly TestMaster[];
}

export async function startMasters(count: number): Promise<TestMasters> {
  await using parts = new AsyncDisposableStack();
  const start = async (): Promise<TestMaster> => {
    const server = parts.use(await startRedis());
    const way = parts.use(await startTcpProxy(server.port));
    return { server, way, url: `redis://127.0.0.1:${way.port}` };
  };
  const masters = await Promise.all(Array.from({ length: count }, start));
  const kept = parts.move();
  return { masters, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

export interface RedlockAuthoritiesOptions {
  readonly count?: number;
  readonly commandTimeoutMs?: number;
  /** Stands between the authority and each of its masters, with a bug planted in it. */
  readonly spoil?: (redis: Redis) => Redis;
  /** Stands between the authority and what knows the epochs. */
  readonly spoilHeads?: (heads: Heads) => Heads;
}

export interface OpenRedlockAuthorities extends OpenAuthorities {
  /** Whether every instance reaches every master. */
  isWhole(): boolean;
}

/** Instances that share these masters, and a SQL database with nothing in it. What the masters had is forgotten first. */
export async function openRedlockAuthorities(
  { masters }: Pick<TestMasters, "masters">,
  options: RedlockAuthoritiesOptions = {},
): Promise<OpenRedlockAuthorities> {
  const { count = 1, commandTimeoutMs = 500, spoil = (redis) => redis, spoilHeads = (heads) => heads } = options;
  await using parts = new AsyncDisposableStack();
  const directory = parts.adopt(scratchDirectory("redlock"), (it) => it.remove());
  const database = parts.adopt(openTestDatabase("sqlite", join(directory.path, "head.db")), (it) => it.close());
  await migrate(database, migrations);
  const heads = spoilHeads(createSqlHeads(database, createSqlClock("sqlite", systemClock)));
  await heads.become("redlock");
  const all: OpenMaster[] = [];
  const open = (): OpenAuthority => {
    const announced: string[] = [];
    const servers = masters.map(({ url }) => parts.use(openMaster(url, commandTimeoutMs)));
    all.push(...servers);
    const authority = parts.adopt(
      createRedlockAuthority({
        servers: servers.map((server) => ({ ...server, redis: spoil(server.redis) })),
        ...{ commandTimeoutMs, heads, clock: systemClock, log: createLog({ level: "silent" }) },
        announce: async (name) => void announced.push(name),
      }),
      (it) => it.close(),
    );
    return { authority, announced };
  };
  await Promise.all(masters.map(flush));
  const instances: [OpenAuthority, ...OpenAuthority[]] = [open()];
  while (instances.length < count) instances.push(open());
  const kept = parts.move();
  return {
    instances,
    isWhole: () => all.every(({ redis, breaker }) => redis.connected && breaker.state === "closed"),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

export interface OpenMaster extends RedlockServer, AsyncDisposable {}

export function openMaster(url: string, commandTimeoutMs: number): OpenMaster {
  const redis = openRedis(url, commandTimeoutMs);
  const breaker = createBreaker({
    ...{ part: `lock master ${url}`, failureThreshold: 3, resetTimeoutMs: 200, halfOpenMaxCalls: 1 },
    probe: async () => void (await redis.ping()),
    clock: systemClock,
  });
  const close = async () => {
    breaker.close();
    await redis.close();
  };
  return { name: url, redis, breaker, [Symbol.asyncDispose]: close };
}

/** Makes it forget everything, while it runs. */
export async function flush({ server }: TestMaster): Promise<void> {
  await using master = openMaster(server.url, 5_000);
  await master.redis.command("flushall");
}

/** Whether what it says counts: older leases are over. */
export async function votes({ server }: TestMaster): Promise<boolean> {
  await using master = openMaster(server.url, 5_000);
  const [from, time] = await Promise.all([
    master.redis.command("hget", "holdfast:redlock:life", "from"),
    master.redis.command("time"),
  ]);
  if (from === null || !Array.isArray(time)) return false;
  return Number(time[0]) * 1000 + Number(time[1]) / 1000 > Number(from);
}

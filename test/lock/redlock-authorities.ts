import { join } from "node:path";
import { createBreaker } from "../../src/infra/circuit-breaker.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import type { Heads } from "../../src/lock/authority/head.ts";
import { createRedlockAuthority } from "../../src/lock/authority/redlock-authority.ts";
import type { RedlockServer } from "../../src/lock/authority/redlock-master.ts";
import { createSqlClock } from "../../src/lock/authority/sql-clock.ts";
import { createSqlHeads } from "../../src/lock/authority/sql-heads.ts";
import { openRedis } from "../cache/instance.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { openTestDatabase } from "../support/test-database.ts";
import type { OpenAuthorities, OpenAuthority } from "./authorities.ts";

export interface Masters extends AsyncDisposable {
  readonly servers: readonly RedisServer[];
}

/** Redis servers that know nothing of each other. */
export async function startMasters(count: number): Promise<Masters> {
  await using parts = new AsyncDisposableStack();
  const starts = Array.from({ length: count }, async () => parts.use(await startRedis()));
  const servers = await Promise.all(starts);
  const kept = parts.move();
  return { servers, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

export interface OpenRedlockAuthorities extends OpenAuthorities {
  readonly heads: Heads;
}

const COMMAND_TIMEOUT_MS = 300;

/** Instances that share these masters, and a SQL database with nothing in it. What the masters had is forgotten first. */
export async function openRedlockAuthorities(
  { servers }: Pick<Masters, "servers">,
  count: number,
  commandTimeoutMs = COMMAND_TIMEOUT_MS,
): Promise<OpenRedlockAuthorities> {
  await using parts = new AsyncDisposableStack();
  const directory = parts.adopt(scratchDirectory("redlock"), (it) => it.remove());
  const database = parts.adopt(openTestDatabase("sqlite", join(directory.path, "head.db")), (it) => it.close());
  await migrate(database, migrations);
  const heads = createSqlHeads(database, createSqlClock("sqlite", systemClock));
  await heads.become("redlock");
  const open = (): OpenAuthority => {
    const announced: string[] = [];
    const masters = servers.map(({ url }) => {
      const server = openMaster(url, commandTimeoutMs);
      parts.defer(() => server.redis.close());
      parts.defer(() => server.breaker.close());
      return server;
    });
    const authority = parts.adopt(
      createRedlockAuthority({
        ...{ servers: masters, commandTimeoutMs, heads, clock: systemClock, log: createLog({ level: "silent" }) },
        announce: async (name) => void announced.push(name),
      }),
      (it) => it.close(),
    );
    return { authority, announced };
  };
  await Promise.all(servers.map(flush));
  const instances: [OpenAuthority, ...OpenAuthority[]] = [open()];
  while (instances.length < count) instances.push(open());
  const kept = parts.move();
  return { instances, heads, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

export function openMaster(url: string, commandTimeoutMs: number): RedlockServer {
  const redis = openRedis(url, commandTimeoutMs);
  const breaker = createBreaker({
    ...{ part: `lock master ${url}`, failureThreshold: 3, resetTimeoutMs: 200, halfOpenMaxCalls: 1 },
    probe: async () => void (await redis.ping()),
    clock: systemClock,
  });
  return { name: url, redis, breaker };
}

/** Makes it forget everything, while it runs. */
export async function flush({ url }: RedisServer): Promise<void> {
  const { redis, breaker } = openMaster(url, 5_000);
  await redis.command("flushall");
  breaker.close();
  await redis.close();
}

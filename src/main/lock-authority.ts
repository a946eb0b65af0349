import { type Config, ConfigError } from "../config.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import type { Log } from "../infra/log.ts";
import { createSqlClock } from "../infra/sql-clock.ts";
import type { Sweeper } from "../infra/sweeper.ts";
import { type Authority, LOCK_TOPIC } from "../lock/authority/authority.ts";
import type { Heads } from "../lock/authority/head.ts";
import { createSqlAuthority } from "../lock/authority/sql-authority.ts";
import { createSqlHeads } from "../lock/authority/sql-heads.ts";
import { startLockSweeper } from "../lock/authority/sql-sweeper.ts";
import type { Coordination } from "./coordination.ts";

export interface LockAuthorityParts extends Pick<Coordination, "redis" | "backplane" | "frame"> {
  readonly config: Config;
  readonly log: Log;
  readonly database: Database;
  readonly parts: AsyncDisposableStack;
}

/** Who decides about locks, by the configuration. */
export async function openLockAuthority(parts: LockAuthorityParts): Promise<Authority> {
  const { config, database, backplane, log } = parts;
  const clock = createSqlClock(database.kind, systemClock);
  const heads = createSqlHeads(database, clock);
  if (config.lock.authority === "redis") return openRedis(parts, heads);
  if (config.lock.authority === "redlock") return openRedlock(parts, heads);
  await heads.become(database.kind);
  parts.parts.adopt(startLockSweeper({ database, clock, log }), (it: Sweeper) => it.close());
  const announce = (name: string) => backplane.publish(LOCK_TOPIC, name);
  return createSqlAuthority({ database, heads, clock, log, announce });
}

/** Loaded only where there is Redis, as all that speaks to it. */
async function openRedis({ config, redis, frame, log }: LockAuthorityParts, heads: Heads): Promise<Authority> {
  if (redis === undefined) throw new Error("Redis decides about locks, and there is none");
  if (config.lock.fallback !== undefined) {
    throw new ConfigError([
      { where: "LOCK_FALLBACK", what: "is postgres, wanted none: this build does not fail over" },
    ]);
  }
  const [{ createRedisAuthority }, { epochFloorOf }, { createHeadedAuthority }] = await Promise.all([
    import("../lock/authority/redis-authority.ts"),
    import("../lock/authority/redis-lives.ts"),
    import("../lock/authority/headed-authority.ts"),
  ]);
  const { client, breaker } = redis;
  return createHeadedAuthority({
    ...{ mode: "redis", heads, clock: systemClock, log },
    open: (head) =>
      createRedisAuthority({
        ...{ redis: client, breaker, heads, frame, clock: systemClock, log },
        commandTimeoutMs: config.redis?.commandTimeoutMs ?? Number.POSITIVE_INFINITY,
        epochFloor: () => epochFloorOf(head(), client.mode),
      }),
  });
}

async function openRedlock(options: LockAuthorityParts, heads: Heads): Promise<Authority> {
  const { config, backplane, parts, log } = options;
  const [{ createRedlockAuthority }, { startRedis }, { createBreaker }] = await Promise.all([
    import("../lock/authority/redlock-authority.ts"),
    import("./redis.ts"),
    import("../infra/circuit-breaker.ts"),
  ]);
  await heads.become("redlock");
  const servers = [];
  for (const settings of config.lock.redlock) {
    const name = settings.target.nodes.map(({ host, port }) => `${host}:${port}`).join();
    const redis = parts.adopt(await startRedis(settings, log), (it) => it.close());
    const breaker = parts.adopt(
      createBreaker({
        ...config.breaker,
        part: name,
        probe: async () => void (await redis.ping()),
        clock: systemClock,
        log: log.child({ component: "breaker" }),
      }),
      (it) => it.close(),
    );
    servers.push({ name, redis, breaker });
  }
  const commandTimeoutMs = Math.max(...config.lock.redlock.map((settings) => settings.commandTimeoutMs));
  const announce = (name: string) => backplane.publish(LOCK_TOPIC, name);
  return createRedlockAuthority({ servers, commandTimeoutMs, heads, clock: systemClock, log, announce });
}

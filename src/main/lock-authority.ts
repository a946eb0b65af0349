import type { Config } from "../config.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import { createSqlClock, type SqlClock } from "../infra/sql-clock.ts";
import type { Sweeper } from "../infra/sweeper.ts";
import { type Authority, LOCK_TOPIC } from "../lock/authority/authority.ts";
import type { Head, Heads } from "../lock/authority/head.ts";
import { createSqlAuthority } from "../lock/authority/sql-authority.ts";
import { createSqlHeads } from "../lock/authority/sql-heads.ts";
import { startLockSweeper } from "../lock/authority/sql-sweeper.ts";
import type { Coordination } from "./coordination.ts";

export interface LockAuthorityParts extends Pick<Coordination, "redis" | "backplane" | "frame"> {
  readonly config: Config;
  readonly log: Log;
  /** Names no component yet: what speaks to the masters of Redlock names itself. */
  readonly plainLog: Log;
  readonly metrics: Metrics;
  readonly database: Database;
  /** To be called when a master of Redlock is given up, or is back. */
  readonly mastersChanged: () => void;
  readonly parts: AsyncDisposableStack;
}

/** Who decides about locks, by the configuration. */
export async function openLockAuthority(parts: LockAuthorityParts): Promise<Authority> {
  const { config, metrics, database } = parts;
  const changes = metrics.counter("holdfast_lock_authority_changes_total", "Changes of who decides about locks", [
    "authority",
  ]);
  const clock = createSqlClock(database.kind, systemClock);
  const heads = createSqlHeads(database, clock);
  if (config.lock.authority === "redlock") return openRedlock(parts, heads);
  if (config.lock.authority !== "redis") {
    await heads.become(database.kind);
    return openSql(parts, clock);
  }
  if (config.lock.fallback === undefined) return openRedis(parts, heads);
  return openFailover({ ...parts, onChange: (mode) => changes.with({ authority: mode }).inc() }, heads, clock);
}

function openSql({ database, backplane, parts, log }: LockAuthorityParts, clock: SqlClock): Authority {
  parts.adopt(startLockSweeper({ database, clock, log }), (it: Sweeper) => it.close());
  const announce = (name: string) => backplane.publish(LOCK_TOPIC, name);
  return createSqlAuthority({ database, clock, log, announce });
}

async function openRedis(parts: LockAuthorityParts, heads: Heads): Promise<Authority> {
  const { createHeadedAuthority } = await import("../lock/authority/headed-authority.ts");
  const open = await redisOver(parts, heads);
  return createHeadedAuthority({ open, mode: "redis", heads, clock: systemClock, log: parts.log });
}

/** Loaded only where there is Redis, as all that speaks to it. */
async function redisOver({ config, redis, frame, log }: LockAuthorityParts, heads: Heads) {
  if (redis === undefined) throw new Error("Redis decides about locks, and there is none");
  const [{ createRedisAuthority }, { epochFloorOf }] = await Promise.all([
    import("../lock/authority/redis-authority.ts"),
    import("../lock/authority/redis-lives.ts"),
  ]);
  const { client, breaker } = redis;
  return (head: () => Head) =>
    createRedisAuthority({
      ...{ redis: client, breaker, heads, frame, clock: systemClock, log },
      commandTimeoutMs: config.redis?.commandTimeoutMs ?? Number.POSITIVE_INFINITY,
      epochFloor: () => epochFloorOf(head(), client.mode),
    });
}

interface FailoverParts extends LockAuthorityParts {
  readonly onChange: (mode: string) => void;
}

/** Redis, and Postgres while it is away. */
async function openFailover(options: FailoverParts, heads: Heads, clock: SqlClock): Promise<Authority> {
  const { config, redis, database, onChange, parts, log } = options;
  if (redis === undefined) throw new Error("Redis decides about locks, and there is none");
  const [{ openReigns }, { createFailoverAuthority }, { startFailoverSwitch }, { createSqlFallback }, openOverRedis] =
    await Promise.all([
      import("../lock/authority/reigns.ts"),
      import("../lock/authority/failover-authority.ts"),
      import("../lock/authority/failover-switch.ts"),
      import("../lock/authority/sql-fallback.ts"),
      redisOver(options, heads),
    ]);
  // Postgres may have taken over, and gives back when all instances reach Redis.
  if ((await heads.read()).mode !== "postgres") await heads.become("redis");
  const reigns = await openReigns({ heads, clock: systemClock, log, onChange });
  const authority = createFailoverAuthority({
    ...{ redis: openOverRedis(() => reigns.head), postgres: openSql(options, clock), reigns, log },
  });
  const { client, breaker } = redis;
  parts.adopt(
    startFailoverSwitch({
      isRedisWell: async () => {
        if (breaker.state !== "closed" || !client.connected) return false;
        return client.ping().then(
          () => true,
          () => false,
        );
      },
      fallback: createSqlFallback({ database, clock, instanceId: config.instanceId }),
      ...{ reigns, log },
    }),
    (it) => it.close(),
  );
  return authority;
}

async function openRedlock(options: LockAuthorityParts, heads: Heads): Promise<Authority> {
  const { config, backplane, parts, log, plainLog, mastersChanged } = options;
  const [{ createRedlockAuthority }, { startRedis }, { createBreaker }] = await Promise.all([
    import("../lock/authority/redlock-authority.ts"),
    import("./redis.ts"),
    import("../infra/circuit-breaker.ts"),
  ]);
  await heads.become("redlock");
  const servers = [];
  for (const settings of config.lock.redlock) {
    const name = settings.target.nodes.map(({ host, port }) => `${host}:${port}`).join();
    const redis = parts.adopt(await startRedis(settings, plainLog), (it) => it.close());
    const breaker = parts.adopt(
      createBreaker({
        ...config.breaker,
        part: name,
        probe: async () => void (await redis.ping()),
        clock: systemClock,
        log: plainLog.child({ component: "breaker" }),
      }),
      (it) => it.close(),
    );
    breaker.onStateChange(mastersChanged);
    redis.onConnected(mastersChanged);
    servers.push({ name, redis, breaker });
  }
  const commandTimeoutMs = Math.max(...config.lock.redlock.map((settings) => settings.commandTimeoutMs));
  const announce = (name: string) => backplane.publish(LOCK_TOPIC, name);
  return createRedlockAuthority({ servers, commandTimeoutMs, heads, clock: systemClock, log, announce });
}

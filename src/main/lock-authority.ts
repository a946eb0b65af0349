import type { Config } from "../config.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import type { Log } from "../infra/log.ts";
import { type Authority, LOCK_TOPIC } from "../lock/authority/authority.ts";
import type { Heads } from "../lock/authority/head.ts";
import { createSqlAuthority } from "../lock/authority/sql-authority.ts";
import { createSqlClock } from "../lock/authority/sql-clock.ts";
import { createSqlHeads } from "../lock/authority/sql-heads.ts";
import { type LockSweeper, startLockSweeper } from "../lock/authority/sql-sweeper.ts";
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
  await heads.become(database.kind);
  parts.parts.adopt(startLockSweeper({ database, clock, log }), (it: LockSweeper) => it.close());
  const announce = (name: string) => backplane.publish(LOCK_TOPIC, name);
  return createSqlAuthority({ database, heads, clock, log, announce });
}

/** Loaded only where there is Redis, as all that speaks to it. */
async function openRedis({ config, redis, frame, log }: LockAuthorityParts, heads: Heads): Promise<Authority> {
  if (redis === undefined) throw new Error("Redis decides about locks, and there is none");
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

import type { Database } from "../../src/infra/database.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { createSqlClock, type SqlClock } from "../../src/infra/sql-clock.ts";
import { createFailoverAuthority } from "../../src/lock/authority/failover-authority.ts";
import { type FailoverPace, startFailoverSwitch } from "../../src/lock/authority/failover-switch.ts";
import type { FallbackHeads, Heads } from "../../src/lock/authority/head.ts";
import { epochFloorOf } from "../../src/lock/authority/redis-lives.ts";
import { openReigns, type Reigns } from "../../src/lock/authority/reigns.ts";
import { createSqlAuthority } from "../../src/lock/authority/sql-authority.ts";
import { createSqlFallback } from "../../src/lock/authority/sql-fallback.ts";
import { createSqlHeads } from "../../src/lock/authority/sql-heads.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { openTestDatabase } from "../support/test-database.ts";
import type { OpenAuthority } from "./authorities.ts";
import { openRedisAuthority } from "./redis-authorities.ts";

/** The clocks of Postgres, of the instances and of Redis, all ahead of the real time by as much. */
export interface FailoverTime {
  move(ms: number): void;
  /** The same, with the machines of the instances suspended meanwhile: their monotonic clocks stand still. */
  suspend(ms: number): void;
}

export interface OpenFailover extends OpenAuthority {
  readonly heads: Heads;
  readonly fallback: FallbackHeads;
  readonly reigns: Reigns;
  /** How often it has looked whether it reaches Redis. */
  readonly checks: number;
  /** Whether it reaches Postgres. */
  reachesSql: boolean;
}

export interface OpenFailovers extends AsyncDisposable {
  readonly instances: readonly [OpenFailover, ...OpenFailover[]];
  readonly time: FailoverTime;
  /** Makes Postgres decide, as an instance does that does not reach Redis; or Redis. All instances know when it resolves. */
  changeTo(mode: "postgres" | "redis"): Promise<void>;
  /** Forgets all locks. */
  empty(): Promise<void>;
}

export interface FailoversOptions {
  /** By which address each instance comes to Redis. Default: two, both straight to the Redis that the tests share. */
  readonly urls?: readonly string[];
  /** Default: who decides changes by hand only. */
  readonly pace?: Partial<FailoverPace>;
  /** Redis' clock stands still when time is moved. */
  readonly isRedisSlow?: boolean;
  /** Stands between the authority and its Redis. */
  readonly spoil?: (redis: Redis) => Redis;
  readonly commandTimeoutMs?: number;
}

/** They look so often for what would take seconds. */
const WATCH_MS = 20;

let opened = 0;

/** Instances whose locks Redis decides about, or Postgres in its place. */
export async function openFailovers(options: FailoversOptions = {}): Promise<OpenFailovers> {
  const { isRedisSlow = false, spoil, commandTimeoutMs = 2_000, pace } = options;
  await using parts = new AsyncDisposableStack();
  const where = await freshDatabase();
  const shared = options.urls === undefined ? await freshRedis() : "";
  const urls = options.urls ?? [shared, shared];
  const channel = `test-failover-${process.pid}-${opened++}`;
  const log = createLog({ level: "silent" });
  const emptying: (() => Promise<void>)[] = [];
  let aheadMs = 0;
  let suspendedMs = 0;
  const postgresClock = createSqlClock("postgres", { now: Date.now, monotonic: () => performance.now() });
  const sqlClock: SqlClock = async (session) => (await postgresClock(session)) + aheadMs;
  const clock = { now: () => Date.now() + aheadMs, monotonic: () => performance.now() + aheadMs - suspendedMs };

  const open = async (url: string, at: number): Promise<OpenFailover> => {
    const whole = parts.adopt(openTestDatabase("postgres", where), (it) => it.close());
    await migrate(whole, migrations);
    const database = reachable(whole, () => instance.reachesSql);
    const heads = createSqlHeads(database, sqlClock);
    await createSqlHeads(whole, sqlClock).become("redis");
    const opening: { reigns?: Reigns } = {};
    const redis = await openRedisAuthority(parts, {
      ...{ url, channel, heads, commandTimeoutMs },
      nowMs: () => Math.floor(Date.now() + (isRedisSlow ? 0 : aheadMs)),
      epochFloor: (mode) => () => (opening.reigns ? epochFloorOf(opening.reigns.head, mode) : 0),
      ...(spoil && { spoil }),
    });
    const { announced } = redis;
    emptying.push(async () => {
      announced.length = 0;
      await redis.redis.command("flushdb");
      for (const table of ["lock_record", "lock_attempt"]) await whole.write(`DELETE FROM ${table}`);
    });
    const postgres = createSqlAuthority({
      ...{ database, clock: sqlClock, log },
      announce: async (name) => void announced.push(name),
    });
    const fallback = createSqlFallback({ database, clock: sqlClock, instanceId: `i${at}` });
    let checks = 0;
    const instance = { announced, heads, fallback, reachesSql: true };
    const reigns = await openReigns({ heads, clock, log, watchMs: WATCH_MS });
    opening.reigns = reigns;
    const isRedisWell = async () => {
      checks++;
      if (redis.breaker.state !== "closed") return false;
      return redis.redis.ping().then(
        () => true,
        () => false,
      );
    };
    const authority = parts.adopt(createFailoverAuthority({ redis: redis.authority, postgres, reigns, log }), (it) =>
      it.close(),
    );
    if (pace) parts.adopt(startFailoverSwitch({ isRedisWell, fallback, reigns, log, pace }), (it) => it.close());
    return Object.defineProperty(Object.assign(instance, { authority, reigns, checks: 0 }), "checks", {
      get: () => checks,
    });
  };

  const [first = shared, ...others] = urls;
  const instances: [OpenFailover, ...OpenFailover[]] = [await open(first, 0)];
  for (const [at, url] of others.entries()) instances.push(await open(url, at + 1));
  const kept = parts.move();
  return {
    instances,
    time: {
      move(ms) {
        aheadMs += ms;
      },
      suspend(ms) {
        aheadMs += ms;
        suspendedMs += ms;
      },
    },
    async changeTo(mode) {
      await instances[0].heads.become(mode);
      for (const { reigns } of instances) await reigns.look();
    },
    async empty() {
      for (const emptyOne of emptying) await emptyOne();
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

/** A database that an instance may be cut off from. */
function reachable(database: Database, isReached: () => boolean): Database {
  const asked = <T>(ask: () => Promise<T>): Promise<T> =>
    isReached() ? ask() : Promise.reject(new UnavailableError("SQL_UNAVAILABLE", "cut off by the test"));
  return {
    ...database,
    query: (sql, params) => asked(() => database.query(sql, params)),
    write: (sql, params) => asked(() => database.write(sql, params)),
    transaction: (work) => asked(() => database.transaction(work)),
  };
}

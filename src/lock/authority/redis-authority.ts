import { LockAuthority } from "../../gen/holdfast/v1/lock_pb.js";
import type { Frame } from "../../infra/backplane-frame.ts";
import type { Breaker } from "../../infra/breaker.ts";
import type { Clock } from "../../infra/clock.ts";
import { createGuarded } from "../../infra/guarded.ts";
import type { Log } from "../../infra/log.ts";
import { RequestIdReusedError } from "../../infra/named-request.ts";
import { type Redis, type RedisArgument, RedisReplyError, type RedisScript } from "../../infra/redis.ts";
import { LockAuthorityUnavailableError } from "../failures.ts";
import type { LossCause, RenewOrder } from "../record/decide.ts";
import type { Authority, Looked, Renewed } from "./authority.ts";
import type { Heads } from "./head.ts";
import { ForeignRecordError, failureOf, MOST_TRIES, unexpected } from "./redis-answers.ts";
import { createRedisBatches } from "./redis-batches.ts";
import { keysOf, type LockKeys, partitionsOf } from "./redis-keys.ts";
import { listLocks } from "./redis-list.ts";
import { createRedisLives, type RedisLife } from "./redis-lives.ts";
import { createRedisPatience } from "./redis-patience.ts";
import { leaseOf } from "./redis-record.ts";
import { createRedisReleases } from "./redis-releases.ts";
import { lookScript, releaseScript, rememberScript, renewScript } from "./redis-scripts.ts";
import { createRedisStrays } from "./redis-strays.ts";
import { createRedisTakes } from "./redis-takes.ts";

export interface RedisAuthorityOptions {
  readonly redis: Redis;
  readonly breaker: Breaker;
  /** No call waits longer for Redis. */
  readonly commandTimeoutMs: number;
  /** Asked when a life of Redis begins, and only then. */
  readonly heads: Pick<Heads, "nextEpoch">;
  /** No smaller epoch is granted in: see epochFloorOf (redis-lives.ts). Asked for each call. */
  readonly epochFloor: () => number;
  /** Frames what tells the other instances that a lock is free. Undefined: there are none. */
  readonly frame: ((topic: string, message: string) => Frame) | undefined;
  readonly clock: Clock;
  readonly log: Log;
  /** The time instead of Redis', for tests. */
  readonly nowMs?: () => number;
}

type Values = readonly unknown[];

/**
 * Redis decides, in one atomic step for each call. What it has forgotten costs a new epoch, so that tokens never go back.
 * Locks are taken and released by the batch: each of them is asked for by itself, and most of all.
 */
export function createRedisAuthority(options: RedisAuthorityOptions): Authority {
  const { redis, breaker, commandTimeoutMs, frame, clock, log, nowMs } = options;
  const partitions = partitionsOf(redis.mode);
  const guarded = createGuarded(breaker, commandTimeoutMs, (error) => error instanceof RedisReplyError);
  const lives = createRedisLives({ ...options, guarded });
  const patience = createRedisPatience(clock, commandTimeoutMs);
  const time = () => nowMs?.() ?? 0;
  const heard = (keys: LockKeys, ms: number) => {
    if (nowMs === undefined) patience.heard(keys, ms);
  };
  const batches = createRedisBatches(redis, guarded);
  const releases = createRedisReleases({ batches, partitions, frame, time, heard });
  const strays = createRedisStrays({
    ...{ redis, clock, log },
    release(name, take) {
      const { keys, args } = releases.ofTake(name, take);
      return redis.run(releaseScript, keys, args);
    },
  });
  const take = createRedisTakes({
    ...{ batches, partitions, lives, strays, time, heard },
    patience: (keys) => (nowMs === undefined ? patience.until(keys) : 0),
  });

  function send(
    keys: LockKeys,
    script: RedisScript,
    scriptKeys: readonly string[],
    args: () => readonly RedisArgument[],
  ): Promise<Values> {
    return guarded(() => redis.run(script, scriptKeys, args())).then((reply) => {
      const values = Array.isArray(reply) ? reply : [];
      heard(keys, Number(values[1]));
      return values;
    });
  }

  /** For what has to be done in the life that the partition is in. */
  function sendAlive(
    keys: LockKeys,
    script: RedisScript,
    scriptKeys: readonly string[],
    args: (life: RedisLife) => readonly RedisArgument[],
    tries = MOST_TRIES,
  ): Promise<Values> {
    if (tries === 0) {
      return Promise.reject(new LockAuthorityUnavailableError("Redis begins one life after another"));
    }
    const again = () => sendAlive(keys, script, scriptKeys, args, tries - 1);
    const life = lives.of(keys);
    if (life === undefined) return lives.begin(keys).then(again);
    return send(keys, script, scriptKeys, () => args(life)).then((values) => {
      const [kind] = values;
      if (kind !== "life") return values;
      lives.ended(keys, life);
      return again();
    });
  }

  function renew({ name, token, ttlMs, streamId, heir }: RenewOrder): Promise<Renewed> {
    const keys = keysOf(name, partitions);
    const args = ({ name: life, epoch }: RedisLife) => [
      ...[time(), life, epoch, token, ttlMs ?? "", optional(streamId)],
      ...[optional(heir?.streamId), heir?.instanceId ?? ""],
    ];
    return sendAlive(keys, renewScript, [keys.record, keys.life, keys.attempts], args).then(
      ([kind, time, ...record]) => {
        const lease = leaseOf(name, Number(time), record);
        if (isLossCause(kind)) return { kind: "over", cause: kind, holder: lease };
        if (kind !== "renewed" || lease === undefined) throw unexpected(renewScript, kind);
        return { kind, lease };
      },
      rethrow,
    );
  }

  function look(name: string): Promise<Looked> {
    const keys = keysOf(name, partitions);
    const args = ({ name: life, epoch }: RedisLife) => [time(), life, epoch];
    return sendAlive(keys, lookScript, [keys.record, keys.life], args).then(([kind, time, ...more]) => {
      if (kind === "free") return { lease: undefined, lastToken: Number(more[0]) };
      const lease = leaseOf(name, Number(time), more);
      if (lease === undefined) throw unexpected(lookScript, kind);
      return { lease, lastToken: lease.grant.token };
    }, rethrow);
  }

  return {
    kind: LockAuthority.REDIS,
    take,
    renew,
    release: releases.release,
    look,
    list: (query) =>
      listLocks(
        {
          scan: (pattern, cursor, count) => guarded(() => redis.scan(pattern, cursor, count)),
          look: (name) => look(name).then(({ lease }) => lease, withoutForeign),
        },
        query,
      ).catch(rethrow),
    remember(name, { id, meaning }, text) {
      const keys = keysOf(name, partitions);
      return send(keys, rememberScript, [keys.attempts + id], () => [time(), meaning, text]).then(([kind, , kept]) => {
        if (kind === "reused") throw new RequestIdReusedError(id);
        return String(kept);
      }, rethrow);
    },
    async close() {
      strays.close();
    },
  };
}

function optional(text: string | undefined): string {
  return text === undefined ? "" : `=${text}`;
}

function isLossCause(kind: unknown): kind is LossCause {
  return kind === "expired" || kind === "released" || kind === "forced" || kind === "taken_over";
}

/** A listing goes on without it. */
function withoutForeign(error: unknown): undefined {
  if (!(error instanceof ForeignRecordError)) throw error;
}

function rethrow(error: unknown): never {
  throw failureOf(error);
}

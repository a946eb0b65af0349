import { randomBytes } from "node:crypto";
import { UnavailableError } from "../../infra/failure.ts";
import type { Guarded } from "../../infra/guarded.ts";
import type { Log } from "../../infra/log.ts";
import type { Redis } from "../../infra/redis.ts";
import { LockAuthorityChangingError, LockAuthorityUnavailableError } from "../failures.ts";
import { epochOf } from "../record/token.ts";
import type { Head, Heads } from "./head.ts";
import type { LockKeys } from "./redis-keys.ts";
import { beginScript, finishScript } from "./redis-life-scripts.ts";

export interface RedisLivesOptions {
  readonly redis: Redis;
  readonly guarded: Guarded;
  readonly heads: Pick<Heads, "nextEpoch">;
  /** No smaller epoch is granted in. */
  readonly epochFloor: () => number;
  readonly log: Log;
}

export interface RedisLives {
  /** The smallest epoch in which a partition may answer this instance. */
  floorOf(keys: LockKeys): number;
  /** A token that the partition has granted: an answer in a smaller epoch would come from a Redis of before. */
  saw(keys: LockKeys, token: number): void;
  /** Resolves when the partition may be asked again: this instance began its life, or another one did. */
  begin(keys: LockKeys): Promise<void>;
}

/**
 * The epoch of the head below which nothing may be granted. Where Redis has one partition, its life is the newest one that took an
 * epoch; in a cluster each partition has an epoch of its own, and all are at least that in which Redis began to decide.
 */
export function epochFloorOf(head: Head, mode: Redis["mode"]): number {
  return mode === "cluster" ? head.sinceEpoch : head.epoch;
}

export function createRedisLives({ redis, guarded, heads, epochFloor, log }: RedisLivesOptions): RedisLives {
  const seen: number[] = [];
  const beginning = new Map<number, Promise<void>>();

  function floorOf({ partition }: LockKeys): number {
    return Math.max(seen[partition] ?? 0, epochFloor());
  }

  function saw({ partition }: LockKeys, token: number): void {
    const epoch = epochOf(token);
    if (epoch > (seen[partition] ?? 0)) seen[partition] = epoch;
  }

  async function begin(keys: LockKeys): Promise<void> {
    const reply = await guarded(() =>
      redis.run(beginScript, [keys.life], [floorOf(keys), randomBytes(9).toString("base64url")]),
    );
    const [kind, attempt, maxMemory, policy] = Array.isArray(reply) ? reply.map(String) : [];
    if (kind === "begun") return;
    if (kind !== "beginning" || attempt === undefined) {
      throw new LockAuthorityUnavailableError(
        "Redis does not say which life it is in (INFO replication: master_replid)",
      );
    }
    if (maxMemory !== "0" && policy !== "noeviction") {
      log.warn({ policy }, "Redis may evict locks while they are held: it should have the maxmemory-policy noeviction");
    }
    // Only now: whoever took a larger epoch before has granted nothing since that could be lost without this attempt.
    const epoch = await nextEpoch();
    await guarded(() => redis.run(finishScript, [keys.life], [attempt, epoch]));
    log.info({ partition: keys.partition, epoch }, "locks begin a new life of Redis");
  }

  async function nextEpoch(): Promise<number> {
    try {
      const epoch = await heads.nextEpoch("redis");
      if (epoch !== undefined) return epoch;
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      throw new LockAuthorityUnavailableError(
        "Redis began a new life, and SQL, which knows the epochs, is away",
        error,
      );
    }
    throw new LockAuthorityChangingError("Redis no longer decides");
  }

  return {
    floorOf,
    saw,
    begin(keys) {
      const { partition } = keys;
      let begun = beginning.get(partition);
      if (begun === undefined) {
        begun = begin(keys).finally(() => beginning.delete(partition));
        beginning.set(partition, begun);
      }
      return begun;
    },
  };
}

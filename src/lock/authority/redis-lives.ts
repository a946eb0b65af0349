import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { Guarded } from "../../infra/guarded.ts";
import type { Log } from "../../infra/log.ts";
import type { Redis } from "../../infra/redis.ts";
import { isTransient } from "../../infra/transient.ts";
import { LockAuthorityChangingError, LockAuthorityUnavailableError } from "../failures.ts";
import { MOST_EPOCHS } from "../record/token.ts";
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

/** A life of Redis, and the epoch that was begun in it. */
export interface RedisLife {
  readonly name: string;
  readonly epoch: number;
}

export interface RedisLives {
  /** The life in which the partition was last; undefined when there is to be another one. */
  of(keys: LockKeys): RedisLife | undefined;
  /** Resolves when the partition is in a life again: this instance began it, or another one did. */
  begin(keys: LockKeys): Promise<void>;
  /** Redis says that the partition is not in this life. */
  ended(keys: LockKeys, life: RedisLife): void;
}

/**
 * The epoch of the head below which nothing may be granted. Where Redis has one partition, its life is the newest one
 * that took an epoch. In a cluster each partition has an epoch of its own, and none may be smaller than that in which
 * Redis began to decide.
 */
export function epochFloorOf(head: Head, mode: Redis["mode"]): number {
  return mode === "cluster" ? head.sinceEpoch : head.epoch;
}

/** While another instance begins a life. */
const ASK_AGAIN_MS = 20;
const MOST_ASKED = 50;

/** What the marker had, unless it cannot have been an epoch of ours. */
function epochIn(text: string | undefined): number {
  const epoch = Number(text);
  return epoch < MOST_EPOCHS - 1 ? epoch : 0;
}

export function createRedisLives({ redis, guarded, heads, epochFloor, log }: RedisLivesOptions): RedisLives {
  const lives: (RedisLife | undefined)[] = [];
  /** The largest epoch seen: an answer in a smaller one would come from a Redis of before. */
  const seen: number[] = [];
  const beginning = new Map<number, Promise<void>>();

  async function begin({ partition, life: key }: LockKeys): Promise<void> {
    const [kind, name = "", was, maxMemory, policy] = await startOrWait(partition, key);
    if (kind === "begun") return adopt(partition, name);
    if (maxMemory !== "0" && policy !== "noeviction") {
      log.warn({ policy }, "Redis may evict locks that are held: its maxmemory-policy should be noeviction");
    }
    // Not before: see finishScript.
    const epoch = await nextEpoch(Math.max(seen[partition] ?? 0, epochIn(was)));
    const life = String(await guarded(() => redis.run(finishScript, [key], [name, epoch])));
    if (life === "") return;
    adopt(partition, life);
    log.info({ partition, epoch }, "locks go on in a new life of Redis");
  }

  async function startOrWait(partition: number, key: string): Promise<readonly string[]> {
    const attempt = randomBytes(9).toString("base64url");
    for (let asked = 0; asked < MOST_ASKED; asked++) {
      const least = Math.max(epochFloor(), seen[partition] ?? 0);
      const reply = await guarded(() => redis.run(beginScript, [key], [least, attempt]));
      const texts = Array.isArray(reply) ? reply.map(String) : [];
      if (texts[0] === "begun" || texts[0] === "beginning") return texts;
      if (texts[0] !== "waiting") {
        throw new LockAuthorityUnavailableError(
          "Redis does not say in which life it is: its account has to be allowed INFO",
        );
      }
      await delay(ASK_AGAIN_MS);
    }
    throw new LockAuthorityUnavailableError("another instance is beginning a life of Redis");
  }

  async function nextEpoch(beyond: number): Promise<number> {
    try {
      const epoch = await heads.nextEpoch("redis", beyond);
      if (epoch !== undefined) return epoch;
    } catch (error) {
      if (!isTransient(error)) throw error;
      throw new LockAuthorityUnavailableError("Redis began a new life, and SQL, which counts them, is away", error);
    }
    throw new LockAuthorityChangingError("Redis no longer decides");
  }

  function adopt(partition: number, marker: string): void {
    const [name = "", number] = marker.split(" ");
    const epoch = Number(number);
    lives[partition] = { name, epoch };
    seen[partition] = Math.max(seen[partition] ?? 0, epoch);
  }

  return {
    of({ partition }) {
      const life = lives[partition];
      return life !== undefined && life.epoch >= epochFloor() ? life : undefined;
    },
    begin(keys) {
      const { partition } = keys;
      let begun = beginning.get(partition);
      if (begun === undefined) {
        begun = begin(keys).finally(() => beginning.delete(partition));
        beginning.set(partition, begun);
      }
      return begun;
    },
    ended({ partition }, life) {
      if (lives[partition] === life) lives[partition] = undefined;
    },
  };
}

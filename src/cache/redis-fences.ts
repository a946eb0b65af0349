import { randomBytes } from "node:crypto";
import { LRUCache } from "lru-cache";
import type { Redis, RedisArgument } from "../infra/redis.ts";
import type { AskedFence } from "./store.ts";

/**
 * A fence key keeps the newest token of a lock that came to Redis, and the name of its era: from when the key was made until it is
 * gone, be it flushed, evicted or expired. A write names the era. If it is still the same as before SQL was asked for a newer
 * token, the key has seen all that came since; in any other, something newer may have been written and forgotten: then SQL is
 * asked again.
 */
export interface RedisFences {
  /** What the script takes for this fence: token, era, and the name of a new one. */
  argumentsOf(fenceKey: string, fence: AskedFence): readonly RedisArgument[];
  /** Called with the era that the script answered, and the life of its server. */
  learn(fenceKey: string, era: string, life: string | undefined): void;
}

interface Era {
  readonly name: string;
  /** Of the server: one that restarts may bring an era back, with a token of before. */
  readonly life: string;
  readonly learntAt: number;
}

/** Who is not among them is asked for first. */
const MOST_ERAS = 10_000;
const NO_ERA = "-";

/** `newStamp`: of this process's version clock. */
export function createRedisFences(redis: Pick<Redis, "lifeOf">, newStamp: () => number): RedisFences {
  const eras = new LRUCache<string, Era>({ maxSize: MOST_ERAS, sizeCalculation: () => 1 });

  return {
    argumentsOf(fenceKey, { token, askedAt }) {
      const era = eras.get(fenceKey);
      const isKnown = era !== undefined && era.learntAt < askedAt && era.life === redis.lifeOf(fenceKey);
      return [token, isKnown ? era.name : NO_ERA, `e${randomBytes(9).toString("base64url")}`];
    },
    learn(fenceKey, name, life) {
      const known = eras.get(fenceKey);
      if (life === undefined || (known?.name === name && known.life === life)) return;
      eras.set(fenceKey, { name, life, learntAt: newStamp() });
    },
  };
}

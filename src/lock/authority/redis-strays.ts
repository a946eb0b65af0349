import { randomBytes } from "node:crypto";
import type { Clock } from "../../infra/clock.ts";
import type { Log } from "../../infra/log.ts";
import type { Redis } from "../../infra/redis.ts";
import { systemTimer } from "../../infra/timer.ts";

export interface RedisStraysOptions {
  readonly redis: Pick<Redis, "onConnected">;
  readonly clock: Pick<Clock, "monotonic">;
  readonly log: Log;
  /** Releases `take` of the lock `name`, if that is what holds it; at once, or not at all. */
  readonly release: (name: string, take: string) => Promise<unknown>;
}

/** Takes whose answers never came, so that nobody knows whether they took the lock. */
export interface RedisStrays {
  /** A name for a take that no retry will ask for. */
  name(): string;
  /** If it took the lock, that is given back as soon as Redis is reached; its lease would end after `ttlMs`. */
  add(lock: string, take: string, ttlMs: number): void;
  close(): void;
}

/** More are left to run out. */
const MOST_STRAYS = 10_000;
const TRY_AGAIN_MS = 1_000;

export function createRedisStrays({ redis, clock, log, release }: RedisStraysOptions): RedisStrays {
  const life = randomBytes(6).toString("base64url");
  const strays = new Map<string, { readonly lock: string; readonly until: number }>();
  let takes = 0;
  let isClosed = false;
  let cancelTimer: (() => void) | undefined;

  async function giveBack(take: string, lock: string): Promise<void> {
    try {
      await release(lock, take);
      strays.delete(take);
    } catch (error) {
      log.debug({ err: error, lock }, "a lock that nobody waits for could not be given back yet");
      if (!isClosed) cancelTimer ??= systemTimer(giveAllBack, TRY_AGAIN_MS);
    }
  }

  function giveAllBack(): void {
    cancelTimer?.();
    cancelTimer = undefined;
    for (const [take, { lock, until }] of strays) {
      if (until <= clock.monotonic()) strays.delete(take);
      else void giveBack(take, lock);
    }
  }

  const stopHearing = redis.onConnected(giveAllBack);
  return {
    name: () => life + (takes++).toString(36),
    add(lock, take, ttlMs) {
      if (strays.size >= MOST_STRAYS) return;
      strays.set(take, { lock, until: clock.monotonic() + ttlMs });
      // Where the connection is lost, as it mostly is, this fails at once.
      void giveBack(take, lock);
    },
    close() {
      isClosed = true;
      stopHearing();
      cancelTimer?.();
    },
  };
}

import { defineScript, type Redis } from "../../infra/redis.ts";
import type { Lease } from "./backlog.ts";
import { queueKeys } from "./redis-queue-keys.ts";

export interface RedisLeaseOptions {
  readonly redis: Redis;
  readonly streamKey: string;
  /** Who holds it; another one in each process. */
  readonly holder: string;
  /** Default: 5,000. */
  readonly ttlMs?: number;
}

/**
 * Takes or renews the lease.
 *
 * KEYS  lease   ARGV  1 holder   2 milliseconds
 * Result: 1 when it is held, 0 when someone else has it.
 */
const holdScript = defineScript({
  name: "audit-hold",
  keys: 1,
  lua: `
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
`,
});

/** KEYS  lease   ARGV  1 holder */
const releaseScript = defineScript({
  name: "audit-release",
  keys: 1,
  lua: `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
`,
});

export function createRedisLease({ redis, streamKey, holder, ttlMs = 5_000 }: RedisLeaseOptions): Lease {
  const { lease } = queueKeys(streamKey);
  return {
    ttlMs,
    hold: async () => (await redis.run(holdScript, [lease], [holder, ttlMs])) === 1,
    release: async () => {
      await redis.run(releaseScript, [lease], [holder]);
    },
  };
}

import { createWireBackplane, type WireBackplane } from "./backplane-wire.ts";
import type { Log } from "./log.ts";
import type { Redis } from "./redis.ts";

export interface RedisBackplaneOptions {
  readonly redis: Redis;
  /** Names this instance, for logs of the others. No spaces. */
  readonly instanceId: string;
  /** How often a heartbeat goes through Redis and back; three that do not return are a gap. Default: 1000. */
  readonly heartbeatMs?: number;
  /** Default: "holdfast:backplane". Pub/sub ignores database numbers: those who share a server may want to differ here. */
  readonly channelPrefix?: string;
  readonly log?: Log;
}

/** Over PUBLISH and SUBSCRIBE. A Lua script publishes a `frame()` to make a change and tell of it in one step. */
export function createRedisBackplane(options: RedisBackplaneOptions): WireBackplane {
  const { redis } = options;
  return createWireBackplane({
    kind: "redis pub/sub",
    instanceId: options.instanceId,
    heartbeatMs: options.heartbeatMs ?? 1_000,
    ...(options.channelPrefix === undefined ? {} : { channelPrefix: options.channelPrefix }),
    ...(options.log === undefined ? {} : { log: options.log }),
    connect: (handlers) => {
      const subscriber = redis.createSubscriber(handlers);
      return {
        publish: async ({ channel, payload }) => {
          await redis.publish(channel, payload);
        },
        // Not redis.publish: in a cluster that always takes the same node, and a heart should beat through each of them.
        beat: async ({ channel, payload }) => {
          await redis.command("publish", channel, payload);
        },
        listen: subscriber.subscribe,
        unlisten: subscriber.unsubscribe,
        renew: subscriber.renew,
        close: subscriber.close,
      };
    },
  });
}

import type { Redis as Client, RedisOptions as ClientOptions } from "ioredis";
import { createLink, type LinkOptions } from "./redis-link.ts";

/** A connection of its own that only listens. */
export interface RedisSubscriber {
  /** Whether it is connected and subscribed to everything asked for. */
  readonly connected: boolean;
  /** Listens on this channel too, now and after each reconnect. */
  subscribe(channel: string): void;
  unsubscribe(channel: string): void;
  /** Gives the connection up for a new one; for who knows that messages no longer come through. */
  renew(why: string): void;
  close(): Promise<void>;
}

export interface SubscriberHandlers {
  readonly onMessage: (channel: string, message: string) => void;
  /** Subscribed, after the first connect and after each reconnect. What was published before is lost. */
  readonly onUp?: () => void;
  readonly onDown?: (error: Error) => void;
}

export function createSubscriber(
  base: Omit<LinkOptions, "target">,
  target: () => ClientOptions,
  handlers: SubscriberHandlers,
): RedisSubscriber {
  const channels = new Set<string>();
  let subscribed = false;

  const link = createLink({
    ...base,
    target,
    acceptsReplica: true,
    keepAliveMs: Math.max(1_000, base.commandTimeoutMs),
    onUp: (client) => {
      listen(client).catch((error: unknown) => link.drop(error instanceof Error ? error : new Error(String(error))));
    },
    onDown: (error) => {
      const was = subscribed;
      subscribed = false;
      if (was) handlers.onDown?.(error);
    },
  });

  async function listen(client: Client): Promise<void> {
    client.on("message", handlers.onMessage);
    if (channels.size > 0) await link.send({ name: "subscribe", args: [...channels], buffers: false });
    subscribed = true;
    handlers.onUp?.();
  }

  return {
    get connected() {
      return subscribed;
    },
    subscribe: (channel) => {
      if (channels.has(channel)) return;
      channels.add(channel);
      // When disconnected, the next connect subscribes to it. A refusal ends the connection, and so comes to light as onDown.
      if (link.connected) link.send({ name: "subscribe", args: [channel], buffers: false }).catch(link.drop);
      else link.connect();
    },
    unsubscribe: (channel) => {
      if (!channels.delete(channel) || !link.connected) return;
      link.send({ name: "unsubscribe", args: [channel], buffers: false }).catch(link.drop);
    },
    renew: (why) => link.drop(new Error(why)),
    close: link.close,
  };
}

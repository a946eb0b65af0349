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
  /** Must not throw. */
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
  let current: Client | undefined;
  let subscribed = false;

  const link = createLink({
    ...base,
    target,
    acceptsReplica: true,
    keepAliveMs: 1_000,
    onUp: (client) => {
      current = client;
      void listen(client);
    },
    onDown: (error) => {
      const was = subscribed;
      current = undefined;
      subscribed = false;
      if (was) handlers.onDown?.(error);
    },
  });

  async function listen(client: Client): Promise<void> {
    client.on("message", handlers.onMessage);
    if (channels.size > 0) await tell("subscribe", [...channels]);
    if (current !== client) return;
    subscribed = true;
    handlers.onUp?.();
  }

  /** A refusal, or no answer, ends the connection it was sent on: the next one subscribes to everything again. */
  async function tell(name: "subscribe" | "unsubscribe", names: readonly string[]): Promise<void> {
    const asked = current;
    try {
      await link.send({ name, args: names, buffers: false });
    } catch (error) {
      if (asked !== undefined && current === asked) link.drop(error);
    }
  }

  return {
    get connected() {
      return subscribed;
    },
    subscribe: (channel) => {
      if (channels.has(channel)) return;
      channels.add(channel);
      if (current !== undefined) void tell("subscribe", [channel]);
      else link.connect();
    },
    unsubscribe: (channel) => {
      if (channels.delete(channel) && current !== undefined) void tell("unsubscribe", [channel]);
    },
    renew: (why) => link.drop(new Error(why)),
    close: link.close,
  };
}

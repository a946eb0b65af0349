import type { Redis as Client, RedisOptions as ClientOptions } from "ioredis";
import type { RedisNode, RedisOptions } from "./redis.ts";
import { createLink } from "./redis-link.ts";
import { credentials, linkOptions, type OnConnected, type RedisRoute, routeOf } from "./redis-route.ts";
import { createSubscriber, type RedisSubscriber } from "./redis-subscriber.ts";

const SWITCH_CHANNEL = "+switch-master";

/** The primary that Sentinels name, and whom they name after it. */
export function createSentinelRoute(options: RedisOptions, onConnected: OnConnected): RedisRoute {
  const name = options.sentinelName;
  if (name === undefined) throw new TypeError("sentinelName is required in sentinel mode");
  const target = primaryTarget(options, name);
  let watchers: RedisSubscriber[] | undefined;
  let connectedTo = "";
  const server = `the primary ${name}`;

  const link = createLink({
    ...linkOptions(options),
    target,
    onUp: (client, info) => {
      connectedTo = addressOf(client);
      options.contact?.made(server);
      watchers ??= options.nodes.map((node) => watchSentinel(options, node, onSwitch));
      onConnected(info.get("run_id") ?? "");
    },
    onFailure: (error) => options.contact?.lost(server, error),
  });

  /**
   * A primary that was replaced while it still lived goes on taking writes for ten seconds or more, until the Sentinels get
   * round to making it a replica; all of them are lost. So it is left as soon as any Sentinel says that there is another.
   */
  function onSwitch(message: string): void {
    const [switched, , , host, port] = message.split(" ");
    if (switched !== name || connectedTo === `${host}:${port}`) return;
    link.drop(new Error(`the Sentinels made ${host}:${port} the primary`));
  }

  const route = routeOf(link, target);
  return {
    ...route,
    // The spread above would have frozen this at its first value.
    get connected() {
      return link.connected;
    },
    close: async () => {
      await Promise.all([link.close(), ...(watchers ?? []).map((watcher) => watcher.close())]);
    },
  };
}

function primaryTarget(options: RedisOptions, name: string): () => ClientOptions {
  let turn = 0;
  return () => {
    // Another one first each time: a Sentinel that is cut off may go on naming the old primary.
    const first = turn++ % options.nodes.length;
    const sentinels = [...options.nodes.slice(first), ...options.nodes.slice(0, first)];
    return {
      ...credentials(options),
      sentinels,
      name,
      db: options.db ?? 0,
      sentinelCommandTimeout: options.commandTimeoutMs,
      ...(options.sentinelPassword === undefined ? {} : { sentinelPassword: options.sentinelPassword }),
      ...(options.tls === undefined ? {} : { sentinelTLS: { ...options.tls }, enableTLSForSentinelMode: true }),
    };
  };
}

function watchSentinel(options: RedisOptions, node: RedisNode, onSwitch: (message: string) => void): RedisSubscriber {
  const { sentinelPassword, tls } = options;
  const target = () => ({
    ...node,
    ...(sentinelPassword === undefined ? {} : { password: sentinelPassword }),
    ...(tls === undefined ? {} : { tls: { ...tls } }),
  });
  const subscriber = createSubscriber(linkOptions(options), target, { onMessage: (_, message) => onSwitch(message) });
  subscriber.subscribe(SWITCH_CHANNEL);
  return subscriber;
}

function addressOf(client: Client): string {
  return `${client.stream.remoteAddress}:${client.stream.remotePort}`;
}

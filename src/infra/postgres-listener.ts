import pg from "pg";
import { type PostgresTls, postgresTarget } from "./postgres-connection.ts";

export interface PostgresListenerOptions {
  readonly url: string;
  readonly ssl?: PostgresTls;
  /** The longest to wait for a connection. Default 5000. */
  readonly connectTimeoutMs?: number;
  /**
   * How often the server is asked whether it is there, and how long it has to answer. Bounds how long a frozen server or a
   * silent network goes unnoticed: twice this. Default 5000.
   */
  readonly heartbeatMs?: number;
  /** Waits between attempts to connect: doubles from the first to the second, then jittered. Default 100 to 5000. */
  readonly retryMs?: { readonly least: number; readonly most: number };
}

/** One connection kept for LISTEN. NOTIFY from anywhere arrives here; what is sent while it is down is lost. */
export interface PostgresListener {
  /** Whether every channel is listened to now. */
  readonly up: boolean;
  /** The last reason for being down; undefined before the first attempt failed. Holds no secret. */
  readonly lastError: string | undefined;
  /**
   * Calls `onMessage` with the payload of each NOTIFY on the channel. When the connection is up the LISTEN is sent at once
   * and takes effect within a round trip. Returns what ends it.
   */
  listen(channel: string, onMessage: (payload: string) => void): () => void;
  /** Called each time all channels are listened to again. Returns the unsubscribe. */
  onUp(listener: () => void): () => void;
  /** Called each time the connection is lost: messages may be missed from here to the next `onUp`. */
  onDown(listener: () => void): () => void;
  close(): Promise<void>;
}

export function openPostgresListener(options: PostgresListenerOptions): PostgresListener {
  const { connectTimeoutMs = 5000, heartbeatMs = 5000, retryMs = { least: 100, most: 5000 } } = options;
  const { name, config } = postgresTarget(options.url, options.ssl);
  const channels = new Map<string, Set<(payload: string) => void>>();
  const upListeners = new Set<() => void>();
  const downListeners = new Set<() => void>();
  let current: pg.Client | undefined;
  let up = false;
  let lastError: string | undefined;
  let failedAttempts = 0;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  async function connect(): Promise<void> {
    const client = new pg.Client({
      ...config,
      connectionTimeoutMillis: connectTimeoutMs,
      query_timeout: heartbeatMs,
      pipeline: true,
    });
    current = client;
    client.on("error", (error) => lose(client, error));
    client.on("end", () => lose(client, new Error("the connection ended")));
    client.on("notification", ({ channel, payload }) => {
      for (const onMessage of channels.get(channel) ?? []) onMessage(payload ?? "");
    });
    try {
      await client.connect();
      // A channel may be added while the others are being asked for.
      const asked = new Set<string>();
      for (let missing = notIn(asked); missing.length > 0; missing = notIn(asked)) {
        await Promise.all(missing.map((channel) => client.query(`LISTEN ${pg.escapeIdentifier(channel)}`)));
        for (const channel of missing) asked.add(channel);
      }
    } catch (error) {
      lose(client, error);
      return;
    }
    if (current !== client) return;
    failedAttempts = 0;
    up = true;
    beat(client);
    for (const listener of upListeners) listener();
  }

  function notIn(asked: ReadonlySet<string>): string[] {
    return [...channels.keys()].filter((channel) => !asked.has(channel));
  }

  function beat(client: pg.Client): void {
    timer = setTimeout(() => {
      client.query("SELECT 1").then(
        () => {
          if (current === client) beat(client);
        },
        (error: unknown) => lose(client, error),
      );
    }, heartbeatMs);
  }

  /** Leaves this connection for good and dials anew after a while. Called several times for one loss. */
  function lose(client: pg.Client, error: unknown): void {
    if (current !== client) return;
    current = undefined;
    clearTimeout(timer);
    // At once and without a goodbye: a frozen server would never answer it.
    client.connection.stream.destroy();
    const wasUp = up;
    up = false;
    if (closed) return;
    lastError = `Postgres at ${name}: ${error instanceof Error ? error.message || error.name : String(error)}`;
    const longest = Math.min(retryMs.most, retryMs.least * 2 ** Math.min(failedAttempts, 16));
    failedAttempts += 1;
    timer = setTimeout(() => void connect(), longest * (0.5 + Math.random() / 2));
    if (wasUp) for (const listener of downListeners) listener();
  }

  /** LISTEN or UNLISTEN on a connection that is up; its failure means that the connection is not. */
  function tell(verb: "LISTEN" | "UNLISTEN", channel: string): void {
    const client = current;
    if (client === undefined || !up) return;
    client.query(`${verb} ${pg.escapeIdentifier(channel)}`).catch((error: unknown) => lose(client, error));
  }

  void connect();

  return {
    get up() {
      return up;
    },
    get lastError() {
      return lastError;
    },
    listen(channel, onMessage) {
      // Wrapped, so that the same function may be added twice and each be ended for itself.
      const listener = (payload: string) => onMessage(payload);
      const listeners = channels.get(channel);
      if (listeners !== undefined) {
        listeners.add(listener);
      } else {
        channels.set(channel, new Set([listener]));
        tell("LISTEN", channel);
      }
      return () => {
        const left = channels.get(channel);
        if (left === undefined || !left.delete(listener) || left.size > 0) return;
        channels.delete(channel);
        tell("UNLISTEN", channel);
      };
    },
    onUp: (listener) => subscribe(upListeners, listener),
    onDown: (listener) => subscribe(downListeners, listener),
    async close() {
      closed = true;
      up = false;
      clearTimeout(timer);
      const client = current;
      current = undefined;
      client?.connection.stream.destroy();
    },
  };
}

function subscribe(listeners: Set<() => void>, listener: () => void): () => void {
  const own = () => listener();
  listeners.add(own);
  return () => void listeners.delete(own);
}

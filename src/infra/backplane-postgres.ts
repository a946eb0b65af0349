import type { Frame } from "./backplane-frame.ts";
import { createWireBackplane, type Transport, type TransportHandlers, type WireBackplane } from "./backplane-wire.ts";
import type { Database, SqlStatement } from "./database.ts";
import { Failure } from "./failure.ts";
import type { Log } from "./log.ts";
import type { PostgresListener } from "./postgres-listener.ts";

export interface PostgresBackplaneOptions {
  readonly database: Pick<Database, "writeAll">;
  /** Opens a connection for LISTEN; called again when one turns out to be dead. */
  readonly openListener: () => PostgresListener;
  /** Names this instance, for logs of the others. No spaces. */
  readonly instanceId: string;
  /** How often a heartbeat goes through Postgres and back; three that do not return are a gap. Default: 2000. */
  readonly heartbeatMs?: number;
  /** Default: "holdfast:backplane". */
  readonly channelPrefix?: string;
  readonly log?: Log;
}

export interface PostgresBackplane extends WireBackplane {
  /**
   * A statement that publishes the message if and when the transaction it is part of commits. Equal messages of one
   * transaction arrive once.
   */
  announce(topic: string, message: string): SqlStatement;
}

/** Postgres takes payloads below this. */
const PAYLOAD_LIMIT_BYTES = 8_000;
const MOST_PER_TRANSACTION = 500;

/** Over LISTEN and NOTIFY. */
export function createPostgresBackplane(options: PostgresBackplaneOptions): PostgresBackplane {
  const backplane = createWireBackplane({
    kind: "postgres notify",
    instanceId: options.instanceId,
    heartbeatMs: options.heartbeatMs ?? 2_000,
    ...(options.channelPrefix === undefined ? {} : { channelPrefix: options.channelPrefix }),
    ...(options.log === undefined ? {} : { log: options.log }),
    connect: (handlers) => connect(options, handlers),
  });
  // Not a spread, which would freeze the getter `live` at its first value.
  return Object.assign(backplane, {
    announce: (topic: string, message: string) => notify(backplane.frame(topic, message)),
  });
}

function notify({ channel, payload }: Frame): SqlStatement {
  const bytes = Buffer.byteLength(payload);
  if (bytes >= PAYLOAD_LIMIT_BYTES) {
    throw new Failure(
      "too_large",
      "BACKPLANE_MESSAGE_TOO_LARGE",
      `Postgres notifies with less than ${PAYLOAD_LIMIT_BYTES} bytes, this message takes ${bytes}`,
    );
  }
  return { sql: "SELECT pg_notify($1, $2)", params: [channel, payload] };
}

function connect({ database, openListener }: PostgresBackplaneOptions, handlers: TransportHandlers): Transport {
  const channels = new Map<string, () => void>();
  const publish = createNotifier(database);
  let listener = open();

  function open(): PostgresListener {
    const opened = openListener();
    opened.onUp(handlers.onUp);
    opened.onDown(handlers.onDown);
    return opened;
  }

  function listen(channel: string): void {
    channels.set(
      channel,
      listener.listen(channel, (payload) => handlers.onMessage(channel, payload)),
    );
  }

  return {
    publish,
    beat: publish,
    listen,
    unlisten: (channel) => {
      channels.get(channel)?.();
      channels.delete(channel);
    },
    renew: () => {
      void listener.close();
      listener = open();
      for (const channel of [...channels.keys()]) listen(channel);
    },
    close: () => listener.close(),
  };
}

/**
 * Sends what has gathered while the last transaction was under way in the next one: the connections of a pool would let
 * messages overtake each other, and one commit for many is cheaper.
 */
function createNotifier(database: Pick<Database, "writeAll">): (frame: Frame) => Promise<void> {
  let gathered: { statement: SqlStatement; resolve: () => void; reject: (error: unknown) => void }[] = [];
  let sending = false;

  async function sendAll(): Promise<void> {
    sending = true;
    while (gathered.length > 0) {
      const batch = gathered.slice(0, MOST_PER_TRANSACTION);
      gathered = gathered.slice(MOST_PER_TRANSACTION);
      try {
        await database.writeAll(batch.map((one) => one.statement));
        for (const one of batch) one.resolve();
      } catch (error) {
        for (const one of batch) one.reject(error);
      }
    }
    sending = false;
  }

  return async (frame) => {
    const statement = notify(frame);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    gathered.push({ statement, resolve, reject });
    if (!sending) void sendAll();
    await promise;
  };
}

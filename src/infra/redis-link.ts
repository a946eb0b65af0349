import { Redis as Client, type RedisOptions as ClientOptions, Command } from "ioredis";
import { createBackoff } from "./backoff.ts";
import { UnavailableError } from "./failure.ts";
import { leadsToWrongServer, redisFailure, redisUnavailable } from "./redis-failure.ts";
import { createWatchdog, type Watchdog } from "./redis-watchdog.ts";

export type RedisArgument = string | Buffer | number;

export interface RedisRequest {
  readonly name: string;
  readonly args: readonly RedisArgument[];
  /** Whether strings in the reply are wanted as bytes. */
  readonly buffers: boolean;
  /** In a cluster: goes where this key lives, for a command that has no key. */
  readonly near?: string;
  /** In a cluster: the caller asks for each key by itself when they are on two nodes for now, so waiting is of no use. */
  readonly divisible?: boolean;
}

export interface LinkOptions {
  /** Where to connect and as whom. Called before each attempt, so that it may rotate through addresses. */
  readonly target: () => ClientOptions;
  readonly commandTimeoutMs: number;
  readonly connectTimeoutMs: number;
  readonly redact: (text: string) => string;
  /** Whether a replica will do. */
  readonly acceptsReplica: boolean;
  /** Sends a PING this often, to notice a connection that died in silence while no one had anything to say on it. */
  readonly keepAliveMs: number;
  readonly onUp?: (client: Client, info: ReadonlyMap<string, string>) => void;
  readonly onDown?: (error: Error) => void;
  /** As `onDown`, and called for each attempt to connect that failed, too. */
  readonly onFailure?: (error: Error) => void;
}

/**
 * One connection that heals itself: it is made on first use, dropped when an answer is overdue, and made again for ever.
 * Each ioredis client lives for one connection only. That leaves nothing to be queued, resent or confused across two of them.
 */
export interface RedisLink {
  readonly connected: boolean;
  readonly runId: string;
  readonly lastError: Error | undefined;
  /** Starts connecting, if that has not begun. */
  connect(): void;
  /**
   * Rejects at once while disconnected; only the very first attempt to connect is waited for, up to the command timeout.
   * With `asking`, the command is sent as the follower of a cluster's ASK redirect.
   */
  send(request: RedisRequest, asking?: boolean): Promise<unknown>;
  /** Gives the connection up for a new one. */
  drop(reason: unknown): void;
  /** Waits for what is under way, up to the command timeout, then closes for good. */
  close(): Promise<void>;
}

/** One connection's life. */
interface Session {
  readonly client: Client;
  readonly watchdog: Watchdog;
  readonly onReply: (reply: unknown) => unknown;
  readonly onError: (error: unknown) => never;
  readonly uncork: () => void;
  corked: boolean;
  /** Why it ended; what its unanswered commands are told. */
  reason: Error | undefined;
}

const PING: RedisRequest = { name: "ping", args: [], buffers: false };

/** A connection that lasted this long was a good one: the next attempt need not be put off. */
const LASTING_MS = 5_000;

export function createLink(options: LinkOptions): RedisLink {
  const backoff = createBackoff({ firstMs: 50, capMs: 2_000 });
  let begun = false;
  let closed = false;
  let session: Session | undefined;
  let up: Session | undefined;
  let upSince = 0;
  let runId = "";
  let lastError: Error | undefined;
  let deadline: NodeJS.Timeout | undefined;
  let retry: NodeJS.Timeout | undefined;
  let keepAlive: NodeJS.Timeout | undefined;
  let endFirstAttempt: () => void = () => {};
  let firstAttempt: Promise<void> | undefined;

  function connect(): void {
    if (begun || closed) return;
    begun = true;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(() => endFirstAttempt(), options.commandTimeoutMs).unref();
    endFirstAttempt = () => {
      clearTimeout(timer);
      firstAttempt = undefined;
      resolve();
    };
    firstAttempt = promise;
    attempt();
  }

  function attempt(): void {
    retry = undefined;
    const client = new Client({
      ...options.target(),
      protocol: 2,
      replyMapping: "legacy",
      lazyConnect: true,
      connectTimeout: options.connectTimeoutMs,
      connectionName: "holdfast",
      disableClientInfo: true,
      noDelay: true,
      // The link itself reconnects and bounds the waiting; the client must neither queue, resend nor retry.
      retryStrategy: null,
      sentinelRetryStrategy: () => null,
      maxRetriesPerRequest: null,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      autoResubscribe: false,
      enableReadyCheck: false,
      enableAutoPipelining: false,
    });
    const current = createSession(client);
    session = current;
    let failure: Error | undefined;
    client.on("error", (error: Error) => {
      failure ??= error;
    });
    client.once("end", () => end(current, failure ?? new Error("the connection was closed")));
    client.once("ready", () => {
      // Refused to SELECT the database, ioredis would go on with number 0: someone else's data.
      if (failure !== undefined) end(current, failure);
      else handshake(current).catch((error: unknown) => end(current, error));
    });
    // A frozen server accepts connections (its kernel does) and then says nothing: the deadline covers the greeting too.
    deadline = setTimeout(
      () => end(current, new Error(`no connection within ${options.connectTimeoutMs} ms`)),
      options.connectTimeoutMs,
    ).unref();
    client.connect().catch((error: unknown) => end(current, failure ?? error));
  }

  function createSession(client: Client): Session {
    const watchdog = createWatchdog(options.commandTimeoutMs, () =>
      end(created, new Error(`no answer within ${options.commandTimeoutMs} ms`)),
    );
    const created: Session = {
      client,
      watchdog,
      onReply: (reply) => {
        watchdog.settled();
        return reply;
      },
      onError: (error) => {
        watchdog.settled();
        if (leadsToWrongServer(error)) end(created, error);
        throw created.reason ?? redisFailure(error, options.redact);
      },
      uncork: () => {
        created.corked = false;
        client.stream.uncork();
      },
      corked: false,
      reason: undefined,
    };
    return created;
  }

  async function handshake(current: Session): Promise<void> {
    const info = parseInfo(
      String(await transmit(current, { name: "info", args: [], buffers: false }).catch(allowNoInfo)),
    );
    if (session !== current) return;
    if (info.get("loading") === "1") throw new Error("it is still loading its data");
    if (!options.acceptsReplica && info.get("role") === "slave") throw new Error("it is a replica, not the primary");
    clearTimeout(deadline);
    up = current;
    upSince = performance.now();
    runId = info.get("run_id") ?? "";
    endFirstAttempt();
    keepAlive = setInterval(() => {
      if (current.watchdog.pending === 0) transmit(current, PING).catch(() => {});
    }, options.keepAliveMs).unref();
    options.onUp?.(current.client, info);
  }

  function end(ended: Session, error: unknown): void {
    if (ended.reason === undefined) {
      const failure = redisFailure(error, options.redact);
      // A reply that cost us the connection is no reply to those who wait on it.
      ended.reason = failure instanceof UnavailableError ? failure : redisUnavailable(failure.message);
      ended.watchdog.stop();
      ended.client.disconnect();
      // Not the polite end, which would wait for a frozen peer; and its unanswered commands are to be rejected now.
      ended.client.stream?.destroy();
    }
    if (session !== ended) return;
    session = undefined;
    clearTimeout(deadline);
    clearInterval(keepAlive);
    lastError = ended.reason;
    endFirstAttempt();
    if (up === ended) {
      up = undefined;
      if (performance.now() - upSince > LASTING_MS) backoff.reset();
      options.onDown?.(ended.reason);
    }
    if (closed) return;
    options.onFailure?.(ended.reason);
    retry = setTimeout(attempt, backoff.next()).unref();
  }

  function transmit(to: Session, request: RedisRequest, asking = false): Promise<unknown> {
    const { client, watchdog } = to;
    if (!to.corked) {
      // What is sent in one turn of the loop goes out in one write.
      to.corked = true;
      client.stream.cork();
      process.nextTick(to.uncork);
    }
    if (asking) write(to, new Command("asking")).catch(() => {});
    const command = new Command(request.name, [...request.args], { replyEncoding: request.buffers ? null : "utf8" });
    watchdog.sent();
    client.sendCommand(command);
    return command.promise.then(to.onReply, to.onError);
  }

  function write(to: Session, command: Command): Promise<unknown> {
    to.watchdog.sent();
    to.client.sendCommand(command);
    return command.promise.then(to.onReply, to.onError);
  }

  async function sendAfterFirstAttempt(request: RedisRequest, asking: boolean): Promise<unknown> {
    await firstAttempt;
    if (up !== undefined) return transmit(up, request, asking);
    throw closed ? redisUnavailable("it was closed") : (lastError ?? redisUnavailable("not connected"));
  }

  return {
    get connected() {
      return up !== undefined;
    },
    get runId() {
      return runId;
    },
    get lastError() {
      return lastError;
    },
    connect,
    send: (request, asking = false) => {
      if (up !== undefined) return transmit(up, request, asking);
      connect();
      return sendAfterFirstAttempt(request, asking);
    },
    drop: (reason) => {
      if (session !== undefined) end(session, reason);
    },
    close: async () => {
      if (closed) return;
      closed = true;
      clearTimeout(retry);
      const last = up;
      // One more command: its reply comes after all others. The watchdog bounds the wait.
      if (last !== undefined && last.watchdog.pending > 0) {
        await transmit(last, PING).catch(() => {});
      }
      if (session !== undefined) end(session, new Error("it was closed"));
    },
  };
}

/** An account that may not call INFO is still served: only the run id and the checks of role and loading are missed. */
function allowNoInfo(error: unknown): string {
  if (error instanceof Error && error.message.includes("NOPERM")) return "";
  throw error;
}

export function parseInfo(text: string): ReadonlyMap<string, string> {
  const fields = new Map<string, string>();
  for (const line of text.split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1));
  }
  return fields;
}

import type { Mounted } from "../infra/call.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import { type ApiKeyRecord, type Authenticator, createAuthenticator } from "./auth.ts";
import { createCalls } from "./calls.ts";
import { createGrpcServer } from "./grpc.ts";
import { adoptGrpcLog } from "./grpc-log.ts";
import { createHttpServer } from "./http.ts";
import { ListenError } from "./listen-error.ts";
import type { HealthSource } from "./pages.ts";
import type { TlsOptions } from "./tls.ts";

export type { HealthSource } from "./pages.ts";
export type { TlsOptions } from "./tls.ts";

export interface Address {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
}

export interface ServersOptions {
  readonly services: readonly Mounted[];
  readonly grpc: Address;
  readonly http: Address;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly health: HealthSource;
  /** API keys that are let in. Undefined or none: no key is asked for. */
  readonly apiKeys?: readonly ApiKeyRecord[] | undefined;
  /** Decides instead of `apiKeys` who is let in, where keys may change while the server runs. */
  readonly authenticator?: Authenticator | undefined;
  /** For both planes. With `clientCa`, clients must present a certificate, and its subject names the caller. */
  readonly tls?: TlsOptions | undefined;
  /** Origins of web pages that may call. Default: none. */
  readonly corsOrigins?: readonly string[] | undefined;
  /** Largest request. Default: 8 MiB, which holds the largest value (4 MiB) as base64 in JSON. */
  readonly maxMessageBytes?: number | undefined;
  /** Longest time a unary call is given, whatever its caller asks. Default: 60 seconds. */
  readonly maxDeadlineMs?: number | undefined;
}

/** Both planes of one server. */
export interface Servers {
  /** Binds both ports and serves. When one cannot be bound, neither is. */
  start(): Promise<{ readonly grpcPort: number; readonly httpPort: number }>;
  /** How many calls have come in so far. Probes and pages are none. */
  readonly calls: number;
  /** What grpc.health.v1 answers until the drain; true from the start. `health.ready()` is what /readyz answers. */
  setServing(serving: boolean): void;
  /**
   * Ends the service without losing a call: health says NOT_SERVING and /readyz 503, new calls and streams of replies end
   * with UNAVAILABLE and RetryInfo, what else is under way finishes, then the ports close. After `graceMs` what is left is
   * ended by force. Resolves when nothing is left.
   */
  drain(graceMs: number): Promise<void>;
}

// How long connections may linger once their calls are done, so that slow readers get their last replies: what is left of the
// grace, but not longer, and not shorter, than this.
const longestLingerMs = 5_000;
const shortestLingerMs = 500;

// How long a stream may outlive the key it was opened with.
const recheckMs = 1_000;

export function createServers(options: ServersOptions): Servers {
  const { metrics, log } = options;
  const maxMessageBytes = options.maxMessageBytes ?? 8 * 1024 * 1024;
  const calls = createCalls({ metrics, log, maxDeadlineMs: options.maxDeadlineMs ?? 60_000 });
  const authenticator =
    options.authenticator ??
    createAuthenticator({ keys: options.apiKeys, clientCertificates: options.tls?.clientCa !== undefined });
  const shared = { services: options.services, calls, authenticator, maxMessageBytes, tls: options.tls };
  adoptGrpcLog(log);
  const grpc = createGrpcServer(shared);
  const http = createHttpServer({
    ...shared,
    health: options.health,
    metrics,
    log,
    corsOrigins: options.corsOrigins ?? [],
  });

  let rechecks: NodeJS.Timeout | undefined;

  return {
    async start() {
      if (authenticator.keysRequired) {
        rechecks = setInterval(() => calls.recheck(authenticator.objectionTo), recheckMs).unref();
      }
      const grpcPort = await grpc.start(options.grpc).catch((error: unknown) => {
        throw new ListenError("grpc", options.grpc, error);
      });
      try {
        return { grpcPort, httpPort: await http.start(options.http) };
      } catch (error) {
        await grpc.stop(0);
        throw new ListenError("http", options.http, error);
      }
    },
    get calls() {
      return calls.seen;
    },
    setServing: (serving) => grpc.setServing(serving && !calls.draining),
    async drain(graceMs) {
      const graceEnd = performance.now() + graceMs;
      grpc.setServing(false);
      clearInterval(rechecks);
      calls.drain();
      if (calls.underWay > 0) log.info({ calls: calls.underWay, graceMs }, "waiting for calls under way");
      let force: NodeJS.Timeout | undefined;
      const graceOver = new Promise<void>((resolve) => {
        force = setTimeout(resolve, graceMs);
      });
      await Promise.race([calls.idle(), graceOver]);
      clearTimeout(force);
      if (calls.underWay > 0) log.warn({ calls: calls.underWay }, "the grace is over: ending calls by force");
      calls.abortAll();
      const left = graceEnd - performance.now();
      const lingerMs = Math.max(shortestLingerMs, Math.min(left, longestLingerMs));
      await Promise.all([grpc.stop(lingerMs), http.stop(lingerMs)]);
    },
  };
}

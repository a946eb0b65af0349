import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { TLSSocket } from "node:tls";
import type { Mounted } from "../infra/call.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import type { Authenticator } from "./auth.ts";
import type { Calls } from "./calls.ts";
import type { HttpPeer } from "./connect.ts";
import { createHostGuard, type HostGuard } from "./host-guard.ts";
import { methodsOf } from "./method.ts";
import { createPages, type HealthSource, json } from "./pages.ts";
import { degradedHeader } from "./reply-metadata.ts";
import { createRpcIndex } from "./rpc-index.ts";
import { subjectOf, type TlsOptions } from "./tls.ts";

// An import of node:http takes its exports one by one, the last of which load all of undici: ten megabytes that nobody uses.
const { createServer } = process.getBuiltinModule("node:http");

/**
 * The HTTP plane: Connect (JSON for curl), gRPC-Web for browsers, and the plain routes.
 *
 *     const http = createHttpServer({ services, calls, authenticator, health, metrics, log, maxMessageBytes, corsOrigins: [] });
 *     const port = await http.start({ host: "127.0.0.1", port: 7421 });
 *     await http.stop(graceMs);
 *
 * `createServers` in server.ts makes both planes and drains them together; main.ts wants that one.
 */
export interface HttpServer {
  /** Binds and serves. Resolves with the port, which matters when 0 was asked for. */
  start(address: { readonly host: string; readonly port: number }): Promise<number>;
  /** Stops listening, lets open requests finish for at most `graceMs`, then closes them. */
  stop(graceMs: number): Promise<void>;
}

export interface HttpServerOptions {
  readonly services: readonly Mounted[];
  readonly calls: Calls;
  readonly authenticator: Authenticator;
  readonly health: HealthSource;
  readonly metrics: Metrics;
  readonly log: Log;
  /** Larger requests are refused with RESOURCE_EXHAUSTED. */
  readonly maxMessageBytes: number;
  /** Origins of pages that may call from a browser; "*" for all. */
  readonly corsOrigins: readonly string[];
  readonly tls?: TlsOptions | undefined;
}

export function createHttpServer(options: HttpServerOptions): HttpServer {
  const { calls, log } = options;
  const methods = options.services.flatMap((mounted) => methodsOf(mounted, "http", calls.metrics));
  const paths = new Set(methods.map(({ name }) => `/${name}`));
  const pages = createPages({
    health: options.health,
    metrics: options.metrics,
    log,
    draining: () => calls.draining,
    rpcs: createRpcIndex(options.services),
  });
  let rpcs: Rpcs | Promise<Rpcs> | undefined;
  let cors: Cors | undefined;
  let serves: HostGuard | undefined;

  // Connect is loaded with the first RPC: an instance that is called by gRPC alone goes without, and is smaller by a tenth.
  function load(): Promise<Rpcs> {
    const loading = import("./http-rpcs.ts").then(({ createRpcs }) => createRpcs({ ...options, methods }));
    rpcs = loading;
    loading.then(
      (loaded) => {
        rpcs = loaded;
      },
      () => {
        rpcs = undefined;
      },
    );
    return loading;
  }

  async function serve(request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
    try {
      await (await (rpcs ?? load()))(request, response, path, peerOf(request));
    } catch (error) {
      // The call itself has been answered and logged by now; what is left is a caller that does not take the answer.
      log.debug({ path, err: error }, "a reply could not be written");
      response.destroy();
    }
  }

  const server = listener(options.tls, (request, response) => {
    // So that no connection outlives the drain only because its client keeps using it.
    if (calls.draining) response.setHeader("connection", "close");
    if (serves !== undefined && !serves(request.headers.host)) {
      json(response, 403, { code: "permission_denied", message: wrongHost });
      return;
    }
    if (cors?.(request, response)) return;
    const path = (request.url ?? "").split("?", 1)[0] ?? "";
    if (!paths.has(path)) {
      pages(request, response);
      return;
    }
    // For the answers that never get as far as a call, such as to a wrong content type.
    response.setHeader(degradedHeader, "false");
    void serve(request, response, path);
  });

  return {
    async start({ host, port }) {
      serves = createHostGuard(host, options.authenticator.everyone !== undefined);
      if (options.corsOrigins.length > 0) cors = (await import("./cors.ts")).createCors(options.corsOrigins);
      return await new Promise((resolve, reject) => {
        server.once("error", reject);
        server.listen(port, host, () => {
          server.off("error", reject);
          const address = server.address();
          resolve(typeof address === "object" && address !== null ? address.port : port);
        });
      });
    },
    stop(graceMs) {
      return new Promise((resolve) => {
        const force = setTimeout(() => server.closeAllConnections(), graceMs);
        // A connection whose reply was still on its way is idle a moment later, and would be kept alive.
        const sweep = setInterval(() => server.closeIdleConnections(), 20);
        server.close(() => {
          clearTimeout(force);
          clearInterval(sweep);
          resolve();
        });
        server.closeIdleConnections();
      });
    },
  };
}

const wrongHost =
  "without API keys this server answers on its own machine only, as localhost, 127.0.0.1 or [::1]: call it by one of these names, or give it API keys";

type Rpcs = (request: IncomingMessage, response: ServerResponse, path: string, peer: HttpPeer) => Promise<void>;
/** True when the request was a preflight and has been answered. */
type Cors = (request: IncomingMessage, response: ServerResponse) => boolean;
type Listener = (request: IncomingMessage, response: ServerResponse) => void;

function listener(tls: TlsOptions | undefined, onRequest: Listener): Server {
  // A client that sends its headers or its body drop by drop holds a connection for so long, and no longer. Replies that
  // stream are not limited.
  const limits = { headersTimeout: 10_000, requestTimeout: 60_000, keepAliveTimeout: 15_000, maxHeaderSize: 32 * 1024 };
  if (tls === undefined) return createServer(limits, onRequest);
  const mutual = tls.clientCa !== undefined;
  return createSecureServer(
    {
      ...limits,
      cert: tls.cert,
      key: tls.key,
      ...(tls.clientCa !== undefined && { ca: tls.clientCa }),
      requestCert: mutual,
      rejectUnauthorized: mutual,
      minVersion: "TLSv1.2",
      handshakeTimeout: 10_000,
    },
    onRequest,
  );
}

// A connection's peer is read once for all its requests.
const peers = new WeakMap<object, HttpPeer>();

function peerOf({ socket }: IncomingMessage): HttpPeer {
  const known = peers.get(socket);
  if (known !== undefined) return known;
  const certificate = socket instanceof TLSSocket && socket.authorized ? socket.getPeerCertificate() : undefined;
  const peer: HttpPeer = {
    address: `${socket.remoteAddress ?? "unknown"}:${socket.remotePort ?? 0}`,
    certificateSubject: certificate === undefined ? undefined : subjectOf(certificate),
  };
  peers.set(socket, peer);
  return peer;
}

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { TLSSocket } from "node:tls";
import { createConnectRouter } from "@connectrpc/connect";
import type { UniversalHandler } from "@connectrpc/connect/protocol";
import {
  compressionBrotli,
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import type { Mounted } from "../infra/call.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import type { Authenticator } from "./auth.ts";
import type { Calls } from "./calls.ts";
import { createConnectPlane, type HttpPeer } from "./connect.ts";
import { applyCors } from "./cors.ts";
import { createPages, type HealthSource } from "./pages.ts";
import { degradedHeader } from "./reply-metadata.ts";
import { subjectOf, type TlsOptions } from "./tls.ts";

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
  const plane = createConnectPlane(options);
  const methods = options.services.flatMap(({ service }) =>
    service.methods.map((m) => `${service.typeName}/${m.name}`),
  );
  const pages = createPages({
    health: options.health,
    metrics: options.metrics,
    log: options.log,
    draining: () => options.calls.draining,
    methods,
  });
  const router = createConnectRouter({
    requestGate: plane.requestGate,
    readMaxBytes: options.maxMessageBytes,
    jsonOptions,
    acceptCompression: [compressionGzip, compressionBrotli],
    // gRPC proper has its own port; HTTP/1.1 cannot carry it.
    grpc: false,
  });
  plane.routes(router);
  const rpcs = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));

  function serve(rpc: UniversalHandler, request: IncomingMessage, response: ServerResponse): void {
    Promise.resolve()
      .then(() =>
        rpc(universalRequestFromNodeRequest(request, response, undefined, plane.contextValues(peerOf(request)))),
      )
      .then((answer) => universalResponseToNodeResponse(answer, response))
      .catch((error: unknown) => {
        // The call itself has been answered and logged by now; what is left is a caller that does not take the answer.
        options.log.debug({ path: request.url, err: error }, "a reply could not be written");
        response.destroy();
      });
  }

  const server = listener(options.tls, (request, response) => {
    // So that no connection outlives the drain only because its client keeps using it.
    if (options.calls.draining) response.setHeader("connection", "close");
    if (applyCors(options.corsOrigins, request, response)) return;
    const rpc = rpcs.get((request.url ?? "").split("?", 1)[0] ?? "");
    if (rpc === undefined) {
      pages(request, response);
      return;
    }
    // For the answers that never get as far as a call, such as to a wrong content type.
    response.setHeader(degradedHeader, "false");
    serve(rpc, request, response);
  });

  return {
    start({ host, port }) {
      return new Promise((resolve, reject) => {
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

// A body that is not UTF-8 must be refused: decoded leniently, it would be stored as something else. Unknown fields are let
// through, so that a newer client can talk to an older server.
const jsonOptions = { ignoreUnknownFields: true, textDecoder: new TextDecoder("utf-8", { fatal: true }) };

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

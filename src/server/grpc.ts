import { type MethodDefinition, Server, ServerCredentials } from "@grpc/grpc-js";
import type { Mounted } from "../infra/call.ts";
import type { Authenticator } from "./auth.ts";
import type { Calls } from "./calls.ts";
import { passBytes, requestDecoder } from "./codec.ts";
import type { GrpcContext } from "./grpc-call.ts";
import { createGrpcHealth } from "./grpc-health.ts";
import { createAuxiliaries, createInterceptor } from "./grpc-interceptor.ts";
import { bidiHandler, clientStreamHandler, serverStreamHandler } from "./grpc-stream.ts";
import { unaryHandler } from "./grpc-unary.ts";
import { type Method, methodsOf } from "./method.ts";
import { createReflection } from "./reflection.ts";
import type { TlsOptions } from "./tls.ts";

/**
 * The gRPC plane.
 *
 *     const grpc = createGrpcServer({ services, calls, authenticator, maxMessageBytes, tls });
 *     const port = await grpc.start({ host: "127.0.0.1", port: 7420 });
 *     grpc.setServing(false);            // grpc.health.v1 says NOT_SERVING
 *     await grpc.stop(graceMs);          // GOAWAY, then closed by force
 *
 * `createServers` in server.ts makes both planes and drains them together; main.ts wants that one.
 */
export interface GrpcServer {
  /** Binds and serves. Resolves with the port, which matters when 0 was asked for. */
  start(address: { readonly host: string; readonly port: number }): Promise<number>;
  /** What grpc.health.v1 answers, for the server as a whole and for each service. */
  setServing(serving: boolean): void;
  /** Stops listening, lets open connections finish for at most `graceMs`, then closes them. */
  stop(graceMs: number): Promise<void>;
}

export interface GrpcServerOptions {
  readonly services: readonly Mounted[];
  readonly calls: Calls;
  readonly authenticator: Authenticator;
  /** Larger requests are refused with RESOURCE_EXHAUSTED. */
  readonly maxMessageBytes: number;
  readonly tls?: TlsOptions | undefined;
}

export function createGrpcServer(options: GrpcServerOptions): GrpcServer {
  const context: GrpcContext = {
    calls: options.calls,
    authenticator: options.authenticator,
    streaming: new WeakMap(),
    answered: new WeakSet(),
  };
  const methods = new Map<string, Method>();
  const services = options.services.map((mounted) => methodsOf(mounted, "grpc", options.calls.metrics));
  for (const method of services.flat()) methods.set(`/${method.name}`, method);
  const health = createGrpcHealth(options.services);
  const auxiliaries = createAuxiliaries([health.service, createReflection(options.services)]);
  const server = new Server({
    "grpc.max_receive_message_length": options.maxMessageBytes,
    "grpc.max_send_message_length": -1,
    // Its counters cost each call something, and nobody can read them: channelz is not served.
    "grpc.enable_channelz": 0,
    // Finds peers that vanished without a word, so that their streams do not stay.
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 20_000,
    interceptors: [createInterceptor(context, methods, auxiliaries)],
  });
  tolerateResets(server);

  for (const service of services) {
    const definitions: Record<string, MethodDefinition<unknown, Buffer>> = {};
    const handlers: Record<string, ReturnType<typeof handlerFor>> = {};
    for (const method of service) {
      definitions[method.desc.localName] = definitionOf(method);
      handlers[method.desc.localName] = handlerFor(context, method);
    }
    server.addService(definitions, handlers);
  }

  for (const service of auxiliaries.services) service.addTo(server);

  let bound: string | undefined;
  return {
    start({ host, port }) {
      const at = (number: number) => (host.includes(":") ? `[${host}]:${number}` : `${host}:${number}`);
      return new Promise((resolve, reject) => {
        server.bindAsync(at(port), credentialsOf(options.tls), (error, number) => {
          if (error !== null) {
            reject(error);
            return;
          }
          bound = at(number);
          resolve(number);
        });
      });
    },
    setServing: health.setServing,
    stop(graceMs) {
      return new Promise((resolve) => {
        auxiliaries.end();
        // Not `forceShutdown`: without channelz it knows no connection to close.
        if (bound !== undefined) server.drain(bound, graceMs);
        server.tryShutdown(() => resolve());
      });
    },
  };
}

/**
 * Node closes a connection on which more than 1,000 calls are given up at once, and every other call on it fails with INTERNAL:
 * what a busy client does when this server, or its own machine, stands still past the deadlines of its calls. Whoever resets
 * calls to do harm is still held to a rate. grpc-js offers no option for it; should it rename its own, Node's limit is back.
 */
function tolerateResets(server: Server): void {
  const options: unknown = Reflect.get(server, "commonServerOptions");
  if (typeof options === "object" && options !== null) {
    Object.assign(options, { streamResetBurst: 20_000, streamResetRate: 1_000 });
  }
}

function credentialsOf(tls: TlsOptions | undefined): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure();
  const pair = { cert_chain: Buffer.from(tls.cert), private_key: Buffer.from(tls.key) };
  const ca = tls.clientCa === undefined ? null : Buffer.from(tls.clientCa);
  return ServerCredentials.createSsl(ca, [pair], ca !== null);
}

function definitionOf(method: Method): MethodDefinition<unknown, Buffer> {
  const { methodKind, input } = method.desc;
  return {
    path: `/${method.name}`,
    requestStream: methodKind === "client_streaming" || methodKind === "bidi_streaming",
    responseStream: methodKind === "server_streaming" || methodKind === "bidi_streaming",
    requestDeserialize: requestDecoder(input, method.decoder),
    responseSerialize: passBytes,
    // The client's half, which a server never uses.
    requestSerialize: () => Buffer.alloc(0),
    responseDeserialize: (bytes) => bytes,
  };
}

function handlerFor(context: GrpcContext, method: Method) {
  const { handler } = method;
  switch (handler.kind) {
    case "unary":
      return unaryHandler(context, method, handler.rpc);
    case "server_streaming":
      return serverStreamHandler(context, method, handler.rpc);
    case "client_streaming":
      return clientStreamHandler(context, method, handler.rpc);
    case "bidi_streaming":
      return bidiHandler(context, method, handler.rpc);
  }
}

import {
  create,
  createRegistry,
  type DescMessage,
  type DescMethod,
  type DescMethodServerStreaming,
  fromBinary,
  type Message,
  toBinary,
} from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import {
  type CallOptions,
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  type StatusObject,
} from "@grpc/grpc-js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.js";
import type { CallContext, EncodedReply } from "../../src/infra/call.ts";
import { createLog, type LogLevel } from "../../src/infra/log.ts";
import { createMetrics } from "../../src/infra/metrics.ts";
import { createServers, type Servers, type ServersOptions } from "../../src/server/server.ts";
import { type Echo, EchoService } from "./echo.ts";

export const echoType: DescMessage = EchoService.method.say?.input ?? never();

export const countMethod = streamingMethod();

function streamingMethod(): DescMethodServerStreaming {
  const { count } = EchoService.method;
  return isServerStreaming(count) ? count : never();
}

function isServerStreaming(method: DescMethod | undefined): method is DescMethodServerStreaming {
  return method?.methodKind === "server_streaming";
}

function never(): never {
  throw new Error("EchoService lacks a method");
}

export function echo(fields: Partial<Echo>): Message & Echo {
  const message = create(echoType, fields);
  if (!isEcho(message)) throw new Error("not an Echo");
  return message;
}

function isEcho(message: Message): message is Message & Echo {
  return message.$typeName === "holdfast.test.Echo";
}

type Reply = Message | EncodedReply | Promise<Message>;

/** The RPCs a test serves; what it leaves out is not implemented. */
export interface EchoRpcs {
  say?(request: Echo, call: CallContext): Reply;
  count?(request: Echo, call: CallContext): AsyncIterable<Message | EncodedReply>;
  collect?(requests: AsyncIterable<Echo>, call: CallContext): Promise<Message>;
  chat?(requests: AsyncIterable<Echo>, call: CallContext): AsyncIterable<Message>;
  undeclared?(request: Echo, call: CallContext): Reply;
}

export type LogLine = Readonly<Record<string, unknown>>;

export interface Harness extends AsyncDisposable {
  readonly servers: Servers;
  readonly grpcPort: number;
  readonly httpPort: number;
  readonly httpUrl: string;
  readonly client: EchoClient;
  readonly lines: readonly LogLine[];
  metrics(): Promise<string>;
}

export interface HarnessOptions extends Partial<ServersOptions> {
  readonly logLevel?: LogLevel;
  readonly channel?: ChannelCredentials;
}

/** Both planes on loopback, serving the Echo RPCs given, with a client of the gRPC one. */
export async function startEcho(rpcs: EchoRpcs, options: HarnessOptions = {}): Promise<Harness> {
  const lines: LogLine[] = [];
  const metrics = createMetrics({ defaults: false });
  const servers = createServers({
    services: [{ service: EchoService, rpcs: { ...rpcs } }],
    grpc: { host: "127.0.0.1", port: 0 },
    http: { host: "127.0.0.1", port: 0 },
    metrics,
    log: createLog({
      level: options.logLevel ?? "info",
      destination: { write: (line) => lines.push(JSON.parse(line)) },
    }),
    health: {
      ready: () => true,
      report: () => ({ healthy: true, body: { state: "HEALTHY" } }),
      redis: () => undefined,
    },
    ...options,
  });
  const { grpcPort, httpPort } = await servers.start();
  const client = new EchoClient(`localhost:${grpcPort}`, options.channel ?? credentials.createInsecure());
  return {
    servers,
    grpcPort,
    httpPort,
    httpUrl: `http${options.tls === undefined ? "" : "s"}://localhost:${httpPort}`,
    client,
    lines,
    metrics: () => metrics.text(),
    async [Symbol.asyncDispose]() {
      client.close();
      await servers.drain(0);
    },
  };
}

const path = (rpc: string) => `/holdfast.test.EchoService/${rpc}`;
const encode = (message: Message) => Buffer.from(toBinary(echoType, message));
const decode = (bytes: Buffer): Message & Echo => echoOf(fromBinary(echoType, bytes));

function echoOf(message: Message): Message & Echo {
  if (!isEcho(message)) throw new Error("not an Echo");
  return message;
}

export interface Answer {
  readonly reply: Echo | undefined;
  readonly error: ServiceError | undefined;
  /** Headers, or the trailers of an answer that has nothing else. */
  readonly header: Metadata;
  readonly trailer: Metadata;
}

/** A real grpc-js client of EchoService that shows everything an answer carries. */
export class EchoClient extends Client {
  constructor(address: string, channel: ChannelCredentials) {
    // A connection of its own, so that one test's backoff is not another's.
    super(address, channel, { "grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": -1 });
  }

  say(fields: Partial<Echo>, options: CallOptions = {}, metadata = new Metadata()): Promise<Answer> {
    return this.raw("Say", encode(echo(fields)), options, metadata);
  }

  /** A unary call with any bytes as its request. */
  raw(rpc: string, bytes: Buffer, options: CallOptions = {}, metadata = new Metadata()): Promise<Answer> {
    return new Promise((resolve) => {
      let header = new Metadata();
      let trailer = new Metadata();
      let outcome: { reply: Echo | undefined; error: ServiceError | undefined } | undefined;
      const done = () => {
        if (outcome !== undefined) resolve({ ...outcome, header, trailer });
      };
      const call = this.makeUnaryRequest(
        path(rpc),
        (b: Buffer) => b,
        decode,
        bytes,
        metadata,
        options,
        (error, reply) => {
          outcome = { reply: reply ?? undefined, error: error ?? undefined };
          setImmediate(done);
        },
      );
      call.on("metadata", (received: Metadata) => {
        header = received;
      });
      call.on("status", (status: StatusObject) => {
        trailer = status.metadata;
      });
    });
  }

  count(fields: Partial<Echo>, options: CallOptions = {}, metadata = new Metadata()): ClientReadableStream<Echo> {
    return this.makeServerStreamRequest(path("Count"), encode, decode, echo(fields), metadata, options);
  }

  chat(options: CallOptions = {}): ClientDuplexStream<Message, Echo> {
    return this.makeBidiStreamRequest(path("Chat"), encode, decode, new Metadata(), options);
  }

  collect(texts: readonly string[]): Promise<Echo> {
    return new Promise((resolve, reject) => {
      const call = this.makeClientStreamRequest(path("Collect"), encode, decode, new Metadata(), {}, (error, reply) => {
        if (error !== null) reject(error);
        else if (reply !== undefined) resolve(reply);
      });
      for (const text of texts) call.write(echo({ text }));
      call.end();
    });
  }
}

export interface Ended {
  readonly items: readonly Echo[];
  readonly error: ServiceError | undefined;
  readonly header: Metadata;
  readonly status: StatusObject;
}

/** Reads a stream of replies to its end. */
export function readAll(stream: ClientReadableStream<Echo> | ClientDuplexStream<Message, Echo>): Promise<Ended> {
  return new Promise((resolve) => {
    const items: Echo[] = [];
    let error: ServiceError | undefined;
    let header = new Metadata();
    stream.on("metadata", (received: Metadata) => {
      header = received;
    });
    stream.on("data", (item: Echo) => items.push(item));
    stream.on("error", (failed: ServiceError) => {
      error = failed;
    });
    stream.on("status", (status: StatusObject) => setImmediate(() => resolve({ items, error, header, status })));
  });
}

const registry = createRegistry(ErrorInfoSchema, BadRequestSchema, RetryInfoSchema);

/** The details of a gRPC error, by type name. */
export function detailsOf(error: { readonly metadata: Metadata } | undefined): Readonly<Record<string, Message>> {
  const [bytes] = error?.metadata.get("grpc-status-details-bin") ?? [];
  if (!(bytes instanceof Buffer)) return {};
  const status = fromBinary(StatusSchema, bytes);
  const messages = status.details.map((detail) => anyUnpack(detail, registry)).filter((detail) => detail !== undefined);
  return Object.fromEntries(messages.map((message) => [message.$typeName, message]));
}

/** What these tests look at in a Connect reply or error. */
export interface JsonBody {
  readonly text?: string;
  readonly code?: string;
  readonly message?: string;
  readonly details?: readonly { readonly type: string; readonly value: string; readonly debug?: JsonDetail }[];
}

export interface JsonDetail {
  readonly reason?: string;
  readonly retryDelay?: string;
  readonly fieldViolations?: readonly { readonly field: string }[];
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: JsonBody;
}

/** A Connect call as curl makes it. */
export async function post(
  harness: Pick<Harness, "httpUrl">,
  rpc: string,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
): Promise<HttpAnswer> {
  const response = await fetch(`${harness.httpUrl}${path(rpc)}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: JSON.parse(text) };
}

export function bearer(key: string): Metadata {
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${key}`);
  return metadata;
}

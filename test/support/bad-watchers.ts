import { once } from "node:events";
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type IncomingHttpHeaders } from "node:http2";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  CacheService,
  CacheServiceWatchRequestSchema,
  type CacheServiceWatchResponse,
  CacheServiceWatchResponseSchema,
} from "../../src/gen/holdfast/v1/cache_pb.js";
import { detailsOf } from "./bad-caller.ts";
import { frame } from "./bad-frames.ts";

type WatchRequest = MessageInitShape<typeof CacheServiceWatchRequestSchema>;

/** A Watch by hand on HTTP/2, which reads only when it is told to. */
export interface Watcher {
  /** Begins to read. What was sent meanwhile has waited in the network or in the server. */
  read(): void;
  /** Called with each message, in order. */
  onEvent: (event: CacheServiceWatchResponse["event"]) => void;
  readonly messages: number;
  /** What is wrong with the sequence numbers, if anything. */
  readonly fault: string | undefined;
  /** How it ended: the status, and whether it may be tried again by RetryInfo. */
  readonly end: { readonly status: number; readonly reason: string; readonly retryable: boolean } | undefined;
}

/** A connection for many watchers. A small window leaves little on its way to those who do not read. */
export async function connectWatchers(port: number, windowBytes?: number): Promise<ClientHttp2Session> {
  const session = connect(`http://127.0.0.1:${port}`, {
    maxSessionMemory: 1_000,
    ...(windowBytes !== undefined && { settings: { initialWindowSize: windowBytes } }),
  });
  session.on("error", () => undefined);
  await once(session, "remoteSettings");
  return session;
}

/** Resolves when the server has accepted the watch. */
export async function openWatcher(session: ClientHttp2Session, request: WatchRequest): Promise<Watcher> {
  const bytes = toBinary(CacheServiceWatchRequestSchema, create(CacheServiceWatchRequestSchema, request));
  const { stream, opened } = openWatch(session, CacheService.typeName, bytes);
  const watcher = watcherOf(stream);
  await opened;
  return watcher;
}

/** Opens the Watch of a service, and reads nothing of it. */
export function openWatch(session: ClientHttp2Session, service: string, request: Uint8Array) {
  const stream = session.request({
    ":method": "POST",
    ":path": `/${service}/Watch`,
    "content-type": "application/grpc",
    te: "trailers",
  });
  stream.on("error", () => undefined);
  stream.end(frame(request));
  return { stream, opened: once(stream, "response") };
}

/** Reads on and on. */
export function readMessages(stream: ClientHttp2Stream, take: (message: Buffer) => void): void {
  let rest: Buffer = Buffer.alloc(0);
  stream.on("data", (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 5 && rest.length >= 5 + rest.readUInt32BE(1)) {
      const length = rest.readUInt32BE(1);
      take(rest.subarray(5, 5 + length));
      rest = rest.subarray(5 + length);
    }
  });
}

function watcherOf(stream: ClientHttp2Stream): Watcher {
  let messages = 0;
  let fault: string | undefined;
  let end: Watcher["end"];
  stream.on("trailers", (trailers: IncomingHttpHeaders) => {
    const details = trailers["grpc-status-details-bin"];
    const { reason, retryable } = detailsOf(typeof details === "string" ? Buffer.from(details, "base64") : undefined);
    end = { status: Number(trailers["grpc-status"]), reason, retryable };
  });
  const watcher = {
    onEvent: () => undefined,
    get messages() {
      return messages;
    },
    get fault() {
      return fault;
    },
    get end() {
      return end;
    },
    read() {
      readMessages(stream, (message) => take(fromBinary(CacheServiceWatchResponseSchema, message)));
    },
  } satisfies Watcher as Watcher;

  function take({ sequence, event }: CacheServiceWatchResponse): void {
    messages++;
    if (sequence !== BigInt(messages)) fault ??= `message ${messages} has the sequence ${sequence}`;
    if ((messages === 1) !== (event.case === "opened")) fault ??= `message ${messages} is ${event.case}`;
    watcher.onEvent(event);
  }
  return watcher;
}

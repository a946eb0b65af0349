import {
  create,
  createRegistry,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.js";
import {
  CacheService,
  type CacheServiceGetResponse,
  type CacheServiceSetResponse,
  type CacheServiceWatchRequestSchema,
  type CacheServiceWatchResponse,
  CacheServiceWatchResponseSchema,
} from "../../src/gen/holdfast/v1/cache_pb.js";

export interface Answer<T> {
  readonly reply: T;
  readonly servedBy: string;
  readonly degraded: boolean;
  /** From the call to its answer, as the caller waited. */
  readonly ms: number;
}

/** A call that did not go well, with what the server said of it. */
export class CallFailed extends Error {
  readonly code: string;
  readonly reason: string;
  readonly hasRetryInfo: boolean;
  readonly ms: number;

  constructor(method: string, error: ServiceError, ms: number) {
    const { reason, hasRetryInfo } = detailsOf(error);
    super(`${method}: ${status[error.code]} ${reason} ${error.details} (after ${Math.round(ms)} ms)`);
    this.code = status[error.code] ?? String(error.code);
    this.reason = reason;
    this.hasRetryInfo = hasRetryInfo;
    this.ms = ms;
  }
}

export interface Watching extends AsyncDisposable {
  /** What has come so far. */
  readonly events: readonly CacheServiceWatchResponse[];
  readonly ended: boolean;
}

export interface PutOptions {
  readonly tags?: string[];
  readonly leaseToken?: string;
  readonly ifAbsent?: boolean;
}

export interface CacheClient extends Disposable {
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<Answer<MessageShape<O>>>;
  /** Stores text. */
  put(namespace: string, key: string, text: string, options?: PutOptions): Promise<Answer<CacheServiceSetResponse>>;
  /** The text of a key, past the instance's memory if asked; undefined on a miss. */
  text(namespace: string, key: string, bypassL1?: boolean): Promise<string | undefined>;
  /** Resolves once the watch is open. */
  watch(request: MessageInitShape<typeof CacheServiceWatchRequestSchema>): Promise<Watching>;
}

export interface CacheClientOptions {
  /** A call that has no answer by then fails with DEADLINE_EXCEEDED. Default 20 s: far beyond any promise. */
  readonly deadlineMs?: number;
}

const pathOf = (name: string) => `/${CacheService.typeName}/${name}`;
const registry = createRegistry(ErrorInfoSchema, BadRequestSchema, RetryInfoSchema);

/** A plain client of CacheService, which retries nothing: what a test counts is what the server did. */
export function createCacheClient(address: string, { deadlineMs = 20_000 }: CacheClientOptions = {}): CacheClient {
  const client = new Client(address, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_retries": 0,
    // A server that was killed is dialled anew soon after it is back.
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 200,
  });

  function call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<Answer<MessageShape<O>>> {
    const start = performance.now();
    return new Promise((resolve, reject) => {
      let header = new Metadata();
      const unary = client.makeUnaryRequest<Uint8Array, MessageShape<O>>(
        pathOf(method.name),
        (bytes) => Buffer.from(bytes),
        (bytes) => fromBinary(method.output, bytes),
        toBinary(method.input, create(method.input, request)),
        { deadline: Date.now() + deadlineMs },
        (error, reply) => {
          const ms = performance.now() - start;
          if (error !== null) reject(new CallFailed(method.name, error, ms));
          else if (reply === undefined) reject(new Error(`${method.name} ended without a reply`));
          else {
            const said = (name: string) => String(header.get(name)[0] ?? "");
            const degraded = said("holdfast-degraded") === "true";
            resolve({ reply, ms, servedBy: said("holdfast-served-by"), degraded });
          }
        },
      );
      unary.on("metadata", (received: Metadata) => {
        header = received;
      });
    });
  }

  return {
    call,
    put: (namespace, key, text, options = {}) =>
      call(CacheService.method.set, { namespace, key, value: { kind: { case: "text", value: text } }, ...options }),
    text: async (namespace, key, bypassL1 = false) =>
      textOf((await call(CacheService.method.get, { namespace, key, bypassL1 })).reply),
    async watch(request) {
      const { name, input } = CacheService.method.watch;
      const events: CacheServiceWatchResponse[] = [];
      let ended = false;
      const stream = client.makeServerStreamRequest<Uint8Array, CacheServiceWatchResponse>(
        pathOf(name),
        (bytes) => Buffer.from(bytes),
        (bytes) => fromBinary(CacheServiceWatchResponseSchema, bytes),
        toBinary(input, create(input, request)),
      );
      await new Promise<void>((resolve, reject) => {
        stream.on("data", (event: CacheServiceWatchResponse) => {
          events.push(event);
          resolve();
        });
        stream.on("end", () => {
          ended = true;
        });
        stream.on("error", (error) => {
          ended = true;
          reject(error);
        });
      });
      return {
        events,
        get ended() {
          return ended;
        },
        async [Symbol.asyncDispose]() {
          stream.cancel();
        },
      };
    },
    [Symbol.dispose]: () => client.close(),
  };
}

export function textOf({ entry }: CacheServiceGetResponse): string | undefined {
  const kind = entry?.value?.kind;
  return kind?.case === "text" ? kind.value : undefined;
}

function detailsOf(error: ServiceError): { reason: string; hasRetryInfo: boolean } {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  if (!(bytes instanceof Buffer)) return { reason: "", hasRetryInfo: false };
  const details = fromBinary(StatusSchema, bytes).details.map((detail) => anyUnpack(detail, registry));
  let reason = "";
  for (const detail of details) {
    if (detail?.$typeName === ErrorInfoSchema.typeName && "reason" in detail) reason = String(detail.reason);
  }
  return { reason, hasRetryInfo: details.some((detail) => detail?.$typeName === RetryInfoSchema.typeName) };
}

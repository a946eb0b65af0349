import {
  create,
  createRegistry,
  type DescMessage,
  type DescMethodBiDiStreaming,
  type DescMethodServerStreaming,
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
import { type ConversationConflict, ConversationConflictSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";

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
  /** The fields named as wrong. */
  readonly fields: readonly string[];
  /** What is there instead of what a write of a conversation expected. */
  readonly conflict: ConversationConflict | undefined;
  readonly ms: number;

  constructor(method: string, error: ServiceError, ms: number) {
    const { reason, hasRetryInfo, fields, conflict } = detailsOf(error);
    super(`${method}: ${status[error.code]} ${reason} ${error.details} (after ${Math.round(ms)} ms)`);
    this.code = status[error.code] ?? String(error.code);
    this.reason = reason;
    this.hasRetryInfo = hasRetryInfo;
    this.fields = fields;
    this.conflict = conflict;
    this.ms = ms;
  }
}

/** A stream of messages from the server. */
export interface Following extends Disposable {
  /** How it ended: undefined with OK, else why not. */
  readonly ended: Promise<CallFailed | undefined>;
  /** Stops and starts reading: the server is held up by the transport's own flow control. */
  pause(): void;
  resume(): void;
  cancel(): void;
}

/** A stream in both directions. */
export interface Conversation<I extends DescMessage> extends Following {
  send(message: MessageInitShape<I>): void;
  /** The transport holds back: what is sent now is kept in this process until the server reads on. */
  readonly isHeldBack: boolean;
  /** Ends this side. */
  finish(): void;
}

export interface RpcClient extends Disposable {
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<Answer<MessageShape<O>>>;
  follow<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    onMessage: (message: MessageShape<O>) => void,
  ): Following;
  converse<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    onMessage: (message: MessageShape<O>) => void,
  ): Conversation<I>;
}

export interface RpcClientOptions {
  /** A call that has no answer by then fails with DEADLINE_EXCEEDED; streams have none. Default 20 s: far beyond any promise. */
  readonly deadlineMs?: number;
}

const registry = createRegistry(ErrorInfoSchema, BadRequestSchema, RetryInfoSchema);

/** A plain client, which retries nothing: what a test counts is what the server did. */
export function createRpcClient(address: string, { deadlineMs = 20_000 }: RpcClientOptions = {}): RpcClient {
  const client = new Client(address, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.enable_retries": 0,
    // A server that was killed is dialled anew soon after it is back.
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 200,
  });

  return {
    call(method, request) {
      const start = performance.now();
      return new Promise((resolve, reject) => {
        let header = new Metadata();
        const unary = client.makeUnaryRequest(
          pathOf(method),
          asBuffer,
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
    },
    follow(method, request, onMessage) {
      const stream = client.makeServerStreamRequest(
        pathOf(method),
        asBuffer,
        (bytes) => fromBinary(method.output, bytes),
        toBinary(method.input, create(method.input, request)),
      );
      stream.on("data", onMessage);
      return following(method.name, stream);
    },
    converse(method, onMessage) {
      const stream = client.makeBidiStreamRequest(pathOf(method), asBuffer, (bytes) =>
        fromBinary(method.output, bytes),
      );
      stream.on("data", onMessage);
      return {
        ...following(method.name, stream),
        send: (message) => void stream.write(toBinary(method.input, create(method.input, message))),
        get isHeldBack() {
          return stream.writableNeedDrain;
        },
        finish: () => void stream.end(),
      };
    },
    [Symbol.dispose]: () => client.close(),
  };
}

function pathOf({ parent, name }: { readonly parent: { readonly typeName: string }; readonly name: string }): string {
  return `/${parent.typeName}/${name}`;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

interface Readable {
  on(event: "error", listener: (error: ServiceError) => void): unknown;
  on(event: "status", listener: (said: { readonly code: number }) => void): unknown;
  pause(): unknown;
  resume(): unknown;
  cancel(): void;
}

function following(name: string, stream: Readable): Following {
  const start = performance.now();
  const { promise: ended, resolve } = Promise.withResolvers<CallFailed | undefined>();
  stream.on("error", (error) => resolve(new CallFailed(name, error, performance.now() - start)));
  stream.on("status", ({ code }) => {
    if (code === status.OK) resolve(undefined);
  });
  const cancel = () => stream.cancel();
  return {
    ended,
    pause: () => void stream.pause(),
    resume: () => void stream.resume(),
    cancel,
    [Symbol.dispose]: cancel,
  };
}

function detailsOf(error: ServiceError): Pick<CallFailed, "reason" | "hasRetryInfo" | "fields" | "conflict"> {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  let reason = "";
  let hasRetryInfo = false;
  const fields: string[] = [];
  let conflict: ConversationConflict | undefined;
  if (bytes instanceof Buffer) {
    for (const packed of fromBinary(StatusSchema, bytes).details) {
      const detail = anyUnpack(packed, registry);
      if (detail?.$typeName === ErrorInfoSchema.typeName && "reason" in detail) reason = String(detail.reason);
      if (detail?.$typeName === RetryInfoSchema.typeName) hasRetryInfo = true;
      if (packed.typeUrl.endsWith(`/${BadRequestSchema.typeName}`)) {
        const { fieldViolations } = fromBinary(BadRequestSchema, packed.value);
        fields.push(...fieldViolations.map(({ field }) => field));
      }
      if (packed.typeUrl.endsWith(`/${ConversationConflictSchema.typeName}`)) {
        conflict = fromBinary(ConversationConflictSchema, packed.value);
      }
    }
  }
  return { reason, hasRetryInfo, fields, conflict };
}

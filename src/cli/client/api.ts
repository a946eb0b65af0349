import { readFileSync } from "node:fs";
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  type ClientReadableStream,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { ConfigError } from "../../config.ts";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import {
  type AuditCheckpoint,
  type AuditRecord,
  AuditService,
  type AuditServiceExportRequestSchema,
  type AuditServiceExportResponse,
  type AuditServiceIngestRequestSchema,
  type AuditServiceIngestResponse,
  type AuditServiceReviewRequestSchema,
  type AuditServiceReviewResponse,
} from "../../gen/holdfast/v1/audit_pb.js";

export interface ApiOptions {
  /** host:port of the gRPC plane. */
  readonly address: string;
  readonly apiKey: string | undefined;
  /** The file with the authorities to trust; "system" for those of the system; undefined: no TLS. */
  readonly tls: string | undefined;
}

/** A call that the server, or the way to it, did not let succeed. */
export class ApiError extends Error {
  readonly code: string;
  readonly reason: string;
  /** What the server said. */
  readonly details: string;
  /** Whether the same call may succeed later. */
  readonly isTransient: boolean;

  constructor(method: string, error: ServiceError) {
    const { code } = error;
    const reason = reasonOf(error);
    const why = reason === "" ? "" : ` (${reason})`;
    super(`${method}: ${status[code]}${why}: ${error.details}${hintOf(error.details)}`, { cause: error });
    this.name = "ApiError";
    this.code = status[code] ?? String(code);
    this.reason = reason;
    this.details = error.details;
    this.isTransient = TRANSIENT.has(code);
  }

  /** What no status of the server says, but is as good as one. */
  static unavailable(method: string, details: string): ApiError {
    const metadata = new Metadata();
    return new ApiError(method, Object.assign(new Error(details), { code: status.UNAVAILABLE, details, metadata }));
  }
}

// A server that is killed in the middle of a stream ends it with any of these.
const TRANSIENT: ReadonlySet<status> = new Set([
  status.UNAVAILABLE,
  status.DEADLINE_EXCEEDED,
  status.ABORTED,
  status.CANCELLED,
  status.INTERNAL,
  status.UNKNOWN,
]);

/** What grpc-js says of the other side is right, and helps nobody who gave the wrong port. */
function hintOf(details: string): string {
  if (details.includes("Last error: Protocol error")) {
    return (
      "; what answers there does not speak gRPC: is it the HTTP port (7421 by default)? " +
      "The gRPC port is another (7420 by default, HOLDFAST_GRPC_PORT)"
    );
  }
  if (/wrong version number|packet length too long/i.test(details)) return "; is that server without TLS?";
  return "";
}

/** Whether a stream or call was ended by the server or the network, rather than by a mistake here. */
export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && typeof error.code === "number";
}

const CALL_MS = 30_000;
/** A server or network that is frozen ends no stream by itself. */
const KEEPALIVE_MS = 20_000;
/** A conversation's state and its last message are a little more than the 4 MiB that clients accept by default. */
const MOST_RECEIVED_BYTES = 8 * 1024 * 1024;

export type IngestStream = ClientDuplexStream<
  MessageInitShape<typeof AuditServiceIngestRequestSchema>,
  AuditServiceIngestResponse
>;

/** The few calls that the commands make. */
export interface Api {
  /** One call, which is not tried again. */
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    deadlineMs?: number,
  ): Promise<MessageShape<O>>;
  ingest(): IngestStream;
  /** Undefined: there is no such record. */
  get(id: string): Promise<AuditRecord | undefined>;
  review(request: MessageInitShape<typeof AuditServiceReviewRequestSchema>): Promise<AuditServiceReviewResponse>;
  export(
    request: MessageInitShape<typeof AuditServiceExportRequestSchema>,
  ): ClientReadableStream<AuditServiceExportResponse>;
  checkpoint(): Promise<AuditCheckpoint>;
  close(): void;
}

export function connectApi({ address, apiKey, tls }: ApiOptions): Api {
  const client = new Client(address, credentialsFor(tls), {
    "grpc.enable_retries": 0,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2000,
    "grpc.keepalive_time_ms": KEEPALIVE_MS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_MS,
    "grpc.max_receive_message_length": MOST_RECEIVED_BYTES,
  });
  const metadata = new Metadata();
  if (apiKey !== undefined) metadata.set("authorization", `Bearer ${apiKey}`);

  function call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    deadlineMs = CALL_MS,
  ): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        pathOf(method),
        (message: MessageInitShape<I>) => asBuffer(toBinary(method.input, create(method.input, message))),
        (bytes) => fromBinary(method.output, bytes),
        request,
        metadata,
        { deadline: Date.now() + deadlineMs },
        (error, reply) => {
          if (error !== null) reject(new ApiError(method.name, error));
          else if (reply === undefined) reject(new Error(`${method.name} ended without a reply`));
          else resolve(reply);
        },
      );
    });
  }

  const { method } = AuditService;
  return {
    call,
    ingest: () =>
      client.makeBidiStreamRequest(
        pathOf(method.ingest),
        (message: MessageInitShape<typeof AuditServiceIngestRequestSchema>) =>
          asBuffer(toBinary(method.ingest.input, create(method.ingest.input, message))),
        (bytes) => fromBinary(method.ingest.output, bytes),
        metadata,
      ),
    get: async (id) => (await call(method.get, { id })).record,
    review: (request) => call(method.review, request),
    export: (request) =>
      client.makeServerStreamRequest(
        pathOf(method.export),
        (message: MessageInitShape<typeof AuditServiceExportRequestSchema>) =>
          asBuffer(toBinary(method.export.input, create(method.export.input, message))),
        (bytes) => fromBinary(method.export.output, bytes),
        request,
        metadata,
      ),
    async checkpoint() {
      const { checkpoint } = await call(method.checkpoint, {});
      if (checkpoint === undefined) throw new Error("Checkpoint ended without a checkpoint");
      return checkpoint;
    },
    close: () => client.close(),
  };
}

function credentialsFor(tls: string | undefined): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure();
  if (tls === "system") return credentials.createSsl();
  try {
    return credentials.createSsl(readFileSync(tls));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ConfigError([{ where: "--tls-ca", what: `${tls} cannot be read: ${why}` }]);
  }
}

function pathOf({ parent, name }: Pick<DescMethod, "parent" | "name">): string {
  return `/${parent.typeName}/${name}`;
}

function asBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

/** The stable reason of a failure, from the details that Holdfast sends with each. */
function reasonOf({ metadata }: ServiceError): string {
  const [bytes] = metadata.get("grpc-status-details-bin");
  if (!(bytes instanceof Buffer)) return "";
  const info = fromBinary(StatusSchema, bytes).details.find(({ typeUrl }) =>
    typeUrl.endsWith(`/${ErrorInfoSchema.typeName}`),
  );
  return info === undefined ? "" : fromBinary(ErrorInfoSchema, info.value).reason;
}

import { readFileSync } from "node:fs";
import {
  create,
  type DescMessage,
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
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { ErrorInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../gen/google/rpc/status_pb.js";
import {
  type AuditRecord,
  AuditService,
  type AuditServiceIngestRequestSchema,
  type AuditServiceIngestResponse,
  type AuditServiceReviewRequestSchema,
  type AuditServiceReviewResponse,
} from "../../gen/holdfast/v1/audit_pb.js";
import { SourceError } from "./source.ts";

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
  /** Whether the same call may succeed later. */
  readonly isTransient: boolean;

  constructor(method: string, error: ServiceError) {
    const { code } = error;
    const reason = reasonOf(error);
    super(`${method}: ${status[code]}${reason === "" ? "" : ` (${reason})`}: ${error.details}`, { cause: error });
    this.name = "ApiError";
    this.code = status[code] ?? String(code);
    this.reason = reason;
    this.isTransient = TRANSIENT.has(code);
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

const CALL_MS = 30_000;

export type IngestStream = ClientDuplexStream<
  MessageInitShape<typeof AuditServiceIngestRequestSchema>,
  AuditServiceIngestResponse
>;

/** The few calls an import makes. */
export interface Api {
  ingest(): IngestStream;
  /** Undefined: there is no such record. */
  get(id: string): Promise<AuditRecord | undefined>;
  review(request: MessageInitShape<typeof AuditServiceReviewRequestSchema>): Promise<AuditServiceReviewResponse>;
  close(): void;
}

export function connectApi({ address, apiKey, tls }: ApiOptions): Api {
  const client = new Client(address, credentialsFor(tls), {
    "grpc.enable_retries": 0,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2000,
  });
  const metadata = new Metadata();
  if (apiKey !== undefined) metadata.set("authorization", `Bearer ${apiKey}`);

  function call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        pathOf(method.name),
        (message: MessageInitShape<I>) => asBuffer(toBinary(method.input, create(method.input, message))),
        (bytes) => fromBinary(method.output, bytes),
        request,
        metadata,
        { deadline: Date.now() + CALL_MS },
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
    ingest: () =>
      client.makeBidiStreamRequest(
        pathOf(method.ingest.name),
        (message: MessageInitShape<typeof AuditServiceIngestRequestSchema>) =>
          asBuffer(toBinary(method.ingest.input, create(method.ingest.input, message))),
        (bytes) => fromBinary(method.ingest.output, bytes),
        metadata,
      ),
    get: async (id) => (await call(method.get, { id })).record,
    review: (request) => call(method.review, request),
    close: () => client.close(),
  };
}

function credentialsFor(tls: string | undefined): ChannelCredentials {
  if (tls === undefined) return credentials.createInsecure();
  if (tls === "system") return credentials.createSsl();
  try {
    return credentials.createSsl(readFileSync(tls));
  } catch (error) {
    throw new SourceError(`${tls} cannot be read: ${error instanceof Error ? error.message : String(error)}`, error);
  }
}

function pathOf(method: string): string {
  return `/${AuditService.typeName}/${method}`;
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

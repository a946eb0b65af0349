import { create, createRegistry, type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import {
  type BadRequest,
  BadRequestSchema,
  type ErrorInfo,
  ErrorInfoSchema,
  type RetryInfo,
  RetryInfoSchema,
} from "../../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.js";

/** How a call ended, as far as a caller can tell. */
export interface Ending {
  /** The canonical code by name; "OK" too. */
  readonly code: string;
  readonly message: string;
  readonly domain: string;
  readonly reason: string;
  /** The fields that BadRequest blames. */
  readonly fields: readonly string[];
  readonly retryable: boolean;
  /** The reply, or the first one of a stream. */
  readonly reply: Buffer | undefined;
}

export interface BadCallOptions {
  readonly deadlineMs?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Take one reply of a stream and, without a signal to do so later, hang up. */
  readonly stream?: boolean;
  /** Hangs up when it is aborted. */
  readonly signal?: AbortSignal;
}

/** A client that sends whatever bytes it is given as a request. */
export interface BadCaller extends Disposable {
  send(path: string, request: Uint8Array, options?: BadCallOptions): Promise<Ending>;
  /** The same with a message, whatever is in it; of a stream the first reply is taken. */
  call(rpc: DescMethod, request: Readonly<Record<string, unknown>>): Promise<Ending>;
}

export const noError: Omit<Ending, "reply"> = {
  code: "OK",
  message: "",
  domain: "",
  reason: "",
  fields: [],
  retryable: false,
};

export function createBadCaller(address: string): BadCaller {
  const client = new Client(address, credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.max_send_message_length": -1,
    "grpc.max_receive_message_length": -1,
    "grpc.enable_retries": 0,
  });
  const asIs = (bytes: Buffer) => bytes;
  const caller: BadCaller = {
    call(rpc, request) {
      const bytes = toBinary(rpc.input, create(rpc.input, { ...request }));
      return caller.send(`/${rpc.parent.typeName}/${rpc.name}`, bytes, { stream: rpc.methodKind !== "unary" });
    },
    send(path, request, { deadlineMs = 30_000, headers = {}, stream = false, signal } = {}) {
      const metadata = new Metadata();
      for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
      const options = { deadline: Date.now() + deadlineMs };
      const bytes = Buffer.from(request);
      return new Promise((resolve) => {
        if (!stream) {
          const answered = (error: ServiceError | null, reply?: Buffer) =>
            resolve(error === null ? { ...noError, reply } : endingOf(error));
          const call = client.makeUnaryRequest<Buffer, Buffer>(path, asIs, asIs, bytes, metadata, options, answered);
          signal?.addEventListener("abort", () => call.cancel(), { once: true });
          return;
        }
        const call = client.makeServerStreamRequest<Buffer, Buffer>(path, asIs, asIs, bytes, metadata, options);
        signal?.addEventListener("abort", () => call.cancel(), { once: true });
        call.on("data", (reply: Buffer) => {
          resolve({ ...noError, reply });
          if (signal === undefined) call.cancel();
        });
        call.on("error", (error: ServiceError) => resolve(endingOf(error)));
        call.on("end", () => resolve({ ...noError, reply: undefined }));
      });
    },
    [Symbol.dispose]: () => client.close(),
  };
  return caller;
}

export function endingOf(error: Pick<ServiceError, "code" | "details" | "metadata">): Ending {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  return {
    ...detailsOf(bytes instanceof Buffer ? bytes : undefined),
    code: status[error.code] ?? String(error.code),
    message: error.details,
    reply: undefined,
  };
}

const registry = createRegistry(ErrorInfoSchema, BadRequestSchema, RetryInfoSchema);

/** What `grpc-status-details-bin` says. */
export function detailsOf(bytes: Uint8Array | undefined): Pick<Ending, "domain" | "reason" | "fields" | "retryable"> {
  let info: ErrorInfo | undefined;
  let bad: BadRequest | undefined;
  let retry: RetryInfo | undefined;
  for (const packed of bytes === undefined ? [] : fromBinary(StatusSchema, bytes).details) {
    const detail = anyUnpack(packed, registry);
    if (detail === undefined) continue;
    if (isA<ErrorInfo>(detail, ErrorInfoSchema.typeName)) info = detail;
    if (isA<BadRequest>(detail, BadRequestSchema.typeName)) bad = detail;
    if (isA<RetryInfo>(detail, RetryInfoSchema.typeName)) retry = detail;
  }
  return {
    domain: info?.domain ?? "",
    reason: info?.reason ?? "",
    fields: bad?.fieldViolations.map(({ field }) => field) ?? [],
    retryable: retry !== undefined,
  };
}

function isA<T extends { readonly $typeName: string }>(
  detail: { readonly $typeName: string },
  name: T["$typeName"],
): detail is T {
  return detail.$typeName === name;
}

/** The lines of a server's log at level error, and anything that is not a log line at all (such as a stack). */
export function complaints(output: string): string[] {
  return output
    .split("\n")
    .filter((line) => line !== "" && (!line.startsWith("{") || /"level":"(error|fatal)"/.test(line)));
}

/** The sum of a gauge over its labels, from `/metrics`. */
export async function gauge(httpUrl: string, name: string): Promise<number> {
  const text = await (await fetch(`${httpUrl}/metrics`)).text();
  const samples = text.split("\n").filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
  if (samples.length === 0) throw new Error(`/metrics has no ${name}`);
  return samples.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}

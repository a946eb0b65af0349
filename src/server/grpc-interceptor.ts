import {
  status as grpcCode,
  type ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
} from "@grpc/grpc-js";
import { Failure } from "../infra/failure.ts";
import { callErrorOf } from "./errors.ts";
import { authenticateMetadata, type GrpcContext, grpcStatus } from "./grpc-call.ts";
import type { LateService } from "./late-service.ts";
import type { Method } from "./method.ts";
import { replyMetadata, unknownProvenance } from "./reply-metadata.ts";
import { requestTooLarge } from "./request-too-large.ts";

type Carrier = ServerInterceptingCallInterface;

/** What happens to calls outside their handlers. */
export function createInterceptor(
  context: GrpcContext,
  methods: ReadonlyMap<string, Method>,
  auxiliaries: Auxiliaries,
): ServerInterceptor {
  const senders = new Map<string, Carrier["sendStatus"]>();
  for (const [path, method] of methods) senders.set(path, statusSender(context, method));
  return (definition, carrier) => {
    const sender = senders.get(definition.path);
    if (sender !== undefined) carrier.sendStatus = sender;
    else watchAuxiliary(context, auxiliaries, definition.path, carrier);
    // Its type asks for grpc-js's wrapper, but the interface is all that is used, and the wrapper would cost each call more
    // than our whole adapter.
    if (!isInterceptingCall(carrier)) throw new TypeError("not a server call");
    return carrier;
  };
}

function isInterceptingCall(carrier: Carrier): carrier is ServerInterceptingCall {
  return typeof carrier.start === "function";
}

/**
 * grpc-js answers some calls by itself: a message over the limit, a deadline that passed before the request was whole. Those
 * answers get our metadata and details too, and a place in the metrics and the log. Ours always come with metadata.
 *
 * One function for all calls of a method: this stands in the way of every answer.
 */
function statusSender(context: GrpcContext, method: Method): Carrier["sendStatus"] {
  const { answered } = context;
  return function sendStatus(this: Carrier, status) {
    const send = inherited(this);
    if (status.metadata !== null && status.metadata !== undefined) {
      send.call(this, status);
      return;
    }
    // A reply that could not be written, because its reader is gone: the call has its place in the books already.
    if (/writing|^Internal server error$/.test(status.details)) {
      send.call(this, status);
      return;
    }
    // It goes on to complain of the rest of a request that it has refused.
    if (answered.has(this)) return;
    answered.add(this);
    const failure = foreignFailure(status.code, status.details);
    const running = context.streaming.get(this);
    if (running !== undefined) {
      running.abort(failure);
      return;
    }
    const error = context.calls.refuse(method, performance.now(), failure, this.getPeer());
    send.call(this, grpcStatus(unknownProvenance, error));
  };
}

/** The `sendStatus` that ours hides. */
function inherited(carrier: Carrier): Carrier["sendStatus"] {
  const base: Carrier = Object.getPrototypeOf(carrier);
  return base.sendStatus;
}

function foreignFailure(code: number, details: string): Failure {
  switch (code) {
    case grpcCode.RESOURCE_EXHAUSTED:
      return requestTooLarge(details);
    case grpcCode.DEADLINE_EXCEEDED:
      return new Failure("deadline", "DEADLINE_EXCEEDED", "the deadline passed before the request was complete");
    case grpcCode.UNIMPLEMENTED:
      return new Failure("unimplemented", "PROTOCOL_NOT_SUPPORTED", details);
    default:
      // Left are bytes that could not be decompressed and a grpc-timeout that could not be read.
      return new Failure("invalid", "MALFORMED_REQUEST", details);
  }
}

/** The services that are not ours (health, reflection) and their calls: a watch ends only when someone ends it. */
export interface Auxiliaries {
  readonly services: readonly LateService[];
  readonly open: Set<Carrier>;
  /** Ends them all, so that they do not hold up a shutdown. */
  end(): void;
}

export function createAuxiliaries(services: readonly LateService[]): Auxiliaries {
  const open = new Set<Carrier>();
  return {
    services,
    open,
    end() {
      const metadata = replyMetadata(unknownProvenance);
      for (const carrier of open) {
        carrier.sendStatus({ code: grpcCode.UNAVAILABLE, details: "this instance is shutting down", metadata });
      }
    },
  };
}

/**
 * Reflection tells what there is to call: with keys in use, only to those who hold one. Health is open to all.
 * Of both it is kept which are open.
 */
function watchAuxiliary(context: GrpcContext, auxiliaries: Auxiliaries, path: string, carrier: Carrier): void {
  const guarded = path.startsWith("/grpc.reflection.");
  const service = auxiliaries.services.find((one) => one.serves(path));
  const start = carrier.start;
  carrier.start = (listener) => {
    auxiliaries.open.add(carrier);
    const refuse = (thrown: unknown) => carrier.sendStatus(grpcStatus(unknownProvenance, callErrorOf(thrown)));
    start.call(carrier, {
      onReceiveMetadata(metadata) {
        try {
          if (guarded) authenticateMetadata(context.authenticator, metadata, carrier);
        } catch (thrown) {
          refuse(thrown);
          return;
        }
        // grpc-js reads no message before this one has been passed on.
        const loading = service?.loading();
        if (loading === undefined) listener.onReceiveMetadata(metadata);
        else loading.then(() => auxiliaries.open.has(carrier) && listener.onReceiveMetadata(metadata)).catch(refuse);
      },
      onReceiveMessage: (message) => listener.onReceiveMessage(message),
      onReceiveHalfClose: () => listener.onReceiveHalfClose(),
      // Comes at the end of every call, however it ended.
      onCancel() {
        auxiliaries.open.delete(carrier);
        listener.onCancel();
      },
    });
  };
}

import {
  status as grpcCode,
  type ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
} from "@grpc/grpc-js";
import { Failure } from "../infra/failure.ts";
import { hungUp } from "./call.ts";
import { callErrorOf } from "./errors.ts";
import { authenticateMetadata, type GrpcContext, grpcStatus } from "./grpc-call.ts";
import type { Method } from "./method.ts";
import { unknownProvenance } from "./reply-metadata.ts";

type Carrier = ServerInterceptingCallInterface;

/** What happens to calls outside their handlers. */
export function createInterceptor(context: GrpcContext, methods: ReadonlyMap<string, Method>): ServerInterceptor {
  return (definition, carrier) => {
    const method = methods.get(definition.path);
    if (method !== undefined) ownStatuses(context, method, carrier);
    else if (definition.path.startsWith("/grpc.reflection.")) guardReflection(context, carrier);
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
 */
function ownStatuses(context: GrpcContext, method: Method, carrier: Carrier): void {
  const send = carrier.sendStatus;
  let answered = false;
  carrier.sendStatus = (status) => {
    // It may go on to complain of the rest of a request that it has refused.
    if (answered) return;
    answered = true;
    if (status.metadata !== null && status.metadata !== undefined) {
      send.call(carrier, status);
      return;
    }
    const failure = foreignFailure(status.code, status.details);
    const running = context.streaming.get(carrier);
    if (running !== undefined) {
      answered = false;
      running.abort(failure);
      return;
    }
    const error = context.calls.refuse(method, "", performance.now(), failure, carrier.getPeer());
    send.call(carrier, grpcStatus(unknownProvenance, error));
  };
}

function foreignFailure(code: number, details: string): Failure {
  switch (code) {
    case grpcCode.RESOURCE_EXHAUSTED:
      return new Failure("too_large", "MESSAGE_TOO_LARGE", details);
    case grpcCode.DEADLINE_EXCEEDED:
      return new Failure("deadline", "DEADLINE_EXCEEDED", "the deadline passed before the request was complete");
    case grpcCode.UNIMPLEMENTED:
      return new Failure("unimplemented", "PROTOCOL_NOT_SUPPORTED", details);
    default:
      // Bytes that could not be decompressed, a grpc-timeout that could not be read; and a reply that could not be written,
      // because its reader is gone.
      return /writing|^Internal server error$/.test(details)
        ? hungUp()
        : new Failure("invalid", "MALFORMED_REQUEST", details);
  }
}

/** Reflection tells what there is to call: with keys in use, only to those who hold one. Health is open to all. */
function guardReflection(context: GrpcContext, carrier: Carrier): void {
  if (!context.authenticator.keysRequired) return;
  const start = carrier.start;
  carrier.start = (listener) => {
    start.call(carrier, {
      onReceiveMetadata(metadata) {
        try {
          authenticateMetadata(context.authenticator, metadata, carrier);
        } catch (thrown) {
          carrier.sendStatus(grpcStatus(unknownProvenance, callErrorOf(thrown)));
          return;
        }
        listener.onReceiveMetadata(metadata);
      },
      onReceiveMessage: (message) => listener.onReceiveMessage(message),
      onReceiveHalfClose: () => listener.onReceiveHalfClose(),
      onCancel: () => listener.onCancel(),
    });
  };
}

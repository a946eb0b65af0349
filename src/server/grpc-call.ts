import type { Metadata } from "@grpc/grpc-js";
import type { AuthContext } from "@grpc/grpc-js/build/src/auth-context.js";
import type { Authenticator, Credentials } from "./auth.ts";
import type { Call } from "./call.ts";
import type { Calls } from "./calls.ts";
import type { CallError } from "./errors.ts";
import type { Method } from "./method.ts";
import { errorMetadata, type Provenance } from "./reply-metadata.ts";
import { subjectOf } from "./tls.ts";

/** What every kind of gRPC call has, as far as we look at it. */
export interface Incoming {
  readonly metadata: Metadata;
  getPeer(): string;
  getDeadline(): Date | number;
  getAuthContext(): AuthContext;
}

/** What the handlers of one gRPC server share. */
export interface GrpcContext {
  readonly calls: Calls;
  readonly authenticator: Authenticator;
  /** Calls that stream, by the grpc-js call that carries them. */
  readonly streaming: WeakMap<object, Call>;
  /** Those of grpc-js' calls that it has answered by itself; they are in the books. */
  readonly answered: WeakSet<object>;
}

/** The call of whoever presents itself; throws when that is nobody known. It is still to be let in. */
export function openCall(context: GrpcContext, method: Method, incoming: Incoming, started: number): Call {
  const deadline = incoming.getDeadline();
  const { authenticator } = context;
  return context.calls.open(
    method,
    authenticator.everyone ?? authenticator.authenticate(new GrpcCredentials(incoming.metadata, incoming, carrierOf)),
    typeof deadline === "number" ? deadline : deadline.getTime(),
    started,
  );
}

/** Throws unless whoever sent the metadata over this grpc-js call is known. */
export function authenticateMetadata(authenticator: Authenticator, metadata: Metadata, carrier: Peer): void {
  authenticator.authenticate(new GrpcCredentials(metadata, carrier, (peer) => peer));
}

type Peer = Pick<Incoming, "getAuthContext">;

class GrpcCredentials implements Credentials {
  private readonly metadata: Metadata;
  private readonly peer: Peer;
  private readonly carrierOf: (peer: object) => object | undefined;

  constructor(metadata: Metadata, peer: Peer, carrier: (peer: object) => object | undefined) {
    this.metadata = metadata;
    this.peer = peer;
    this.carrierOf = carrier;
  }

  header(name: "authorization" | "x-api-key"): string | undefined {
    const [value] = this.metadata.get(name);
    return typeof value === "string" ? value : undefined;
  }

  certificateSubject(): string | undefined {
    const session = inner(inner(this.carrierOf(this.peer), "stream"), "session");
    const known = session === undefined ? undefined : subjects.get(session);
    if (known !== undefined) return known;
    const certificate = this.peer.getAuthContext().sslPeerCertificate;
    const subject = certificate === undefined ? undefined : subjectOf(certificate);
    if (session !== undefined && subject !== undefined) subjects.set(session, subject);
    return subject;
  }
}

// Reading a peer's certificate takes longer than most calls, and a connection has one for as long as it lives.
const subjects = new WeakMap<object, string>();

/** The grpc-js call beneath a handler's; the one that interceptors see. Undefined should grpc-js ever rename it. */
export function carrierOf(incoming: object): object | undefined {
  return inner(incoming, "call");
}

function inner(of: object | undefined, name: string): object | undefined {
  const value: unknown = of === undefined ? undefined : Reflect.get(of, name);
  return typeof value === "object" && value !== null ? value : undefined;
}

/** An error as grpc-js sends it. */
export function grpcStatus(call: Provenance, error: CallError) {
  const code: number = error.code;
  return { code, details: error.message, metadata: errorMetadata(call, error) };
}

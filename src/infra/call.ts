import type { DescMessage, DescMethod, DescService, Message, MessageShape } from "@bufbuild/protobuf";
import type { Failure } from "./failure.ts";

/** Where an answer came from; the reply's `holdfast-served-by`. */
export type ServedBy = "l1" | "redis" | "postgres" | "sqlite" | "journal";

/** Who calls, as the server authenticated them. */
export interface Caller {
  /** The API key's name, the certificate's subject, or "anonymous". For logs; never a secret. */
  readonly name: string;
  hasScope(scope: string): boolean;
  /**
   * Whether the caller may touch this namespace. True for everyone when keys name no namespaces. The namespace a request names
   * has been checked; an RPC that can be about all of them asks for each.
   */
  mayUse(namespace: string): boolean;
}

/** What an RPC may know and say about the call it serves, the same on both planes. */
export interface CallContext {
  /** Such as "holdfast.v1.CacheService/Get". */
  readonly method: string;
  readonly caller: Caller;
  /** When the caller stops waiting, in milliseconds since 1970. Undefined: never. */
  readonly deadline: number | undefined;
  /** Aborted when the caller hangs up, the deadline passes, or the server drains (then `reason` is a Failure). Made on first use. */
  readonly signal: AbortSignal;
  /** What `signal` is aborted with, once it is: for those who only look now and then, and need none made. */
  readonly interruption: Failure | undefined;
  servedBy(layer: ServedBy): void;
  /** The answer is correct but came by a fallback; the reply's `holdfast-degraded`. */
  degraded(): void;
}

type Input<M extends DescMethod> = MessageShape<M["input"] & DescMessage>;
type Output<M extends DescMethod> = MessageShape<M["output"] & DescMessage>;

/**
 * A reply in protobuf binary, for an RPC that already holds the bytes (a cached value, say): the gRPC plane sends them as
 * they are, the HTTP plane decodes them. They must be a whole message of the RPC's response type, and must not change.
 */
export class EncodedReply {
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}

type Reply<M extends DescMethod> = Output<M> | EncodedReply;

/** An RPC: a function, or an async generator where the reply is a stream. A unary one that need not wait may return plainly. */
export type Rpc<M extends DescMethod> = M["methodKind"] extends "unary"
  ? (request: Input<M>, call: CallContext) => Promise<Reply<M>> | Reply<M>
  : M["methodKind"] extends "server_streaming"
    ? (request: Input<M>, call: CallContext) => AsyncIterable<Reply<M>>
    : M["methodKind"] extends "client_streaming"
      ? (requests: AsyncIterable<Input<M>>, call: CallContext) => Promise<Output<M>>
      : (requests: AsyncIterable<Input<M>>, call: CallContext) => AsyncIterable<Output<M>>;

/** The RPCs of one service. What is left out answers UNIMPLEMENTED. */
export type Rpcs<S extends DescService> = { [K in keyof S["method"]]?: Rpc<S["method"][K]> };

/** A service and what implements it, ready to be mounted on both planes. */
export interface Mounted {
  readonly service: DescService;
  readonly rpcs: Readonly<Record<string, unknown>>;
  readonly decoders?: Readonly<Record<string, RequestDecoder | undefined>>;
  readonly jsonGuard?: JsonGuard;
  /** RPCs whose callers may wait longer than those of others, and for how many milliseconds. */
  readonly longestMs?: Readonly<Record<string, number | undefined>>;
}

/**
 * Reads a request of one RPC from protobuf binary, for RPCs on which the ordinary decoder would cost most of the time. What it
 * returns is given to that RPC alone, which must treat it as the message it stands for; it throws when the bytes are none.
 */
export type RequestDecoder = (bytes: Uint8Array) => Message;

/**
 * Looks at the text of a request in JSON before anything is made of it. Throws a Failure for one that would take so long that nobody
 * else is served meanwhile; all else, also what is no JSON, it leaves to others.
 */
export type JsonGuard = (text: string) => void;

/** Whether this build answers at least one of its RPCs. */
export function isImplemented({ rpcs }: Mounted): boolean {
  return Object.keys(rpcs).length > 0;
}

/** Requests of the RPCs that `decoders` names are decoded by these where they come in binary; `jsonGuard` sees the others of all. */
export function mount<S extends DescService>(
  service: S,
  rpcs: Rpcs<S>,
  decoders: { readonly [K in keyof S["method"]]?: (bytes: Uint8Array) => Input<S["method"][K]> } = {},
  jsonGuard?: JsonGuard,
): Mounted {
  return { service, rpcs: rpcs as Readonly<Record<string, unknown>>, decoders, ...(jsonGuard && { jsonGuard }) };
}

import { type DescMethod, getOption, type Message } from "@bufbuild/protobuf";
import { scope as scopeOption } from "../gen/holdfast/v1/options_pb.js";
import type { CallContext, EncodedReply, JsonGuard, Mounted, RequestDecoder } from "../infra/call.ts";
import { Failure } from "../infra/failure.ts";
import type { Counter, Histogram } from "../infra/metrics.ts";
import type { CallMetrics, Plane } from "./calls.ts";
import { codeName } from "./errors.ts";
import { fencedNamespaceReader, type NamespacesOf, namespacesReader } from "./namespaces.ts";

export type UnaryRpc = (
  request: Message,
  call: CallContext,
) => PromiseLike<Message | EncodedReply> | Message | EncodedReply;
export type ServerStreamingRpc = (request: Message, call: CallContext) => AsyncIterable<Message | EncodedReply>;
export type ClientStreamingRpc = (requests: AsyncIterable<Message>, call: CallContext) => PromiseLike<Message>;
export type BidiRpc = (requests: AsyncIterable<Message>, call: CallContext) => AsyncIterable<Message>;

/** What runs a method; also one that the service does not implement, by saying so. */
export type Handler =
  | { readonly kind: "unary"; readonly rpc: UnaryRpc }
  | { readonly kind: "server_streaming"; readonly rpc: ServerStreamingRpc }
  | { readonly kind: "client_streaming"; readonly rpc: ClientStreamingRpc }
  | { readonly kind: "bidi_streaming"; readonly rpc: BidiRpc };

/** All there is to know about an RPC on one plane, looked up once so that a call looks up nothing. */
export interface Method {
  /** Such as "holdfast.v1.CacheService/Get". */
  readonly name: string;
  readonly desc: DescMethod;
  readonly handler: Handler;
  /** Decodes its requests in place of the ordinary decoder. */
  readonly decoder: RequestDecoder | undefined;
  readonly jsonGuard: JsonGuard | undefined;
  /** Undefined: a call is given as long as any. */
  readonly longestMs: number | undefined;
  readonly plane: Plane;
  /** The scope a caller must have. Empty: none. */
  readonly scope: string;
  /** The namespaces a request names. Undefined where the contract does not say how. */
  readonly namespacesOf: NamespacesOf | undefined;
  /** The namespace of the lock under which a request writes. Undefined where none can be named. */
  readonly fencedNamespaceOf: ((request: Message) => string | undefined) | undefined;
  readonly seconds: Histogram;
  readonly succeeded: Counter;
  failed(code: number): Counter;
}

export function methodsOf(mounted: Mounted, plane: Plane, metrics: CallMetrics): Method[] {
  return mounted.service.methods.map((desc) => {
    const name = `${mounted.service.typeName}/${desc.name}`;
    return {
      name,
      desc,
      handler: handlerOf(desc, mounted.rpcs[desc.localName], missing(name)),
      decoder: mounted.decoders?.[desc.localName],
      jsonGuard: mounted.jsonGuard,
      longestMs: mounted.longestMs?.[desc.localName],
      plane,
      scope: getOption(desc, scopeOption),
      namespacesOf: namespacesReader(desc),
      fencedNamespaceOf: fencedNamespaceReader(desc),
      seconds: metrics.seconds.with({ method: name, plane }),
      succeeded: metrics.total.with({ method: name, plane, code: "OK" }),
      failed: (code) => metrics.total.with({ method: name, plane, code: codeName(code) }),
    };
  });
}

// What `mount` checked by its types is only known as a function here; these name the type again.
function handlerOf(desc: DescMethod, rpc: unknown, missing: () => never): Handler {
  switch (desc.methodKind) {
    case "unary":
      return { kind: "unary", rpc: isUnary(rpc) ? rpc : missing };
    case "server_streaming":
      return { kind: "server_streaming", rpc: isServerStreaming(rpc) ? rpc : missing };
    case "client_streaming":
      return { kind: "client_streaming", rpc: isClientStreaming(rpc) ? rpc : missing };
    case "bidi_streaming":
      return { kind: "bidi_streaming", rpc: isBidi(rpc) ? rpc : missing };
  }
}

/** Answers for an RPC that the contract has and this server does not. */
function missing(name: string): () => never {
  return () => {
    throw new Failure("unimplemented", "RPC_NOT_IMPLEMENTED", `${name} is not implemented by this server`);
  };
}

const isUnary = (rpc: unknown): rpc is UnaryRpc => typeof rpc === "function";
const isServerStreaming = (rpc: unknown): rpc is ServerStreamingRpc => typeof rpc === "function";
const isClientStreaming = (rpc: unknown): rpc is ClientStreamingRpc => typeof rpc === "function";
const isBidi = (rpc: unknown): rpc is BidiRpc => typeof rpc === "function";

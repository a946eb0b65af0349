import type {
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  Message,
} from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  type ConnectRouterOptions,
  type ContextValues,
  createContextKey,
  createContextValues,
  type HandlerContext,
} from "@connectrpc/connect";
import type { EncodedReply } from "../infra/call.ts";
import { Failure } from "../infra/failure.ts";
import type { Authenticator, Credentials } from "./auth.ts";
import { type Call, deadlineExceeded, hungUp } from "./call.ts";
import type { Calls } from "./calls.ts";
import { decodedReply, malformed } from "./codec.ts";
import { connectError } from "./connect-error.ts";
import { callErrorOf } from "./errors.ts";
import type { Method } from "./method.ts";
import { type Provenance, provenanceHeaders, unknownProvenance } from "./reply-metadata.ts";
import { requestTooLarge } from "./request-too-large.ts";
import { askedIn } from "./sent-bytes.ts";

/** Who is at the other end of a request. */
export interface HttpPeer {
  readonly address: string;
  readonly certificateSubject: string | undefined;
}

export interface ConnectPlaneOptions {
  readonly methods: readonly Method[];
  readonly calls: Calls;
  readonly authenticator: Authenticator;
}

type OptionsOf = (method: Method) => Partial<ConnectRouterOptions>;

/** The RPCs as connect-node mounts them: Connect, gRPC-Web, and gRPC where the connection is HTTP/2. */
export interface ConnectPlane {
  routes(router: ConnectRouter, optionsOf: OptionsOf): void;
  /** Runs before a request's body is read, so that nobody unknown can make us read one. */
  requestGate(context: HandlerContext): void;
  contextValues(peer: HttpPeer): ContextValues;
}

const noPeer: HttpPeer = { address: "unknown", certificateSubject: undefined };
const peerKey = createContextKey<HttpPeer>(noPeer, { description: "peer" });
const callKey = createContextKey<Call | undefined>(undefined, { description: "call" });

export function createConnectPlane(options: ConnectPlaneOptions): ConnectPlane {
  const { calls, authenticator } = options;
  const methods = new Map(options.methods.map((method) => [method.name, method]));
  // Errors that we made; every other one is connect-node's own, about the protocol.
  const ours = new WeakSet<ConnectError>();

  function own(provenance: Provenance, error: Parameters<typeof connectError>[0]): ConnectError {
    const made = connectError(error, provenanceHeaders(provenance));
    ours.add(made);
    return made;
  }

  /** The error to throw for a call that fails. */
  function failed(call: Call, thrown: unknown, context: HandlerContext): ConnectError {
    const error = calls.fail(call, thrown, context.values.get(peerKey).address);
    // Already answered: what is thrown now reaches nobody.
    return own(call, error ?? callErrorOf(call.interruption ?? hungUp()));
  }

  function admitted(context: HandlerContext): Call {
    const call = context.values.get(callKey);
    if (call === undefined) throw new Error("a request came past the gate");
    return call;
  }

  function requestGate(context: HandlerContext): void {
    const method = methods.get(`${context.service.typeName}/${context.method.name}`);
    if (method === undefined) throw new Error(`${context.service.typeName} is not mounted`);
    const started = performance.now();
    const peer = context.values.get(peerKey);
    const timeoutMs = context.timeoutMs();
    let call: Call | undefined;
    try {
      const caller = authenticator.authenticate(new HttpCredentials(context.requestHeader, peer));
      const deadline = timeoutMs === undefined ? Number.POSITIVE_INFINITY : Date.now() + timeoutMs;
      call = calls.open(method, caller, deadline, started);
      calls.admit(call);
    } catch (thrown) {
      if (call !== undefined) throw failed(call, thrown, context);
      throw own(unknownProvenance, calls.refuse(method, started, thrown, peer.address));
    }
    context.values.set(callKey, call);
    calls.track(call);
    call.watchDeadline();
    // Until the handler runs there is nobody to tell but the books.
    call.onAbort = (failure) => calls.fail(call, failure, peer.address);
    context.signal.addEventListener("abort", () => onSignal(call, context), { once: true });
  }

  // connect-node aborts the signal when the caller hangs up or its timer runs out, and also, just before it writes an error,
  // with that error. So this is where its own errors (a body that does not parse, or is too long) are seen and put in our words.
  function onSignal(call: Call, context: HandlerContext): void {
    const reason: unknown = context.signal.reason;
    if (call.done) return;
    if (!(reason instanceof ConnectError) || ours.has(reason)) {
      call.hangUp();
      return;
    }
    if (reason.code === Code.DeadlineExceeded) call.abort(deadlineExceeded());
    else if (reason.code === Code.Canceled || reason.code === Code.Aborted) call.hangUp();
    else reword(reason, failed(call, protocolFailure(call, reason), context));
  }

  /** Calls the handler, and gives up waiting for it when the call is aborted. */
  function settle<T>(call: Call, work: () => PromiseLike<T> | T): Promise<T> {
    return new Promise((resolve, reject) => {
      if (call.stopped !== undefined) {
        reject(call.stopped);
        return;
      }
      call.onAbort = reject;
      Promise.resolve().then(work).then(resolve, reject);
    });
  }

  async function answer(context: HandlerContext, call: Call, work: () => PromiseLike<Message> | Message) {
    try {
      const message = await settle(call, work);
      if (!calls.succeed(call)) throw call.interruption ?? hungUp();
      setHeaders(context.responseHeader, call);
      return message;
    } catch (thrown) {
      throw failed(call, thrown, context);
    }
  }

  async function* stream(
    { desc }: Method,
    context: HandlerContext,
    call: Call,
    produce: () => AsyncIterable<Message | EncodedReply>,
    complete: () => boolean,
  ): AsyncGenerator<Message> {
    let iterator: AsyncIterator<Message | EncodedReply> | undefined;
    try {
      const source = produce()[Symbol.asyncIterator]();
      iterator = source;
      let begun = false;
      for (;;) {
        const item = await settle(call, () => source.next());
        if (item.done === true) break;
        if (!begun) setHeaders(context.responseHeader, call);
        begun = true;
        yield decodedReply(desc.output, item.value);
      }
      if (call.interruption !== undefined && !complete()) throw call.interruption;
      if (!begun) setHeaders(context.responseHeader, call);
      setHeaders(context.responseTrailer, call);
      calls.succeed(call);
    } catch (thrown) {
      throw failed(call, thrown, context);
    } finally {
      // Left early: the caller is gone.
      if (!call.done) calls.fail(call, call.interruption ?? hungUp(), context.values.get(peerKey).address);
      void Promise.resolve(iterator?.return?.()).catch(() => undefined);
    }
  }

  function mountMethod(router: ConnectRouter, method: Method, options: Partial<ConnectRouterOptions>): void {
    const { desc, handler } = method;
    if (isUnary(desc) && handler.kind === "unary") {
      const { rpc } = handler;
      router.rpc(
        desc,
        (request, context) => {
          const call = admitted(context);
          return answer(context, call, async () => {
            const asked = await askedIn(method, request, context);
            call.authorize(asked);
            return decodedReply(desc.output, await rpc(asked, call));
          });
        },
        options,
      );
    } else if (isServerStreaming(desc) && handler.kind === "server_streaming") {
      const { rpc } = handler;
      router.rpc(
        desc,
        (request, context) => {
          const call = admitted(context);
          const produce = () => {
            call.authorize(request);
            return rpc(request, call);
          };
          return stream(method, context, call, produce, () => false);
        },
        options,
      );
    } else if (isClientStreaming(desc) && handler.kind === "client_streaming") {
      const { rpc } = handler;
      router.rpc(
        desc,
        (requests, context) => {
          const call = admitted(context);
          return answer(context, call, () => rpc(authorized(requests, call).messages, call));
        },
        options,
      );
    } else if (isBidi(desc) && handler.kind === "bidi_streaming") {
      const { rpc } = handler;
      router.rpc(
        desc,
        (requests, context) => {
          const call = admitted(context);
          const incoming = authorized(requests, call);
          return stream(method, context, call, () => rpc(incoming.messages, call), incoming.ended);
        },
        options,
      );
    }
  }

  return {
    requestGate,
    routes(router, optionsOf) {
      for (const method of methods.values()) mountMethod(router, method, optionsOf(method));
    },
    contextValues: (peer) => createContextValues().set(peerKey, peer),
  };
}

/** The caller's messages, each checked, until the call is interrupted. */
function authorized(requests: AsyncIterable<Message>, call: Call) {
  let ended = false;
  async function* messages(): AsyncGenerator<Message> {
    const source = requests[Symbol.asyncIterator]();
    const interrupted = new Promise<never>((_, reject) => {
      call.onInterrupt = reject;
    });
    interrupted.catch(() => undefined);
    for (;;) {
      if (call.interruption !== undefined) throw call.interruption;
      const item = await Promise.race([source.next(), interrupted]);
      if (item.done === true) break;
      call.authorize(item.value);
      yield item.value;
    }
    ended = true;
  }
  return { messages: messages(), ended: () => ended };
}

class HttpCredentials implements Credentials {
  private readonly headers: Headers;
  private readonly peer: HttpPeer;

  constructor(headers: Headers, peer: HttpPeer) {
    this.headers = headers;
    this.peer = peer;
  }

  header(name: "authorization" | "x-api-key"): string | undefined {
    return this.headers.get(name) ?? undefined;
  }

  certificateSubject(): string | undefined {
    return this.peer.certificateSubject;
  }
}

function setHeaders(headers: Headers, call: Call): void {
  for (const [name, value] of Object.entries(provenanceHeaders(call))) headers.set(name, value);
}

function protocolFailure(call: Call, error: ConnectError): Failure {
  if (error.cause instanceof Failure) return error.cause;
  switch (error.code) {
    case Code.ResourceExhausted:
      return requestTooLarge(error.rawMessage);
    case Code.Unimplemented:
      return new Failure("unimplemented", "PROTOCOL_NOT_SUPPORTED", error.rawMessage);
    default:
      // Broken bytes are its INTERNAL, since a defect could be the cause; a caller's fault is by far the likelier one.
      return error.code === Code.Internal
        ? malformed(call.info.desc.input, new Error(error.rawMessage.replace(/^parse binary: /, "")))
        : new Failure("invalid", "MALFORMED_REQUEST", error.rawMessage);
  }
}

/** Makes connect-node's error say what ours says: it holds on to the object and is about to write it. */
function reword(theirs: ConnectError, ours: ConnectError): void {
  Object.defineProperty(theirs, "code", { value: ours.code });
  Object.defineProperty(theirs, "rawMessage", { value: ours.rawMessage });
  theirs.message = ours.message;
  theirs.details = ours.details;
  for (const [name, value] of ours.metadata) theirs.metadata.set(name, value);
}

const isUnary = (desc: DescMethod): desc is DescMethodUnary => desc.methodKind === "unary";
const isServerStreaming = (desc: DescMethod): desc is DescMethodServerStreaming =>
  desc.methodKind === "server_streaming";
const isClientStreaming = (desc: DescMethod): desc is DescMethodClientStreaming =>
  desc.methodKind === "client_streaming";
const isBidi = (desc: DescMethod): desc is DescMethodBiDiStreaming => desc.methodKind === "bidi_streaming";

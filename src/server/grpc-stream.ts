import type { Message } from "@bufbuild/protobuf";
import type { ServerDuplexStream, ServerReadableStream, ServerWritableStream, sendUnaryData } from "@grpc/grpc-js";
import type { EncodedReply } from "../infra/call.ts";
import type { Call } from "./call.ts";
import { Malformed, replyEncoder } from "./codec.ts";
import { carrierOf, type GrpcContext, grpcStatus, type Incoming, openCall } from "./grpc-call.ts";
import type { BidiRpc, ClientStreamingRpc, Method, ServerStreamingRpc } from "./method.ts";
import { noMetadata, replyMetadata, unknownProvenance } from "./reply-metadata.ts";
import { requestsOf } from "./requests.ts";

type Request = Message | Malformed;
type Outlet = ServerWritableStream<Request, Buffer> | ServerDuplexStream<Request, Buffer>;

// A reader that does not read holds at most this much of ours in memory, besides what the HTTP/2 window lets through. grpc-js
// hands one message at a time to HTTP/2, so one more is enough to keep it busy; there may be ten thousand such readers.
const unsentBytesCap = 64 * 1024;
const unsentMessagesCap = 2;

export function serverStreamHandler(context: GrpcContext, method: Method, rpc: ServerStreamingRpc) {
  const send = sender(context, method);
  return (stream: ServerWritableStream<Request, Buffer>): void => {
    const call = open(context, method, stream, (status) => stream.emit("error", status));
    if (call === undefined) return;
    send(stream, call, () => {
      const { request } = stream;
      if (request instanceof Malformed) throw request.failure;
      call.authorize(request);
      return rpc(request, call);
    });
  };
}

export function bidiHandler(context: GrpcContext, method: Method, rpc: BidiRpc) {
  const send = sender(context, method);
  return (stream: ServerDuplexStream<Request, Buffer>): void => {
    const call = open(context, method, stream, (status) => stream.emit("error", status));
    if (call === undefined) return;
    const requests = requestsOf(stream, call);
    send(
      stream,
      call,
      () => rpc(requests, call),
      () => requests.ended,
    );
  };
}

export function clientStreamHandler(context: GrpcContext, method: Method, rpc: ClientStreamingRpc) {
  const encode = replyEncoder(method.desc.output);
  return (stream: ServerReadableStream<Request, Buffer>, respond: sendUnaryData<Buffer>): void => {
    const call = open(context, method, stream, respond);
    if (call === undefined) return;
    const fail = (thrown: unknown) => {
      const error = context.calls.fail(call, thrown, stream.getPeer());
      if (error !== undefined) respond(grpcStatus(call, error));
    };
    follow(context, stream, call, fail);
    Promise.resolve()
      .then(() => rpc(requestsOf(stream, call), call))
      .then((answer) => {
        const bytes = encode(answer);
        if (!context.calls.succeed(call)) return;
        stream.sendMetadata(replyMetadata(call));
        respond(null, bytes, noMetadata);
      })
      .catch(fail);
  };
}

/** Admits a call, or refuses it and gives the answer. */
function open(
  context: GrpcContext,
  method: Method,
  stream: Incoming,
  refuse: (status: ReturnType<typeof grpcStatus>) => void,
): Call | undefined {
  const { calls } = context;
  const started = performance.now();
  let call: Call | undefined;
  try {
    call = openCall(context, method, stream, started);
    calls.admit(call);
    return call;
  } catch (thrown) {
    const peer = stream.getPeer();
    const error = call === undefined ? calls.refuse(method, started, thrown, peer) : calls.fail(call, thrown, peer);
    if (error !== undefined) refuse(grpcStatus(call ?? unknownProvenance, error));
    return undefined;
  }
}

/** Keeps the call in the books, with all that can end it from outside. */
function follow(
  context: GrpcContext,
  stream: Outlet | ServerReadableStream<Request, Buffer>,
  call: Call,
  fail: (thrown: unknown) => void,
): void {
  context.calls.track(call);
  call.watchDeadline();
  call.onAbort = fail;
  const carrier = carrierOf(stream);
  if (carrier !== undefined) context.streaming.set(carrier, call);
  stream.once("cancelled", () => call.hangUp());
}

function sender(context: GrpcContext, method: Method) {
  const encode = replyEncoder(method.desc.output);
  const { calls } = context;

  return (
    stream: Outlet,
    call: Call,
    produce: () => AsyncIterable<Message | EncodedReply>,
    /** Whether the call is complete when the handler stops in spite of an interruption. */
    complete: () => boolean = () => false,
  ): void => {
    let iterator: AsyncIterator<Message | EncodedReply> | undefined;
    let wake: (() => void) | undefined;

    function fail(thrown: unknown): void {
      const error = calls.fail(call, thrown, stream.getPeer());
      if (error === undefined) return;
      if (!stream.destroyed) stream.emit("error", grpcStatus(call, error));
      wake?.();
      abandon();
    }

    // The generator may be waiting for something of its own: it returns when that is over, and nobody waits for it.
    function abandon(): void {
      void Promise.resolve(iterator?.return?.()).catch(() => undefined);
    }

    /** Resolves when the reader has caught up, or the call is over. */
    function caughtUp(): Promise<void> {
      return new Promise((resolve) => {
        wake = resolve;
      });
    }

    async function pump(): Promise<void> {
      iterator = produce()[Symbol.asyncIterator]();
      let unsentBytes = 0;
      let unsentMessages = 0;
      const isFull = () => unsentBytes >= unsentBytesCap || unsentMessages >= unsentMessagesCap;
      let begun = false;
      for (;;) {
        const item = await iterator.next();
        if (call.done) return;
        if (item.done === true) break;
        const bytes = encode(item.value);
        if (!begun) {
          stream.sendMetadata(replyMetadata(call));
          begun = true;
        }
        unsentBytes += bytes.length;
        unsentMessages++;
        stream.write(bytes, () => {
          unsentBytes -= bytes.length;
          unsentMessages--;
          if (!isFull()) wake?.();
        });
        if (isFull()) {
          await caughtUp();
          wake = undefined;
          if (call.done) return abandon();
        }
      }
      if (call.interruption !== undefined && !complete()) return fail(call.interruption);
      if (calls.succeed(call)) stream.end(replyMetadata(call));
    }

    follow(context, stream, call, fail);
    stream.once("close", () => wake?.());
    pump().catch((thrown: unknown) => {
      if (call.done) return;
      fail(thrown);
    });
  };
}

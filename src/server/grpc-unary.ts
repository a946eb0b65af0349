import type { Message } from "@bufbuild/protobuf";
import type { ServerUnaryCall, sendUnaryData } from "@grpc/grpc-js";
import type { EncodedReply } from "../infra/call.ts";
import type { Call } from "./call.ts";
import { Malformed, replyEncoder } from "./codec.ts";
import { carrierOf, type GrpcContext, grpcStatus, openCall } from "./grpc-call.ts";
import type { Method, UnaryRpc } from "./method.ts";
import { noMetadata, replyMetadata, unknownProvenance } from "./reply-metadata.ts";

type Request = Message | Malformed;
type Reply = Message | EncodedReply;
type Stream = ServerUnaryCall<Request, Buffer>;
type Respond = sendUnaryData<Buffer>;

/**
 * Serves a unary RPC. This is the path that must cost next to nothing: an RPC that answers at once is answered in the same
 * turn, without a promise, a timer, a listener or an entry in any table.
 */
export function unaryHandler(context: GrpcContext, method: Method, rpc: UnaryRpc) {
  const encode = replyEncoder(method.desc.output);
  const { calls } = context;

  function reply(stream: Stream, respond: Respond, call: Call, answer: Reply): void {
    let bytes: Buffer;
    try {
      bytes = encode(answer);
    } catch (error) {
      fail(stream, respond, call, error);
      return;
    }
    if (!calls.succeed(call)) return;
    stream.sendMetadata(replyMetadata(call));
    respond(null, bytes, noMetadata);
  }

  function fail(stream: Stream, respond: Respond, call: Call, thrown: unknown): void {
    const error = calls.fail(call, thrown, stream.getPeer());
    if (error !== undefined) respond(grpcStatus(call, error));
  }

  function wait(stream: Stream, respond: Respond, call: Call, answer: PromiseLike<Reply>): void {
    calls.track(call);
    call.watchDeadline();
    call.onAbort = (failure) => fail(stream, respond, call, failure);
    stream.once("cancelled", () => {
      // Its timer for the deadline was earlier than ours.
      const carrier = carrierOf(stream);
      if (carrier !== undefined && context.answered.has(carrier)) call.onAbort = () => calls.leave(call);
      call.hangUp();
    });
    answer.then(
      (value) => reply(stream, respond, call, value),
      (thrown: unknown) => fail(stream, respond, call, thrown),
    );
  }

  return (stream: Stream, respond: Respond): void => {
    const started = performance.now();
    let call: Call | undefined;
    try {
      call = openCall(context, method, stream, started);
      calls.admit(call);
      const { request } = stream;
      if (request instanceof Malformed) throw request.failure;
      call.authorize(request);
      const answer = rpc(request, call);
      if (isPromise(answer)) wait(stream, respond, call, answer);
      else reply(stream, respond, call, answer);
    } catch (thrown) {
      if (call !== undefined) fail(stream, respond, call, thrown);
      else respond(grpcStatus(unknownProvenance, calls.refuse(method, started, thrown, stream.getPeer())));
    }
  };
}

function isPromise(answer: Reply | PromiseLike<Reply>): answer is PromiseLike<Reply> {
  return "then" in answer && typeof answer.then === "function";
}

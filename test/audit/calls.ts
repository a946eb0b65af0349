import { type CallContext, EncodedReply, type ServedBy } from "../../src/infra/call.ts";

/** A call as an RPC sees it, which keeps what the RPC says of its answer. */
export interface TestCall extends CallContext {
  readonly said: { servedBy: ServedBy | undefined; degraded: boolean };
}

export function testCall(caller = "tester", signal = new AbortController().signal): TestCall {
  const said: TestCall["said"] = { servedBy: undefined, degraded: false };
  return {
    method: "test",
    caller: { name: caller, hasScope: () => true, mayUse: () => true },
    deadline: undefined,
    signal,
    interruption: undefined,
    said,
    servedBy(layer) {
      said.servedBy = layer;
    },
    degraded() {
      said.degraded = true;
    },
  };
}

/** Replies of an RPC that makes messages of them. */
export async function* messagesOf<T extends object>(replies: AsyncIterable<T | EncodedReply>): AsyncGenerator<T> {
  for await (const reply of replies) {
    if (reply instanceof EncodedReply) throw new Error("a message was expected");
    yield reply;
  }
}

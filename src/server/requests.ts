import type { Readable } from "node:stream";
import { setImmediate as immediately } from "node:timers/promises";
import type { Message } from "@bufbuild/protobuf";
import { type Call, hungUp } from "./call.ts";
import { isLarge, Malformed } from "./codec.ts";

/** The requests of a streaming call, one at a time: the next is read off the wire when the handler asks for it. */
export interface Requests extends AsyncIterable<Message> {
  /** Whether the caller has said that there are no more, and all were handed over. */
  readonly ended: boolean;
}

/**
 * Hands out the messages of a grpc-js stream. Iteration throws the call's failure when it is interrupted. Leaving the loop
 * early leaves the stream open, since replies may still have to be written to it.
 */
export function requestsOf(stream: Readable, call: Call): Requests {
  let ended = false;
  let complete = false;
  let closed = false;
  let wake: (() => void) | undefined;
  const onChange = () => wake?.();
  stream.on("readable", onChange);
  stream.once("end", () => {
    ended = true;
    onChange();
  });
  stream.once("close", () => {
    closed = true;
    onChange();
  });
  call.onInterrupt = onChange;

  async function next(): Promise<IteratorResult<Message, undefined>> {
    for (;;) {
      if (call.interruption !== undefined) throw call.interruption;
      const item: unknown = stream.read();
      if (item instanceof Malformed) throw item.failure;
      if (isMessage(item)) {
        call.authorize(item);
        if (isLarge(item)) readOneAhead(stream);
        return { done: false, value: item };
      }
      if (ended) {
        // A caller that vanishes ends its stream too, a moment before grpc-js says that it is gone. Taking the one for the
        // other would make a handler complete what its caller broke off.
        await immediately();
        if (call.interruption !== undefined) throw call.interruption;
        complete = true;
        return { done: true, value: undefined };
      }
      if (closed) throw hungUp();
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      wake = undefined;
    }
  }

  return {
    get ended() {
      return complete;
    },
    [Symbol.asyncIterator]: () => ({ next }),
  };
}

/**
 * Sixteen messages wait in a stream for a handler that holds its caller back: nothing where they are small, but large ones would
 * come to megabytes for every caller. Node offers no option for the streams that grpc-js makes; should it rename its own,
 * sixteen of any size wait.
 */
function readOneAhead(stream: Readable): void {
  const state: unknown = Reflect.get(stream, "_readableState");
  if (typeof state === "object" && state !== null) Object.assign(state, { highWaterMark: 1 });
}

function isMessage(item: unknown): item is Message {
  return typeof item === "object" && item !== null && "$typeName" in item;
}

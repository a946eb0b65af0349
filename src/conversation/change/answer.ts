import { RequestIdReusedError } from "../../infra/named-request.ts";
import type { Answered } from "../ledger/book.ts";
import { keyIn } from "./absence.ts";
import type { Order, Outcome } from "./order.ts";

type Done = Extract<Outcome, { kind: "done" }>;

/** What is remembered of an attempt, so that a retry is answered as the first was: what was done as JSON, then maybe the state. */
export function encodeAnswer({ held, created, appended, state }: Done, withState: boolean): Uint8Array {
  const head = Buffer.from(`${JSON.stringify({ held, created, appended })}\n`);
  return withState && state !== undefined ? Buffer.concat([head, Buffer.from([1]), state]) : head;
}

/** Answers a retry as the first attempt was. Throws when the name was that of another request. */
export function answerAgain(
  { key, requestId, named }: Pick<Order, "key" | "requestId" | "named">,
  { meaning, answer }: Answered,
): Done {
  if (meaning !== meaningOf({ named })) throw new RequestIdReusedError(named?.id ?? requestId, keyIn(key));
  return decodeAnswer(answer);
}

export function meaningOf({ named }: Pick<Order, "named">): string {
  return named?.meaning ?? "";
}

function decodeAnswer(bytes: Uint8Array): Done {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = buffer.indexOf("\n");
  const { held, created, appended } = JSON.parse(buffer.toString("utf8", 0, end)) as Pick<
    Done,
    "held" | "created" | "appended"
  >;
  const state = buffer.length > end + 1 ? buffer.subarray(end + 2) : undefined;
  return { kind: "done", held, created, appended, state, changed: false };
}

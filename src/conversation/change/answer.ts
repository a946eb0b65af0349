import type { Outcome } from "./order.ts";

type Done = Extract<Outcome, { kind: "done" }>;

/** What is remembered of an attempt, so that a retry is answered as the first was: what was done as JSON, then maybe the state. */
export function encodeAnswer({ held, created, appended, state }: Done, withState: boolean): Uint8Array {
  const head = Buffer.from(`${JSON.stringify({ held, created, appended })}\n`);
  return withState && state !== undefined ? Buffer.concat([head, Buffer.from([1]), state]) : head;
}

export function decodeAnswer(bytes: Uint8Array): Done {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = buffer.indexOf("\n");
  const { held, created, appended } = JSON.parse(buffer.toString("utf8", 0, end)) as Pick<
    Done,
    "held" | "created" | "appended"
  >;
  const state = buffer.length > end + 1 ? buffer.subarray(end + 2) : undefined;
  return { kind: "done", held, created, appended, state, changed: false };
}

import { gzipSync } from "node:zlib";
import { create, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";

let server: HoldfastProcess;
beforeAll(async () => {
  server = await startHoldfast();
});
afterAll(() => server[Symbol.asyncDispose]());

const { save, appendMessages, get } = ConversationStateService.method;

/** Ways to send a message in binary to the HTTP plane. */
const ways: Readonly<Record<string, (bytes: Uint8Array) => { headers: Record<string, string>; body: Uint8Array }>> = {
  "Connect in binary": (bytes) => ({ headers: { "content-type": "application/proto" }, body: bytes }),
  "Connect in binary, compressed": (bytes) => ({
    headers: { "content-type": "application/proto", "content-encoding": "gzip" },
    body: gzipSync(bytes),
  }),
  "gRPC-Web": (bytes) => ({
    headers: { "content-type": "application/grpc-web+proto" },
    body: enveloped(0, bytes),
  }),
  "gRPC-Web, compressed": (bytes) => ({
    headers: { "content-type": "application/grpc-web+proto", "grpc-encoding": "gzip" },
    body: enveloped(1, gzipSync(bytes)),
  }),
};

function enveloped(flags: number, bytes: Uint8Array): Uint8Array {
  const head = Buffer.alloc(5);
  head.writeUInt8(flags);
  head.writeUInt32BE(bytes.length, 1);
  return Buffer.concat([head, bytes]);
}

async function post(rpc: string, { headers, body }: { headers: Record<string, string>; body: Uint8Array }) {
  const url = `${server.httpUrl}/${ConversationStateService.typeName}/${rpc}`;
  const response = await fetch(url, { method: "POST", headers, body: new Uint8Array(body) });
  const text = await response.text();
  // Of gRPC-Web the trailers stand in the body, or in the headers where there is nothing else.
  return decodeURIComponent(`${text} ${response.headers.get("grpc-message") ?? ""}`);
}

describe.each(Object.entries(ways))("a write over %s", (way, sent) => {
  const none = { a: [1, undefined] } as unknown as JsonObject;
  const id = `c-${way.replaceAll(/\W/g, "")}`;

  it("is refused with the path of a value that sets no kind", async () => {
    const saving = toBinary(save.input, create(save.input, { id, state: none }));
    expect(await post("Save", sent(saving))).toContain("state.a[1]: is a value of no kind");
    const appending = create(appendMessages.input, {
      ...{ id, create: true, messages: [{ role: "user", content: "x", metadata: none }] },
    });
    expect(await post("AppendMessages", sent(toBinary(appendMessages.input, appending)))).toContain(
      "messages[0].metadata.a[1]: is a value of no kind",
    );
  });

  it("is done as it is said", async () => {
    const state = { a: [1, null], b: { c: "d" } };
    await post("Save", sent(toBinary(save.input, create(save.input, { id, state }))));
    const asking = new TextEncoder().encode(JSON.stringify({ id }));
    const reply = await post(get.name, { headers: { "content-type": "application/json" }, body: asking });
    expect(JSON.parse(reply).conversation.state).toEqual(state);
  });
});

import { connect } from "node:net";
import { Client, credentials, Metadata, status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { until } from "../support/until.ts";
import { type EchoRpcs, echo, type Harness, post, startEcho } from "./harness.ts";

const rpcs: EchoRpcs = {
  say: (request) => echo(request),
  async *count(request) {
    yield echo(request);
  },
};

const asIs = (bytes: Buffer) => bytes;

/** A stream of a service that is not one of ours, as bytes. */
function stream(h: Harness, path: string, request: Buffer) {
  const client = new Client(`localhost:${h.grpcPort}`, credentials.createInsecure());
  const call = client.makeBidiStreamRequest(path, asIs, asIs);
  const messages: Buffer[] = [];
  const ended = new Promise<number>((resolve) => call.on("status", (end) => resolve(end.code)));
  call.on("data", (message: Buffer) => messages.push(message));
  call.on("error", () => undefined);
  // A watch wants its one request to be the last; reflection goes on asking.
  if (path.endsWith("/Watch")) call.end(request);
  else call.write(request);
  return {
    messages,
    ended,
    close() {
      call.cancel();
      client.close();
    },
  };
}

describe("server reflection", () => {
  it.each(["v1", "v1alpha"])("answers in version %s", async (version) => {
    await using h = await startEcho(rpcs);
    // list_services: "*"
    const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
    const call = stream(h, path, Buffer.from([0x3a, 1, 0x2a]));
    await until(() => call.messages.length === 1, { what: "the list of services" });
    expect(call.messages[0]?.toString("latin1")).toContain("holdfast.test.EchoService");
    call.close();
  });
});

describe("grpc.health.v1", () => {
  const overall = Buffer.alloc(0);
  const serving = Buffer.from([0x08, 1]);
  const notServing = Buffer.from([0x08, 2]);

  it("tells its watchers when the server begins to drain", async () => {
    await using h = await startEcho(rpcs);
    const call = stream(h, "/grpc.health.v1.Health/Watch", overall);
    await until(() => call.messages.length === 1, { what: "the first state" });
    expect(call.messages[0]).toEqual(serving);
    const drained = h.servers.drain(10_000);
    await until(() => call.messages.length === 2, { what: "the second state" });
    expect(call.messages[1]).toEqual(notServing);
    await drained;
    await call.ended;
    call.close();
  });

  it("says NOT_SERVING and SERVING as it is told", async () => {
    await using h = await startEcho(rpcs);
    const call = stream(h, "/grpc.health.v1.Health/Watch", Buffer.from("\x0a\x19holdfast.test.EchoService"));
    h.servers.setServing(false);
    h.servers.setServing(true);
    await until(() => call.messages.at(-1)?.equals(serving) === true, { what: "SERVING" });
    call.close();
  });
});

describe("what is not a proper call", () => {
  it("is answered UNIMPLEMENTED where the service or the RPC is unknown", async () => {
    await using h = await startEcho(rpcs);
    for (const path of ["/no.such.Service/Get", "/holdfast.test.EchoService/Nope"]) {
      const code = await new Promise((resolve) => {
        h.client.makeUnaryRequest(path, asIs, asIs, Buffer.alloc(0), new Metadata(), {}, (error) =>
          resolve(error?.code),
        );
      });
      expect(code).toBe(status.UNIMPLEMENTED);
    }
  });

  it.each([
    ["Connect", "application/connect+json", Buffer.from([0, 0, 0, 0, 1, 0x7b])],
    ["Connect in binary", "application/connect+proto", Buffer.from([0, 0, 0, 0, 4, 0x12, 2, 0xc3, 0x28])],
    ["gRPC-Web", "application/grpc-web+proto", Buffer.from([0, 0, 0, 0, 4, 0x12, 2, 0xc3, 0x28])],
    ["Connect, cut off", "application/connect+json", Buffer.from([0, 0, 0, 0, 9, 0x7b])],
  ])("is refused as INVALID_ARGUMENT on %s streams, and leaves nothing behind", async (_, type, body) => {
    await using h = await startEcho(rpcs);
    const response = await fetch(`${h.httpUrl}/holdfast.test.EchoService/Count`, {
      method: "POST",
      headers: { "content-type": type },
      body: new Uint8Array(body),
    });
    const text = await response.text();
    expect(text).toMatch(/invalid_argument|grpc-status: 3/i);
    expect(h.lines.map((line) => line.code)).toEqual(["INVALID_ARGUMENT"]);
    expect(await h.metrics()).toContain('holdfast_calls_waiting{plane="http"} 0');
  });

  it("is refused where its timeout or compression cannot be understood", async () => {
    await using h = await startEcho(rpcs);
    expect((await post(h, "Say", "{}", { "connect-timeout-ms": "soon" })).status).toBe(400);
    expect((await post(h, "Say", "{}", { "content-encoding": "lzma" })).body.code).toBe("unimplemented");
    expect(await h.metrics()).toContain('holdfast_calls_waiting{plane="http"} 0');
  });

  it("does no harm when it is not HTTP/2 at all, or breaks off", async () => {
    await using h = await startEcho(rpcs);
    for (const port of [h.grpcPort, h.httpPort]) {
      for (const noise of [
        "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "\0\0\0",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
      ]) {
        await new Promise((resolve) => {
          const socket = connect(port, "127.0.0.1", () => socket.end(Buffer.from(noise, "latin1")));
          socket.resume();
          socket.on("close", resolve);
          socket.on("error", () => undefined);
        });
      }
    }
    expect((await h.client.say({ text: "still here" })).reply?.text).toBe("still here");
    expect((await post(h, "Say", '{"text":"still here"}')).body.text).toBe("still here");
  });

  it("leaves nothing behind when its body never comes to an end", async () => {
    await using h = await startEcho(rpcs);
    const socket = connect(h.httpPort, "127.0.0.1", () =>
      socket.write(
        "POST /holdfast.test.EchoService/Say HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{",
      ),
    );
    socket.on("error", () => undefined);
    const waiting = async (count: number) =>
      (await h.metrics()).includes(`holdfast_calls_waiting{plane="http"} ${count}`);
    await until(() => waiting(1), { what: "the call to arrive" });
    socket.destroy();
    await until(() => waiting(0), { what: "the call to be given up" });
  });
});

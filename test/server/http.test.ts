import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { create, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { ErrorInfoSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { createApiKey } from "../../src/server/api-key.ts";
import { echo, startEcho } from "./harness.ts";

const rpcs = { say: (request: { text: string }) => echo({ text: request.text }) };
const state = { ready: true, healthy: true, redis: undefined as { healthy: boolean; body: object } | undefined };
const health = {
  ready: () => state.ready,
  report: () => ({ healthy: state.healthy, body: { state: state.healthy ? "HEALTHY" : "UNHEALTHY", count: 3n } }),
  redis: () => state.redis,
};

describe("the plain pages", () => {
  it("tell whether the process lives, is ready, is healthy, and how Redis is", async () => {
    await using h = await startEcho(rpcs, { health });
    const get = async (path: string) => {
      const response = await fetch(`${h.httpUrl}${path}`);
      return [response.status, await response.json()];
    };
    expect(await get("/healthz")).toEqual([200, { status: "alive" }]);
    expect(await get("/readyz")).toEqual([200, { status: "ready" }]);
    expect(await get("/health")).toEqual([200, { state: "HEALTHY", count: "3" }]);
    expect(await get("/health/redis")).toEqual([200, { status: "not configured" }]);
    Object.assign(state, { ready: false, healthy: false, redis: { healthy: false, body: { status: "down" } } });
    expect(await get("/healthz")).toEqual([200, { status: "alive" }]);
    expect(await get("/readyz")).toEqual([503, { status: "not ready" }]);
    expect(await get("/health")).toEqual([503, { state: "UNHEALTHY", count: "3" }]);
    expect(await get("/health/redis")).toEqual([503, { status: "down" }]);
    state.redis = { healthy: true, body: { status: "up" } };
    expect(await get("/health/redis")).toEqual([200, { status: "up" }]);
  });

  it("list what there is, and answer JSON where there is nothing", async () => {
    await using h = await startEcho(rpcs);
    const index = await fetch(h.httpUrl);
    expect(index.headers.get("content-type")).toContain("application/json");
    expect(await index.json()).toMatchObject({
      name: "holdfast",
      paths: expect.arrayContaining(["/holdfast.test.EchoService/Say"]),
    });
    for (const path of ["/nope", "/nope/at/all", "/toString", "/__proto__"]) {
      const response = await fetch(`${h.httpUrl}${path}`);
      expect(response.status).toBe(404);
      expect(await response.json()).toMatchObject({ error: "not found" });
    }
    expect((await fetch(`${h.httpUrl}/healthz`, { method: "POST" })).status).toBe(405);
  });

  it("answer what is no RPC as Connect does, with what was meant", async () => {
    await using h = await startEcho(rpcs);
    const miss = async (path: string) => {
      const response = await fetch(`${h.httpUrl}${path}`, { method: "POST", body: "{}" });
      return [response.status, await response.json()];
    };
    const value = Buffer.from(
      toBinary(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "RPC_NOT_IMPLEMENTED", domain: "holdfast" })),
    );
    const details = [
      {
        ...{ type: "google.rpc.ErrorInfo", value: value.toString("base64").replaceAll("=", "") },
        debug: { reason: "RPC_NOT_IMPLEMENTED", domain: "holdfast" },
      },
    ];
    const answer = (message: string) => [
      404,
      { code: "unimplemented", message: expect.stringContaining(message), details },
    ];
    expect(await miss("/holdfast.test.EchoService/Sai")).toEqual(answer("did you mean Say?"));
    expect(await miss("/holdfast.test.EchoServis/Say")).toEqual(answer("did you mean holdfast.test.EchoService?"));
    expect(await miss("/some.other.Service/Call")).toEqual(answer("no service some.other.Service (GET / lists"));
  });

  it("tell apart what is called, what is streamed and what is planned", async () => {
    await using h = await startEcho({ ...rpcs, async *count() {} });
    expect(await (await fetch(h.httpUrl)).json()).toMatchObject({
      paths: ["/holdfast.test.EchoService/Say"],
      streams: {
        how: expect.stringContaining("application/connect+json"),
        paths: ["/holdfast.test.EchoService/Count"],
      },
      planned: { services: [] },
    });
    await using empty = await startEcho({});
    expect(await (await fetch(empty.httpUrl)).json()).toMatchObject({
      paths: [],
      planned: { services: ["holdfast.test.EchoService"] },
    });
  });

  it("answer 500 and log the cause when a report cannot be made", async () => {
    const report = () => {
      throw new Error("broken");
    };
    await using h = await startEcho(rpcs, { health: { ...health, report } });
    expect((await fetch(`${h.httpUrl}/health`)).status).toBe(500);
    expect(h.lines).toMatchObject([{ level: "error", path: "/health", err: { message: "broken" } }]);
  });
});

describe("CORS", () => {
  const preflight = (url: string, origin: string) =>
    fetch(`${url}/holdfast.test.EchoService/Say`, {
      method: "OPTIONS",
      headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type" },
    });

  it("is closed unless origins are configured", async () => {
    await using h = await startEcho(rpcs);
    const response = await preflight(h.httpUrl, "https://app.example");
    expect(response.headers.get("access-control-allow-origin")).toBeNull();
  });

  it("lets the configured origins call, read our headers, and nobody else", async () => {
    await using h = await startEcho(rpcs, { corsOrigins: ["https://app.example"] });
    const response = await preflight(h.httpUrl, "https://app.example");
    expect(response.status).toBe(204);
    expect(response.headers.get("access-control-allow-origin")).toBe("https://app.example");
    expect(response.headers.get("access-control-allow-headers")?.toLowerCase()).toContain("x-grpc-web");
    expect(response.headers.get("access-control-allow-headers")?.toLowerCase()).toContain("authorization");
    const call = await fetch(`${h.httpUrl}/holdfast.test.EchoService/Say`, {
      method: "POST",
      headers: { origin: "https://app.example", "content-type": "application/json" },
      body: "{}",
    });
    expect(call.headers.get("access-control-allow-origin")).toBe("https://app.example");
    expect(call.headers.get("access-control-expose-headers")).toContain("holdfast-served-by");
    expect((await preflight(h.httpUrl, "https://evil.example")).headers.get("access-control-allow-origin")).toBeNull();
  });
});

describe("the HTTP plane", () => {
  it("answers reads by GET, which a browser may cache", async () => {
    await using h = await startEcho(rpcs);
    const query = new URLSearchParams({ encoding: "json", message: '{"text":"hi"}', connect: "v1" });
    const response = await fetch(`${h.httpUrl}/holdfast.test.EchoService/Say?${query}`);
    expect(await response.json()).toEqual({ text: "hi" });
  });

  it("says which protocol it wants where it is asked in another", async () => {
    await using h = await startEcho(rpcs);
    const response = await fetch(`${h.httpUrl}/holdfast.test.EchoService/Say`, {
      method: "POST",
      headers: { "content-type": "text/plain" },
      body: "hi",
    });
    expect(response.status).toBe(415);
    expect(response.headers.get("holdfast-degraded")).toBe("false");
  });

  it("survives requests that are not HTTP", async () => {
    await using h = await startEcho(rpcs);
    const answer = await new Promise<string>((resolve, reject) => {
      const socket = connect(h.httpPort, "127.0.0.1", () => socket.end("\x16\x03\x01nonsense\r\n\r\n"));
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk.toString();
      });
      socket.on("close", () => resolve(text));
      socket.on("error", reject);
    });
    expect(answer).toContain("400");
    expect((await fetch(`${h.httpUrl}/healthz`)).status).toBe(200);
  });

  it.each([
    ["evil.example", 403],
    ["evil.example:7421", 403],
    ["localhost.evil.example", 403],
    ["127.0.0.1.evil.example", 403],
    ["10.0.0.7", 403],
    ["[::2]:80", 403],
    ["[::1", 403],
    ["localhost", 200],
    ["LOCALHOST.:7421", 200],
    ["app.localhost:80", 200],
    ["127.0.0.1", 200],
    ["127.9.9.9:7421", 200],
    ["[::1]:7421", 200],
  ])("without API keys, on loopback, answers a request for the host %j with %i", async (host, expected) => {
    await using h = await startEcho(rpcs);
    for (const path of ["/healthz", "/metrics", "/holdfast.test.EchoService/Say"]) {
      expect([path, (await requestFor(h.httpPort, host, path)).status]).toEqual([path, expected]);
    }
    if (expected === 403)
      expect((await requestFor(h.httpPort, host, "/")).body).toContain("call it by one of these names");
  });

  it("with API keys answers whatever host it is called by", async () => {
    const { key, record } = createApiKey({ name: "me", scopes: ["*"] });
    await using h = await startEcho(rpcs, { apiKeys: [record] });
    const headers = { "x-api-key": key };
    const answer = await requestFor(h.httpPort, "cache.example", "/holdfast.test.EchoService/Say", headers);
    expect(answer.status).toBe(200);
  });

  it("survives a request without a host", async () => {
    await using h = await startEcho(rpcs);
    const answer = await new Promise<string>((resolve, reject) => {
      const socket = connect(h.httpPort, "127.0.0.1", () =>
        socket.end(
          "POST /holdfast.test.EchoService/Say HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        ),
      );
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk.toString();
      });
      socket.on("close", () => resolve(text));
      socket.on("error", reject);
    });
    expect(answer).toMatch(/^(HTTP\/1\.1 \d\d\d|$)/);
    expect((await fetch(`${h.httpUrl}/healthz`)).status).toBe(200);
  });

  it("leaves nothing listening when one of the two ports is taken", async () => {
    await using taken = await startEcho(rpcs);
    await expect(startEcho(rpcs, { http: { host: "127.0.0.1", port: taken.httpPort } })).rejects.toThrow("EADDRINUSE");
    await expect(startEcho(rpcs, { grpc: { host: "127.0.0.1", port: taken.grpcPort } })).rejects.toThrow();
  });
});

/** A request as a browser makes it that was led here by a name of somebody else's. */
function requestFor(port: number, host: string, path: string, headers: Readonly<Record<string, string>> = {}) {
  const method = path.endsWith("Say") ? "POST" : "GET";
  const sent = { host, "content-type": "application/json", ...headers };
  return new Promise<{ readonly status: number | undefined; readonly body: string }>((resolve, reject) => {
    const request = httpRequest({ port, path, method, headers: sent, agent: false }, (response) => {
      text(response).then((body) => resolve({ status: response.statusCode, body }), reject);
    });
    request.on("error", reject).end(method === "POST" ? "{}" : undefined);
  });
}

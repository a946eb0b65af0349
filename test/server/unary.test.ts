import { Metadata, status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import type { CallContext } from "../../src/infra/call.ts";
import { EncodedReply } from "../../src/infra/call.ts";
import { Failure, InvalidFieldsError, UnavailableError } from "../../src/infra/failure.ts";
import { until } from "../support/until.ts";
import { EchoService } from "./echo.ts";
import { detailsOf, echo, post, startEcho } from "./harness.ts";

const say = JSON.stringify({ text: "hi" });

describe("a unary call", () => {
  it("is answered on both planes, with where the answer came from", async () => {
    await using h = await startEcho({
      say(request, call) {
        call.servedBy("redis");
        call.degraded();
        return echo({ text: `${request.text}!` });
      },
    });
    const grpc = await h.client.say({ text: "hi" });
    expect(grpc.error).toBeUndefined();
    expect(grpc.reply?.text).toBe("hi!");
    expect(grpc.header.getMap()).toMatchObject({ "holdfast-served-by": "redis", "holdfast-degraded": "true" });

    const http = await post(h, "Say", say);
    expect(http).toMatchObject({ status: 200, body: { text: "hi!" } });
    expect(http.headers.get("holdfast-served-by")).toBe("redis");
    expect(http.headers.get("holdfast-degraded")).toBe("true");
  });

  it("says that it is not degraded, and nothing about a source it does not know", async () => {
    await using h = await startEcho({ say: async (request) => echo(request) });
    const grpc = await h.client.say({ text: "hi" });
    expect(grpc.header.getMap()).toMatchObject({ "holdfast-degraded": "false" });
    expect(grpc.header.get("holdfast-served-by")).toEqual([]);
    const http = await post(h, "Say", say);
    expect(http.headers.get("holdfast-degraded")).toBe("false");
    expect(http.headers.get("holdfast-served-by")).toBeNull();
  });

  it("may be answered by bytes that are encoded already", async () => {
    // Field 2, five bytes: an Echo whose text is "bytes".
    const bytes = Uint8Array.of(0x12, 5, ...Buffer.from("bytes"));
    await using h = await startEcho({ say: () => new EncodedReply(bytes) });
    expect((await h.client.say({})).reply?.text).toBe("bytes");
    expect((await post(h, "Say", say)).body.text).toBe("bytes");
  });

  it("gives the domain's failures their code and details, on both planes", async () => {
    const failure = new InvalidFieldsError([
      { field: "items[3].key", description: "is empty" },
      { field: "text", description: "is too long" },
    ]);
    await using h = await startEcho({
      say(_, call) {
        call.servedBy("l1");
        throw failure;
      },
    });
    const { error } = await h.client.say({});
    expect(error?.code).toBe(status.INVALID_ARGUMENT);
    expect(error?.metadata.getMap()).toMatchObject({ "holdfast-served-by": "l1", "holdfast-degraded": "false" });
    const details = detailsOf(error);
    expect(details["google.rpc.ErrorInfo"]).toMatchObject({ domain: "holdfast", reason: "FIELD_INVALID" });
    expect(details["google.rpc.BadRequest"]).toMatchObject({
      fieldViolations: [{ field: "items[3].key", description: "is empty" }, { field: "text" }],
    });

    const http = await post(h, "Say", say);
    expect(http.status).toBe(400);
    expect(http.headers.get("holdfast-served-by")).toBe("l1");
    expect(http.body.code).toBe("invalid_argument");
    expect(http.body.details?.map((detail) => detail.type)).toEqual(["google.rpc.ErrorInfo", "google.rpc.BadRequest"]);
    expect(http.body.details?.[1]?.debug?.fieldViolations?.[0]?.field).toBe("items[3].key");
  });

  it("says when to try again", async () => {
    await using h = await startEcho({
      say: () => Promise.reject(new UnavailableError("SQL_AWAY", "the database is away", { retryAfterMs: 1500 })),
    });
    const { error } = await h.client.say({});
    expect(error?.code).toBe(status.UNAVAILABLE);
    expect(detailsOf(error)["google.rpc.RetryInfo"]).toMatchObject({ retryDelay: { seconds: 1n, nanos: 500_000_000 } });
    const http = await post(h, "Say", say);
    expect(http.status).toBe(503);
    expect(http.body.details?.find((detail) => detail.type === "google.rpc.RetryInfo")?.debug?.retryDelay).toBe(
      "1.500s",
    );
  });

  it("hides a defect, and gives an id that stands in the log beside its cause", async () => {
    await using h = await startEcho({
      say: () => {
        throw new TypeError("secret internals at postgres://app:hunter2@db/x");
      },
    });
    const { error } = await h.client.say({});
    expect(error?.code).toBe(status.INTERNAL);
    expect(error?.details).toMatch(/^internal error \(id [0-9a-f]+\)$/);
    const http = await post(h, "Say", say);
    expect(http.status).toBe(500);
    expect(http.body.message).toMatch(/^internal error/);

    expect(h.lines).toHaveLength(2);
    const [line] = h.lines;
    expect(line).toMatchObject({
      level: "error",
      method: "holdfast.test.EchoService/Say",
      caller: "anonymous",
      code: "INTERNAL",
      err: { type: "TypeError", message: "secret internals at postgres://app:***@db/x" },
    });
    expect(error?.details).toContain(String(line?.error_id));
    expect(JSON.stringify(h.lines)).not.toContain("hunter2");
  });

  it("answers UNIMPLEMENTED for an RPC that is not there, naming it", async () => {
    await using h = await startEcho({});
    const { error } = await h.client.raw("Missing", Buffer.alloc(0));
    expect(error).toMatchObject({ code: status.UNIMPLEMENTED });
    expect(error?.details).toContain("holdfast.test.EchoService/Missing");
    expect(error?.metadata.get("holdfast-degraded")).toEqual(["false"]);
    const http = await post(h, "Missing", "{}");
    expect(http.status).toBe(501);
    expect(http.body.message).toContain("holdfast.test.EchoService/Missing");
  });

  it.each([
    ["a string that is not UTF-8", Buffer.from([0x12, 2, 0xc3, 0x28])],
    ["a message that ends too early", Buffer.from([0x12, 9, 0x61])],
    ["a tag that is none", Buffer.from([0x07])],
  ])("refuses %s as INVALID_ARGUMENT", async (_, bytes) => {
    let served = 0;
    await using h = await startEcho({
      say(request) {
        served++;
        return echo(request);
      },
    });
    const { error } = await h.client.raw("Say", bytes);
    expect(error?.code).toBe(status.INVALID_ARGUMENT);
    expect(error?.metadata.get("holdfast-degraded")).toEqual(["false"]);
    expect(detailsOf(error)["google.rpc.ErrorInfo"]).toMatchObject({ reason: "MALFORMED_REQUEST" });
    const http = await post(h, "Say", new Uint8Array(bytes), { "content-type": "application/proto" });
    expect(http.status).toBe(400);
    expect(http.body).toMatchObject({
      code: "invalid_argument",
      details: [{ debug: { reason: "MALFORMED_REQUEST" } }],
    });
    expect(http.headers.get("holdfast-degraded")).toBe("false");
    expect(served).toBe(0);
    expect(h.lines.map((line) => line.code)).toEqual(["INVALID_ARGUMENT", "INVALID_ARGUMENT"]);
  });

  it.each([
    ["is not UTF-8", new Uint8Array(Buffer.from([...Buffer.from('{"text":"'), 0xc3, 0x28, ...Buffer.from('"}')]))],
    ["is not JSON", '{"text":'],
    ["has a field of the wrong type", '{"text":3}'],
  ])("refuses JSON that %s", async (_, body) => {
    await using h = await startEcho({ say: (request) => echo(request) });
    const http = await post(h, "Say", body);
    expect(http).toMatchObject({ status: 400, body: { code: "invalid_argument" } });
  });

  it("refuses a message over the limit, naming the limit", async () => {
    await using h = await startEcho({ say: (request) => echo(request) }, { maxMessageBytes: 10_000 });
    const { error } = await h.client.say({ data: new Uint8Array(10_001) });
    expect(error?.code).toBe(status.RESOURCE_EXHAUSTED);
    expect(error?.details).toContain("10000");
    expect(error?.details).toContain("HOLDFAST_MAX_MESSAGE_BYTES");
    expect(error?.metadata.get("holdfast-degraded")).toEqual(["false"]);
    expect(detailsOf(error)["google.rpc.ErrorInfo"]).toMatchObject({ reason: "REQUEST_TOO_LARGE" });
    const http = await post(h, "Say", JSON.stringify({ text: "x".repeat(10_001) }));
    expect(http.status).toBe(429);
    expect(http.body).toMatchObject({
      code: "resource_exhausted",
      details: [{ debug: { reason: "REQUEST_TOO_LARGE" } }],
    });
    expect(http.body.message).toContain("10000");
    expect(http.body.message).toContain("HOLDFAST_MAX_MESSAGE_BYTES");
    expect(h.lines.map((line) => line.code)).toEqual(["RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]);
    expect((await h.client.say({ data: new Uint8Array(9_000) })).error).toBeUndefined();
  });

  it("keeps an error small enough for every client's header limit", async () => {
    const violations = Array.from({ length: 1000 }, (_, i) => ({
      field: `items[${i}].key`,
      description: "x".repeat(900),
    }));
    await using h = await startEcho({
      say: () => {
        throw new InvalidFieldsError(violations);
      },
    });
    const { error } = await h.client.say({});
    expect(error?.code).toBe(status.INVALID_ARGUMENT);
    expect(JSON.stringify(error?.metadata.getMap()).length).toBeLessThan(40_000);
    expect(detailsOf(error)["google.rpc.BadRequest"]).toBeDefined();
  });

  it("survives a failure whose message is not well-formed text", async () => {
    await using h = await startEcho({
      say: () => {
        throw new Failure("not_found", "NOPE", "key \ud800 is not there");
      },
    });
    expect((await h.client.say({})).error?.code).toBe(status.NOT_FOUND);
    expect((await post(h, "Say", say)).status).toBe(404);
  });
});

describe("a deadline", () => {
  it("ends a handler that outlives it, by its signal, and answers DEADLINE_EXCEEDED", async () => {
    const reasons: unknown[] = [];
    const say = (_: unknown, call: CallContext) =>
      new Promise<never>(() => {
        call.signal.addEventListener("abort", () => reasons.push(call.signal.reason));
      });
    await using h = await startEcho({ say });
    const { error } = await h.client.say({}, { deadline: Date.now() + 200 });
    expect(error?.code).toBe(status.DEADLINE_EXCEEDED);
    const http = await post(h, "Say", "{}", { "connect-timeout-ms": "200" });
    expect(http).toMatchObject({ status: 504, body: { code: "deadline_exceeded" } });
    expect(http.body.details?.[0]?.debug?.reason).toBe("DEADLINE_EXCEEDED");
    await until(() => reasons.length === 2, { what: "both handlers to be aborted" });
    expect(reasons).toEqual([
      expect.objectContaining({ kind: "deadline" }),
      expect.objectContaining({ kind: "deadline" }),
    ]);
    await until(() => h.lines.length === 2, { what: "both failures in the log" });
    expect(h.lines.map((line) => line.code)).toEqual(["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"]);
  });

  it("is in the log once when the server was too busy to notice it first", async () => {
    const reasons: unknown[] = [];
    const say = (_: unknown, call: CallContext) =>
      new Promise<never>(() => {
        call.signal.addEventListener("abort", () => reasons.push(call.signal.reason));
        // Late for both timers, of which grpc-js' was set first.
        setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300), 10);
      });
    await using h = await startEcho({ say });
    for (let call = 1; call <= 5; call++) {
      const { error } = await h.client.say({}, { deadline: Date.now() + 100 });
      expect(error?.code).toBe(status.DEADLINE_EXCEEDED);
      await until(() => reasons.length === call && h.lines.length >= call, { what: "the call to be over" });
    }
    // Whatever a call writes, it has written before the next one is answered.
    await h.client.say({}, { deadline: Date.now() + 100 });
    await until(() => reasons.length === 6 && h.lines.length >= 6, { what: "the last one to be over" });
    expect(h.lines.map((line) => line.code)).toEqual(Array(6).fill("DEADLINE_EXCEEDED"));
    expect(reasons).toEqual(Array(6).fill(expect.objectContaining({ kind: "deadline" })));
  });

  it("is shown to the handler", async () => {
    const seen: (number | undefined)[] = [];
    await using h = await startEcho({
      say(request, call) {
        seen.push(call.deadline);
        return echo(request);
      },
    });
    const deadline = Date.now() + 5_000;
    await h.client.say({}, { deadline });
    await post(h, "Say", "{}", { "connect-timeout-ms": "5000" });
    for (const each of seen) expect(Math.abs((each ?? 0) - deadline)).toBeLessThan(4_000);
    expect(seen).toHaveLength(2);
  });

  it("is set by the server where the caller sets none, or one too far away", async () => {
    await using h = await startEcho({ say: () => new Promise<never>(() => undefined) }, { maxDeadlineMs: 100 });
    const grpc = await h.client.say({});
    expect(grpc.error?.code).toBe(status.DEADLINE_EXCEEDED);
    expect(grpc.error?.metadata.get("holdfast-degraded")).toEqual(["false"]);
    const http = await post(h, "Say", "{}", { "connect-timeout-ms": "50000" });
    expect(http.status).toBe(504);
  });

  it("is further off for an RPC that is there to wait", async () => {
    const say = (_: unknown, call: CallContext) => echo({ number: (call.deadline ?? 0) > Date.now() + 10_000 ? 1 : 0 });
    const services = [{ service: EchoService, rpcs: { say }, longestMs: { say: 3_600_000 } }];
    await using h = await startEcho({}, { services, maxDeadlineMs: 1_000 });
    expect((await h.client.say({})).reply?.number).toBe(1);
  });
});

describe("a caller that hangs up", () => {
  it("aborts the handler's signal", async () => {
    const aborted: string[] = [];
    let entered = 0;
    await using h = await startEcho({
      say: (_, call) =>
        new Promise<never>((_, reject) => {
          entered++;
          call.signal.addEventListener("abort", () => {
            aborted.push(call.signal.reason.kind);
            reject(call.signal.reason);
          });
        }),
    });
    const bytes = Buffer.alloc(0);
    const call = h.client.makeUnaryRequest(
      "/holdfast.test.EchoService/Say",
      () => bytes,
      () => bytes,
      bytes,
      () => undefined,
    );
    await until(() => entered === 1, { what: "the gRPC call to arrive" });
    call.cancel();
    await until(() => aborted.length === 1, { what: "the gRPC handler to be aborted" });

    const controller = new AbortController();
    const request = fetch(`${h.httpUrl}/holdfast.test.EchoService/Say`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
      signal: controller.signal,
    });
    request.catch(() => undefined);
    await until(() => entered === 2, { what: "the HTTP call to arrive" });
    controller.abort();
    await until(() => aborted.length === 2, { what: "the HTTP handler to be aborted" });
    expect(aborted).toEqual(["cancelled", "cancelled"]);
  });
});

describe("metrics and log", () => {
  it("count every call by method, code and plane, and log only those that fail", async () => {
    await using h = await startEcho({
      say(request) {
        if (request.text === "no") throw new Failure("not_found", "NOPE", "no such thing");
        return echo(request);
      },
    });
    await h.client.say({ text: "a" });
    await h.client.say({ text: "no" });
    await post(h, "Say", say);
    const text = await h.metrics();
    const line = (plane: string, code: string) =>
      `holdfast_calls_total{method="holdfast.test.EchoService/Say",plane="${plane}",code="${code}"} 1`;
    expect(text).toContain(line("grpc", "OK"));
    expect(text).toContain(line("grpc", "NOT_FOUND"));
    expect(text).toContain(line("http", "OK"));
    expect(text).toContain('holdfast_call_seconds_count{method="holdfast.test.EchoService/Say",plane="grpc"} 2');
    expect(h.lines).toHaveLength(1);
    expect(h.lines[0]).toMatchObject({
      level: "info",
      method: "holdfast.test.EchoService/Say",
      plane: "grpc",
      caller: "anonymous",
      code: "NOT_FOUND",
      reason: "NOPE",
      duration_ms: expect.any(Number),
      peer: expect.stringContaining("127.0.0.1:"),
    });
  });

  it("show good calls too at debug level", async () => {
    await using h = await startEcho({ say: (request) => echo(request) }, { logLevel: "debug" });
    await h.client.say({}, {}, new Metadata());
    expect(h.lines.map((line) => [line.level, line.code])).toEqual([["debug", "OK"]]);
  });
});

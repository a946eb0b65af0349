import { connect } from "node:http2";
import { toBinary } from "@bufbuild/protobuf";
import { createGrpcWebTransport } from "@connectrpc/connect-node";
import { status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { type CallContext, EncodedReply } from "../../src/infra/call.ts";
import { Failure } from "../../src/infra/failure.ts";
import { until } from "../support/until.ts";
import type { Echo } from "./echo.ts";
import { countMethod, detailsOf, echo, echoType, type Harness, readAll, startEcho } from "./harness.ts";

/** Counts until told to stop, and tells how far it got and whether it was closed. */
function counter(size = 0) {
  const seen = { produced: 0, closed: 0, reasons: [] as unknown[] };
  async function* count(request: Echo, call: CallContext) {
    call.servedBy("sqlite");
    call.signal.addEventListener("abort", () => seen.reasons.push(call.signal.reason));
    try {
      for (let number = 1; request.number === 0 || number <= request.number; number++) {
        seen.produced++;
        yield echo({ number, data: new Uint8Array(size) });
      }
    } finally {
      seen.closed++;
    }
  }
  return { seen, count };
}

/** A Connect stream as fetch sees it. */
function connectStream(h: Harness, fields: object, signal?: AbortSignal) {
  const body = Buffer.from(JSON.stringify(fields));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(body.length, 1);
  return fetch(`${h.httpUrl}/holdfast.test.EchoService/Count`, {
    method: "POST",
    headers: { "content-type": "application/connect+json" },
    body: Buffer.concat([head, body]),
    ...(signal !== undefined && { signal }),
  });
}

/** The messages of a Connect stream; the last is its end. */
function frames(bytes: Buffer): { readonly end: boolean; readonly json: Record<string, unknown> }[] {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at + 1);
    found.push({ end: bytes[at] === 2, json: JSON.parse(bytes.subarray(at + 5, at + 5 + length).toString()) });
    at += 5 + length;
  }
  return found;
}

describe("a stream of replies", () => {
  it("arrives whole and in order on gRPC, and says where it came from", async () => {
    const { count } = counter();
    await using h = await startEcho({ count });
    const { items, error, header, status: end } = await readAll(h.client.count({ number: 500 }));
    expect(error).toBeUndefined();
    expect(items.map((item) => item.number)).toEqual(Array.from({ length: 500 }, (_, i) => i + 1));
    expect(header.getMap()).toMatchObject({ "holdfast-served-by": "sqlite", "holdfast-degraded": "false" });
    expect(end.metadata.getMap()).toMatchObject({ "holdfast-served-by": "sqlite", "holdfast-degraded": "false" });
  });

  it("arrives whole over Connect and gRPC-Web", async () => {
    const { count } = counter();
    await using h = await startEcho({ count });
    const response = await connectStream(h, { number: 3 });
    expect(response.headers.get("holdfast-served-by")).toBe("sqlite");
    const messages = frames(Buffer.from(await response.arrayBuffer()));
    expect(messages.map((message) => message.json.number)).toEqual([1, 2, 3, undefined]);
    expect(messages[3]?.end).toBe(true);

    const web = createGrpcWebTransport({ baseUrl: h.httpUrl, httpVersion: "1.1" });
    const once = (async function* () {
      yield { number: 3 };
    })();
    const answer = await web.stream(countMethod, undefined, undefined, undefined, once);
    const items = [];
    for await (const item of answer.message) items.push(item);
    expect(items).toMatchObject([{ number: 1 }, { number: 2 }, { number: 3 }]);
    expect(answer.header.get("holdfast-served-by")).toBe("sqlite");
  });

  it("is sent as it is where the handler has it encoded already, and decoded for JSON", async () => {
    const encoded = (number: number) => new EncodedReply(toBinary(echoType, echo({ number })));
    async function* count() {
      for (const number of [1, 2]) yield encoded(number);
    }
    await using h = await startEcho({ count });
    const { items } = await readAll(h.client.count({}));
    expect(items.map((item) => item.number)).toEqual([1, 2]);
    const messages = frames(Buffer.from(await (await connectStream(h, {})).arrayBuffer()));
    expect(messages.map((message) => message.json.number)).toEqual([1, 2, undefined]);
  });

  it("ends with the handler's failure, after what it had produced", async () => {
    async function* count(): AsyncGenerator<ReturnType<typeof echo>> {
      yield echo({ number: 1 });
      throw new Failure("out_of_range", "COMPACTED", "gone");
    }
    await using h = await startEcho({ count });
    const { items, error } = await readAll(h.client.count({}));
    expect(items).toHaveLength(1);
    expect(error?.code).toBe(status.OUT_OF_RANGE);
    expect(error?.metadata.get("holdfast-degraded")).toEqual(["false"]);
    expect(detailsOf(error)["google.rpc.ErrorInfo"]).toMatchObject({ reason: "COMPACTED" });

    const messages = frames(Buffer.from(await (await connectStream(h, {})).arrayBuffer()));
    expect(messages[1]).toMatchObject({ end: true, json: { error: { code: "out_of_range" } } });
    expect(messages[1]?.json.metadata).toMatchObject({ "holdfast-degraded": ["false"] });
  });

  it("is given up when the reader vanishes: the signal is aborted and the generator closed", async () => {
    const { count, seen } = counter();
    await using h = await startEcho({ count });
    const stream = h.client.count({});
    stream.on("error", () => undefined);
    await new Promise((resolve) => stream.once("data", resolve));
    stream.cancel();
    await until(() => seen.closed === 1, { what: "the gRPC stream's generator to be closed" });
    expect(seen.reasons).toMatchObject([{ kind: "cancelled" }]);

    const controller = new AbortController();
    const response = await connectStream(h, {}, controller.signal);
    await response.body?.getReader().read();
    controller.abort();
    await until(() => seen.closed === 2, { what: "the HTTP stream's generator to be closed" });
    expect(seen.reasons).toMatchObject([{ kind: "cancelled" }, { kind: "cancelled" }]);
    await until(async () => (await h.metrics()).includes('holdfast_calls_waiting{plane="http"} 0'), {
      what: "no call to be under way",
    });
  });

  it.each([
    ["small", 1_000],
    ["large", 1_000_000],
  ])("waits for a reader that does not read, with %s messages", async (_, size) => {
    const { count, seen } = counter(size);
    await using h = await startEcho({ count });
    // Not a grpc-js client: that one goes on reading into its own memory.
    const session = connect(`http://localhost:${h.grpcPort}`);
    const stream = session.request({
      ":method": "POST",
      ":path": "/holdfast.test.EchoService/Count",
      "content-type": "application/grpc",
      te: "trailers",
    });
    stream.on("error", () => undefined);
    stream.end(Buffer.alloc(5));
    const settled = async () => {
      let before = -1;
      await until(
        () => {
          const same = before === seen.produced && before > 0;
          before = seen.produced;
          return same;
        },
        { what: "the producer to be held back", intervalMs: 300 },
      );
    };
    await settled();
    // What the buffers on the way hold, ours, the kernel's and the client's; far from what a free run would produce.
    expect(seen.produced * size).toBeLessThan(24_000_000);
    const held = seen.produced;
    stream.resume();
    await until(() => seen.produced > held * 2, { what: "the producer to go on" });
    session.destroy();
    await until(() => seen.closed === 1, { what: "the generator to be closed" });

    const controller = new AbortController();
    seen.produced = 0;
    const response = await connectStream(h, {}, controller.signal);
    await settled();
    expect(seen.produced * size).toBeLessThan(24_000_000);
    expect(response.ok).toBe(true);
    controller.abort();
    await until(() => seen.closed === 2, { what: "the HTTP generator to be closed" });
  });

  it("ends at its deadline even when nothing is produced", async () => {
    async function* count(_: Echo, call: CallContext): AsyncGenerator<ReturnType<typeof echo>> {
      await new Promise((resolve) => call.signal.addEventListener("abort", resolve));
      throw call.signal.reason;
    }
    await using h = await startEcho({ count });
    const { error } = await readAll(h.client.count({}, { deadline: Date.now() + 150 }));
    expect(error?.code).toBe(status.DEADLINE_EXCEEDED);
  });
});

describe("a stream of requests", () => {
  it("is collected into one reply", async () => {
    await using h = await startEcho({
      async collect(requests) {
        const texts: string[] = [];
        for await (const request of requests) texts.push(request.text);
        return echo({ text: texts.join(",") });
      },
    });
    expect((await h.client.collect(["a", "b", "c"])).text).toBe("a,b,c");
  });

  it("is answered message by message in both directions", async () => {
    async function* chat(requests: AsyncIterable<Echo>) {
      for await (const request of requests) yield echo({ text: `${request.text}!` });
    }
    await using h = await startEcho({ chat });
    const call = h.client.chat();
    const all = readAll(call);
    for (let i = 0; i < 200; i++) call.write(echo({ text: String(i) }));
    call.end();
    const { items, error } = await all;
    expect(error).toBeUndefined();
    expect(items.map((item) => item.text)).toEqual(Array.from({ length: 200 }, (_, i) => `${i}!`));
  });

  it("is read only as fast as the handler takes it", async () => {
    let taken = 0;
    let go: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    async function* chat(requests: AsyncIterable<Echo>) {
      for await (const _ of requests) {
        if (++taken === 1) await gate;
      }
      yield echo({ number: taken });
    }
    await using h = await startEcho({ chat });
    const call = h.client.chat();
    const all = readAll(call);
    let sent = 0;
    const data = new Uint8Array(100_000);
    // Writes until nothing moves any more: the server's window is full.
    const feed = () => {
      while (sent < 2_000 && call.write(echo({ data }))) sent++;
    };
    call.on("drain", feed);
    feed();
    let before = -1;
    await until(
      () => {
        const same = sent === before;
        before = sent;
        return same;
      },
      { what: "the client to be held back", intervalMs: 300 },
    );
    expect(sent).toBeLessThan(500);
    expect(taken).toBe(1);
    go();
    await until(() => sent >= 2_000, { what: "the rest to be sent" });
    call.end();
    const { items } = await all;
    expect(items[0]?.number).toBeGreaterThanOrEqual(2_000);
  });

  it("ends with INVALID_ARGUMENT at a message that is malformed", async () => {
    let closed = false;
    async function* chat(requests: AsyncIterable<Echo>) {
      try {
        for await (const request of requests) yield echo(request);
      } finally {
        closed = true;
      }
    }
    await using h = await startEcho({ chat });
    const bad = h.client.makeBidiStreamRequest(
      "/holdfast.test.EchoService/Chat",
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
    );
    bad.on("data", () => undefined);
    const failed = new Promise<{ code: number }>((resolve) =>
      bad.on("error", (error: { code: number } & Error) => resolve(error)),
    );
    bad.write(Buffer.from([0x12, 2, 0xc3, 0x28]));
    expect((await failed).code).toBe(status.INVALID_ARGUMENT);
    await until(() => closed, { what: "the handler to be closed" });
  });

  it("ends with RESOURCE_EXHAUSTED at a message over the limit, counted once", async () => {
    async function* chat(requests: AsyncIterable<Echo>) {
      for await (const request of requests) yield echo({ number: request.number });
    }
    await using h = await startEcho({ chat }, { maxMessageBytes: 10_000 });
    const call = h.client.chat();
    const all = readAll(call);
    call.write(echo({ number: 1 }));
    call.write(echo({ data: new Uint8Array(10_001) }));
    const { error } = await all;
    expect(error?.code).toBe(status.RESOURCE_EXHAUSTED);
    expect(error?.details).toContain("10000");
    expect(error?.metadata.get("holdfast-degraded")).toEqual(["false"]);
    expect(h.lines.map((line) => line.code)).toEqual(["RESOURCE_EXHAUSTED"]);
  });

  it("tells the handler when the caller vanishes", async () => {
    const errors: unknown[] = [];
    async function* chat(requests: AsyncIterable<Echo>) {
      try {
        for await (const request of requests) yield echo(request);
      } catch (error) {
        errors.push(error);
        throw error;
      }
    }
    await using h = await startEcho({ chat });
    const call = h.client.chat();
    call.on("error", () => undefined);
    call.write(echo({ number: 1 }));
    await new Promise((resolve) => call.once("data", resolve));
    call.cancel();
    await until(() => errors.length === 1, { what: "the handler to hear of it" });
    expect(errors).toMatchObject([{ kind: "cancelled" }]);
  });
});

import { credentials, status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import type { CallContext } from "../../src/infra/call.ts";
import { until } from "../support/until.ts";
import type { Echo } from "./echo.ts";
import { detailsOf, EchoClient, echo, post, readAll, startEcho } from "./harness.ts";

function latch() {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open: () => open(), opened };
}

describe("a drain", () => {
  it("lets unary calls finish, refuses new ones with RetryInfo, and answers 503 on /readyz meanwhile", async () => {
    const gate = latch();
    let entered = 0;
    await using h = await startEcho({
      async say(request) {
        entered++;
        await gate.opened;
        return echo(request);
      },
    });
    const grpc = h.client.say({ text: "kept" });
    const http = post(h, "Say", JSON.stringify({ text: "kept" }));
    await until(() => entered === 2, { what: "both calls to be under way" });
    const drained = h.servers.drain(60_000);

    const refused = await h.client.say({ text: "late" });
    expect(refused.error?.code).toBe(status.UNAVAILABLE);
    expect(detailsOf(refused.error)["google.rpc.RetryInfo"]).toBeDefined();
    expect(detailsOf(refused.error)["google.rpc.ErrorInfo"]).toMatchObject({ reason: "SERVER_DRAINING" });
    expect((await post(h, "Say", "{}")).status).toBe(503);
    expect((await fetch(`${h.httpUrl}/readyz`)).status).toBe(503);
    expect((await fetch(`${h.httpUrl}/healthz`)).status).toBe(200);

    gate.open();
    expect((await grpc).reply?.text).toBe("kept");
    expect((await http).body.text).toBe("kept");
    await drained;
    await expect(fetch(`${h.httpUrl}/healthz`)).rejects.toThrow();
    const late = new EchoClient(`localhost:${h.grpcPort}`, credentials.createInsecure());
    expect((await late.say({})).error?.code).toBe(status.UNAVAILABLE);
    late.close();
  });

  it("ends streams of replies with UNAVAILABLE and RetryInfo, even where the handler ignores its signal", async () => {
    async function* count(): AsyncGenerator<ReturnType<typeof echo>> {
      yield echo({ number: 1 });
      await new Promise(() => undefined);
    }
    await using h = await startEcho({ count });
    const stream = h.client.count({});
    const all = readAll(stream);
    await new Promise((resolve) => stream.once("data", resolve));
    await h.servers.drain(60_000);
    const { error } = await all;
    expect(error?.code).toBe(status.UNAVAILABLE);
    expect(detailsOf(error)["google.rpc.RetryInfo"]).toBeDefined();
  });

  it("lets a handler of a two-way stream acknowledge what it has taken in", async () => {
    const reasons: unknown[] = [];
    async function* chat(requests: AsyncIterable<Echo>, call: CallContext) {
      let taken = 0;
      try {
        for await (const _ of requests) {
          taken++;
          yield echo({ text: "taken" });
        }
      } catch (error) {
        reasons.push(error, call.signal.reason);
      }
      yield echo({ text: "last words", number: taken });
    }
    await using h = await startEcho({ chat });
    const call = h.client.chat();
    const all = readAll(call);
    call.write(echo({}));
    await new Promise((resolve) => call.once("data", resolve));
    await h.servers.drain(60_000);
    const { items, error } = await all;
    expect(items.at(-1)).toMatchObject({ text: "last words", number: 1 });
    expect(error?.code).toBe(status.UNAVAILABLE);
    expect(reasons).toMatchObject([{ reason: "SERVER_DRAINING" }, { reason: "SERVER_DRAINING" }]);
  });

  it("ends by force what is left when the grace is over", async () => {
    let entered = 0;
    await using h = await startEcho({
      say() {
        entered++;
        return new Promise(() => undefined);
      },
    });
    const grpc = h.client.say({});
    const http = post(h, "Say", "{}");
    await until(() => entered === 2, { what: "both calls to be under way" });
    await h.servers.drain(50);
    expect((await grpc).error?.code).toBe(status.UNAVAILABLE);
    expect((await http).status).toBe(503);
  });

  it("is done at once when nothing is under way", async () => {
    await using h = await startEcho({ say: (request) => echo(request) });
    await h.client.say({});
    await post(h, "Say", "{}");
    await h.servers.drain(60_000);
  });
});

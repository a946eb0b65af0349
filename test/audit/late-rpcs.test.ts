import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  AuditService,
  AuditServiceGetRequestSchema,
  AuditServiceGetResponseSchema,
  AuditServiceSubscribeRequestSchema,
  type AuditServiceSubscribeResponse,
  AuditServiceSubscribeResponseSchema,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import type { CallContext, Rpcs } from "../../src/infra/call.ts";
import { lateRpcs } from "../../src/infra/late-rpcs.ts";
import { testCall } from "./calls.ts";

type Loaded = Pick<Rpcs<typeof AuditService>, "get" | "subscribe">;

const request = create(AuditServiceGetRequestSchema, { id: "p/1" });
const answer = create(AuditServiceGetResponseSchema);
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

/** What is loaded, and what it saw. */
class Late {
  loads = 0;
  readonly seen: { readonly request: unknown; readonly call: CallContext }[] = [];
  load: () => Promise<Loaded> = async () => this.loaded;
  replies = 3;
  /** How its stream ended. */
  ended = "";

  readonly loaded: Loaded = {
    get: (request, call) => {
      this.seen.push({ request, call });
      return answer;
    },
    subscribe: (requests, call) => this.#subscribe(requests, call),
  };

  readonly #rpcs = lateRpcs(AuditService, ["get", "subscribe"], () => {
    this.loads++;
    return this.load();
  });

  get names(): string[] {
    return Object.keys(this.#rpcs);
  }

  async get(call = testCall()): Promise<unknown> {
    return this.#rpcs.get?.(request, call);
  }

  subscribe(call = testCall()): AsyncIterator<AuditServiceSubscribeResponse> {
    const requests = (async function* () {
      yield create(AuditServiceSubscribeRequestSchema);
    })();
    const replies = this.#rpcs.subscribe?.(requests, call);
    if (replies === undefined) throw new Error("there is no such RPC");
    return replies[Symbol.asyncIterator]();
  }

  async *#subscribe(
    requests: AsyncIterable<unknown>,
    call: CallContext,
  ): AsyncGenerator<AuditServiceSubscribeResponse> {
    try {
      for await (const request of requests) this.seen.push({ request, call });
      for (let at = 0; at < this.replies; at++) yield create(AuditServiceSubscribeResponseSchema);
      if (this.replies === 1) throw new Error("broken in the middle");
      this.ended = "done";
    } finally {
      this.ended ||= "left";
    }
  }
}

describe("RPCs that are loaded late", () => {
  it("are there by name, and nothing is loaded before one is called", async () => {
    const late = new Late();
    await settle();
    expect([late.names, late.loads]).toEqual([["get", "subscribe"], 0]);
  });

  it("are loaded once, whoever calls and however many at a time", async () => {
    const late = new Late();
    const { promise, resolve } = Promise.withResolvers<Loaded>();
    late.load = () => promise;
    const calls = [late.get(), late.get(), late.subscribe().next()];
    await settle();
    expect([late.loads, late.seen]).toEqual([1, []]);
    resolve(late.loaded);
    expect((await Promise.all(calls)).slice(0, 2)).toEqual([answer, answer]);
    await late.get();
    expect(late.loads).toBe(1);
  });

  it("are given the request and the call as they came", async () => {
    const late = new Late();
    const call = testCall("ada");
    await late.get(call);
    expect(late.seen).toHaveLength(1);
    expect(late.seen[0]?.request).toBe(request);
    expect(late.seen[0]?.call).toBe(call);
  });

  it("fail while they cannot be loaded, and are loaded by the next call that can", async () => {
    const late = new Late();
    const failure = new Error("no such module");
    const works = late.load;
    late.load = () => Promise.reject(failure);
    const first = await Promise.allSettled([late.get(), late.get(), late.subscribe().next()]);
    expect(first).toEqual(Array(3).fill({ status: "rejected", reason: failure }));
    expect(late.loads).toBe(1);
    await expect(late.get()).rejects.toBe(failure);
    late.load = works;
    expect(await late.get()).toBe(answer);
    await late.get();
    expect(late.loads).toBe(3);
  });

  it("pass on what an RPC throws, and are not loaded again for that", async () => {
    const late = new Late();
    const failure = new Error("not found");
    const get = () => Promise.reject(failure);
    late.load = async () => ({ ...late.loaded, get });
    await expect(late.get()).rejects.toBe(failure);
    await expect(late.get()).rejects.toBe(failure);
    expect(late.loads).toBe(1);
  });

  it("stream replies one by one, and end as the stream ends", async () => {
    const late = new Late();
    const replies = late.subscribe();
    for (let at = 0; at < 3; at++) expect((await replies.next()).done).toBe(false);
    expect([(await replies.next()).done, late.ended, late.seen.length]).toEqual([true, "done", 1]);
    late.ended = "";
    late.replies = 1;
    const broken = late.subscribe();
    await broken.next();
    await expect(broken.next()).rejects.toThrow("broken in the middle");
  });

  it("end the stream behind them when its reader leaves", async () => {
    const late = new Late();
    const replies = late.subscribe();
    await replies.next();
    await replies.return?.();
    expect(late.ended).toBe("left");
    // Left before it began: nothing is loaded for nobody.
    const other = new Late();
    await other.subscribe().return?.();
    expect(other.loads).toBe(0);
  });

  it("say which of them was not among what was loaded", async () => {
    const late = new Late();
    late.load = async () => ({});
    await expect(late.get()).rejects.toThrow("Get was not among what was loaded");
    await expect(late.subscribe().next()).rejects.toThrow("Subscribe was not among what was loaded");
  });
});

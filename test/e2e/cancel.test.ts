import { connect, constants } from "node:http2";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  CacheOutcome,
  CacheService,
  CacheServiceGetManyRequestSchema,
  CacheServiceGetRequestSchema,
  CacheServiceGetResponseSchema,
  CacheServiceSetManyRequestSchema,
  CacheServiceWatchRequestSchema,
  SetOutcome,
} from "../../src/gen/holdfast/v1/cache_pb.js";
import { type BadCaller, complaints, createBadCaller, gauge } from "../support/bad-caller.ts";
import { frame } from "../support/bad-frames.ts";
import { type CacheClient, createCacheClient, textOf } from "../support/cache-client.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

let redis: RedisServer;
let server: HoldfastProcess;
let client: CacheClient;
let caller: BadCaller;
beforeAll(async () => {
  redis = await startRedis();
  // Long enough that what waits for a frozen Redis is found waiting.
  server = await startHoldfast({ REDIS_URL: redis.url, REDIS_COMMAND_TIMEOUT: "20s" });
  client = createCacheClient(server.grpcAddress);
  caller = createBadCaller(server.grpcAddress);
});
afterAll(async () => {
  client[Symbol.dispose]();
  caller[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
  await redis.stop();
});

const path = (rpc: string) => `/${CacheService.typeName}/${rpc}`;
const { method } = CacheService;

function getBytes(request: MessageInitShape<typeof CacheServiceGetRequestSchema>): Uint8Array {
  return toBinary(CacheServiceGetRequestSchema, create(CacheServiceGetRequestSchema, request));
}

const gauges = {
  calls: "holdfast_calls_waiting",
  watchers: "holdfast_cache_watchers",
  leases: "holdfast_cache_lease_waiters",
} as const;

function untilIs(name: keyof typeof gauges, count: number): Promise<boolean> {
  return until(async () => (await gauge(server.httpUrl, gauges[name])) === count, { what: `${count} ${name}` });
}

async function untilNothingIsLeft(): Promise<void> {
  await untilIs("calls", 0);
  await untilIs("watchers", 0);
  await untilIs("leases", 0);
}

let key = 0;
/** A key that someone has a lease on for the next ten minutes. */
async function leasedKey(): Promise<{ key: string; token: string }> {
  const leased = `leased ${++key}`;
  const { reply } = await client.call(method.get, { key: leased, leaseTtl: { seconds: 600n } });
  if (reply.lease === undefined) throw new Error("no lease was given");
  return { key: leased, token: reply.lease.token };
}

beforeEach(untilNothingIsLeft);

describe("a caller who hangs up", () => {
  it("while it waits for a lease leaves nothing behind, and those who stay get the value", async () => {
    const { key, token } = await leasedKey();
    const hangUp = new AbortController();
    const request = getBytes({ key, leaseTtl: { seconds: 600n } });
    const gone = fill(50, () => caller.send(path("Get"), request, { signal: hangUp.signal }));
    const stayed = fill(3, () => client.call(method.get, { key, leaseTtl: { seconds: 600n } }));
    await untilIs("leases", 53);
    hangUp.abort();
    for (const ending of await Promise.all(gone)) expect(ending.code).toBe("CANCELLED");
    await untilIs("leases", 3);
    await untilIs("calls", 3);
    expect((await client.put("", key, "computed", { leaseToken: token })).reply.outcome).toBe(SetOutcome.STORED);
    for (const { reply } of await Promise.all(stayed)) expect(textOf(reply)).toBe("computed");
    await untilNothingIsLeft();
  });

  it("from 3,000 calls at once, as when their deadlines pass together, loses none of its others", async () => {
    const { key } = await leasedKey();
    const hangUp = new AbortController();
    const request = getBytes({ key, leaseTtl: { seconds: 600n } });
    const gone = fill(3_000, () => caller.send(path("Get"), request, { signal: hangUp.signal }));
    const stayed = caller.send(path("Get"), request);
    await untilIs("leases", 3_001);
    hangUp.abort();
    expect(new Set((await Promise.all(gone)).map(({ code }) => code))).toEqual(new Set(["CANCELLED"]));
    await untilIs("leases", 1);
    await client.put("", key, "computed");
    expect(await stayed).toMatchObject({ code: "OK" });
  });

  it("by vanishing, with everything it had under way, leaves nothing behind", async () => {
    const { key } = await leasedKey();
    const session = connect(`http://${server.grpcAddress}`);
    session.on("error", () => undefined);
    const open = (rpc: string, bytes: Uint8Array) => {
      const headers = { ":method": "POST", ":path": path(rpc), "content-type": "application/grpc", te: "trailers" };
      session
        .request(headers)
        .on("error", () => undefined)
        .end(frame(bytes));
    };
    for (let i = 0; i < 40; i++) {
      open("Get", getBytes({ key, leaseTtl: { seconds: 600n } }));
      open("Watch", toBinary(CacheServiceWatchRequestSchema, create(CacheServiceWatchRequestSchema)));
    }
    await untilIs("leases", 40);
    await untilIs("watchers", 40);
    session.destroy();
    await untilNothingIsLeft();
    expect(await client.text("", "anything")).toBeUndefined();
  });

  it("from 10,000 calls as soon as it has made them leaves nothing behind", async () => {
    const { key } = await leasedKey();
    const session = connect(`http://${server.grpcAddress}`);
    session.on("error", () => undefined);
    const headers = { ":method": "POST", "content-type": "application/grpc", te: "trailers" };
    const request = frame(getBytes({ key, leaseTtl: { seconds: 600n } }));
    // The server may well close the connection of a caller who does this.
    for (let i = 0; i < 10_000 && !session.destroyed && !session.closed; i++) {
      const stream = session.request({ ...headers, ":path": path(i % 2 === 0 ? "Get" : "Watch") });
      stream.on("error", () => undefined);
      stream.end(i % 2 === 0 ? request : frame(new Uint8Array()));
      stream.close(constants.NGHTTP2_CANCEL);
      if (i % 100 === 0) await new Promise(setImmediate);
    }
    await untilNothingIsLeft();
    session.destroy();
    expect(await client.text("", "anything")).toBeUndefined();
  });

  it("from a watch ends the watch, and no other", async () => {
    await using other = await client.watch({ namespace: "watched" });
    const hangUps = fill(20, () => new AbortController());
    const request = toBinary(
      CacheServiceWatchRequestSchema,
      create(CacheServiceWatchRequestSchema, { namespace: "watched" }),
    );
    for (const { signal } of hangUps)
      expect((await caller.send(path("Watch"), request, { stream: true, signal })).code).toBe("OK");
    await untilIs("watchers", 21);
    for (const hangUp of hangUps) hangUp.abort();
    await untilIs("watchers", 1);
    await untilIs("calls", 1);
    await client.put("watched", "k", "x");
    await until(() => other.events.some(({ event }) => event.case === "change"), { what: "the change" });
  });

  it("in the midst of a SetMany leaves each item stored or not, and none in between", async () => {
    const keys = fill(1_000, (i) => `many ${i}`);
    const items = keys.map((key) => ({ key, value: { kind: { case: "text" as const, value: `value of ${key}` } } }));
    const request = toBinary(CacheServiceSetManyRequestSchema, create(CacheServiceSetManyRequestSchema, { items }));
    for (let round = 0; round < 10; round++) {
      const hangUp = new AbortController();
      const ending = caller.send(path("SetMany"), request, { signal: hangUp.signal });
      // From before it is sent to after it is answered.
      for (let turn = 0; turn < round * 3; turn++) await new Promise(setImmediate);
      hangUp.abort();
      expect((await ending).code).toMatch(/^(OK|CANCELLED)$/);
    }
    await untilNothingIsLeft();
    const { reply } = await client.call(method.getMany, { keys, bypassL1: true });
    for (const [i, { entry, outcome }] of reply.results.entries()) {
      if (outcome === CacheOutcome.MISS) continue;
      expect(entry?.value?.kind.value).toBe(`value of ${keys[i]}`);
    }
    expect((await client.call(method.setMany, { items })).reply.results).toHaveLength(1_000);
  });
});

describe("a caller who hangs up while Redis is frozen", () => {
  it("is let go at once, and those who stay are answered when Redis is back", async () => {
    await client.put("", "here", "here");
    const keys = [...fill(500, (i) => `cold ${i}`), "here"];
    const request = toBinary(
      CacheServiceGetManyRequestSchema,
      create(CacheServiceGetManyRequestSchema, { keys, bypassL1: true }),
    );
    const hangUp = new AbortController();
    redis.pause();
    const gone = fill(20, () => caller.send(path("GetMany"), request, { signal: hangUp.signal }));
    const stayed = client.call(method.getMany, { keys, bypassL1: true });
    await untilIs("calls", 21);
    hangUp.abort();
    for (const ending of await Promise.all(gone)) expect(ending.code).toBe("CANCELLED");
    await untilIs("calls", 1);
    redis.resume();
    expect((await stayed).reply.results.at(-1)).toMatchObject({ outcome: CacheOutcome.HIT });
  });

  it("is not given a lease afterwards, for which all others would wait", async () => {
    const leaseTtl = { seconds: 600n };
    const hangUp = new AbortController();
    redis.pause();
    const gone = caller.send(path("Get"), getBytes({ key: "abandoned", leaseTtl }), { signal: hangUp.signal });
    await untilIs("calls", 1);
    hangUp.abort();
    expect((await gone).code).toBe("CANCELLED");
    await untilIs("calls", 0);
    redis.resume();
    // By the time this is answered, what the other had asked Redis is answered too.
    expect(await client.text("", "another", true)).toBeUndefined();
    const { reply } = await client.call(method.get, { key: "abandoned", leaseTtl, waitTimeout: {} });
    expect(reply.lease?.token).toBeDefined();
  });
});

describe("a deadline", () => {
  it.each([1, 20, 50, 120])("of %d ms ends the wait for a lease", async (deadlineMs) => {
    const { key } = await leasedKey();
    const ending = await caller.send(path("Get"), getBytes({ key, leaseTtl: { seconds: 600n } }), { deadlineMs });
    expect(ending.code).toMatch(/^(OK|DEADLINE_EXCEEDED)$/);
    if (ending.reply === undefined) return;
    const { outcome, lease } = fromBinary(CacheServiceGetResponseSchema, ending.reply);
    expect(outcome).toBe(CacheOutcome.MISS);
    expect(lease).toBeUndefined();
  });

  it("with time to spare is kept by an answer, not by an error", async () => {
    const { key } = await leasedKey();
    const request = getBytes({ key, leaseTtl: { seconds: 600n } });
    const endings = await Promise.all(fill(20, () => caller.send(path("Get"), request, { deadlineMs: 2_000 })));
    const outcomes = endings.map(({ reply }) => reply && fromBinary(CacheServiceGetResponseSchema, reply).outcome);
    // A machine that stands still for a moment makes one late; not most of them.
    expect(outcomes.filter((outcome) => outcome === CacheOutcome.MISS).length).toBeGreaterThan(10);
  });

  it("of a watch ends it", async () => {
    const request = toBinary(CacheServiceWatchRequestSchema, create(CacheServiceWatchRequestSchema));
    const stay = new AbortController();
    await caller.send(path("Watch"), request, { stream: true, signal: stay.signal, deadlineMs: 500 });
    await untilIs("watchers", 0);
  });
});

describe("over HTTP", () => {
  const post = (rpc: string, type: string, body: string | Uint8Array<ArrayBuffer>, init: RequestInit = {}) =>
    fetch(`${server.httpUrl}${path(rpc)}`, {
      method: "POST",
      body,
      ...init,
      headers: { "content-type": type, ...init.headers },
    });

  it("a caller who hangs up while it waits for a lease leaves nothing behind", async () => {
    const { key } = await leasedKey();
    const hangUp = new AbortController();
    const body = JSON.stringify({ key, leaseTtl: "600s" });
    const gone = fill(20, () => post("Get", "application/json", body, { signal: hangUp.signal }).catch(() => "gone"));
    await untilIs("leases", 20);
    hangUp.abort();
    expect(new Set(await Promise.all(gone))).toEqual(new Set(["gone"]));
    await untilNothingIsLeft();
  });

  it("a caller who hangs up from a watch leaves nothing behind", async () => {
    const hangUp = new AbortController();
    const body = new Uint8Array(frame(Buffer.from("{}")));
    const response = await post("Watch", "application/connect+json", body, { signal: hangUp.signal });
    expect((await response.body?.getReader().read())?.value?.length).toBeGreaterThan(5);
    await untilIs("watchers", 1);
    hangUp.abort();
    await untilNothingIsLeft();
  });

  it("a deadline ends the wait for a lease", async () => {
    const { key } = await leasedKey();
    const body = JSON.stringify({ key, leaseTtl: "600s" });
    const response = await post("Get", "application/json", body, { headers: { "connect-timeout-ms": "50" } });
    expect([200, 504]).toContain(response.status);
    expect(await response.text()).toMatch(/OUTCOME_MISS|deadline_exceeded/);
  });
});

it("none of it is an error of the server", () => {
  expect(server.exited()).toBeUndefined();
  expect(complaints(server.output())).toEqual([]);
});

function fill<T>(count: number, one: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => one(i));
}

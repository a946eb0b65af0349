import { create, type DescMethod, fromBinary, toJsonString } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LockService } from "../../src/gen/holdfast/v1/lock_pb.js";
import { type BadCaller, complaints, createBadCaller } from "../support/bad-caller.ts";
import { postJson } from "../support/bad-json.ts";
import { goodLockRequests, lockTables, oddLockRequests } from "../support/bad-lock-fields.ts";
import { badRows, leftOut, type RequestFields, rpcName } from "../support/bad-rows.ts";
import { badTopologies } from "../support/bad-topologies.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { until } from "../support/until.ts";

const { method, methods } = LockService;
const goodOf = (rpc: DescMethod): RequestFields => goodLockRequests[rpcName(rpc)] ?? {};
const rows = badRows(methods, lockTables);

it("the table has a request for every RPC, and an entry for every field", () => {
  expect(leftOut(methods, lockTables)).toEqual([]);
});

describe.each(badTopologies)("the locks of a server that is %s", (_, envOf) => {
  let server: HoldfastProcess;
  let caller: BadCaller;
  beforeAll(async () => {
    server = await startHoldfast(await envOf());
    caller = createBadCaller(server.grpcAddress);
    await until(async () => (await call(method.get, { name: "warm" })).code === "OK", { what: "locks to be decided" });
  });
  afterAll(async () => {
    caller[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  const call = (rpc: DescMethod, request: RequestFields) => caller.call(rpc, request);

  async function held() {
    const { reply } = await call(method.list, {});
    return fromBinary(method.list.output, reply ?? Buffer.alloc(0)).locks.map(({ name }) => name);
  }

  it.each(rows)("refuses $title", async ({ method: rpc, request, expected }) => {
    expect(await call(rpc, request)).toMatchObject(expected);
  });

  it("has taken nothing where it refused", async () => {
    expect(await held()).toEqual([]);
  });

  it.each(methods.map((rpc) => ({ title: rpcName(rpc), rpc })))("answers $title", async ({ rpc }) => {
    expect(await call(rpc, goodOf(rpc))).toMatchObject({ code: "OK" });
  });

  it.each(oddLockRequests)("takes %s", async (_what, name, request) => {
    const rpc = methods.find((one) => one.name === name);
    if (rpc === undefined) throw new Error(`there is no ${name}`);
    expect(await call(rpc, request)).toMatchObject({ code: "OK" });
  });

  it("names every field that is wrong", async () => {
    const { fields } = await call(method.acquire, {
      ...{ name: "/", ttl: {}, waitTimeout: { seconds: -1n }, owner: "\0", purpose: "\0", requestId: "\0" },
    });
    expect(fields).toEqual(["name", "ttl", "wait_timeout", "owner", "purpose", "request_id"]);
  });

  it("takes a page token back only with what it was given for", async () => {
    for (const name of ["paged/a", "paged/b", "paged/c"]) await call(method.acquire, { name });
    const { reply } = await call(method.list, { prefix: "paged/", pageSize: 1 });
    const { nextPageToken: pageToken } = fromBinary(method.list.output, reply ?? Buffer.alloc(0));
    expect(pageToken).not.toBe("");
    expect(await call(method.list, { prefix: "paged/", pageToken })).toMatchObject({ code: "OK" });
    for (const other of [{ prefix: "paged/b" }, { prefix: "paged/", owner: "me" }]) {
      expect(await call(method.list, { ...other, pageToken })).toMatchObject({
        code: "INVALID_ARGUMENT",
        fields: ["page_token"],
      });
    }
  });

  it("refuses the same in JSON", async () => {
    const few = rows.filter(({ method: rpc, request }) => rpc.methodKind === "unary" && isSmall(request));
    expect(few.length).toBeGreaterThan(50);
    for (const { method: rpc, request, expected, title } of few) {
      let body: string;
      try {
        body = toJsonString(rpc.input, create(rpc.input, { ...request }));
      } catch {
        // What JSON cannot say.
        continue;
      }
      const answer = await postJson(server.httpUrl, `LockService/${rpc.name}`, body);
      expect([title, answer.status, answer.code]).toEqual([title, 400, "invalid_argument"]);
      expect(["FIELD_INVALID", "MALFORMED_REQUEST"]).toContain(answer.reasons[0]);
      expect(expected.reason).toBe("FIELD_INVALID");
    }
  });

  it("serves on, and has nothing to log as an error", async () => {
    expect(await call(method.get, goodOf(method.get))).toMatchObject({ code: "OK" });
    expect(server.exited()).toBeUndefined();
    expect(complaints(server.output())).toEqual([]);
  });
});

function isSmall(request: RequestFields): boolean {
  return Object.values(request).every((value) => typeof value !== "string" || value.length < 5_000);
}

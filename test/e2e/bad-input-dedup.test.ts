import { type DescMethod, fromBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DedupService } from "../../src/gen/holdfast/v1/dedup_pb.js";
import { type BadCaller, complaints, createBadCaller } from "../support/bad-caller.ts";
import { badDedupValues, goodDedupRequests } from "../support/bad-dedup-fields.ts";
import { badRows, leftOut, type RequestFields, rpcName } from "../support/bad-rows.ts";
import { MAX_UINT64 } from "../support/bad-value.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";

const tables = { goodRequests: goodDedupRequests, badValues: badDedupValues };
const { method, methods } = DedupService;
const rows = badRows(methods, tables);

it("the table has a request for every RPC, and an entry for every field", () => {
  expect(leftOut(methods, tables)).toEqual([]);
});

const topologies: readonly [string, () => Promise<Record<string, string>>][] = [
  ["embedded", async () => ({})],
  ["cluster", async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() })],
];

describe.each(topologies)("the claims of a server that is %s", (_, envOf) => {
  let server: HoldfastProcess;
  let caller: BadCaller;
  beforeAll(async () => {
    server = await startHoldfast(await envOf());
    caller = createBadCaller(server.grpcAddress);
  });
  afterAll(async () => {
    caller[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  const call = (rpc: DescMethod, request: RequestFields) => caller.call(rpc, request);

  async function listed() {
    const { reply } = await call(method.list, {});
    return fromBinary(method.list.output, reply ?? Buffer.alloc(0)).claims;
  }

  it.each(methods.map((rpc) => ({ title: rpcName(rpc), rpc })))("answers $title", async ({ rpc }) => {
    expect(await call(rpc, goodDedupRequests[rpcName(rpc)] ?? {})).toMatchObject({ code: "OK" });
  });

  it.each(rows)("refuses $title", async ({ method: rpc, request, expected }) => {
    expect(await call(rpc, request)).toMatchObject(expected);
  });

  it("are what they were after all that was refused", async () => {
    expect(await listed()).toMatchObject([{ id: { kind: { case: "key", value: "good" } }, attempt: 1 }]);
  });

  it("names all that is wrong with a request at once", async () => {
    const request = { namespace: "a/b", ttl: {}, leaseTtl: { seconds: -1n }, owner: "\0", requestId: "r".repeat(129) };
    const { fields } = await call(method.claim, request);
    expect(fields).toEqual(["namespace", "id", "ttl", "lease_ttl", "owner", "request_id"]);
  });

  it("belong to no token that was never given, however large", async () => {
    const request = { ...goodDedupRequests["DedupService.Claim"], claimToken: MAX_UINT64 };
    const { reply: completed } = await call(method.complete, request);
    expect(fromBinary(method.complete.output, completed ?? Buffer.alloc(0))).toMatchObject({
      completed: false,
      current: { id: { kind: { value: "good" } } },
    });
    const { reply: released } = await call(method.release, { ...request, forgetCompleted: true });
    expect(fromBinary(method.release.output, released ?? Buffer.alloc(0)).released).toBe(false);
  });

  it("take keys and owners of any other character", async () => {
    const odd = "💥 {a}:b/*?[x]\\ '\"\n\t%_ \u{10ffff}";
    const id = { kind: { case: "key", value: odd } };
    expect(await call(method.claim, { id, owner: odd, completed: true, namespace: "odd" })).toMatchObject({
      code: "OK",
    });
    for (const filter of [{ prefix: odd }, { owner: odd }, { prefix: odd.slice(0, 2) }, {}]) {
      const { reply } = await call(method.list, { namespace: "odd", ...filter });
      const { claims } = fromBinary(method.list.output, reply ?? Buffer.alloc(0));
      expect(claims).toMatchObject([{ id, owner: odd }]);
    }
    const { reply } = await call(method.claim, { id, namespace: "odd" });
    expect(fromBinary(method.claim.output, reply ?? Buffer.alloc(0)).owner).toBe(odd);
  });

  it("leave no complaint in the log", () => {
    expect(complaints(server.output())).toEqual([]);
  });
});

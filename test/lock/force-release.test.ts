import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LockServiceForceReleaseRequestSchema } from "../../src/gen/holdfast/v1/lock_pb.js";
import type { CallContext } from "../../src/infra/call.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createMetrics } from "../../src/infra/metrics.ts";
import type { Authority } from "../../src/lock/authority/authority.ts";
import { createLockMetrics } from "../../src/lock/metrics.ts";
import { createForceReleaseRpc, type ForcedRelease } from "../../src/lock/rpc/force-release-rpc.ts";
import { openSqlAuthorities, releaseOrder, takeOrder } from "./authorities.ts";

/** ForceRelease over a real SQLite; `records` is what the audit log was given, which a test may let refuse. */
function openRpc(authority: Authority) {
  const records: ForcedRelease[] = [];
  const freed: string[] = [];
  const hooks = { onRecord: async () => {} };
  const { forceRelease } = createForceReleaseRpc({
    authority,
    record: async (forced) => {
      await hooks.onRecord();
      records.push(forced);
    },
    notice: { freed: (name) => freed.push(name), inherited: () => {}, close: () => {} },
    metrics: createLockMetrics({
      metrics: createMetrics({ defaults: false }),
      ...{ authority, waiting: () => 0, kept: () => 0 },
    }),
  });
  const call: CallContext = {
    method: "ForceRelease",
    caller: { name: "operator", hasScope: () => true, mayUse: () => true },
    deadline: undefined,
    signal: new AbortController().signal,
    interruption: undefined,
    servedBy: () => {},
    degraded: () => {},
  };
  const force = async (more: MessageInitShape<typeof LockServiceForceReleaseRequestSchema> = {}) => {
    const request = create(LockServiceForceReleaseRequestSchema, { name: "a", reason: "stuck", ...more });
    const reply = await forceRelease(request, call);
    if (!("released" in reply)) throw new Error("a reply in bytes");
    return { released: reply.released, token: Number(reply.lock?.fencingToken ?? 0n), owner: reply.lock?.owner };
  };
  return { force, records, freed, hooks };
}

describe("ForceRelease", () => {
  let parts: AsyncDisposableStack;
  let authority: Authority;
  let rpc: ReturnType<typeof openRpc>;
  beforeEach(async () => {
    parts = new AsyncDisposableStack();
    const { instances } = parts.use(await openSqlAuthorities("sqlite"));
    authority = instances[0].authority;
    rpc = openRpc(authority);
  });
  afterEach(() => parts.disposeAsync());

  async function take(owner: string): Promise<number> {
    const taken = await authority.take(takeOrder("a", { owner }));
    if (taken.kind !== "granted") throw new Error(`the lock is ${taken.kind}`);
    return taken.lease.grant.token;
  }

  it("keeps a record of the holder and the reason before it takes the lock away", async () => {
    const token = await take("me");
    rpc.hooks.onRecord = async () => {
      expect((await authority.look("a")).lease?.grant.token).toBe(token);
    };
    expect(await rpc.force()).toEqual({ released: true, token, owner: "me" });
    expect(rpc.records).toMatchObject([{ name: "a", token, reason: "stuck", holder: { grant: { owner: "me" } } }]);
    expect((await authority.look("a")).lease).toBeUndefined();
    expect(rpc.freed).toEqual(["a"]);
  });

  it("leaves the lock as it is when the record cannot be kept", async () => {
    const token = await take("me");
    rpc.hooks.onRecord = () => Promise.reject(new UnavailableError("DURABILITY_NOT_REACHED", "no tier answers"));
    await expect(rpc.force()).rejects.toMatchObject({ kind: "unavailable" });
    await expect(rpc.force({ requestId: "r" })).rejects.toMatchObject({ kind: "unavailable" });
    expect((await authority.look("a")).lease?.grant.token).toBe(token);
    rpc.hooks.onRecord = async () => {};
    expect(await rpc.force({ requestId: "r" })).toMatchObject({ released: true, token });
  });

  it("records too that nobody held the lock", async () => {
    expect(await rpc.force()).toEqual({ released: false, token: 0, owner: undefined });
    expect(rpc.records).toMatchObject([{ name: "a", token: 0, holder: undefined }]);
  });

  it("does not hit a later holder than the one that is meant", async () => {
    const first = await take("first");
    await authority.release(releaseOrder({ name: "a", token: first }));
    const second = await take("second");
    expect(await rpc.force({ fencingToken: BigInt(first) })).toEqual({
      released: false,
      token: second,
      owner: "second",
    });
    expect((await authority.look("a")).lease?.grant.token).toBe(second);
  });

  it("takes it from whoever holds it, also when that changes meanwhile, with a record of each", async () => {
    const first = await take("first");
    let second = 0;
    rpc.hooks.onRecord = async () => {
      rpc.hooks.onRecord = async () => {};
      await authority.release(releaseOrder({ name: "a", token: first }));
      second = await take("second");
    };
    expect(await rpc.force()).toMatchObject({ released: true, owner: "second" });
    expect(rpc.records.map(({ token }) => token)).toEqual([first, second]);
  });

  it("returns the first answer to a retry, and leaves the next holder alone", async () => {
    const first = await take("first");
    const answer = await rpc.force({ requestId: "r" });
    expect(answer).toEqual({ released: true, token: first, owner: "first" });
    const second = await take("second");
    expect(await rpc.force({ requestId: "r" })).toEqual(answer);
    expect((await authority.look("a")).lease?.grant.token).toBe(second);
    // The audit log knows the identity of a retry, and keeps one.
    expect(rpc.records.map(({ token, requestId }) => [token, requestId])).toEqual([
      [first, "r"],
      [first, "r"],
    ]);
  });

  it("tells a retry that the lease was ended when the first attempt had no time to say so", async () => {
    const first = await take("first");
    // The first attempt ends between the release and its answer.
    const broken = openRpc({
      ...authority,
      kind: authority.kind,
      async remember(name, request, text) {
        if (request.id !== "r") throw new UnavailableError("LOCK_AUTHORITY_UNAVAILABLE", "killed by the test");
        return authority.remember(name, request, text);
      },
    });
    await expect(broken.force({ requestId: "r" })).rejects.toMatchObject({ kind: "unavailable" });
    expect((await authority.look("a")).lease).toBeUndefined();
    expect(await rpc.force({ requestId: "r" })).toEqual({ released: true, token: first, owner: "first" });
  });

  it("refuses a request_id that named another request", async () => {
    await take("me");
    await rpc.force({ requestId: "r" });
    await expect(rpc.force({ requestId: "r", reason: "another" })).rejects.toMatchObject({
      reason: "REQUEST_ID_REUSED",
    });
  });
});

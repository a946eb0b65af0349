import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createApiKey } from "../../src/server/api-key.ts";
import { frame } from "../support/bad-frames.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

/*
 * Promises: what a caller without gRPC has of locks, in JSON; what a key may do is what its scopes and namespaces say; who took a lock away
 * is in the audit log.
 */

const parts = new AsyncDisposableStack();
const keys = {
  operator: createApiKey({ name: "operator", scopes: ["*"] }),
  worker: createApiKey({ name: "worker", scopes: ["lock:acquire", "lock:read"], namespaces: ["orders"] }),
};
let server: HoldfastProcess;

beforeAll(async () => {
  const directory = parts.adopt(scratchDirectory("lock-keys"), (it) => it.remove());
  const file = join(directory.path, "keys.yaml");
  writeFileSync(file, JSON.stringify({ keys: [keys.operator.record, keys.worker.record] }), { mode: 0o600 });
  server = parts.use(await startHoldfast({ HOLDFAST_API_KEYS_FILE: file }));
});
afterAll(() => parts.disposeAsync());

async function post(who: keyof typeof keys, rpc: string, body: object) {
  const response = await fetch(`${server.httpUrl}/holdfast.v1.${rpc}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": keys[who].key },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.text() };
}

describe("locks in JSON", () => {
  it("are taken and given back", async () => {
    const taken = await post("worker", "LockService/Acquire", { name: "orders/a", ttl: "20s", waitTimeout: "0s" });
    expect(JSON.parse(taken.body)).toMatchObject({
      outcome: "LOCK_OUTCOME_ACQUIRED",
      lock: { name: "orders/a", owner: "worker", caller: "worker" },
      authority: "LOCK_AUTHORITY_SQLITE",
    });
    const { fencingToken } = JSON.parse(taken.body).lock;
    const released = await post("worker", "LockService/Release", { name: "orders/a", fencingToken });
    expect(JSON.parse(released.body)).toMatchObject({ released: true });
  });

  it("are not given to another caller who happens upon the same request_id", async () => {
    const request = { name: "orders/named", waitTimeout: "0s", requestId: "1" };
    const tokenOf = async () =>
      JSON.parse((await post("worker", "LockService/Acquire", request)).body).lock.fencingToken;
    expect(await tokenOf()).toBe(await tokenOf());
    expect((await post("operator", "LockService/Acquire", request)).body).toContain("REQUEST_ID_REUSED");
  });

  it("are no longer waited for by who hangs up", async () => {
    const name = "orders/waited";
    const taken = await post("worker", "LockService/Acquire", { name, ttl: "3600s", waitTimeout: "0s" });
    const leaving = new AbortController();
    const waiting = fetch(`${server.httpUrl}/holdfast.v1.LockService/Acquire`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": keys.worker.key },
      body: JSON.stringify({ name, ttl: "3600s", waitTimeout: "600s" }),
      signal: leaving.signal,
    });
    const left = expect(waiting).rejects.toThrow("abort");
    const seen = async () => JSON.parse((await post("worker", "LockService/Get", { name })).body);
    await until(async () => (await seen()).waiters === 1, { what: "somebody to wait" });
    leaving.abort();
    await left;
    await until(async () => (await seen()).waiters === undefined, { what: "nobody to wait" });
    const { fencingToken } = JSON.parse(taken.body).lock;
    await post("worker", "LockService/Release", { name, fencingToken });
    expect(await seen()).toMatchObject({ lastToken: fencingToken });
    expect((await seen()).lock).toBeUndefined();
  });

  it("are held by a stream, and given back when its connection breaks", async () => {
    const leaving = new AbortController();
    const response = await fetch(`${server.httpUrl}/holdfast.v1.LockService/Hold`, {
      method: "POST",
      headers: { "content-type": "application/connect+json", "x-api-key": keys.worker.key },
      body: frame(Buffer.from(JSON.stringify({ name: "orders/held", ttl: "3600s" }))),
      signal: leaving.signal,
    });
    const first = await response.body?.getReader().read();
    expect(Buffer.from(first?.value ?? []).toString()).toContain('"acquired"');
    const held = async () => (await post("worker", "LockService/Get", { name: "orders/held" })).body.includes('"lock"');
    expect(await held()).toBe(true);
    leaving.abort();
    await until(async () => !(await held()), { what: "the lock to be given back" });
  });
});

describe("what a key may do with locks", () => {
  it("ends at its namespaces", async () => {
    for (const [rpc, request] of [
      ["Acquire", { name: "billing/a" }],
      ["Acquire", { name: "without-a-slash" }],
      ["Get", { name: "billing/a" }],
      ["List", { prefix: "billing/" }],
    ] as const) {
      const { status, body } = await post("worker", `LockService/${rpc}`, request);
      expect([rpc, status]).toEqual([rpc, 403]);
      expect(body).toContain("NAMESPACE_DENIED");
    }
  });

  it("is to list the locks of its namespaces, and no others", async () => {
    await post("operator", "LockService/Acquire", { name: "billing/listed", owner: "listed" });
    await post("operator", "LockService/Acquire", { name: "orders/listed", owner: "listed" });
    const names = async (who: keyof typeof keys) => {
      const { locks } = JSON.parse((await post(who, "LockService/List", { owner: "listed" })).body);
      return locks.map(({ name }: { name: string }) => name);
    };
    expect(await names("worker")).toEqual(["orders/listed"]);
    expect(await names("operator")).toEqual(["billing/listed", "orders/listed"]);
  });

  it("is not to take locks away, unless it says so", async () => {
    await post("worker", "LockService/Acquire", { name: "orders/forced", owner: "me" });
    const request = { name: "orders/forced", reason: "stuck", requestId: "r" };
    expect((await post("worker", "LockService/ForceRelease", request)).body).toContain("SCOPE_MISSING");
    const forced = JSON.parse((await post("operator", "LockService/ForceRelease", request)).body);
    expect(forced).toMatchObject({ released: true, lock: { owner: "me", caller: "worker" } });
    // A retry is kept once.
    expect(JSON.parse((await post("operator", "LockService/ForceRelease", request)).body)).toEqual(forced);
    const listed = await post("operator", "AuditService/List", { filter: { actions: ["lock.force_release"] } });
    const entries = JSON.parse(listed.body).records.map(({ entry }: { entry: object }) => entry);
    expect(entries).toMatchObject([
      {
        actor: "operator",
        resource: { type: "lock", id: "orders/forced" },
        attributes: { reason: "stuck", lock: "orders/forced", holder: { owner: "me", caller: "worker" } },
      },
    ]);
  });
});

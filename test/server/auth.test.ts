import { once } from "node:events";
import { request as httpsRequest } from "node:https";
import { credentials, Metadata, status } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import type { CallContext } from "../../src/infra/call.ts";
import { Failure } from "../../src/infra/failure.ts";
import {
  type ApiKeyRecord,
  type Authenticator,
  createApiKey,
  createAuthenticator,
  verifyApiKey,
} from "../../src/server/auth.ts";
import { until } from "../support/until.ts";
import { createCertificates, type Pair } from "./certificates.ts";
import type { Echo } from "./echo.ts";
import { bearer, detailsOf, EchoClient, type EchoRpcs, echo, post, readAll, startEcho } from "./harness.ts";

const callers: string[] = [];
const rpcs: EchoRpcs = {
  say(request, call) {
    callers.push(call.caller.name);
    return echo({ text: call.caller.name, namespace: request.namespace });
  },
  async *count(request) {
    yield echo(request);
  },
};

async function* endless(_: Echo, call: CallContext) {
  yield echo({ text: "first" });
  await once(call.signal, "abort");
}

describe("an API key", () => {
  it("is shown once and kept only as a hash", () => {
    const { key, record } = createApiKey({ name: "orders", scopes: ["cache:read"], namespaces: ["orders"] });
    expect(key).toMatch(/^hf_[A-Za-z0-9]+_[A-Za-z0-9_-]{43}$/);
    const secret = key.split("_").slice(2).join("_");
    expect(JSON.stringify(record)).not.toContain(secret);
    expect(verifyApiKey(key, record)).toBe(true);
  });

  it("is not verified by any other key, nor by a damaged record", () => {
    const { key, record } = createApiKey({ name: "a", scopes: ["*"] });
    const other = createApiKey({ name: "b", scopes: ["*"] });
    expect(verifyApiKey(other.key, record)).toBe(false);
    expect(verifyApiKey(`${key}x`, record)).toBe(false);
    expect(verifyApiKey("", record)).toBe(false);
    expect(verifyApiKey(key, { ...record, hash: "zz" })).toBe(false);
    expect(verifyApiKey(key, { ...record, hash: "" })).toBe(false);
  });
});

describe("an authenticator", () => {
  const withKey = (key: string) => ({
    header: (name: string) => (name === "x-api-key" ? key : undefined),
    certificateSubject: () => undefined,
  });

  it("refuses a key from the moment it expires, also one it has let in before", () => {
    const clock = { time: 1_000_000, now: () => clock.time, monotonic: () => clock.time };
    const { key, record } = createApiKey({ name: "a", scopes: ["*"], expiresAt: new Date(2_000_000) });
    const { authenticate } = createAuthenticator({ keys: [record], clock });
    expect(authenticate(withKey(key)).name).toBe("a");
    expect(authenticate(withKey(key)).name).toBe("a");
    clock.time = 2_000_000;
    expect(() => authenticate(withKey(key))).toThrow("expired");
    expect(() => authenticate(withKey(key))).toThrow("expired");
  });

  it("takes an expiry it cannot read for past", () => {
    const { key, record } = createApiKey({ name: "a", scopes: ["*"] });
    const { authenticate } = createAuthenticator({ keys: [{ ...record, expires_at: "soon" }] });
    expect(() => authenticate(withKey(key))).toThrow("expired");
  });

  it.each([
    [["cache:read"], "cache:read", true],
    [["cache:read"], "cache:write", false],
    [["cache:*"], "cache:write", true],
    [["cache:*"], "cachet:write", false],
    [["*"], "locks:admin", true],
    [[], "cache:read", false],
  ])("of a key with scopes %j: %s is %s", (scopes, scope, granted) => {
    const { key, record } = createApiKey({ name: "a", scopes });
    expect(
      createAuthenticator({ keys: [record] })
        .authenticate(withKey(key))
        .hasScope(scope),
    ).toBe(granted);
  });

  it.each([
    [[], "anything", true],
    [["orders"], "orders", true],
    [["orders"], "orders-eu", false],
    [["orders-*"], "orders-eu", true],
    [["orders-*"], "orders", false],
    [["*"], "anything", true],
  ])("of a key with namespaces %j: %s is %s", (namespaces, namespace, granted) => {
    const { key, record } = createApiKey({ name: "a", scopes: ["*"], namespaces });
    expect(
      createAuthenticator({ keys: [record] })
        .authenticate(withKey(key))
        .mayUse(namespace),
    ).toBe(granted);
  });
});

describe("a stream under way", () => {
  const forGood = createApiKey({ name: "kept", scopes: ["*"] });
  const other = createApiKey({ name: "other", scopes: ["*"] });

  it.each([
    ["revoked", () => [], "API_KEY_UNKNOWN"],
    ["expired", (record) => [{ ...record, expires_at: "2001-01-01T00:00:00Z" }], "API_KEY_EXPIRED"],
    ["narrowed", (record) => [{ ...record, namespaces: ["orders"] }], "API_KEY_CHANGED"],
  ] satisfies [string, (record: ApiKeyRecord) => ApiKeyRecord[], string][])(
    "ends on both planes when its key is %s, and no other stream does",
    async (_, change, reason) => {
      const { key, record } = createApiKey({ name: "watcher", scopes: ["*"] });
      let current = createAuthenticator({ keys: [record, forGood.record] });
      const authenticator: Authenticator = {
        keysRequired: true,
        everyone: undefined,
        authenticate: (credentials) => current.authenticate(credentials),
        objectionTo: (caller) => current.objectionTo(caller),
      };
      await using h = await startEcho({ count: endless }, { authenticator });
      const watched = h.client.count({}, {}, bearer(key));
      const watching = readAll(watched);
      const kept = h.client.count({}, {}, bearer(forGood.key));
      const keptAll = readAll(kept);
      // Under way: not only sent.
      await Promise.all([once(watched, "data"), once(kept, "data")]);
      const web = await fetch(`${h.httpUrl}/holdfast.test.EchoService/Count`, {
        method: "POST",
        headers: { "content-type": "application/connect+json", "x-api-key": key },
        body: Buffer.from([0, 0, 0, 0, 2, 0x7b, 0x7d]),
      });
      current = createAuthenticator({ keys: [...change(record), forGood.record, other.record] });
      const { error } = await watching;
      expect(error?.code).toBe(status.UNAUTHENTICATED);
      expect(detailsOf(error)["google.rpc.ErrorInfo"]).toMatchObject({ reason });
      expect(await web.text()).toContain('"unauthenticated"');
      expect(h.lines.map((line) => [line.caller, line.reason])).toEqual([
        ["watcher", reason],
        ["watcher", reason],
      ]);
      kept.cancel();
      expect((await keptAll).error?.code).toBe(status.CANCELLED);
    },
  );
});

describe("a server with API keys", () => {
  const full = createApiKey({ name: "full", scopes: ["*"] });
  const reader = createApiKey({ name: "reader", scopes: ["echo:read"] });
  const orders = createApiKey({ name: "orders", scopes: ["echo:*"], namespaces: ["orders", "shared-*"] });
  const apiKeys = [full.record, reader.record, orders.record];

  it("lets in who presents a known key, as bearer token or as x-api-key, on both planes", async () => {
    await using h = await startEcho(rpcs, { apiKeys });
    const own = new Metadata();
    own.set("x-api-key", full.key);
    expect((await h.client.say({}, {}, bearer(full.key))).reply?.text).toBe("full");
    expect((await h.client.say({}, {}, bearer(full.key))).reply?.text).toBe("full");
    expect((await h.client.say({}, {}, own)).reply?.text).toBe("full");
    expect((await post(h, "Say", "{}", { authorization: `Bearer ${full.key}` })).body.text).toBe("full");
    expect((await post(h, "Say", "{}", { "x-api-key": full.key })).body.text).toBe("full");
  });

  it.each([
    ["no key", undefined, "API_KEY_MISSING"],
    ["something that is no key", "hunter2", "API_KEY_UNKNOWN"],
    ["an unknown key", "hf_abc_def", "API_KEY_UNKNOWN"],
    ["a known id with another secret", `hf_${full.record.id}_${"A".repeat(43)}`, "API_KEY_UNKNOWN"],
  ])("answers UNAUTHENTICATED to %s", async (_, key, reason) => {
    await using h = await startEcho(rpcs, { apiKeys });
    const { error } = await h.client.say({}, {}, key === undefined ? new Metadata() : bearer(key));
    expect(error?.code).toBe(status.UNAUTHENTICATED);
    expect(error?.metadata.get("holdfast-degraded")).toEqual(["false"]);
    expect(detailsOf(error)["google.rpc.ErrorInfo"]).toMatchObject({ reason });
    const http = await post(h, "Say", "{}", key === undefined ? {} : { authorization: `Bearer ${key}` });
    expect(http).toMatchObject({ status: 401, body: { code: "unauthenticated", details: [{ debug: { reason } }] } });
    const streamed = await readAll(h.client.count({}, {}, key === undefined ? new Metadata() : bearer(key)));
    expect(streamed.error?.code).toBe(status.UNAUTHENTICATED);
    if (key !== undefined) expect(JSON.stringify(h.lines)).not.toContain(key);
    expect(h.lines.map((line) => line.code)).toEqual(["UNAUTHENTICATED", "UNAUTHENTICATED", "UNAUTHENTICATED"]);
  });

  it("answers PERMISSION_DENIED to a key without the scope, naming it", async () => {
    await using h = await startEcho(rpcs, { apiKeys });
    expect((await h.client.say({}, {}, bearer(reader.key))).error).toBeUndefined();
    const { error } = await readAll(h.client.count({}, {}, bearer(reader.key)));
    expect(error?.code).toBe(status.PERMISSION_DENIED);
    expect(error?.details).toContain("echo:stream");
    expect(detailsOf(error)["google.rpc.ErrorInfo"]).toMatchObject({
      reason: "SCOPE_MISSING",
      metadata: { scope: "echo:stream" },
    });
  });

  it("says in the log whose call was denied", async () => {
    await using h = await startEcho(rpcs, { apiKeys });
    const writer = createApiKey({ name: "writer", scopes: ["other:thing"] });
    await using second = await startEcho(rpcs, { apiKeys: [writer.record] });
    await h.client.say({ namespace: "users" }, {}, bearer(orders.key));
    await readAll(h.client.count({}, {}, bearer(reader.key)));
    await second.client.say({}, {}, bearer(writer.key));
    await post(second, "Say", "{}", { "x-api-key": writer.key });
    const denied = [...h.lines, ...second.lines].map(({ code, reason, caller }) => [code, reason, caller]);
    expect(denied).toEqual([
      ["PERMISSION_DENIED", "NAMESPACE_DENIED", "orders"],
      ["PERMISSION_DENIED", "SCOPE_MISSING", "reader"],
      ["PERMISSION_DENIED", "SCOPE_MISSING", "writer"],
      ["PERMISSION_DENIED", "SCOPE_MISSING", "writer"],
    ]);
  });

  it("answers PERMISSION_DENIED to a key without the namespace; an empty one is the default one", async () => {
    await using h = await startEcho(rpcs, { apiKeys });
    for (const namespace of ["orders", "shared-x"]) {
      expect((await h.client.say({ namespace }, {}, bearer(orders.key))).error).toBeUndefined();
    }
    for (const namespace of ["", "default", "orders2", "shared"]) {
      const { error } = await h.client.say({ namespace }, {}, bearer(orders.key));
      expect(error?.code).toBe(status.PERMISSION_DENIED);
      expect(detailsOf(error)["google.rpc.ErrorInfo"]).toMatchObject({
        metadata: { namespace: namespace || "default" },
      });
      const http = await post(h, "Say", JSON.stringify({ namespace }), { "x-api-key": orders.key });
      expect(http.status).toBe(403);
      expect((await readAll(h.client.count({ namespace }, {}, bearer(orders.key)))).error?.code).toBe(
        status.PERMISSION_DENIED,
      );
    }
  });

  it("is closed to a key for some namespaces where an RPC does not say which one it is about", async () => {
    await using h = await startEcho({ ...rpcs, undeclared: () => echo({ text: "open" }) }, { apiKeys });
    const call = (key: string) => h.client.raw("Undeclared", Buffer.alloc(0), {}, bearer(key));
    expect((await call(full.key)).reply?.text).toBe("open");
    const { error } = await call(orders.key);
    expect(error?.code).toBe(status.PERMISSION_DENIED);
    expect(detailsOf(error)["google.rpc.ErrorInfo"]).toMatchObject({ reason: "NAMESPACE_UNDECLARED" });
    expect((await post(h, "Undeclared", "{}", { "x-api-key": orders.key })).status).toBe(403);
  });

  it("leaves a unary call to its end, whatever becomes of its key", async () => {
    const authenticator = createAuthenticator({ keys: apiKeys });
    let finish: (() => void) | undefined;
    const say = () =>
      new Promise<ReturnType<typeof echo>>((resolve) => (finish = () => resolve(echo({ text: "done" }))));
    let asked = 0;
    const objectionTo = () => {
      asked++;
      return new Failure("unauthenticated", "API_KEY_UNKNOWN", "gone");
    };
    await using h = await startEcho(
      { ...rpcs, say, count: endless },
      { authenticator: { ...authenticator, objectionTo } },
    );
    const saying = h.client.say({}, {}, bearer(full.key));
    await until(() => finish !== undefined, { what: "the call" });
    const streamed = await readAll(h.client.count({}, {}, bearer(full.key)));
    expect(streamed.error?.code).toBe(status.UNAUTHENTICATED);
    expect(asked).toBeGreaterThan(0);
    finish?.();
    expect((await saying).reply?.text).toBe("done");
  });

  it("does not read the body of a caller it does not know", async () => {
    await using h = await startEcho(rpcs, { apiKeys });
    expect((await post(h, "Say", "not even json")).status).toBe(401);
  });

  it("leaves the plain pages open", async () => {
    await using h = await startEcho(rpcs, { apiKeys });
    for (const path of ["/healthz", "/readyz", "/health", "/metrics"]) {
      expect((await fetch(`${h.httpUrl}${path}`)).status).toBe(200);
    }
  });
});

describe("TLS", () => {
  it("serves both planes", async () => {
    await using certificates = await createCertificates();
    const channel = credentials.createSsl(Buffer.from(certificates.ca));
    await using h = await startEcho(rpcs, { tls: certificates.server, channel });
    expect((await h.client.say({})).reply?.text).toBe("anonymous");
    expect(await getOverTls(h.httpPort, certificates.ca)).toBe(200);
  });

  it("with a client CA lets in only who has a certificate of it, and names the caller by it", async () => {
    await using certificates = await createCertificates();
    await using strangers = await createCertificates();
    const alice = await certificates.client("alice");
    const bob = await certificates.client("bob");
    const stranger = await strangers.client("alice");
    const ca = Buffer.from(certificates.ca);
    const channel = (pair: Pair) => credentials.createSsl(ca, Buffer.from(pair.key), Buffer.from(pair.cert));
    await using h = await startEcho(rpcs, {
      tls: { ...certificates.server, clientCa: certificates.ca },
      channel: channel(alice),
    });
    expect((await h.client.say({})).reply?.text).toBe("alice");
    expect((await h.client.say({})).reply?.text).toBe("alice");
    const second = new EchoClient(`localhost:${h.grpcPort}`, channel(bob));
    expect((await second.say({})).reply?.text).toBe("bob");
    second.close();

    for (const bad of [channel(stranger), credentials.createSsl(ca)]) {
      const refused = new EchoClient(`localhost:${h.grpcPort}`, bad);
      expect((await refused.say({}, { deadline: Date.now() + 10_000 })).reply).toBeUndefined();
      refused.close();
    }
    expect(await getOverTls(h.httpPort, certificates.ca, alice)).toBe(200);
    await expect(getOverTls(h.httpPort, certificates.ca, stranger)).rejects.toThrow();
    await expect(getOverTls(h.httpPort, certificates.ca)).rejects.toThrow();
  });

  it("combines with keys: the key gives the rights, the certificate adds its name", async () => {
    await using certificates = await createCertificates();
    const alice = await certificates.client("alice");
    const { key, record } = createApiKey({ name: "orders", scopes: ["echo:read"] });
    await using h = await startEcho(rpcs, {
      apiKeys: [record],
      tls: { ...certificates.server, clientCa: certificates.ca },
      channel: credentials.createSsl(Buffer.from(certificates.ca), Buffer.from(alice.key), Buffer.from(alice.cert)),
    });
    expect((await h.client.say({}, {}, bearer(key))).reply?.text).toBe("orders (alice)");
    expect((await h.client.say({})).error?.code).toBe(status.UNAUTHENTICATED);
  });
});

/** The status of GET /readyz over TLS. */
function getOverTls(port: number, ca: string, client?: Pair): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const request = httpsRequest(
      { host: "localhost", port, path: "/readyz", ca, agent: false, ...client },
      (response) => {
        response.resume();
        resolve(response.statusCode);
      },
    );
    request.on("error", reject);
    request.end();
  });
}

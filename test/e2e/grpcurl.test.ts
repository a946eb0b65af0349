import { create } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  CacheOutcome,
  CacheService,
  CacheServiceGetResponseSchema,
  CacheServiceWatchResponseSchema,
} from "../../src/gen/holdfast/v1/cache_pb.js";
import { HealthService } from "../../src/gen/holdfast/v1/health_pb.js";
import { mount } from "../../src/infra/call.ts";
import { invalidField, UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { createMetrics } from "../../src/infra/metrics.ts";
import { type ApiKeyRecord, createApiKey } from "../../src/server/auth.ts";
import { createServers, type Servers } from "../../src/server/server.ts";
import { grpcurl, grpcurlPath, healthProbe, healthProbePath } from "../support/grpc-tools.ts";

const cache = mount(CacheService, {
  get(request, call) {
    call.servedBy("l1");
    if (request.key === "") throw invalidField("key", "is empty");
    const value = { kind: { case: "text" as const, value: "hello" } };
    return create(CacheServiceGetResponseSchema, { outcome: CacheOutcome.HIT, entry: { key: request.key, value } });
  },
  async *watch() {
    for (let sequence = 1n; sequence <= 3n; sequence++) yield create(CacheServiceWatchResponseSchema, { sequence });
    throw new UnavailableError("SERVER_DRAINING", "shutting down");
  },
});

async function start(
  apiKeys?: readonly ApiKeyRecord[],
): Promise<{ readonly servers: Servers; readonly address: string }> {
  const servers = createServers({
    services: [cache, mount(HealthService, {})],
    grpc: { host: "127.0.0.1", port: 0 },
    http: { host: "127.0.0.1", port: 0 },
    metrics: createMetrics({ defaults: false }),
    log: createLog({ level: "silent" }),
    health: { ready: () => true, report: () => ({ healthy: true, body: {} }), redis: () => undefined },
    apiKeys,
  });
  const { grpcPort } = await servers.start();
  return { servers, address: `127.0.0.1:${grpcPort}` };
}

describe.skipIf(grpcurlPath() === undefined)("grpcurl, without any proto file", () => {
  let server: Awaited<ReturnType<typeof start>>;
  beforeAll(async () => {
    server = await start();
  });
  afterAll(() => server.servers.drain(0));
  const run = (...args: string[]) => grpcurl(["-plaintext", ...args]);

  it("lists the services and their RPCs", async () => {
    const services = await run(server.address, "list");
    expect(services.stdout.trim().split("\n")).toEqual(["holdfast.v1.CacheService", "holdfast.v1.HealthService"]);
    const { stdout } = await run(server.address, "list", "holdfast.v1.CacheService");
    expect(stdout).toContain("holdfast.v1.CacheService.Get\n");
    expect(stdout).toContain("holdfast.v1.CacheService.Watch\n");
  });

  it("describes services and messages", async () => {
    const service = await run(server.address, "describe", "holdfast.v1.CacheService");
    expect(service.stdout).toContain("rpc Get ( .holdfast.v1.CacheServiceGetRequest )");
    const message = await run(server.address, "describe", "holdfast.v1.CacheServiceGetRequest");
    expect(message.stdout).toContain(".google.protobuf.Duration lease_ttl = 3");
    const option = await run(server.address, "describe", "holdfast.v1.scope");
    expect(option.stdout).toContain("string scope = 74200");
  });

  it("calls", async () => {
    const { stdout, stderr } = await run("-v", "-d", '{"key":"a"}', server.address, "holdfast.v1.CacheService/Get");
    expect(stderr).toBe("");
    expect(stdout).toMatch(/"text": *"hello"/);
    expect(stdout).toContain("holdfast-served-by: l1");
    expect(stdout).toContain("holdfast-degraded: false");
  });

  it("shows the details of an error", async () => {
    const { stderr, code } = await run("-d", "{}", server.address, "holdfast.v1.CacheService/Get");
    expect(code).not.toBe(0);
    expect(stderr).toContain("Code: InvalidArgument");
    expect(stderr).toMatch(/"reason": *"FIELD_INVALID"/);
    expect(stderr).toMatch(/"field": *"key"/);
    const missing = await run("-d", '{"key":"a"}', server.address, "holdfast.v1.CacheService/Touch");
    expect(missing.stderr).toContain("Code: Unimplemented");
    expect(missing.stderr).toContain("holdfast.v1.CacheService/Touch is not implemented");
  });

  it("reads a stream to its end", async () => {
    const { stdout, stderr } = await run("-d", "{}", server.address, "holdfast.v1.CacheService/Watch");
    expect(stdout.match(/"sequence"/g)).toHaveLength(3);
    expect(stderr).toContain("Code: Unavailable");
    expect(stderr).toMatch(/"retryDelay": *"1s"/);
  });

  it("needs a key to look around where keys are in use", async () => {
    const { key, record } = createApiKey({ name: "me", scopes: ["cache:read"] });
    const guarded = await start([record]);
    try {
      const refused = await run(guarded.address, "list");
      expect(refused.code).not.toBe(0);
      expect(refused.stderr).toContain("API key is required");
      const listed = await run("-H", `authorization: Bearer ${key}`, guarded.address, "list");
      expect(listed.stdout).toContain("holdfast.v1.CacheService");
      const header = ["-H", `x-api-key: ${key}`];
      const called = await run(...header, "-d", '{"key":"a"}', guarded.address, "holdfast.v1.CacheService/Get");
      expect(called.stdout).toMatch(/"text": *"hello"/);
    } finally {
      await guarded.servers.drain(0);
    }
  });
});

describe.skipIf(healthProbePath() === undefined)("grpc_health_probe", () => {
  it("sees the server and each service serve, without a key, and no longer when told so", async () => {
    const { servers, address } = await start([createApiKey({ name: "me", scopes: ["*"] }).record]);
    try {
      expect((await healthProbe(["-addr", address])).code).toBe(0);
      expect((await healthProbe(["-addr", address, "-service", "holdfast.v1.CacheService"])).code).toBe(0);
      expect((await healthProbe(["-addr", address, "-service", "no.such.Service"])).code).not.toBe(0);
      servers.setServing(false);
      const { code, stderr } = await healthProbe(["-addr", address]);
      expect(code).not.toBe(0);
      expect(stderr).toContain("NOT_SERVING");
    } finally {
      await servers.drain(0);
    }
  });
});

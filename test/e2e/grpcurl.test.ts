import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createApiKey } from "../../src/server/api-key.ts";
import { grpcurl, grpcurlPath, healthProbe, healthProbePath } from "../support/grpc-tools.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

const services = [
  "holdfast.v1.AuditService",
  "holdfast.v1.CacheService",
  "holdfast.v1.ConversationStateService",
  "holdfast.v1.DedupService",
  "holdfast.v1.HealthService",
  "holdfast.v1.LockService",
  "holdfast.v1.RateLimitService",
];

const listed = ["grpc.health.v1.Health", ...services];

const run = (...args: string[]) => grpcurl(["-plaintext", ...args]);

/** A server that lets in one key. */
async function startGuarded() {
  const directory = scratchDirectory("grpcurl");
  const { key, record } = createApiKey({ name: "me", scopes: ["cache:*"] });
  const file = join(directory.path, "keys.yaml");
  writeFileSync(file, JSON.stringify({ keys: [record] }), { mode: 0o600 });
  const server = await startHoldfast({ HOLDFAST_API_KEYS_FILE: file });
  return {
    key,
    address: server.grpcAddress,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      directory.remove();
    },
  };
}

async function metric(server: HoldfastProcess, sample: string): Promise<string | undefined> {
  const text = await (await fetch(`${server.httpUrl}/metrics`)).text();
  return text.split("\n").find((line) => line.startsWith(`${sample} `));
}

describe.skipIf(grpcurlPath() === undefined)("grpcurl, without any proto file", () => {
  let server: HoldfastProcess;
  let address: string;
  beforeAll(async () => {
    server = await startHoldfast();
    address = server.grpcAddress;
  });
  afterAll(() => server[Symbol.asyncDispose]());

  it("lists the services and their RPCs", async () => {
    expect((await run(address, "list")).stdout.trim().split("\n")).toEqual(listed);
    const { stdout } = await run(address, "list", "holdfast.v1.CacheService");
    expect(stdout).toContain("holdfast.v1.CacheService.Get\n");
    expect(stdout).toContain("holdfast.v1.CacheService.Watch\n");
  });

  it.each(services)("describes %s, with what each RPC takes and gives", async (service) => {
    const described = await run(address, "describe", service);
    expect(described).toMatchObject({ code: 0, stderr: "" });
    const rpcs = (await run(address, "list", service)).stdout.trim().split("\n");
    const messages = rpcs.map((rpc) => `${service}${rpc.slice(service.length + 1)}`);
    for (const message of messages) expect(described.stdout).toMatch(new RegExp(` \\.${message}Request \\)`));
    const symbols = await Promise.all(messages.slice(0, 3).map((it) => run(address, "describe", `${it}Response`)));
    for (const { code, stdout } of symbols) expect([code, stdout]).toEqual([0, expect.stringContaining("message ")]);
  });

  it("describes messages and the contract's own options", async () => {
    const message = await run(address, "describe", "holdfast.v1.CacheServiceGetRequest");
    expect(message.stdout).toContain(".google.protobuf.Duration lease_ttl = 3");
    const scope = await run(address, "describe", "holdfast.v1.scope");
    expect(scope.stdout).toContain("string scope = 74200");
    const namespaces = await run(address, "describe", "holdfast.v1.namespaces");
    expect(namespaces.stdout).toContain(".holdfast.v1.NamespaceRule namespaces = 74201");
  });

  it("calls, and sees where the answer came from", async () => {
    const entry = '{"key":"a","value":{"text":"hello"},"expiry":{"ttl":"60s"},"tags":["t"]}';
    expect(await run("-d", entry, address, "holdfast.v1.CacheService/Set")).toMatchObject({ code: 0, stderr: "" });
    const got = await run("-v", "-d", '{"key":"a"}', address, "holdfast.v1.CacheService/Get");
    expect(got.stderr).toBe("");
    expect(got.stdout).toMatch(/"text": *"hello"/);
    expect(got.stdout).toContain("holdfast-served-by: l1");
    expect(got.stdout).toContain("holdfast-degraded: false");
    const report = await run(address, "holdfast.v1.HealthService/Report");
    expect(report.stdout).toMatch(/"topology": *"embedded"/);
  });

  it("shows the details of an error", async () => {
    const { stderr, code } = await run("-d", "{}", address, "holdfast.v1.CacheService/Get");
    expect(code).not.toBe(0);
    expect(stderr).toContain("Code: InvalidArgument");
    expect(stderr).toMatch(/"reason": *"FIELD_INVALID"/);
    expect(stderr).toMatch(/"field": *"key"/);
  });

  it("asks for health, of the whole server and of one service", async () => {
    const check = (body: string) => run("-d", body, address, "grpc.health.v1.Health/Check");
    expect((await check("{}")).stdout).toMatch(/"status": *"SERVING"/);
    expect((await check('{"service":"holdfast.v1.CacheService"}')).stdout).toMatch(/"status": *"SERVING"/);
    expect((await run(address, "grpc.health.v1.Health/List")).stdout).toContain('"holdfast.v1.CacheService"');
  });

  it("reads a stream to its end, which is the server's", async () => {
    await using second = await startHoldfast();
    const watching = run("-d", '{"prefix":"w"}', second.grpcAddress, "holdfast.v1.CacheService/Watch");
    await until(async () => (await metric(second, "holdfast_cache_watchers"))?.endsWith(" 1"), { what: "the watcher" });
    await run("-d", '{"key":"watched","value":{"text":"x"}}', second.grpcAddress, "holdfast.v1.CacheService/Set");
    await until(async () => !(await metric(second, 'holdfast_cache_writes_total{kind="set"}'))?.endsWith(" 0"), {
      what: "the write",
    });
    await second.stop();
    const { stdout, stderr } = await watching;
    expect(stdout).toMatch(/"key": *"watched"/);
    expect(stdout).toMatch(/"sequence"/);
    expect(stderr).toContain("Code: Unavailable");
    // It would ask the server what is in the details, but that one is about to go.
    expect(stderr).toMatch(/type\.googleapis\.com\/google\.rpc\.ErrorInfo/);
    expect(stderr).toMatch(/type\.googleapis\.com\/google\.rpc\.RetryInfo/);
  });

  it("needs a key to look around where keys are in use", async () => {
    await using guarded = await startGuarded();
    const refused = await run(guarded.address, "list");
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toContain("API key is required");
    const seen = await run("-H", `authorization: Bearer ${guarded.key}`, guarded.address, "list");
    expect(seen.stdout.trim().split("\n")).toEqual(listed);
    const header = ["-H", `x-api-key: ${guarded.key}`];
    const called = await run(...header, "-d", '{"key":"a"}', guarded.address, "holdfast.v1.CacheService/Get");
    expect(called).toMatchObject({ code: 0, stdout: expect.stringContaining("MISS") });
    const denied = await run(...header, guarded.address, "holdfast.v1.HealthService/Report");
    expect(denied.stderr).toContain("Code: PermissionDenied");
  });
});

describe.skipIf(healthProbePath() === undefined)("grpc_health_probe", () => {
  it("sees the server serve, and each service that has RPCs, without a key", async () => {
    await using guarded = await startGuarded();
    // By itself it gives a machine one second.
    const patient = ["-addr", guarded.address, "-connect-timeout", "30s", "-rpc-timeout", "30s"];
    const probe = async (...args: string[]) => (await healthProbe([...patient, ...args])).code;
    expect(await probe()).toBe(0);
    for (const service of services) expect([service, await probe("-service", service)]).toEqual([service, 0]);
    expect(await probe("-service", "no.such.Service")).not.toBe(0);
  });
});

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { configAsJson, configAsYaml } from "../../src/cli/config.ts";
import { ConfigError } from "../../src/config/mistakes.ts";
import { type Environment, loadConfig, resolveConfig } from "../../src/config.ts";
import { createPolicyFor } from "../../src/conversation/record/policies.ts";
import { scratchDirectory } from "../support/scratch.ts";

const directory = scratchDirectory("config");
afterAll(() => directory.remove());
const pem = join(directory.path, "some.pem");
writeFileSync(pem, "");

function resolve(environment: Environment, yaml?: string) {
  return resolveConfig(environment, yaml === undefined ? undefined : { name: "holdfast.yaml", content: parse(yaml) });
}

function messageOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  return "";
}

describe("defaults", () => {
  it("serve on loopback, embedded, with the values that the systems before used", () => {
    const { config } = resolve({});
    expect(config).toMatchObject({
      topology: "embedded",
      server: { host: "127.0.0.1", grpcPort: 7420, httpPort: 7421, insecure: false },
      redis: undefined,
      database: { kind: "sqlite" },
      breaker: { failureThreshold: 5, resetTimeoutMs: 30_000, halfOpenMaxCalls: 3 },
      cache: {
        policies: { fallback: { ttlMs: 3_600_000, l1TtlMs: 300_000 }, strict: false },
        l1: { maxBytes: 24 * 1024 * 1024, maxItems: undefined },
      },
      audit: { recoveryIntervalMs: 300_000, stream: "audit_queue:stream" },
      health: { checkIntervalMs: 60_000 },
    });
  });

  it("give each instance an id of its own", () => {
    expect(resolve({}).config.instanceId).not.toBe(resolve({}).config.instanceId);
  });

  it("let the largest value through", () => {
    expect(resolve({}).config.server.maxMessageBytes).toBeGreaterThan(4 * 1024 * 1024);
  });
});

describe("topology", () => {
  const redis = { REDIS_URL: "redis://h" };
  const postgres = { DATABASE_URL: "postgres://h/db" };
  it.each([
    ["embedded", {}],
    ["single", redis],
    ["cluster", { ...redis, ...postgres }],
    ["sql-only", postgres],
    ["sql-only", { ...redis, ...postgres, DISABLE_REDIS: "true" }],
    ["embedded", { ...redis, DISABLE_REDIS: "true" }],
  ])("is %s with %j", (topology, environment) => {
    expect(resolve(environment).config.topology).toBe(topology);
  });
});

describe("precedence", () => {
  it("puts the environment before the file, and the file before the default", () => {
    const { config } = resolve({ HOLDFAST_GRPC_PORT: "1" }, "server: {grpc_port: 2, http_port: 3}");
    expect(config.server).toMatchObject({ grpcPort: 1, httpPort: 3, host: "127.0.0.1" });
  });

  it("takes an empty variable for an unset one, as compose files leave them", () => {
    expect(resolve({ REDIS_URL: "", HOLDFAST_GRPC_PORT: " " }, "server: {grpc_port: 2}").config).toMatchObject({
      redis: undefined,
      server: { grpcPort: 2 },
    });
  });

  it("takes an empty file and empty groups for nothing chosen", () => {
    expect(resolve({}, "").config.topology).toBe("embedded");
    expect(resolve({}, "server:\ncache:\n  namespaces:\n").config.topology).toBe("embedded");
  });

  it("cannot be changed afterwards, at any depth", () => {
    const { config } = resolve({}, "cache: {namespaces: {a: {warm: [x]}}}");
    const parts: unknown[] = [config];
    for (const part of parts) {
      if (typeof part !== "object" || part === null) continue;
      expect(Object.isFrozen(part)).toBe(true);
      parts.push(...Object.values(part));
    }
  });
});

describe("mistakes", () => {
  it("are all reported at once, those of the environment and those of the file", () => {
    const message = messageOf(() =>
      resolve(
        { HOLDFAST_GRPC_PORT: "x", CACHE_TTL: "soon", HOLDFAST_GRPC_PRT: "1", REDIS_URL: "h:1" },
        `
server: {grpc_prt: 5, http_port: 99999}
cache:
  default: {ttl: 300}
  l1: 5
  namespaces:
    a/b: {}
    users*: {jiter: 1}
databse: {url: "postgres://h/db"}
`,
      ),
    );
    expect(message.split("\n")).toEqual([
      "the configuration has 11 mistakes:",
      '  HOLDFAST_GRPC_PORT: is "x", wanted a port from 0 to 65535 (0 takes any that is free)',
      "  holdfast.yaml: server.http_port: is 99999, wanted a port from 0 to 65535 (0 takes any that is free)",
      expect.stringMatching(/^ {2}REDIS_URL: is .* wanted redis:\/\//),
      '  holdfast.yaml: cache.default.ttl: is 300, wanted a unit, such as "300s" or "300ms"',
      expect.stringMatching(/^ {2}CACHE_TTL: is "soon", wanted a duration from 1ms to 3650d/),
      '  holdfast.yaml: cache.namespaces.a/b: is not the name of a namespace, wanted 1 to 128 letters, digits and "._:-", with * at the end for every namespace that starts so',
      "  HOLDFAST_GRPC_PRT: is not a setting; did you mean HOLDFAST_GRPC_PORT?",
      "  holdfast.yaml: server.grpc_prt: is not a setting; did you mean grpc_port?",
      "  holdfast.yaml: cache.l1: is a number, wanted a group of settings",
      "  holdfast.yaml: cache.namespaces.users*.jiter: is not a setting; did you mean jitter?",
      "  holdfast.yaml: databse: is not a setting; did you mean database?",
    ]);
  });

  it("name the unit that a bare number in the file lacks", () => {
    expect(messageOf(() => resolve({}, "health: {check_interval: 60}"))).toContain(
      'wanted a unit, such as "60s" or "60ms"',
    );
  });

  it("say that a bare number does not do for the age at which audit records are dropped", () => {
    const wanted = 'wanted a duration from 1d to 36500d with its unit, such as "180d" or "48h"';
    expect(messageOf(() => resolve({ AUDIT_RETENTION_AGE: "180" }))).toContain(
      `AUDIT_RETENTION_AGE: is "180", ${wanted}`,
    );
    expect(messageOf(() => resolve({}, "audit: {retention: {age: 180}}"))).toContain(`is 180, ${wanted}`);
  });

  it("do not offer what is nothing like what was written", () => {
    expect(messageOf(() => resolve({ HOLDFAST_ZZZZZZZZZZZZ: "1" }))).toMatch(/is not a setting$/);
  });

  it("leave variables of others alone", () => {
    expect(resolve({ PATH: "/bin", REDIS_HOST: "x", CACHE_THING: "y" }).config.topology).toBe("embedded");
  });

  it("include a file whose top is not a group", () => {
    expect(messageOf(() => resolve({}, "[1, 2]"))).toContain("holdfast.yaml: is a list, wanted a group of settings");
  });

  it("include ports that are the same", () => {
    expect(messageOf(() => resolve({ HOLDFAST_HTTP_PORT: "7420" }))).toContain("the same as HOLDFAST_GRPC_PORT");
  });

  it("include half of a pair of TLS files, and files for a Redis without TLS", () => {
    expect(messageOf(() => resolve({ HOLDFAST_TLS_CERT: pem }))).toContain("HOLDFAST_TLS_KEY: is not set");
    expect(messageOf(() => resolve({ HOLDFAST_TLS_KEY: pem }))).toContain("HOLDFAST_TLS_CERT: is not set");
    expect(messageOf(() => resolve({ HOLDFAST_TLS_CLIENT_CA: pem }))).toContain("wanted all three for mTLS");
    expect(messageOf(() => resolve({ REDIS_URL: "rediss://h", REDIS_TLS_KEY: pem }))).toContain(
      "REDIS_TLS_CERT: is not set",
    );
    expect(messageOf(() => resolve({ REDIS_URL: "redis://h", REDIS_TLS_CA: pem }))).toContain("wanted rediss://");
  });

  it("report a certificate that is not there once, not as a missing one too", () => {
    const environment = { HOLDFAST_TLS_CERT: "/no/such.pem", HOLDFAST_TLS_KEY: pem };
    expect(messageOf(() => resolve(environment)).split("\n")).toHaveLength(2);
  });
});

describe("reaching beyond loopback", () => {
  const tls = { HOLDFAST_TLS_CERT: pem, HOLDFAST_TLS_KEY: pem };
  const keys = { HOLDFAST_API_KEYS_FILE: pem };

  it.each([
    ["0.0.0.0", {}],
    ["::", {}],
    ["10.0.0.1", {}],
    ["holdfast.internal", {}],
    ["localhost.example.com", {}],
    ["127.0.0.1.example.com", {}],
    ["0.0.0.0", tls],
    ["0.0.0.0", keys],
    ["0.0.0.0", { ...tls, HOLDFAST_TLS_CLIENT_CA: pem }],
  ])("is refused on %s with %j", (host, environment) => {
    const message = messageOf(() => resolve({ HOLDFAST_HOST: host, ...environment }));
    expect(message).toContain("HOLDFAST_HOST");
    expect(message).toContain("HOLDFAST_INSECURE=true");
  });

  it("says what is lacking, and not what is there", () => {
    const message = messageOf(() => resolve({ HOLDFAST_HOST: "0.0.0.0", ...tls }));
    expect(message).toContain("Set HOLDFAST_API_KEYS_FILE");
    expect(message).not.toContain("HOLDFAST_TLS_CERT");
  });

  it("is allowed with TLS and keys, and where it is called insecure", () => {
    expect(resolve({ HOLDFAST_HOST: "0.0.0.0", ...tls, ...keys }).config.server.host).toBe("0.0.0.0");
    expect(resolve({ HOLDFAST_HOST: "0.0.0.0", HOLDFAST_INSECURE: "true" }).config.server.host).toBe("0.0.0.0");
  });

  it.each(["127.0.0.1", "127.8.8.8", "localhost", "LOCALHOST", "::1"])("is not what %s does", (host) => {
    expect(resolve({ HOLDFAST_HOST: host }).config.server.host).toBe(host);
  });
});

describe("namespaces", () => {
  it("take what they leave out from cache.default, and that from the variables before it", () => {
    const { config } = resolve(
      { CACHE_TTL: "60" },
      `
cache:
  default: {l1_ttl: 1s, eager_refresh: 0.9, durable: true}
  namespaces:
    orders: {ttl: never}
    "orders-*": {durable: false, warm: ["top:*"]}
`,
    );
    const { fallback, namespaces } = config.cache.policies;
    expect(fallback).toMatchObject({ ttlMs: 60_000, l1TtlMs: 1000, jitter: 0.1, eagerRefresh: 0.9, durable: true });
    expect(namespaces.orders).toEqual({ ...fallback, ttlMs: undefined });
    expect(namespaces["orders-*"]).toEqual({ ...fallback, durable: false, warm: ["top:*"] });
  });

  it("may be called like a property of every object", () => {
    const { namespaces } = resolve({}, "cache: {namespaces: {constructor: {ttl: 1s}, __proto__: {ttl: 2s}}}").config
      .cache.policies;
    expect(Object.keys(namespaces)).toContain("constructor");
    expect(Object.getOwnPropertyDescriptor(namespaces, "constructor")?.value).toMatchObject({ ttlMs: 1000 });
  });
});

describe("collections", () => {
  it("take what they leave out from conversation.default, and that from the variables before it", () => {
    const { config } = resolve(
      { CONVERSATION_TTL: "never" },
      `
conversation:
  default: {history: 3}
  collections:
    support: {ttl: 1h, expiry: fixed}
    "support-*": {history: 0}
`,
    );
    const { fallback, collections } = config.conversation.policies;
    expect(fallback).toEqual({ ttlMs: undefined, sliding: true, history: 3, tombstoneMs: 86_400_000 });
    expect(collections.support).toEqual({ ...fallback, ttlMs: 3_600_000, sliding: false });
    expect(collections["support-*"]).toEqual({ ...fallback, history: 0 });
  });

  it("have names as the contract allows them", () => {
    const wanted = `wanted 1 to 128 letters, digits and "._-", with * at the end for every collection that starts so`;
    for (const name of ["a:b", "a/b", "*a", "x".repeat(130)]) {
      expect(messageOf(() => resolve({}, `conversation: {collections: {"${name}": {}}}`))).toContain(
        `conversation.collections.${name}: is not the name of a collection, ${wanted}`,
      );
    }
  });

  it("are looked up by their exact name, then the longest start, then the default unless they are strict", () => {
    const yaml =
      "collections: {support: {history: 1}, support*: {history: 2}, support-eu-*: {history: 3}, s*: {history: 4}}";
    const policies = (strict: boolean) =>
      resolve({}, `conversation: {strict_collections: ${strict}, ${yaml}}`).config.conversation.policies;
    const lenient = createPolicyFor(policies(false));
    const names = ["support", "support-us", "support-eu-1", "sales", "orders", "constructor"];
    expect(names.map((name) => lenient(name)?.history)).toEqual([1, 2, 3, 4, 0, 0]);
    expect(names.map((name) => createPolicyFor(policies(true))(name)?.history)).toEqual([
      1,
      2,
      3,
      4,
      undefined,
      undefined,
    ]);
  });

  it("always include conversation and orchestration, which have the default unless they are named", () => {
    const strictly = (collections: string) =>
      createPolicyFor(
        resolve({}, `conversation: {strict_collections: true, default: {history: 9}, collections: ${collections}}`)
          .config.conversation.policies,
      );
    const names = ["conversation", "orchestration", "conversations"];
    const histories = (collections: string) => names.map((name) => strictly(collections)(name)?.history);
    expect(histories("{support: {}}")).toEqual([9, 9, undefined]);
    expect(histories("{conversation: {history: 1}, o*: {history: 2}}")).toEqual([1, 2, undefined]);
  });
});

describe("the file", () => {
  it("must be there when it is named", async () => {
    const environment = { HOLDFAST_CONFIG: join(directory.path, "none.yaml") };
    await expect(loadConfig(environment)).rejects.toThrow("none.yaml: cannot be read (ENOENT)");
  });

  it("is not quoted when it is not YAML, since the line may hold a password", async () => {
    const file = join(directory.path, "broken.yaml");
    writeFileSync(file, 'redis:\n  url: "redis://:hunter2@h\n  disabled: : hunter2\n- hunter2\n');
    const failure = await loadConfig({ HOLDFAST_CONFIG: file }).catch(String);
    expect(failure).toMatch(/broken\.yaml, line \d+, column \d+: is not YAML/);
    expect(failure).not.toContain("hunter2");
  });

  it("is read with anchors and merged keys", async () => {
    const file = join(directory.path, "good.yaml");
    writeFileSync(file, "cache:\n  namespaces:\n    a: &a {ttl: 5m}\n    b: *a\n");
    const { config } = await loadConfig({ HOLDFAST_CONFIG: file });
    expect(config.cache.policies.namespaces.b?.ttlMs).toBe(300_000);
  });
});

describe("what is printed", () => {
  const environment = {
    HOLDFAST_DRAIN_TIMEOUT: "1500",
    CACHE_L1_MAX_BYTES: "1MiB",
    HOLDFAST_CORS_ORIGINS: "https://a.example",
  };
  const yaml = 'cache: {default: {ttl: 90s, eager_refresh: 0.5}, namespaces: {"a.b*": {ttl: never, warm: ["x*"]}}}';

  it("is a file that means the same", () => {
    const loaded = resolve({ ...environment, HOLDFAST_INSTANCE_ID: "i" }, yaml);
    expect(resolve({}, configAsYaml(loaded)).config).toEqual(loaded.config);
  });

  it("says where each value came from", () => {
    const printed = configAsYaml(resolve(environment, yaml));
    expect(printed).toMatch(/drain_timeout: 1500ms # HOLDFAST_DRAIN_TIMEOUT\n/);
    expect(printed).toMatch(/ttl: 90s # holdfast.yaml \(CACHE_TTL\)\n/);
    expect(printed).toMatch(/grpc_port: 7420 # default \(HOLDFAST_GRPC_PORT\)\n/);
    expect(printed).toMatch(/l1_ttl: 5m # cache.default\n/);
    expect(printed).toMatch(/# {2}redis\.url \(REDIS_URL\)\n/);
    const { settings, topology } = JSON.parse(configAsJson(resolve(environment, yaml)));
    expect(topology).toBe("embedded");
    expect(settings).toContainEqual({
      path: "server.drain_timeout",
      variable: "HOLDFAST_DRAIN_TIMEOUT",
      value: "1500ms",
      source: "HOLDFAST_DRAIN_TIMEOUT",
    });
  });
});

describe("a variable that is no setting", () => {
  it.each([
    ["REDIS_URI", "REDIS_URL"],
    ["CACHE_TTTL", "CACHE_TTL"],
    ["DATABASE_UR", "DATABASE_URL"],
    ["CIRCUIT_BREAKER_FAILURE_TRESHOLD", "CIRCUIT_BREAKER_FAILURE_THRESHOLD"],
    ["AUDIT_RETENTON_COUNT", "AUDIT_RETENTION_COUNT"],
    ["AUDIT_RETENTION_DAYS", "AUDIT_RETENTION_AGE or AUDIT_RETENTION_COUNT"],
    ["AUDIT_RETENTION_MAX_RECORDS", "AUDIT_RETENTION_AGE or AUDIT_RETENTION_COUNT"],
  ])("but nearly one is doubted, not refused: %s", (written, meant) => {
    const { doubts } = resolveConfig({ [written]: "1" }, undefined);
    expect(doubts).toEqual([`${written} is not a setting, and nothing reads it; did you mean ${meant}?`]);
  });

  it("and not near any is another program's", () => {
    const others = {
      REDIS_HOST: "h",
      REDIS_PORT: "1",
      REDIS_PASSWORD: "p",
      DATABASE_HOST: "h",
      CACHE_DIR: "/x",
      AUDIT_LOG_LEVEL: "info",
      REDISURL: "",
    };
    expect(resolveConfig({ ...others, REDIS_URL: "redis://h" }, undefined).doubts).toEqual([]);
  });
});

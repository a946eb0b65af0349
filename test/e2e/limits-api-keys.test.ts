import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { create, type DescMethod, fromBinary, getOption, toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AuditService } from "../../src/gen/holdfast/v1/audit_pb.js";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { HealthService } from "../../src/gen/holdfast/v1/health_pb.js";
import { scope as scopeOption } from "../../src/gen/holdfast/v1/options_pb.js";
import { type ApiKeyRecord, createApiKey } from "../../src/server/api-key.ts";
import { prepareAudit } from "../support/bad-audit-fields.ts";
import { type BadCaller, complaints, createBadCaller, type Ending } from "../support/bad-caller.ts";
import { goodRequests, text } from "../support/bad-fields.ts";
import { type RequestFields, rpcName } from "../support/bad-rows.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { type ScratchDirectory, scratchDirectory } from "../support/scratch.ts";

const methods = [AuditService, CacheService, HealthService].flatMap((service) => service.methods);
const scopes = [...new Set(methods.map((method) => getOption(method, scopeOption)))];
const withNamespace = methods.filter(({ input }) => input.fields.some(({ name }) => name === "namespace"));

const records: ApiKeyRecord[] = [];
function keyFor(name: string, granted: readonly string[], namespaces: readonly string[] = []): string {
  const { key, record } = createApiKey({ name, scopes: granted, namespaces });
  records.push(record);
  return key;
}

const all = keyFor("all", ["*"]);
const none = keyFor("none", ["other:thing"]);
const onlyFor = new Map(scopes.map((scope) => [scope, keyFor(`only ${scope}`, [scope])]));
const allBut = new Map(
  scopes.map((one) => [one, keyFor(`all but ${one}`, ["x:y", ...scopes.filter((s) => s !== one)])]),
);
const ordersOnly = new Map(scopes.map((one) => [one, keyFor(`orders, ${one}`, [one], ["orders"])]));
const orders = keyFor("orders", ["*"], ["orders", "orders-*"]);

let directory: ScratchDirectory;
let server: HoldfastProcess;
let caller: BadCaller;
beforeAll(async () => {
  directory = scratchDirectory("keys");
  const file = join(directory.path, "keys.yaml");
  writeFileSync(file, JSON.stringify({ keys: records }), { mode: 0o600 });
  server = await startHoldfast({ HOLDFAST_API_KEYS_FILE: file });
  caller = createBadCaller(server.grpcAddress);
  await prepareAudit((method, request) => call(method, all, request));
});
afterAll(async () => {
  caller[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
  directory.remove();
});

function call(method: DescMethod, key: string | undefined, fields: RequestFields = {}): Promise<Ending> {
  const request = create(method.input, { ...goodRequests[rpcName(method)], ...fields });
  return caller.send(`/${method.parent.typeName}/${method.name}`, toBinary(method.input, request), {
    stream: method.methodKind !== "unary",
    headers: key === undefined ? {} : { authorization: `Bearer ${key}` },
  });
}

/** The same over the HTTP plane, where the RPC is unary. */
async function status(method: DescMethod, key: string, body: RequestFields): Promise<number> {
  const response = await fetch(`${server.httpUrl}/${method.parent.typeName}/${method.name}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": key },
    body: JSON.stringify(body),
  });
  await response.text();
  return response.status;
}

describe.each(methods.map((method) => ({ name: rpcName(method), method, scope: getOption(method, scopeOption) })))(
  "$name",
  ({ method, scope }) => {
    it("names a scope, and is answered to a key that has it, alone or by a star", async () => {
      expect(scope).toMatch(/^[a-z_]+:[a-z_]+$/);
      expect(await call(method, onlyFor.get(scope))).toMatchObject({ code: "OK" });
      expect(await call(method, all)).toMatchObject({ code: "OK" });
    });

    it("is denied to a key without that scope, whatever else it has", async () => {
      for (const key of [none, allBut.get(scope)]) {
        expect(await call(method, key)).toMatchObject({
          code: "PERMISSION_DENIED",
          domain: "holdfast",
          reason: "SCOPE_MISSING",
          message: expect.stringContaining(scope),
        });
      }
    });

    it("is denied without a key, and with one that is nobody's", async () => {
      expect(await call(method, undefined)).toMatchObject({ code: "UNAUTHENTICATED", reason: "API_KEY_MISSING" });
      for (const key of ["hf_", "nonsense", `${all}x`, all.slice(0, -1), `hf_${"a".repeat(8_000)}_b`]) {
        expect(await call(method, key)).toMatchObject({ code: "UNAUTHENTICATED", reason: "API_KEY_UNKNOWN" });
      }
    });
  },
);

describe.each(withNamespace.map((method) => ({ name: rpcName(method), method })))(
  "$name, with a key for some namespaces",
  ({ method }) => {
    it.each(["orders", "orders-eu", "orders-"])("is answered in %s", async (namespace) => {
      expect(await call(method, orders, { namespace })).toMatchObject({ code: "OK" });
    });

    it.each(["", "default", "order", "ordersx", "Orders", "users", "orders/../users", "orders\0"])(
      "is denied in %j",
      async (namespace) => {
        const denied = { code: "PERMISSION_DENIED", domain: "holdfast", reason: "NAMESPACE_DENIED" };
        expect(await call(method, orders, { namespace })).toMatchObject(denied);
        if (method.methodKind === "unary") expect(await status(method, orders, { namespace })).toBe(403);
      },
    );
  },
);

describe.each([
  { name: "a conversation", method: ConversationStateService.method.delete, fields: { collection: "orders", id: "c" } },
  { name: "a cached value", method: CacheService.method.delete, fields: { namespace: "orders", key: "k" } },
])("a write of $name under a lock, with a key for some namespaces", ({ method, fields }) => {
  const under = (lock: string) => ({ ...fields, fencing: { lock, token: 1n } });

  it("is denied where the lock is in none of them, before its token is looked at", async () => {
    for (const lock of ["users/nightly", "nightly", "/nightly", ""]) {
      expect(await call(method, orders, under(lock))).toMatchObject({
        ...{ code: "PERMISSION_DENIED", domain: "holdfast", reason: "NAMESPACE_DENIED" },
        message: expect.stringContaining("fencing.lock"),
      });
      expect(await status(method, orders, { ...under(lock), fencing: { lock, token: "1" } })).toBe(403);
    }
  });

  it("is let through where the lock is in one of them", async () => {
    expect(await call(method, orders, under("orders-eu/nightly"))).toMatchObject({ reason: "FENCING_TOKEN_UNKNOWN" });
  });
});

describe.each(AuditService.methods.map((method) => ({ name: rpcName(method), method })))(
  "$name, with a key for some namespaces",
  ({ method }) => {
    it("is answered, since the audit log has none, and only within its scope", async () => {
      expect(await call(method, orders)).toMatchObject({ code: "OK" });
      const key = ordersOnly.get(getOption(method, scopeOption));
      expect(await call(method, key)).toMatchObject({ code: "OK" });
      for (const [scope, other] of ordersOnly) {
        if (scope === getOption(method, scopeOption)) continue;
        expect(await call(method, other)).toMatchObject({ code: "PERMISSION_DENIED", reason: "SCOPE_MISSING" });
      }
    });
  },
);

it("the audit log asks for the scope that each of its callers has", () => {
  const rpcsOf = Map.groupBy(AuditService.methods, (method) => getOption(method, scopeOption));
  const reads = ["Get", "List", "ListPending", "IsApproved", "Tail", "GetGroup", "Export"];
  expect(Object.fromEntries([...rpcsOf].map(([scope, rpcs]) => [scope, rpcs.map(({ name }) => name)]))).toEqual({
    "audit:append": ["Append", "Ingest", "Reconcile"],
    "audit:read": [...reads, "Checkpoint", "Verify"],
    "audit:review": ["Review"],
    "audit:consume": ["Subscribe", "ListDeadLetters"],
    "audit:admin": ["RequeueDeadLetters"],
  });
});

describe("GetStats of no namespace in particular", () => {
  it("shows those that the caller may use, and no other", async () => {
    const { set, getStats } = CacheService.method;
    for (const namespace of ["orders", "orders-eu", "users"]) {
      await call(set, all, { namespace, key: "k", value: text("x") });
    }
    const seen = async (key: string) => {
      const ending = await call(getStats, key);
      expect(ending).toMatchObject({ code: "OK" });
      return fromBinary(getStats.output, ending.reply ?? Buffer.alloc(0)).namespaces.map(({ namespace }) => namespace);
    };
    expect(await seen(all)).toEqual(expect.arrayContaining(["orders", "orders-eu", "users"]));
    const own = await seen(orders);
    expect(own).toEqual(expect.arrayContaining(["orders", "orders-eu"]));
    expect(own.filter((name) => name !== "orders" && !name.startsWith("orders-"))).toEqual([]);
  });
});

it("no key stands in the log, and nothing of it is an error", () => {
  const output = server.output();
  // The secret may hold an underscore itself.
  for (const key of [all, none, orders]) expect(output).not.toContain(key.split("_").slice(2).join("_"));
  expect(complaints(output)).toEqual([]);
});

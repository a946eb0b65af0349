import { readdirSync } from "node:fs";
import { create, createFileRegistry, type DescFile, setExtension } from "@bufbuild/protobuf";
import {
  type DescriptorProto,
  DescriptorProtoSchema,
  FieldDescriptorProtoSchema,
  FileDescriptorProtoSchema,
  MethodOptions_IdempotencyLevel as Idempotency,
  FieldDescriptorProto_Label as Label,
  type MethodOptions,
  MethodOptionsSchema,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { NamespaceRuleSchema, namespaces, scope } from "../../src/gen/holdfast/v1/options_pb.js";
import {
  type Exemptions,
  everyListIsPaged,
  everyMessageIsNamedAfterItsRpc,
  everyRpcCanBeRetried,
  everyRpcNamesItsScope,
  everyRpcSaysItsNamespace,
  everyTimeIsTyped,
  type Rule,
} from "./rules.ts";

const generated = new URL("../../src/gen/holdfast/v1/", import.meta.url);
const contract = new URL("../../proto/holdfast/v1/", import.meta.url);

/** The design's list. A service or an RPC that is not in it is a surprise to every SDK. */
const designed: Readonly<Record<string, readonly string[]>> = {
  CacheService: [
    ...["Get", "GetMany", "Set", "SetMany", "Delete", "DeleteMany", "Exists", "Touch", "Increment", "CompareAndSet"],
    ...["InvalidateTags", "InvalidateNamespace", "ListKeys", "Warm", "GetStats", "Watch"],
  ],
  AuditService: [
    ...["Append", "Ingest", "Get", "List", "ListPending", "Review", "IsApproved", "Subscribe", "Tail", "GetGroup"],
    ...["ListDeadLetters", "RequeueDeadLetters", "Export", "Reconcile", "Checkpoint", "Verify"],
  ],
  ConversationStateService: [
    ...["Save", "Get", "Delete", "Exists", "ExtendTtl", "List", "AppendMessages", "ListMessages", "Patch", "GetStatus"],
    ...["Watch", "Cleanup", "GetStats", "ListVersions", "Restore", "Fork"],
  ],
  LockService: ["Acquire", "Renew", "Release", "Hold", "Get", "List", "ForceRelease", "CheckToken"],
  RateLimitService: ["Check", "Peek", "Refund", "Reset", "ListRules", "AcquireConcurrency", "ReturnConcurrency"],
  DedupService: ["Claim", "Complete", "Release", "Get", "List"],
  HealthService: ["Report", "Watch"],
};

/** Audit's streams need no place here: a record's identity makes Ingest idempotent, a delivery's id Subscribe. */
const exemptions: Exemptions = new Map([
  [
    "LockService/Hold",
    "the stream is the attempt: the lock ends with it, and resume_token names a grant to go on with",
  ],
]);

const canBeRetried = everyRpcCanBeRetried(exemptions);

function isDescFile(value: unknown): value is DescFile {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === "file";
}

async function readContract(): Promise<DescFile[]> {
  const files: DescFile[] = [];
  for (const name of readdirSync(generated).filter((name) => name.endsWith("_pb.js"))) {
    const module: Record<string, unknown> = await import(/* @vite-ignore */ new URL(name, generated).href);
    files.push(...Object.values(module).filter(isDescFile));
  }
  return files;
}

const files = await readContract();

describe("the contract", () => {
  it("is generated from every proto file", () => {
    const protos = readdirSync(contract).filter((name) => name.endsWith(".proto"));
    expect(files.map((file) => `${file.name.split("/").at(-1)}.proto`).sort()).toEqual(protos.sort());
  });

  it("has exactly the services of the design", () => {
    const names = files.flatMap((file) => file.services.map((service) => service.typeName));
    expect(names.sort()).toEqual(
      Object.keys(designed)
        .map((name) => `holdfast.v1.${name}`)
        .sort(),
    );
  });

  it.each(Object.entries(designed))("gives %s exactly the RPCs of the design", (name, rpcs) => {
    const service = files.flatMap((file) => file.services).find((candidate) => candidate.name === name);
    expect(service?.methods.map((method) => method.name).sort()).toEqual([...rpcs].sort());
  });

  it.each<[string, Rule]>([
    ["names a scope for every RPC", everyRpcNamesItsScope],
    ["says for every RPC which namespace a request is about", everyRpcSaysItsNamespace],
    ["makes every RPC safe to retry, or says why it need not be", canBeRetried],
    ["pages every listing alike", everyListIsPaged],
    ["names requests and responses after their RPC", everyMessageIsNamedAfterItsRpc],
    ["types every span and every moment", everyTimeIsTyped],
  ])("%s", (_, rule) => {
    expect(rule(files)).toEqual([]);
  });
});

/** A contract of one service and one RPC, compiled as protoc would. */
function compile(rpc: string, options: MethodOptions, request: DescriptorProto, response: DescriptorProto): DescFile {
  const file = create(FileDescriptorProtoSchema, {
    name: "planted.proto",
    package: "planted",
    syntax: "proto3",
    messageType: [request, response],
    service: [
      {
        name: "ThingService",
        method: [
          { name: rpc, inputType: `.planted.${request.name}`, outputType: `.planted.${response.name}`, options },
        ],
      },
    ],
  });
  const compiled = createFileRegistry(file, () => undefined).getFile("planted.proto");
  if (compiled === undefined) throw new Error("the planted contract does not compile");
  return compiled;
}

function message(name: string, fields: Readonly<Record<string, Type>> = {}): DescriptorProto {
  return create(DescriptorProtoSchema, {
    name,
    field: Object.entries(fields).map(([field, type], index) =>
      create(FieldDescriptorProtoSchema, { name: field, number: index + 1, type, label: Label.OPTIONAL }),
    ),
  });
}

function scoped(name: string, idempotencyLevel = Idempotency.IDEMPOTENCY_UNKNOWN): MethodOptions {
  const options = create(MethodOptionsSchema, { idempotencyLevel });
  setExtension(options, scope, name);
  setExtension(options, namespaces, create(NamespaceRuleSchema, { source: { case: "none", value: true } }));
  return options;
}

describe("the rules", () => {
  const bare = create(MethodOptionsSchema);
  const bad = compile("ListThings", bare, message("Things", { ttl: Type.INT64, wait_ms: Type.INT32 }), message("Page"));

  it("catch an RPC without a scope, or with one that is misspelt", () => {
    expect(everyRpcNamesItsScope([bad])).toEqual(["ThingService/ListThings: no option (holdfast.v1.scope)"]);
    const misspelt = compile("Get", scoped("Things.Read"), message("In"), message("Out"));
    expect(everyRpcNamesItsScope([misspelt])).toEqual([
      'ThingService/Get: scope "Things.Read" is not <capability>:<verb>',
    ]);
  });

  it("catch an RPC that does not say its namespace, or says a field that is not there", () => {
    expect(everyRpcSaysItsNamespace([bad])).toEqual(["ThingService/ListThings: no option (holdfast.v1.namespaces)"]);
    const options = scoped("things:read");
    const rule = { source: { case: "field" as const, value: "name" }, secondField: "other" };
    setExtension(options, namespaces, create(NamespaceRuleSchema, rule));
    const request = message("In", { namespace: Type.STRING, name: Type.INT32 });
    expect(everyRpcSaysItsNamespace([compile("Get", options, request, message("Out"))])).toEqual([
      "ThingService/Get: no string name in In",
      "ThingService/Get: no string other in In",
      "ThingService/Get: namespace is not what names its namespace",
    ]);
  });

  it("catch an RPC that cannot be retried", () => {
    expect(everyRpcCanBeRetried(new Map())([bad])).toEqual([
      "ThingService/ListThings: neither idempotency_level nor a string request_id",
    ]);
  });

  it("catch an exemption that nothing needs, and one for a unary RPC", () => {
    const safe = compile("Get", scoped("things:read", Idempotency.NO_SIDE_EFFECTS), message("In"), message("Out"));
    expect(everyRpcCanBeRetried(new Map([["ThingService/Get", "a guess"]]))([safe])).toEqual([
      "ThingService/Get: exempt without need",
      "ThingService/Get: exempt, but no stream",
    ]);
  });

  it("catch a listing without pages", () => {
    expect(everyListIsPaged([bad])).toEqual([
      "ThingService/ListThings: no int32 page_size in Things",
      "ThingService/ListThings: no string page_token in Things",
      "ThingService/ListThings: no string next_page_token in Page",
    ]);
  });

  it("catch messages that are not named after their RPC", () => {
    expect(everyMessageIsNamedAfterItsRpc([bad])).toEqual([
      "ThingService/ListThings: takes Things",
      "ThingService/ListThings: returns Page",
    ]);
  });

  it("catch spans and moments that are plain numbers", () => {
    const moment = compile(
      "Get",
      bare,
      message("In", { expire_time: Type.INT64, size_millis: Type.UINT32 }),
      message("Out"),
    );
    expect(everyTimeIsTyped([bad, moment])).toEqual([
      "planted.Things.ttl: not a Duration",
      "planted.Things.wait_ms: a unit in the name; make it a Duration or a Timestamp",
      "planted.In.expire_time: not a Timestamp",
      "planted.In.size_millis: a unit in the name; make it a Duration or a Timestamp",
    ]);
  });

  it("accept a service that keeps them all", () => {
    const good = compile(
      "ListThings",
      scoped("things:read", Idempotency.NO_SIDE_EFFECTS),
      message("ThingServiceListThingsRequest", { page_size: Type.INT32, page_token: Type.STRING }),
      message("ThingServiceListThingsResponse", { next_page_token: Type.STRING }),
    );
    const rules = [everyRpcNamesItsScope, everyRpcSaysItsNamespace, everyRpcCanBeRetried(new Map()), everyListIsPaged];
    for (const rule of [...rules, everyMessageIsNamedAfterItsRpc, everyTimeIsTyped]) expect(rule([good])).toEqual([]);
  });
});

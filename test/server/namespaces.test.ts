import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { HealthService } from "../../src/gen/holdfast/v1/health_pb.js";
import { LockService } from "../../src/gen/holdfast/v1/lock_pb.js";
import { fencedNamespaceReader, namespacesReader } from "../../src/server/namespaces.ts";
import { EchoService } from "./echo.ts";

const { get, getStats } = CacheService.method;
const { save, fork } = ConversationStateService.method;
const { acquire, list } = LockService.method;

describe("the namespaces of a request", () => {
  it.each([
    ["a cache call", get, { namespace: "orders" }, ["orders"]],
    ["a cache call that names none", get, {}, ["default"]],
    ["a call about all", getStats, {}, []],
    ["a call about all, had it not named the default one", getStats, { namespace: "" }, ["default"]],
    ["a conversation", save, { collection: "support" }, ["support"]],
    ["a conversation of no named collection", save, {}, ["conversation"]],
    ["a copy", fork, { collection: "a", targetCollection: "b" }, ["a", "b"]],
    ["a copy in its collection", fork, { collection: "a" }, ["a", "a"]],
    ["a copy out of the usual collection", fork, { targetCollection: "b" }, ["conversation", "b"]],
    ["a lock", acquire, { name: "orders/1/2" }, ["orders"]],
    ["a lock without a path", acquire, { name: "nightly" }, ["default"]],
    ["a lock with an empty head", acquire, { name: "/nightly" }, [""]],
    ["locks of one namespace", list, { prefix: "orders/" }, ["orders"]],
    ["locks of whatever begins so", list, { prefix: "ord" }, []],
    ["health", HealthService.method.report, {}, []],
  ])("%s", (_, method, fields, expected) => {
    expect(namespacesReader(method)?.(create(method.input, fields))).toEqual(expected);
  });

  it("are told apart from that of the lock under which it writes", () => {
    const lockOf = (fields: object) => fencedNamespaceReader(save)?.(create(save.input, fields));
    expect(lockOf({ collection: "support", fencing: { lock: "orders/1/2", token: 1n } })).toBe("orders");
    expect(lockOf({ fencing: { lock: "nightly", token: 1n } })).toBe("default");
    expect(lockOf({ fencing: {} })).toBe("default");
    expect(lockOf({})).toBeUndefined();
    expect(fencedNamespaceReader(acquire)).toBeUndefined();
  });

  it("are not guessed where the contract does not say", () => {
    const { undeclared } = EchoService.method;
    expect(undeclared && namespacesReader(undeclared)).toBeUndefined();
  });
});

import { describe, expect, it } from "vitest";
import { createPolicyFor, type NamespacePolicy } from "../../src/cache/policy.ts";

const fallback: NamespacePolicy = {
  ttlMs: 1,
  l1TtlMs: 1,
  jitter: 0,
  staleForMs: 0,
  eagerRefresh: undefined,
  durable: false,
  maxBytes: 1,
  warm: [],
};
const named = (ttlMs: number): NamespacePolicy => ({ ...fallback, ttlMs });

describe("the policy of a namespace", () => {
  const namespaces = { orders: named(10), "orders*": named(20), "orders-eu-*": named(30), "o*": named(40) };

  it.each([
    ["orders", 10],
    ["orders-us", 20],
    ["orders-eu-1", 30],
    ["orders-eu", 20],
    ["other", 40],
    ["users", 1],
    ["constructor", 1],
  ])("of %s is the exact one, or that of the longest prefix, or the fallback", (namespace, ttlMs) => {
    expect(createPolicyFor({ fallback, namespaces, strict: false })(namespace)?.ttlMs).toBe(ttlMs);
  });

  it("is missing for a namespace that nothing names, when namespaces are strict", () => {
    const policyFor = createPolicyFor({ fallback, namespaces, strict: true });
    expect(policyFor("users")).toBeUndefined();
    expect(policyFor("orders-us")?.ttlMs).toBe(20);
  });

  it("covers everything that is left with a lone star", () => {
    expect(createPolicyFor({ fallback, namespaces: { "*": named(50) }, strict: true })("users")?.ttlMs).toBe(50);
  });
});

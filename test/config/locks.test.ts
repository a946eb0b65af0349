import { describe, expect, it } from "vitest";
import { ConfigError } from "../../src/config/mistakes.ts";
import { resolveConfig } from "../../src/config.ts";
import { createLockPolicyFor } from "../../src/lock/policies.ts";

const redis = { REDIS_URL: "redis://h" };
const postgres = { DATABASE_URL: "postgres://h/db" };
const masters = { LOCK_REDLOCK_URLS: "redis://a,redis://b,redis://c" };

function mistakes(environment: Readonly<Record<string, string>>): readonly string[] {
  try {
    resolveConfig(environment, undefined);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes.map(({ where }) => where);
    throw error;
  }
}

describe("who decides about locks", () => {
  it.each([
    ["sqlite", {}],
    ["redis", redis],
    ["redis", { ...redis, ...postgres }],
    ["redis", { ...redis, ...postgres, LOCK_FALLBACK: "postgres" }],
    ["postgres", postgres],
    ["postgres", { ...postgres, ...redis, DISABLE_REDIS: "true" }],
    ["sqlite", { ...redis, LOCK_AUTHORITY: "sqlite" }],
    ["postgres", { ...redis, ...postgres, LOCK_AUTHORITY: "postgres" }],
    ["redlock", { ...masters, LOCK_AUTHORITY: "redlock" }],
  ])("is %s with %j", (authority, environment) => {
    expect(resolveConfig(environment, undefined).config.lock.authority).toBe(authority);
  });

  it.each([
    ["LOCK_AUTHORITY", { ...postgres, LOCK_AUTHORITY: "sqlite" }],
    ["LOCK_AUTHORITY", { LOCK_AUTHORITY: "postgres" }],
    ["LOCK_AUTHORITY", { ...postgres, LOCK_AUTHORITY: "redis" }],
    ["LOCK_AUTHORITY", { ...redis, DISABLE_REDIS: "true", LOCK_AUTHORITY: "redis" }],
    ["LOCK_REDLOCK_URLS", { LOCK_AUTHORITY: "redlock" }],
    ["LOCK_REDLOCK_URLS", { ...redis, ...masters }],
    ["LOCK_FALLBACK", { ...redis, LOCK_FALLBACK: "postgres" }],
    ["LOCK_FALLBACK", { ...postgres, LOCK_FALLBACK: "postgres" }],
    ["LOCK_FALLBACK", { ...postgres, ...masters, LOCK_AUTHORITY: "redlock", LOCK_FALLBACK: "postgres" }],
  ])("is refused by %s with %j", (where, environment) => {
    expect(mistakes(environment)).toEqual([where]);
  });

  it("never shows the passwords of the masters", () => {
    const urls = ["a", "b", "c"].map((host) => `redis://user:secret@${host}`).join(",");
    const { effective } = resolveConfig({ LOCK_AUTHORITY: "redlock", LOCK_REDLOCK_URLS: urls }, undefined);
    expect(JSON.stringify(effective)).not.toContain("secret");
    const wrong = () => resolveConfig({ LOCK_AUTHORITY: "redlock", LOCK_REDLOCK_URLS: `${urls},redis://x` }, undefined);
    expect(wrong).toThrow(ConfigError);
    expect(wrong).not.toThrow(/secret/);
  });
});

it("a lock has the lease of its name, or of the longest start of it, or the default", () => {
  const names = { "nightly-batch": { ttlMs: 1 }, "nightly-*": { ttlMs: 2 }, "imports/*": { ttlMs: 3 } };
  const policyFor = createLockPolicyFor({ fallback: { ttlMs: 4 }, names });
  const ttls = ["nightly-batch", "nightly-report", "imports/a", "other"].map((name) => policyFor(name).ttlMs);
  expect(ttls).toEqual([1, 2, 3, 4]);
});

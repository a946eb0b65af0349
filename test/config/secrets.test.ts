import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { configAsJson, configAsYaml } from "../../src/cli/config.ts";
import { ConfigError } from "../../src/config/mistakes.ts";
import { maskUrl } from "../../src/config/url.ts";
import { type Environment, resolveConfig } from "../../src/config.ts";

/** Passwords as people have them: long enough not to occur by chance, with what makes URLs go wrong. */
const secret = fc
  .tuple(
    fc.string({ unit: fc.constantFrom(..."abcXYZ019"), minLength: 8, maxLength: 12 }),
    fc.string({ unit: fc.constantFrom(..."/?#:@,%&=[] \\\"'|.ä-"), maxLength: 4 }),
    fc.string({ unit: fc.constantFrom(..."abcXYZ019"), minLength: 8, maxLength: 12 }),
  )
  .map(([head, odd, tail]) => ({ whole: `${head}${odd}${tail}`, head, tail }));

/** Where a password may stand: in its place, unescaped, or where a hasty hand puts it. */
const placements: readonly ((written: string) => Environment)[] = [
  (it) => ({ REDIS_URL: `redis://:${it}@cache:6379/0` }),
  (it) => ({ REDIS_URL: `rediss://user:${it}@cache:6379` }),
  (it) => ({ REDIS_URL: `redis://${it}@cache:6379` }),
  (it) => ({ REDIS_URL: `redis://${it}:@cache:6379` }),
  (it) => ({ REDIS_URL: `redis://user:${it}@a:1,redis://user:${it}@b:2` }),
  (it) => ({ REDIS_URL: `redis://user:${it}@a:1,b:2` }),
  (it) => ({ REDIS_URL: `redis-sentinel://user:${it}@a:1/main?sentinelPassword=${it}` }),
  (it) => ({ REDIS_URL: `redis:/user:${it}@a:1` }),
  // Without the "@": behind it stands a host, as far as anyone can tell.
  (it) => ({ REDIS_URL: `redis://a:${it.replaceAll("@", "")}` }),
  (it) => ({ REDIS_URL: it }),
  (it) => ({ DATABASE_URL: `postgres://user:${it}@db:5432/holdfast` }),
  (it) => ({ DATABASE_URL: `postgres://user@db/holdfast?password=${it}` }),
  (it) => ({ DATABASE_URL: `postgres://user@db/holdfast?sslmode=require&PASSWORD=${it}` }),
  (it) => ({ DATABASE_URL: `mysql://user:${it}@db/holdfast` }),
  (it) => ({ DATABASE_URL: it }),
  (it) => ({ HOLDFAST_DATABASE_PASSWORD: it }),
];

function everythingSaid(environment: Environment): string {
  try {
    const loaded = resolveConfig(environment, undefined);
    return configAsYaml(loaded) + configAsJson(loaded);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
}

describe("a secret", () => {
  it("is in nothing that is printed: not in the settings in force, nor in a mistake, escaped or not", () => {
    fc.assert(
      fc.property(secret, fc.constantFrom(...placements), fc.boolean(), ({ whole, head, tail }, place, escaped) => {
        const said = everythingSaid(place(escaped ? encodeURIComponent(whole) : whole));
        return !said.includes(head) && !said.includes(tail);
      }),
      { numRuns: 5000 },
    );
  });

  it("is masked in a file as well", () => {
    const file = {
      name: "holdfast.yaml",
      content: { redis: { url: "redis://:hunter2@h" }, database: { url: "x:hunter2" } },
    };
    expect(() => resolveConfig({}, file)).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining("hunter2") }),
    );
  });
});

describe("a masked address", () => {
  it.each([
    ["redis://user:pw@h:1/2", "redis://***@h:1/2"],
    ["redis://:pw@h", "redis://***@h"],
    ["redis://token@h", "redis://***@h"],
    ["redis://h:1,h:2", "redis://h:1,h:2"],
    ["redis://u:p@a:1,redis://u:p@b:2", "redis://***@a:1,redis://***@b:2"],
    [
      "postgres://u:p@[::1]:5432/db?sslmode=require&password=x",
      "postgres://***@[::1]:5432/db?sslmode=require&password=***",
    ],
    ["postgres://u@/db?host=/run/postgresql", "postgres://***@/db?host=/run/postgresql"],
  ])("of %s is %s", (written, masked) => {
    expect(maskUrl(written)).toBe(masked);
  });
});

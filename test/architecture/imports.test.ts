import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { findViolations, readSources } from "./import-rule.ts";

function violations(path: string, text: string): string[] {
  return findViolations([{ path, text }]).map((violation) => violation.specifier);
}

describe("the import rule", () => {
  it("holds in every file of the server and of the clients", () => {
    const sources = readSources(join(import.meta.dirname, "../.."));
    expect(sources.length).toBeGreaterThan(10);
    expect(findViolations(sources)).toEqual([]);
  });

  it.each([
    [
      "a capability imports another one",
      "src/cache/cache.ts",
      `import { grant } from "../lock/lock.ts";`,
      "../lock/lock.ts",
    ],
    ["a capability imports the server", "src/cache/service.ts", `import "../server/grpc.ts";`, "../server/grpc.ts"],
    ["a capability imports config", "src/cache/cache.ts", `import type { C } from "../config.ts";`, "../config.ts"],
    ["rules import a backend", "src/cache/cache.ts", `import { sqlStore } from "./sql.ts";`, "./sql.ts"],
    ["rules import a part of a backend", "src/cache/cache.ts", `import { row } from "./sql-row.ts";`, "./sql-row.ts"],
    ["rules import a driver", "src/lock/lock.ts", `import { Redis } from "ioredis";`, "ioredis"],
    [
      "infra imports a capability",
      "src/infra/redis.ts",
      `import type { Key } from "../cache/store.ts";`,
      "../cache/store.ts",
    ],
    ["infra imports the server", "src/infra/log.ts", `export { x } from "../server/errors.ts";`, "../server/errors.ts"],
    [
      "the server imports a capability",
      "src/server/http.ts",
      `import { cache } from "../cache/cache.ts";`,
      "../cache/cache.ts",
    ],
    [
      "config imports a capability's code",
      "src/config.ts",
      `import { p } from "./cache/policy.ts";`,
      "./cache/policy.ts",
    ],
    ["a part of config does", "src/config/file.ts", `import { p } from "../cache/policy.ts";`, "../cache/policy.ts"],
    ["somebody imports main", "src/cli/usage.ts", `import { main } from "../main.ts";`, "../main.ts"],
    [
      "the server imports a test",
      "src/infra/log.ts",
      `import { until } from "../../test/support/until.ts";`,
      "../../test/support/until.ts",
    ],
    [
      "a client imports the server",
      "sdk/typescript/src/cache.ts",
      `import { x } from "../../../src/gen/a_pb.js";`,
      "../../../src/gen/a_pb.js",
    ],
    [
      "an import hides in a call",
      "src/cache/cache.ts",
      `const lock = await import("../lock/lock.ts");`,
      "../lock/lock.ts",
    ],
    [
      "an import spans lines",
      "src/cache/cache.ts",
      `import {\n  a,\n  type B,\n} from "../lock/lock.ts";`,
      "../lock/lock.ts",
    ],
    ["a module is exported whole", "src/cache/cache.ts", `export * from "../lock/lock.ts";`, "../lock/lock.ts"],
    [
      "a default comes with names",
      "src/cache/cache.ts",
      `import lock, { a } from "../lock/lock.ts";`,
      "../lock/lock.ts",
    ],
  ])("catches it when %s", (_what, path, text, specifier) => {
    expect(violations(path, text)).toEqual([specifier]);
  });

  it.each([
    [
      "a capability imports infra, gen and itself",
      "src/cache/cache.ts",
      ["../infra/clock.ts", "../gen/holdfast/v1/a_pb.js", "./store.ts"],
    ],
    ["a backend imports its port, its parts and its driver", "src/cache/sql.ts", ["./store.ts", "./sql-row.ts", "pg"]],
    [
      "the server imports infra and gen",
      "src/server/errors.ts",
      ["../infra/failure.ts", "../gen/google/rpc/status_pb.js"],
    ],
    [
      "main imports everything",
      "src/main.ts",
      ["./cache/sql.ts", "./server/grpc.ts", "./config.ts", "./infra/redis.ts"],
    ],
    ["a client imports its own files", "sdk/typescript/src/cache.ts", ["./gen/a_pb.js", "@grpc/grpc-js"]],
  ])("allows that %s", (_what, path, specifiers) => {
    const text = specifiers.map((specifier) => `import { x } from "${specifier}";`).join("\n");
    expect(violations(path, text)).toEqual([]);
  });

  it("allows config the types of a capability's settings", () => {
    expect(violations("src/config.ts", `import type { Policy } from "./cache/policy.ts";`)).toEqual([]);
  });

  it("does not take a comment for an import", () => {
    expect(violations("src/cache/cache.ts", ` * import { x } from "../lock/lock.ts";`)).toEqual([]);
  });
});

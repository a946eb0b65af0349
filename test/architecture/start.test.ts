import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, it } from "vitest";

const root = join(import.meta.dirname, "../..");

/** What is loaded with a file: everything that it and its imports import, but not what they import when they need it. */
function loadedWith(file: string, found = new Set<string>()): ReadonlySet<string> {
  // Without texts that only quote an import, such as what the banner tells to try.
  const text = readFileSync(file, "utf8").replaceAll(/`[^`]*`/g, "``");
  for (const [, specifier = ""] of text.matchAll(
    /^(?:import|export)\s+(?!type\s)(?:[\w*{][^;"'`=()]*?\sfrom\s+)?["']([^"']+)["']/gm,
  )) {
    const target = specifier.startsWith(".") ? join(dirname(file), specifier) : specifier;
    if (found.has(target)) continue;
    found.add(target);
    if (specifier.startsWith(".") && existsSync(target) && /\.[jt]s$/.test(target)) loadedWith(target, found);
  }
  return found;
}

it("a start loads no package that may never be needed: each costs memory for as long as the process lives", () => {
  const loaded = loadedWith(join(root, "src/main/serve.ts"));
  expect(loaded).toContain("@grpc/grpc-js");
  // node:http as an import brings undici with it; see src/server/http.ts.
  // Not better-sqlite3: the lock on the audit log's journal is one of its files, in every topology.
  const late = ["ioredis", "pg", "yaml", "zod", "cockatiel", "node:http"];
  late.push("@connectrpc/connect", "@connectrpc/connect-node", "@grpc/reflection", "grpc-health-check");
  expect(late.filter((name) => loaded.has(name))).toEqual([]);
});

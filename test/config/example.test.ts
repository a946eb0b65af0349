import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { resolveConfig } from "../../src/config.ts";

const source = readFileSync(join(import.meta.dirname, "../../examples/holdfast.yaml"), "utf8");

describe("examples/holdfast.yaml", () => {
  it("says what the defaults are", () => {
    const example = resolveConfig(
      { HOLDFAST_INSTANCE_ID: "i" },
      { name: "holdfast.yaml", content: parse(source) },
    ).config;
    const defaults = resolveConfig({ HOLDFAST_INSTANCE_ID: "i" }, undefined).config;
    const { namespaces, ...policies } = example.cache.policies;
    const { collections, ...kept } = example.conversation.policies;
    const { names, ...leases } = example.lock.policies;
    expect({
      ...example,
      cache: { ...example.cache, policies: { ...policies, namespaces: {} } },
      conversation: { ...example.conversation, policies: { ...kept, collections: {} } },
      lock: { ...example.lock, policies: { ...leases, names: {} } },
      ratelimit: { rules: [] },
    }).toEqual(defaults);
    expect(Object.keys(namespaces)).toEqual(["permissions", "sessions-*"]);
    expect(Object.keys(collections)).toEqual(["orchestration", "archive-*"]);
    expect(Object.keys(names)).toEqual(["nightly-batch", "imports/*"]);
    const rules = example.ratelimit.rules.map(({ name }) => name);
    expect(rules).toEqual(["client", "sign-in", "tokens-per-day", "imports", "searches"]);
  });

  it("knows every variable, and names none that is not there", () => {
    const variables = resolveConfig({}, undefined).effective.flatMap(({ env }) => env ?? []);
    const named = [...source.matchAll(/\[([A-Z][A-Z0-9_]+)\]/g)].map(([, name]) => name);
    expect(named.toSorted()).toEqual(variables.toSorted());
  });

  it("is right with every line that is commented out, too", () => {
    const everything = source
      .replaceAll(
        /^( *)# (?=(?: *)(?:tls|cert|key|client_ca|ca|api_keys_file|instance_id|url|eager_refresh|max_items|backup_path|signing_key|retention|authority|redlock_urls): ?)/gm,
        "$1",
      )
      .replaceAll(/^( *)# ( +(?:cert|key|client_ca|ca|age|count):)/gm, "$1$2")
      .replaceAll(/: [\w.]+\.(pem|key|yaml)(?= )/g, `: ${JSON.stringify(import.meta.filename)}`)
      .replace("redis://127", "rediss://127");
    const { effective, config } = resolveConfig({}, { name: "holdfast.yaml", content: parse(everything) });
    expect(effective.filter(({ source: from, path }) => from === "not set" && path[1] !== "namespaces")).toEqual([]);
    expect(config.topology).toBe("cluster");
  });
});

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { createApiKey } from "../../src/server/auth.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { scratchDirectory } from "../support/scratch.ts";

/* Promises: rules that come with a request take a scope of their own, and keys stay in their namespaces. */

const inline = { name: "mine", algorithm: "RATE_LIMIT_ALGORITHM_CONCURRENCY", limit: 1 };

it("an inline rule takes ratelimit:inline, also among configured ones", async () => {
  const directory = scratchDirectory("keys");
  const plain = createApiKey({ name: "plain", scopes: ["ratelimit:check", "ratelimit:read"], namespaces: ["a"] });
  const inlining = createApiKey({ name: "inlining", scopes: ["ratelimit:check", "ratelimit:inline"] });
  const all = createApiKey({ name: "all", scopes: ["ratelimit:*"] });
  const keys = join(directory.path, "keys.yaml");
  writeFileSync(keys, JSON.stringify({ keys: [plain.record, inlining.record, all.record] }), { mode: 0o600 });
  const file = join(directory.path, "holdfast.yaml");
  writeFileSync(file, "ratelimit: { rules: { jobs: { algorithm: concurrency, limit: 2 } } }\n");
  await using server = await startHoldfast({ HOLDFAST_API_KEYS_FILE: keys, HOLDFAST_CONFIG: file });
  const call = async (key: string, rpc: string, request: object) => {
    const reply = await fetch(`${server.httpUrl}/holdfast.v1.RateLimitService/${rpc}`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": key },
      body: JSON.stringify(request),
    });
    const text = await reply.text();
    return { status: reply.status, reason: /"reason":"([A-Z_]+)"/.exec(text)?.[1], text };
  };
  const configured = { ruleName: "jobs", key: "k" };
  const own = { inlineRule: inline, key: "k" };
  const refused = { status: 403, reason: "SCOPE_MISSING" };
  expect(await call(plain.key, "AcquireConcurrency", { namespace: "a", descriptors: [configured, own] })).toMatchObject(
    refused,
  );
  expect(await call(plain.key, "Peek", { namespace: "a", descriptors: [own] })).toMatchObject(refused);
  expect(await call(inlining.key, "Peek", { descriptors: [own] })).toMatchObject(refused);
  expect(await call(plain.key, "Reset", { namespace: "a", descriptors: [configured] })).toMatchObject(refused);
  expect(await call(plain.key, "Peek", { namespace: "b", descriptors: [configured] })).toMatchObject({ status: 403 });
  const allowed = { namespace: "a", descriptors: [configured] };
  expect((await call(plain.key, "AcquireConcurrency", allowed)).text).toContain('"allowed":true');
  for (const { key } of [inlining, all]) {
    const { text } = await call(key, "AcquireConcurrency", { namespace: key, descriptors: [configured, own] });
    expect(text).toContain('"allowed":true');
  }
  expect((await call(plain.key, "ListRules", {})).text).toContain('"name":"jobs"');
  directory.remove();
});

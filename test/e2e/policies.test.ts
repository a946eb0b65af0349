import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import { createCacheClient } from "../support/cache-client.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";

it("a server warms at start what its policies name, and takes a random share off each ttl", async () => {
  const directory = scratchDirectory("policies");
  const file = join(directory.path, "holdfast.yaml");
  writeFileSync(file, 'cache: { namespaces: { permissions: { ttl: never, durable: true, warm: ["role:*"] } } }');
  await using server = await startHoldfast({ HOLDFAST_CONFIG: file });
  const expiries = new Set<bigint>();
  {
    using client = createCacheClient(server.grpcAddress);
    for (let i = 0; i < 20; i++) {
      await client.put("permissions", `role:${i}`, "v");
      await client.put("permissions", `user:${i}`, "v");
      const kind = { case: "ttl", value: { seconds: 1_000_000n } } as const;
      const request = { key: `k${i}`, value: { kind: { case: "text", value: "v" } }, expiry: { kind } } as const;
      const { reply } = await client.call(CacheService.method.set, request);
      expiries.add(reply.expireTime?.seconds ?? 0n);
    }
  }
  expect(expiries.size).toBeGreaterThan(15);
  await server.restart();
  using client = createCacheClient(server.grpcAddress);
  const stats = async () => {
    const { reply } = await client.call(CacheService.method.getStats, { namespace: "permissions" });
    return reply.namespaces[0];
  };
  await until(async () => (await stats())?.l1Entries === 20n, { what: "the roles to be in memory" });
  expect(await client.text("permissions", "role:7")).toBe("v");
  expect(await stats()).toMatchObject({ l1Hits: 1n, sqlHits: 0n });
});

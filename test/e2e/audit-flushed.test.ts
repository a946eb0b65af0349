import { Redis } from "ioredis";
import { expect, it } from "vitest";
import { AuditDurability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createAuditClient, unnamed } from "../support/audit-client.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startRedis } from "../support/redis-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

it("what Redis is made to forget while SQL is away is in the archive when SQL is back, and found at once where it was sent", async () => {
  await using redis = await startRedis();
  const database = new URL(await freshDatabase());
  await using proxy = await startTcpProxy(Number(database.port));
  database.port = String(proxy.port);
  const env = { REDIS_URL: redis.url, DATABASE_URL: database.href, DATABASE_STATEMENT_TIMEOUT: "500ms" };
  await using one = await startHoldfast(env);
  await using other = await startHoldfast(env);
  using audit = createAuditClient(one.grpcAddress);
  using elsewhere = createAuditClient(other.grpcAddress);
  await until(async () => (await audit.append(unnamed({ actor: "warm", action: "a" })))[0]?.durability === 2, {
    what: "Redis to be in use",
  });
  // So that nothing is archived before it is lost.
  proxy.cut();
  const client = new Redis(redis.url);
  try {
    const acks = await until(
      async () => {
        const found = await audit.append(unnamed({ actor: "lost", action: "a" }, { actor: "lost", action: "b" }));
        return found[0]?.durability === AuditDurability.QUEUED ? found : undefined;
      },
      { what: "records in Redis alone" },
    );
    await client.flushall();
    proxy.restore();
    const held = await until(() => audit.list({ actors: ["lost"] }), { what: "SQL to be in use again" });
    expect(held.map(({ id }) => id)).toEqual(expect.arrayContaining(acks?.map(({ id }) => id) ?? []));
    const ids = held.map(({ id }) => id).toSorted();
    await until(async () => (await elsewhere.list({ actors: ["lost"] })).length === ids.length, {
      what: "the other instance to find them",
    });
  } finally {
    client.disconnect();
  }
});

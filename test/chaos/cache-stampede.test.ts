import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CacheService, SetOutcome } from "../../src/gen/holdfast/v1/cache_pb.js";
import { createCacheClient } from "../support/cache-client.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { type FillJob, type FillReport, isFillReport } from "../support/load-fill.ts";
import { type LoadProcess, startLoad } from "../support/load-process.ts";
import { until } from "../support/until.ts";
import { durableConfig } from "./outage.ts";

/*
 * Promises: however many callers in however many processes ask for a cold key, through one instance or two, its value is computed
 * once; when the one who computes it dies, it is computed once more, by exactly one other; nobody gets an error or nothing. A value
 * whose lease went to another, or that an invalidation overtook, is refused.
 */

const topologies: {
  name: string;
  instances: number;
  namespace?: string;
  env: () => Promise<Record<string, string>>;
}[] = [
  { name: "embedded, one instance", instances: 1, env: async () => ({}) },
  { name: "one Redis, two instances", instances: 2, env: async () => ({ REDIS_URL: await freshRedis() }) },
  { name: "one Postgres, two instances", instances: 2, env: async () => ({ DATABASE_URL: await freshDatabase() }) },
  {
    name: "Redis and Postgres, two instances",
    instances: 2,
    env: async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() }),
  },
  {
    name: "Redis and Postgres, two instances, durable",
    instances: 2,
    namespace: "truth",
    env: async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() }),
  },
];

const processes = 4;
const callers = 200;

describe.each(topologies)("a cold key: $name", ({ name, instances, namespace = "stampede", env }) => {
  const parts = new AsyncDisposableStack();
  let servers: HoldfastProcess[] = [];
  beforeAll(async () => {
    const settings = { ...(await env()), HOLDFAST_CONFIG: durableConfig(parts) };
    servers = await Promise.all(Array.from({ length: instances }, () => startHoldfast(settings)));
  });
  afterAll(async () => {
    await Promise.all(servers.map((server) => server[Symbol.asyncDispose]()));
    await parts.disposeAsync();
  });

  async function ready(
    job: Pick<FillJob, "key" | "callers" | "leaseTtlMs" | "stuck">,
  ): Promise<LoadProcess<FillReport>> {
    const addresses = servers.map(({ grpcAddress }) => grpcAddress);
    const load = await startLoad("load-fill.ts", { ...job, addresses, namespace, computeMs: 200 }, isFillReport);
    await until(() => load.told.includes("ready"), { what: "a client to be connected" });
    return load;
  }

  function readyAll(key: string, leaseTtlMs: number): Promise<LoadProcess<FillReport>[]> {
    const job = { key, leaseTtlMs, callers: callers / processes, stuck: false };
    return Promise.all(Array.from({ length: processes }, () => ready(job)));
  }

  function account(what: string, reports: readonly FillReport[]) {
    const total = {
      computed: reports.reduce((sum, { computed }) => sum + computed, 0),
      stored: reports.reduce((sum, { stored }) => sum + stored, 0),
      answered: reports.reduce((sum, { values }) => sum + values.length, 0),
      distinct: new Set(reports.flatMap(({ values }) => values)).size,
      misses: reports.reduce((sum, { misses }) => sum + misses, 0),
      failures: reports.flatMap(({ failures }) => failures),
    };
    console.log(`${name}, ${what}: ${JSON.stringify(total)}`);
    return total;
  }

  const once = { computed: 1, stored: 1, answered: callers, distinct: 1, misses: 0, failures: [] };

  it(`is computed once for ${callers} callers in ${processes} processes`, async () => {
    const loads = await readyAll("cold", 60_000);
    const reports = await Promise.all(loads.map((load) => load.stop()));
    expect(account("all alive", reports)).toEqual(once);
  });

  it("is computed once more, by exactly one other, when the first to compute it is killed", async () => {
    const leaseTtlMs = 2_000;
    const loads = await readyAll("orphaned", leaseTtlMs);
    await using first = await ready({ key: "orphaned", leaseTtlMs, callers: 1, stuck: true });
    void first.stop().catch(() => undefined);
    await until(() => first.told.includes("leased"), { what: "the first to hold the lease" });
    const reports = Promise.all(loads.map((load) => load.stop()));
    await first.kill();
    expect(account("the first killed", await reports)).toEqual(once);
  });

  it("is not asked for again from those who come just as it is stored", async () => {
    using client = createCacheClient(servers[0]?.grpcAddress ?? "");
    using other = createCacheClient(servers.at(-1)?.grpcAddress ?? "");
    const leaseTtl = { seconds: 60n };
    let again = 0;
    for (let round = 0; round < 150; round++) {
      const key = `just-${round}`;
      const { reply } = await client.call(CacheService.method.get, { namespace, key, leaseTtl });
      const comers = [client, other, client, other].map((comer) =>
        comer.call(CacheService.method.get, { namespace, key, leaseTtl }),
      );
      const filled = client.put(namespace, key, "v", { leaseToken: reply.lease?.token ?? "" });
      comers.push(...[other, client].map((comer) => comer.call(CacheService.method.get, { namespace, key, leaseTtl })));
      expect((await filled).reply.outcome).toBe(SetOutcome.STORED);
      const answers = await Promise.all(comers);
      again += answers.filter((answer) => answer.reply.lease !== undefined).length;
      expect(answers.every((answer) => answer.reply.entry !== undefined || answer.reply.lease !== undefined)).toBe(
        true,
      );
    }
    expect(again).toBe(0);
  });

  it("is refused from one whose lease went to another", async () => {
    using client = createCacheClient(servers[0]?.grpcAddress ?? "");
    using other = createCacheClient(servers.at(-1)?.grpcAddress ?? "");
    const key = "superseded";
    const first = await client.call(CacheService.method.get, { namespace, key, leaseTtl: { nanos: 300_000_000 } });
    const second = await other.call(CacheService.method.get, { namespace, key, leaseTtl: { seconds: 60n } });
    expect(second.reply.lease).toBeDefined();
    const late = await client.put(namespace, key, "late", { leaseToken: first.reply.lease?.token ?? "" });
    expect(late.reply.outcome).toBe(SetOutcome.LEASE_LOST);
    const good = await other.put(namespace, key, "good", { leaseToken: second.reply.lease?.token ?? "" });
    expect(good.reply.outcome).toBe(SetOutcome.STORED);
    await until(async () => (await client.text(namespace, key)) === "good", { what: "the good value on both" });
  });

  it("is refused when one of its tags was invalidated, or the key changed, while it was computed", async () => {
    using client = createCacheClient(servers[0]?.grpcAddress ?? "");
    using other = createCacheClient(servers.at(-1)?.grpcAddress ?? "");
    const lease = async (key: string) => {
      const { reply } = await client.call(CacheService.method.get, { namespace, key, leaseTtl: { seconds: 60n } });
      return reply.lease?.token ?? "";
    };
    const [tagged, untagged, deleted] = [await lease("tagged"), await lease("untagged"), await lease("deleted")];
    await other.call(CacheService.method.invalidateTags, { namespace, tags: ["prices"] });
    await other.call(CacheService.method.delete, { namespace, key: "deleted" });
    const outcomeOf = async (key: string, leaseToken: string) =>
      (await client.put(namespace, key, "old", { leaseToken, tags: key === "tagged" ? ["prices"] : [] })).reply.outcome;
    expect(await outcomeOf("tagged", tagged)).toBe(SetOutcome.OVERTAKEN);
    expect(await outcomeOf("deleted", deleted)).toBe(SetOutcome.LEASE_LOST);
    expect(await outcomeOf("untagged", untagged)).toBe(SetOutcome.STORED);
    for (const key of ["tagged", "deleted"]) expect(await client.text(namespace, key, true)).toBeUndefined();
  });
});

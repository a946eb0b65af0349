import { describe, expect, it } from "vitest";
import { createCacheClient } from "../support/cache-client.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { isCountReport } from "../support/load-count.ts";
import { startLoad } from "../support/load-process.ts";
import { until } from "../support/until.ts";
import { durableConfig } from "./outage.ts";

/*
 * Promises: increments by many processes through two instances are all counted, each once, and each sees a sum of its own; a
 * request that is sent again, even at the same time and through the other instance, adds nothing and is told the first answer.
 */

const seed = 20_260_713;
const processes = 8;
const increments = 60;
const keys = ["views", "likes", "sales"];

describe.each([
  ["Redis and Postgres", async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() })],
  ["Postgres alone", async () => ({ DATABASE_URL: await freshDatabase() })],
])("counters of two instances on %s", (name, env) => {
  it.each(["default", "durable"])(`in a %s namespace are exact after ${processes} processes`, async (namespace) => {
    await using parts = new AsyncDisposableStack();
    // A machine that stalls for a moment is no outage of Redis: then increments would be kept in two places, and healed.
    const patience = { REDIS_COMMAND_TIMEOUT: "10s", DATABASE_STATEMENT_TIMEOUT: "60s" };
    const settings = { ...(await env()), ...patience, HOLDFAST_CONFIG: durableConfig(parts) };
    const servers = [parts.use(await startHoldfast(settings)), parts.use(await startHoldfast(settings))];
    const addresses = servers.map(({ grpcAddress }) => grpcAddress);
    const job = { addresses, namespace, keys, increments, callers: 2 };
    const loads = await Promise.all(
      Array.from({ length: processes }, (_, n) =>
        startLoad("load-count.ts", { ...job, seed: seed + n }, isCountReport),
      ),
    );
    await until(() => loads.every(({ told }) => told.includes("ready")), { what: "the processes to be ready" });
    const reports = await Promise.all(loads.map((load) => load.stop()));
    const sum = (of: (report: (typeof reports)[number]) => number) => reports.reduce((all, one) => all + of(one), 0);
    console.log(
      `seed ${seed}, ${name}, ${namespace}: ${processes * increments} increments, ${sum((r) => r.retries)} sent twice,`,
      `${sum((r) => r.contended)} turned away, ${sum((r) => r.failures.length)} failed`,
    );
    expect(reports.flatMap(({ failures }) => failures)).toEqual([]);
    expect(reports.flatMap(({ contradicted }) => contradicted)).toEqual([]);
    for (const key of keys) {
      const added = sum((report) => report.added.get(key) ?? 0);
      for (const address of addresses) {
        using client = createCacheClient(address);
        expect(await client.text(namespace, key, true)).toBe(String(added));
      }
      const seen = reports.flatMap(({ sums }) => sums.get(key) ?? []).sort((a, b) => Number(a - b));
      expect(seen).toEqual(Array.from({ length: added }, (_, i) => BigInt(i + 1)));
    }
  });
});

import { expect, it } from "vitest";
import { coverScript } from "../../src/conversation/hot/redis-copy-scripts.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { believing, copiesOf, openAgain, openTruth, startHot } from "./hot-parts.ts";

/** The real Redis, that tells of each cover that is sent to it. */
function told(redis: Redis, onCover: () => void): Redis {
  return Object.create(redis, {
    run: {
      value: (...[script, keys, args]: Parameters<Redis["run"]>) => {
        if (script === coverScript) onCover();
        return redis.run(script, keys, args);
      },
    },
  });
}

it("a Redis that freezes holds up the writers of each instance once, not with each write", async () => {
  await using server = await startRedis();
  const { where } = await openTruth("postgres");
  const covers = [0, 0];
  const instances = await Promise.all(
    covers.map((_, at) =>
      startHot({
        ...{ database: openAgain(where), redisUrl: server.url, sweepMs: 50 },
        // Nothing but the bound on covers ends the waiting: neither the connection nor the breaker notices.
        ...{ commandTimeoutMs: 600_000, failureThreshold: 1_000_000 },
        wrap: (redis) => told(redis, () => covers.splice(at, 1, (covers[at] ?? 0) + 1)),
      }),
    ),
  );
  await believing(...instances);
  await instances[0]?.save("c", 1);
  await copiesOf(instances, "c", 1);
  covers.fill(0);
  server.pause();
  for (let value = 2; value < 12; value++) {
    for (const [at, one] of instances.entries()) expect((await one.save(`c${at}`, value)).kind).toBe("done");
  }
  expect(covers).toEqual([1, 1]);
  server.resume();
  await believing(...instances);
  for (const id of ["c0", "c1"]) {
    for (const one of instances) {
      await until(async () => (await one.value(id)).layer === "redis", { what: `a copy of ${id}` });
      expect((await one.value(id)).value).toBe(11);
    }
  }
  for (const one of instances) await one.save("c", 2);
  expect(covers).toEqual([2, 2]);
});

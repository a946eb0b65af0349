import { Redis } from "ioredis";
import { expect, it } from "vitest";
import { createCacheClient } from "../support/cache-client.ts";
import { createRegisterHistory } from "../support/load-history.ts";
import type { RegisterReport } from "../support/load-register.ts";
import { healed, readBack, startSetup } from "./outage.ts";

/* Promises: the checker that the chaos tests of the cache rely on does catch an old value, in a history and in real servers. */

const state = (number: number) => ({ number, version: BigInt(number * 10) });

it("counts a read that shows less than was acknowledged before it began", () => {
  const history = createRegisterHistory();
  history.acknowledged("k", state(1));
  const before = history.floor("k");
  history.acknowledged("k", state(2));
  // It began before 2 was acknowledged: 1 may still be shown.
  history.saw("one", "k", state(1), before);
  history.saw("one", "k", state(3), history.floor("k"));
  history.saw("one", "other", undefined, history.floor("other"));
  expect(history.account).toMatchObject({ reads: 3, holes: 0, violations: 0 });
  history.saw("one", "k", undefined, history.floor("k"));
  history.saw("two", "k", state(1), history.floor("k"));
  expect(history.account).toMatchObject({ reads: 5, holes: 1, violations: 1 });
  history.saw("two", "k", { number: 2, version: 19n }, history.floor("k"));
  expect(history.account.examples).toEqual([
    "two: k was 1 (version 10), acknowledged 2 (version 20)",
    "two: k was 2 (version 19), acknowledged 2 (version 20)",
  ]);
});

it("catches an old record that is put back into Redis after an outage, and only that one", async () => {
  await using setup = await startSetup("cluster");
  const [writer] = setup.instances;
  if (writer === undefined) throw new Error("no instance");
  await healed(setup);
  using client = createCacheClient(writer.grpcAddress);
  const history = createRegisterHistory();
  const write = async (key: string, number: number) => {
    const { reply } = await client.put("planted", key, String(number));
    history.acknowledged(key, { number, version: reply.version });
  };
  for (const key of ["a", "b", "c"]) await write(key, 1);
  const redis = new Redis(setup.redis.url);
  const name = "holdfast:cache:{planted/b}";
  const old = await redis.getBuffer(name);
  expect(old).not.toBeNull();
  redis.disconnect();

  await setup.redis.kill();
  for (const key of ["a", "b", "c"]) await write(key, 2);
  await setup.redis.restart();
  await healed(setup);
  const report: RegisterReport = {
    account: history.account,
    calls: 0,
    degraded: 0,
    failed: 0,
    failures: [],
    slowestMs: 0,
    slowest: "",
    tried: new Map(),
  };
  expect(await readBack(setup.instances, "planted", [report])).toMatchObject({ violations: 0, holes: 0, reads: 12 });

  const planter = new Redis(setup.redis.url);
  await planter.set(name, old ?? "");
  planter.disconnect();
  const { violations, examples } = await readBack(setup.instances, "planted", [report]);
  // Past memory through each instance, at the least; an instance that had no copy in memory is misled as well.
  expect(violations).toBeGreaterThanOrEqual(2);
  expect(examples.every((example) => /: b was 1 .*, acknowledged 2 /.test(example))).toBe(true);
});

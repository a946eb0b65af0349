import { rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RedisServer } from "../support/redis-server.ts";
import {
  COMMAND_TIMEOUT_MS,
  FREEZE_MS,
  healed,
  readBack,
  type Setup,
  SLACK_MS,
  startRegisters,
  startSetup,
  tell,
} from "./outage.ts";

/*
 * Promises: while Redis is killed, frozen or flapping under the load of several client processes, no call fails; none waits
 * longer than the command timeout (measured with much slack, against a freeze that is longer still); and an acknowledged write
 * never goes back, neither meanwhile for readers of the writer's instance, nor after the healing for anyone, nor in Redis.
 */

const seed = 20_260_711;
const pause = (ms: number) => delay(ms);

const faults: { name: string; mayForget: boolean; happen: (redis: RedisServer) => Promise<void> }[] = [
  {
    name: "killed, and comes back with its data",
    mayForget: false,
    happen: async (redis) => {
      await redis.kill();
      await pause(1_500);
      await redis.restart();
    },
  },
  {
    name: "frozen",
    mayForget: false,
    happen: async (redis) => {
      redis.pause();
      await pause(FREEZE_MS);
      redis.resume();
    },
  },
  {
    name: "flapping",
    mayForget: false,
    happen: async (redis) => {
      for (let turn = 0; turn < 4; turn++) {
        redis.pause();
        await pause(150 + 150 * turn);
        redis.resume();
        await pause(300);
        await redis.kill();
        await pause(150);
        await redis.restart();
        await pause(400);
      }
    },
  },
  {
    name: "killed, and comes back empty",
    mayForget: true,
    happen: async (redis) => {
      await redis.kill();
      await pause(1_000);
      rmSync(join(redis.directory, "appendonlydir"), { recursive: true });
      await redis.restart();
    },
  },
];

describe.each(["cluster", "single"] as const)("Redis in the %s topology", (topology) => {
  let setup: Setup;
  beforeAll(async () => {
    setup = await startSetup(topology);
  });
  afterAll(() => setup[Symbol.asyncDispose]());

  it.each(faults)("$name", async ({ name, mayForget, happen }) => {
    const { instances, redis } = setup;
    const namespace = `outage-${faults.findIndex((fault) => fault.name === name)}`;
    await healed(setup);
    const job = { namespace, keys: 30, writers: 3, readers: 2, medley: true, seed, pauseMs: 3 };
    const loads = await startRegisters(instances, job);
    await happen(redis);
    await healed(setup);
    await pause(300);
    const reports = await Promise.all(loads.map((load) => load.stop()));
    await healed(setup);
    const after = await readBack(instances, namespace, reports);
    console.log(tell(`seed ${seed}, ${topology}, ${name}`, reports, after));

    expect(reports.flatMap(({ failures }) => failures)).toEqual([]);
    expect(reports.flatMap(({ account }) => account.examples)).toEqual([]);
    expect(after.examples).toEqual([]);
    for (const { slowestMs, slowest } of reports) {
      expect(slowestMs, slowest).toBeLessThan(COMMAND_TIMEOUT_MS + SLACK_MS);
    }
    expect(reports.every(({ account }) => account.acknowledged.size > 0)).toBe(true);
    expect(reports.some(({ degraded }) => degraded > 0)).toBe(true);
    // Nothing was invalidated and memory is ample, so that a value is missed only where Redis forgot it.
    if (!mayForget) {
      expect(after.holes).toBe(0);
      expect(reports.map(({ account }) => account.holes)).toEqual(reports.map(() => 0));
    }
  });
});

import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { startHoldfast } from "../support/holdfast-process.ts";
import { createRandom } from "../support/load-child.ts";
import type { RegisterReport } from "../support/load-register.ts";
import { durableConfig, readBack, startRegisters, tell } from "./outage.ts";

/*
 * Promises: when the server is killed outright in the middle of writes, everything it had acknowledged is there after the next
 * start: in embedded mode, where SQLite is all there is, in durable namespaces and in others alike.
 */

const seed = 20_260_712;
const rounds = 3;

it(`every acknowledged write outlives ${rounds} kills of an embedded server, at random moments`, async () => {
  const random = createRandom(seed);
  await using parts = new AsyncDisposableStack();
  const server = parts.use(await startHoldfast({ HOLDFAST_CONFIG: durableConfig(parts) }));
  const earlier = new Map<string, RegisterReport[]>([
    ["truth", []],
    ["default", []],
  ]);
  for (let round = 0; round < rounds; round++) {
    const loads = await Promise.all(
      [...earlier.keys()].map((namespace, at) =>
        startRegisters([server], {
          namespace,
          // Keys of this round: those of the rounds before must stay as they were.
          round,
          keys: 20,
          writers: 4,
          readers: 1,
          medley: false,
          seed: seed + 100 * round + 1_000 * at,
          pauseMs: 0,
        }),
      ),
    );
    await delay(200 + random(800));
    await server.kill();
    const reports = await Promise.all(loads.map((group) => Promise.all(group.map((load) => load.stop()))));
    await server.restart();
    for (const [at, [namespace, past]] of [...earlier].entries()) {
      const now = reports[at] ?? [];
      past.push(...now);
      const after = await readBack([server], namespace, past);
      console.log(tell(`seed ${seed}, kill ${round + 1} of ${rounds}, namespace ${namespace}`, now, after));
      expect(now.every(({ account }) => account.acknowledged.size > 0)).toBe(true);
      expect(now.flatMap(({ account }) => account.examples)).toEqual([]);
      expect(now.map(({ account }) => account.holes)).toEqual(now.map(() => 0));
      expect(after).toMatchObject({ holes: 0, violations: 0, examples: [] });
    }
  }
});

import { join } from "node:path";
import { expect, it } from "vitest";
import { systemClock } from "../../src/infra/clock.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { createSqlClock } from "../../src/lock/authority/sql-clock.ts";
import { createSqlHeads } from "../../src/lock/authority/sql-heads.ts";
import { type Child, startChild } from "../support/child.ts";
import { freshDatabase } from "../support/fresh.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { until } from "../support/until.ts";
import { faultsOf, type Held } from "./lease-history.ts";
import { startMasters, type TestMaster, votes } from "./redlock-authorities.ts";

/* Two instances in processes of their own, whose callers want one lock, while its masters are taken away one at a time. */

/** So many grants have to be told while a master is away. */
const GRANTS = 20;

it("grants one lease at a time, with growing tokens, while one master after the other dies, freezes or forgets", async () => {
  await using running = await startMasters(3);
  const postgres = await freshDatabase();
  await prepare(postgres);
  await using parts = new AsyncDisposableStack();
  const urls = running.masters.map(({ server }) => server.url);
  const start = async (name: string) => parts.adopt(await startInstance([name, postgres, ...urls]), (it) => it.kill());
  const instances = [await start("one"), await start("two")];
  const history = () => instances.flatMap((instance) => toldBy(instance));
  const goesOn = async (what: string) => {
    const before = history().length;
    const grants = () => history().length >= before + GRANTS;
    await until(grants, { what: `${GRANTS} grants after a master ${what}` });
  };

  await goesOn("is there");
  for (const master of running.masters) {
    for (const [what, harm, heal] of HARM) {
      await harm(master);
      await goesOn(`was ${what}`);
      await heal(master);
      await until(() => votes(master), { what: "the master to vote" });
    }
  }
  await goesOn("came back");
  expect(instances.map((instance) => instance.exited())).toEqual([undefined, undefined]);
  expect(instances.map((instance) => toldBy(instance).length > GRANTS)).toEqual([true, true]);
  expect(faultsOf(history())).toEqual([]);
});

it("knows overlapping leases and tokens that do not grow when it sees them", () => {
  const fine = [held(1, 0, 10), held(2, 10, 20), held(5, 30, 40)];
  expect(faultsOf(fine)).toEqual([]);
  expect(faultsOf([...fine, held(6, 39, 50)])).toEqual(["6 was valid from 39, and 5 until 40"]);
  expect(faultsOf([...fine, held(5, 41, 50)])).toEqual(["5 was granted after 5"]);
  expect(faultsOf([...fine, held(4, 41, 50)])).toEqual(["4 was granted after 5"]);
});

// A master that is started again has forgotten everything.
const HARM: readonly (readonly [string, (it: TestMaster) => Promise<void>, (it: TestMaster) => Promise<void>])[] = [
  ["killed", ({ server }) => server.kill(), ({ server }) => server.restart()],
  ["frozen", async ({ server }) => server.pause(), async ({ server }) => server.resume()],
];

async function prepare(postgres: string): Promise<void> {
  await using parts = new AsyncDisposableStack();
  const database = parts.adopt(openTestDatabase("postgres", postgres), (it) => it.close());
  await migrate(database, migrations);
  await createSqlHeads(database, createSqlClock("postgres", systemClock)).become("redlock");
}

function startInstance(args: readonly string[]): Promise<Child> {
  return startChild({
    command: process.execPath,
    args: [join(import.meta.dirname, "redlock-process.ts"), ...args],
    isReady: (line) => line === "ready",
  });
}

function toldBy(instance: Child): Held[] {
  // The last line may not be whole yet.
  const lines = instance.output().split("\n").slice(0, -1);
  return lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
}

function held(token: number, from: number, until: number): Held {
  return { token, from, until };
}

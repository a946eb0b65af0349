import { join } from "node:path";
import { expect, it } from "vitest";
import { systemClock } from "../../src/infra/clock.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { createSqlClock } from "../../src/infra/sql-clock.ts";
import { createSqlHeads } from "../../src/lock/authority/sql-heads.ts";
import { type Child, startChild } from "../support/child.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { until } from "../support/until.ts";
import { faultsOf, type Held } from "./lease-history.ts";
import { startMasters, type TestMaster, votes } from "./redlock-authorities.ts";

/* Two instances in processes of their own, whose callers want one lock, while its masters are taken away one at a time. */

/** So many grants have to be told by each while a master is away. */
const GRANTS = 5;

it("grants one lease at a time, with growing tokens, while one master after the other dies, freezes or forgets", async () => {
  await using running = await startMasters(3);
  await using hammer = await startHammer(running.masters.map(({ server }) => server.port));
  await hammer.goesOn("is there");
  for (const master of running.masters) {
    for (const [what, harm, heal] of HARM) {
      await harm(master);
      await hammer.goesOn(`was ${what}`);
      await heal(master);
      await until(() => votes(master), { what: "the master to vote" });
    }
  }
  await hammer.goesOn("came back");
  expect(faultsOf(hammer.history())).toEqual([]);
});

it("grants one lease at a time, with growing tokens, while each instance reaches other masters", async () => {
  await using running = await startMasters(3);
  await using hammer = await startHammer(running.masters.map(({ server }) => server.port));
  const [one = [], two = []] = hammer.ways;
  for (const [first, second] of [
    [0, 1],
    [1, 2],
    [2, 0],
  ] as const) {
    one[first]?.cut();
    two[second]?.freeze();
    await hammer.goesOn("could not be reached");
    one[first]?.restore();
    two[second]?.thaw();
    await hammer.goesOn("was there again");
  }
  expect(faultsOf(hammer.history())).toEqual([]);
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

interface Hammer extends AsyncDisposable {
  /** Of each instance, to each master. */
  readonly ways: readonly (readonly TcpProxy[])[];
  /** What all instances were told so far. */
  history(): Held[];
  /** Resolves when every instance was told of some more grants. */
  goesOn(what: string): Promise<void>;
}

async function startHammer(ports: readonly number[]): Promise<Hammer> {
  await using parts = new AsyncDisposableStack();
  const postgres = await freshDatabase();
  const database = parts.adopt(openTestDatabase("postgres", postgres), (it) => it.close());
  await migrate(database, migrations);
  await createSqlHeads(database, createSqlClock("postgres", systemClock)).become("redlock");
  const start = async (name: string) => {
    const ways = await Promise.all(ports.map(async (port) => parts.use(await startTcpProxy(port))));
    const urls = ways.map(({ port }) => `redis://127.0.0.1:${port}`);
    return { ways, child: parts.adopt(await startInstance([name, postgres, ...urls]), (it) => it.kill()) };
  };
  const instances = [await start("one"), await start("two")];
  const counts = () => instances.map(({ child }) => toldBy(child).length);
  const kept = parts.move();
  return {
    ways: instances.map(({ ways }) => ways),
    history: () => instances.flatMap(({ child }) => toldBy(child)),
    async goesOn(what) {
      const before = counts();
      const isMore = () => counts().every((count, at) => count >= (before[at] ?? 0) + GRANTS);
      await until(isMore, { what: `${GRANTS} grants on each instance after a master ${what}` });
      expect(instances.map(({ child }) => child.exited())).toEqual([undefined, undefined]);
    },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
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

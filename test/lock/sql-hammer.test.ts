import { join } from "node:path";
import { expect, it } from "vitest";
import type { Database } from "../../src/infra/database.ts";
import { MOST_STREAK, YIELD_MS } from "../../src/lock/record/decide.ts";
import { type Child, startChild } from "../support/child.ts";
import { until } from "../support/until.ts";
import { openSqlAuthorities, takeOrder } from "./authorities.ts";
import { type TurnTaken, type TurnToldOf, turnFaultsOf } from "./turn-history.ts";

/* Instances in processes of their own, whose callers want few locks all the time. */

const NAMES = ["one", "two", "three"];
const GRANTS = 500;

it("serves the callers of three instances one at a time, each line in its order, and no instance too often in a row", async () => {
  await using opened = await openSqlAuthorities("postgres");
  await opened.instances[0].heads.allowLeases("postgres", 60_000);
  await using parts = new AsyncDisposableStack();
  const starting = NAMES.map(async (name) => parts.adopt(await startInstance(name, opened.where), (it) => it.kill()));
  const instances = await Promise.all(starting);
  const takenBy = (instance: Child) => saidBy(instance).filter((said) => said.kind === "taken");
  // One of them dies while it has locks: the others go on when its leases are over.
  await until(() => instances.flatMap(takenBy).length > GRANTS / 2, { what: "grants", timeoutMs: 60_000 });
  await instances[2]?.kill();
  const before = instances.flatMap(takenBy).length;
  const goesOn = () => instances.flatMap(takenBy).length > before + GRANTS / 2;
  await until(goesOn, { what: "grants of those who are left", timeoutMs: 60_000 });

  expect(instances.map((instance) => instance.exited())).toEqual([undefined, undefined, "SIGKILL"]);
  const all = instances.flatMap(saidBy);
  const told = all.filter((said) => said.kind === "told");
  const taken = all.filter((said) => said.kind === "taken");
  expect(new Set(taken.map(({ instance }) => instance)).size).toBe(NAMES.length);
  for (const lock of ["nightly", "weekly"]) {
    const mine = <Said extends TurnTaken | TurnToldOf>(said: readonly Said[]) =>
      said.filter((one) => one.lock === lock);
    expect(mine(taken).length).toBeGreaterThan(100);
    expect(turnFaultsOf(mine(taken), mine(told))).toEqual([]);
  }
});

it("would catch instances that do not wait for each other", async () => {
  await using opened = await openSqlAuthorities("postgres", { count: 3, spoil: withoutLocks });
  await opened.instances[0].heads.allowLeases("postgres", 60_000);
  let granted = 0;
  const names = Array.from({ length: 40 }, (_, at) => `lock-${at}`);
  for (const name of names) {
    const all = await Promise.all(opened.instances.map(({ authority }) => authority.take(takeOrder(name))));
    granted += all.filter(({ kind }) => kind === "granted").length;
  }
  expect(granted).toBeGreaterThan(names.length);
});

it("knows turns that are taken out of order when it sees them", () => {
  const turns = Array.from({ length: MOST_STREAK + 1 }, (_, at) => turn(at + 1));
  expect(turnFaultsOf(turns, [])).toEqual([]);
  const last = MOST_STREAK;
  const told: TurnToldOf = { kind: "told", instance: "two", lock: "nightly", token: last, at: last * 10 + 1 };
  expect(turnFaultsOf(turns, [told])).toEqual([`one took ${last + 1} out of turn`]);
  expect(turnFaultsOf(turns, [{ ...told, instance: "one" }])).toEqual([]);
  const later = turn(last + 1, { from: last * 10 + 5 + YIELD_MS, until: last * 10 + 10 + YIELD_MS });
  expect(turnFaultsOf([...turns.slice(0, -1), later], [told])).toEqual([]);
  expect(turnFaultsOf([turn(1, { place: 2 }), turn(2, { place: 1 })], [])).toEqual([
    "2 went to one who came to one later",
  ]);
});

function turn(token: number, given: Partial<TurnTaken> = {}): TurnTaken {
  const times = { from: token * 10, until: token * 10 + 5 };
  return { kind: "taken", instance: "one", lock: "nightly", place: token, token, ...times, ...given };
}

function startInstance(name: string, url: string): Promise<Child> {
  const args = [join(import.meta.dirname, "sql-process.ts"), name, url];
  return startChild({ command: process.execPath, args, isReady: (line) => line === "ready" });
}

function saidBy(instance: Child): (TurnTaken | TurnToldOf)[] {
  // The last line may not be whole yet.
  const lines = instance.output().split("\n").slice(0, -1);
  return lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
}

/** The bug that is planted: nobody meets anybody. */
function withoutLocks(database: Database): Database {
  return {
    ...database,
    transaction: (work) =>
      database.transaction((tx) =>
        work({
          ...tx,
          query: (sql, params) => tx.query(sql.replace(/COUNT\(pg_advisory_xact_lock\(.*?\)\)/, "COUNT(1)"), params),
        }),
      ),
  };
}

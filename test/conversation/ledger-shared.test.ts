import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { NO_COPIES } from "../../src/conversation/hot/hot-copies.ts";
import { createSqlLedger } from "../../src/conversation/ledger/sql-ledger.ts";
import type { Database } from "../../src/infra/database.ts";
import { type Child, startChild } from "../support/child.ts";
import { until } from "../support/until.ts";
import { type Act, expectLinear, hammer } from "./hammer.ts";
import { expectCounts } from "./ledger-tables.ts";
import { DEFAULT_POLICY, done, KINDS, type OpenLedgers, openLedgers, save } from "./ledgers.ts";

const KEYS = ["c1", "c2", "c3"].map((id) => ({ collection: "conversation", id }));

async function createAll({ instances: [one] }: OpenLedgers): Promise<void> {
  for (const key of KEYS) await done(one, save("{}", { key }));
}

function startProcess(open: OpenLedgers, name: string, rounds: number): Promise<Child> {
  const path = join(import.meta.dirname, "ledger-process.ts");
  return startChild({
    ...{ command: process.execPath, args: [path, open.where, name, String(rounds)] },
    isReady: (line) => line === "ready",
  });
}

/** What a process said that was acknowledged. */
function actsOf(child: Child): Act[] {
  const whole = child.output().split("\n").slice(0, -1);
  return whole.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Act);
}

describe.each(KINDS)("ledgers that share a database, in %s", (kind) => {
  it("lose nothing and double nothing of what 32 writers write to the same conversations", async () => {
    await using open = await openLedgers(kind, { count: 3 });
    await createAll(open);
    const acts: Act[] = [];
    const { instances } = open;
    await Promise.all(
      instances.map(({ ledger }, at) =>
        hammer({
          ...{ ledger, name: `i${at}`, keys: KEYS, writers: Math.ceil(32 / instances.length), rounds: 12 },
          acknowledged: (act) => void acts.push(act),
        }),
      ),
    );
    await expectLinear(instances[0].database, acts, true);
    await expectCounts(instances[0].database, "conversation");
  });
});

describe("ledgers in processes that share a Postgres", () => {
  it("lose nothing of what was acknowledged when one of them is killed", async () => {
    await using open = await openLedgers("postgres");
    await createAll(open);
    const first = await startProcess(open, "p1", 1_000_000);
    const second = await startProcess(open, "p2", 30);
    await until(() => actsOf(first).length > 150, { what: "150 writes of the first process" });
    await first.kill();
    await until(() => second.output().endsWith("done\n"), { what: "the end of the second process" });
    await second.stop("SIGTERM");
    const acts = [...actsOf(first), ...actsOf(second)];
    expect(actsOf(second).length).toBe(16 * 30);
    await expectLinear(open.instances[0].database, acts, false);
    await expectCounts(open.instances[0].database, "conversation");
  });

  it("would be caught if they did not wait for each other", async () => {
    await using open = await openLedgers("postgres");
    await createAll(open);
    const [{ database }] = open.instances;
    const ledgers = [1, 2, 3].map(() =>
      createSqlLedger({
        ...{ database: withoutLocks(database), copies: NO_COPIES, clock: open.clock },
        ...{ policyFor: () => DEFAULT_POLICY, onCommit: () => {} },
      }),
    );
    const acts: Act[] = [];
    const all = ledgers.map((ledger, at) =>
      hammer({
        ...{ ledger, name: `i${at}`, keys: KEYS, writers: 10, rounds: 12 },
        acknowledged: (act) => void acts.push(act),
      }),
    );
    const ended = await Promise.allSettled(all);
    const failed = ended.some(({ status }) => status === "rejected");
    const wrong = await expectLinear(database, acts, true).then(
      () => false,
      () => true,
    );
    expect([failed, wrong]).toContain(true);
  });
});

/** The bug that is planted: nobody waits for the lock of the head. */
function withoutLocks(database: Database): Database {
  return {
    ...database,
    transaction: (work) =>
      database.transaction((tx) =>
        work({ ...tx, query: (sql, params) => tx.query(sql.replace(" FOR UPDATE", ""), params) }),
      ),
  };
}

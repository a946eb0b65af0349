import { describe, expect, it, onTestFinished } from "vitest";
import type { Database } from "../../src/infra/database.ts";
import { KINDS } from "./archives.ts";
import { openGroups } from "./group-instances.ts";
import { hammer } from "./groups-hammer.ts";

const LOAD = { group: "hammered", records: 600, consumers: 8 };

async function setup(kind: (typeof KINDS)[number]) {
  const open = await openGroups(kind);
  onTestFinished(() => open[Symbol.asyncDispose]());
  await open.append(LOAD.records);
  return open;
}

describe.each(KINDS)("consumers that share a group over %s", (kind) => {
  it("have each record by themselves, until one of them has acked it", async () => {
    const open = await setup(kind);
    expect(await hammer(open, [open.first, open.second], LOAD)).toEqual([]);
    expect(await open.second.groups.condition(LOAD.group)).toMatchObject({ lag: 0, pending: 0, deadLetters: 0 });
  });

  it("get some records twice at a time where a claim takes what it read without looking again, which is noticed", async () => {
    const open = await setup(kind);
    // Any delivery that is under way counts as due.
    const careless = (sql: string) => sql.replace("d.due_ms <= $2", "d.due_ms <= $2 + 86400000");
    const instances = [open.first, open.second].map(({ database }) => open.instance(edited(database, careless)));
    expect(await hammer(open, instances, LOAD)).not.toEqual([]);
  });
});

describe("consumers that share a group on several instances", () => {
  it("get in each other's way where claims do not hold the group, which is noticed", async () => {
    const open = await setup("postgres");
    const unlocked = (sql: string) => sql.replace("FOR UPDATE", "");
    const instances = [open.first, open.second].map(({ database }) => open.instance(edited(database, unlocked)));
    expect(await hammer(open, instances, LOAD)).not.toEqual([]);
  });
});

/** The same database, given other statements. */
function edited(database: Database, edit: (sql: string) => string): Database {
  return {
    ...database,
    query: (sql, params) => database.query(edit(sql), params),
    write: (sql, params) => database.write(edit(sql), params),
    transaction: (work) =>
      database.transaction((tx) =>
        work({
          query: (sql, params) => tx.query(edit(sql), params),
          each: (sql, rows) => tx.each(edit(sql), rows),
        }),
      ),
  };
}

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { leavesOf, type Run, runsOf } from "../../src/audit/queue/run.ts";
import { idOf } from "../../src/audit/record/record.ts";
import { recordOf } from "./queue-parts.ts";

const records = fc
  .uniqueArray(fc.tuple(fc.constantFrom("a", "b"), fc.integer({ min: 1, max: 30 })), { selector: (id) => id.join("/") })
  .chain((ids) =>
    fc.tuple(fc.constant(ids), fc.array(fc.nat(40_000), { minLength: ids.length, maxLength: ids.length })),
  )
  .map(([ids, sizes]) =>
    ids.map(([producer, sequence], at) => ({
      ...recordOf(producer, sequence),
      leaf: Buffer.alloc(sizes[at] ?? 0, sequence),
    })),
  );

describe("runs", () => {
  it("are the records in their order, byte by byte", () => {
    fc.assert(
      fc.property(records, (all) => {
        const found = runsOf(all).flatMap(leavesOf);
        expect(found.map(({ id }) => idOf(id))).toEqual(all.map(idOf));
        expect(found.every(({ leaf }, at) => all[at]?.leaf instanceof Buffer && all[at].leaf.equals(leaf))).toBe(true);
      }),
    );
  });

  it("have no more than a record beyond 64 KiB, and are not split without need", () => {
    fc.assert(
      fc.property(records, (all) => {
        const runs = runsOf(all);
        for (const run of runs) expect(run.first === run.last || run.leaves.length <= 64 * 1024).toBe(true);
        for (const [at, next] of runs.slice(1).entries()) {
          const run = runs[at];
          if (run?.producer !== next.producer || run.last + 1 !== next.first) continue;
          const [first] = leavesOf(next);
          expect(run.leaves.length + 4 + (first?.leaf.length ?? 0)).toBeGreaterThan(64 * 1024);
        }
      }),
    );
  });

  it("that are not what they say are not read at all", () => {
    const [run] = runsOf([recordOf("p", 1), recordOf("p", 2)]);
    if (run === undefined) throw new Error("there is a run");
    const others: Run[] = [
      { ...run, last: 1 },
      { ...run, last: 3 },
      { ...run, last: 0 },
      { ...run, first: Number.NaN },
      { ...run, last: Number.POSITIVE_INFINITY },
    ];
    for (let end = 0; end < run.leaves.length; end++) others.push({ ...run, leaves: run.leaves.subarray(0, end) });
    for (const other of others) expect(() => leavesOf(other)).toThrow("are not the audit records");
  });
});

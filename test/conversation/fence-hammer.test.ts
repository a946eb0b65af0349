import { describe, expect, it } from "vitest";
import type { Ledger } from "../../src/conversation/ledger/ledger.ts";
import { FencingTokenStaleError } from "../../src/infra/fencing.ts";
import { raiseFence } from "../../src/infra/sql-fences.ts";
import { hammerFences, lateWrites } from "./fence-hammer.ts";
import { KINDS, type OpenLedger, openLedgers } from "./ledgers.ts";

/* Promises: whatever a process believes of its locks, nothing is written under an older token once something was under a newer one. */

describe.each(KINDS)("ledgers whose writers lose their locks and do not know it, in %s", (kind) => {
  it("commit the writes under a lock in the order of its tokens", async () => {
    await using open = await openLedgers(kind, { count: 3 });
    const { instances } = open;
    const { accepted, refused } = await hammerFences(
      instances.map(({ ledger }) => ledger),
      instances.length === 1 ? 12 : 6,
    );
    expect(await lateWrites(instances[0].database, accepted)).toEqual([]);
    // Otherwise nobody had come too late, or nobody in time.
    expect(Math.min(refused, accepted.length)).toBeGreaterThan(10);
    const tokens = await instances[0].database.query("SELECT lock, token FROM fence ORDER BY lock");
    const newest = (lock: string) => Math.max(...accepted.filter((it) => it.lock === lock).map(({ token }) => token));
    expect(tokens).toEqual(["a", "b"].map((lock) => ({ lock, token: newest(lock) })));
  });
});

describe("ledgers that look at the tokens before the commit, and not in it", () => {
  /** The bug that is planted. */
  function looksBefore({ ledger, database }: OpenLedger): Pick<Ledger, "carryOut"> {
    return {
      async carryOut({ fence, ...order }) {
        const newest = fence === undefined ? 0 : await raiseFence(database, fence);
        if (fence !== undefined && newest > fence.token) throw new FencingTokenStaleError(fence, newest);
        return ledger.carryOut(order);
      },
    };
  }

  it("are caught", async () => {
    let late = 0;
    // It is a race: now and then nobody loses it.
    for (let run = 0; run < 5 && late === 0; run++) {
      await using open = await openLedgers("postgres", { count: 3 });
      const { accepted } = await hammerFences(open.instances.map(looksBefore), 6);
      late = (await lateWrites(open.instances[0].database, accepted)).length;
    }
    expect(late).toBeGreaterThan(0);
  });
});

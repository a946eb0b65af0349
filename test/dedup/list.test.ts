import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ListQuery } from "../../src/dedup/list/listing.ts";
import { createSqlListing } from "../../src/dedup/list/sql-listing.ts";
import { type Claim, type ClaimId, stateOf } from "../../src/dedup/record/claim.ts";
import { createSqlSweep } from "../../src/dedup/sql-sweep.ts";
import { type PlannedDatabase, recordPlans } from "../conversation/plans.ts";
import { type MovedClock, movedClock } from "../support/moved-clock.ts";
import { SQL_KINDS } from "../support/test-database.ts";
import { claimOrder, completeOrder, type OpenTruths, openTruths, releaseOrder } from "./truths.ts";

const COUNT = 600;
const ALL: ListQuery = { namespace: "n", prefix: "", state: undefined, owner: "", limit: 100, after: undefined };

/** Keys of every sort, and checksums; some of another namespace. */
function idAt(at: number): ClaimId {
  const namespace = at % 10 === 9 ? "other" : "n";
  if (at % 7 === 0) return { namespace, kind: "checksum", text: at.toString(16).padStart(32, "0") };
  const start = ["imports/", "imports", "Imports/", "ü/", "\u{1f4a5}", "%_"][at % 6] ?? "";
  return { namespace, kind: "key", text: `${start}${at % 13}-${at}` };
}

const placeOf = ({ id }: Claim) => Buffer.concat([Buffer.from(id.kind === "key" ? "1" : "2"), Buffer.from(id.text)]);

describe.each(SQL_KINDS)("listings of claims in %s", (kind) => {
  let clock: MovedClock;
  let opened: OpenTruths;
  let planned: PlannedDatabase;
  const kept: Claim[] = [];
  beforeAll(async () => {
    clock = movedClock();
    opened = await openTruths(kind, { clock });
    const { truth, database } = opened.instances[0];
    await Promise.all(
      Array.from({ length: COUNT }, async (_, at) => {
        const id = idAt(at);
        const leaseMs = at % 4 === 0 ? 1_000 : 600_000;
        const claimed = await truth.claim(
          claimOrder(id, { owner: `owner-${at % 5}`, leaseMs, ttlMs: at % 11 === 0 ? 1_000 : 86_400_000 }),
        );
        if (claimed.kind !== "first") throw new Error(`${id.text} was claimed twice`);
        const { token } = claimed.claim;
        if (at % 3 === 0) await truth.complete(completeOrder(id, token));
        if (at % 17 === 0) await truth.release(releaseOrder(id, token));
        const found = await truth.get(id);
        if (found !== undefined) kept.push(found.claim);
      }),
    );
    clock.move(5_000);
    // So that Postgres knows what is in the table, as it would after a while.
    if (kind === "postgres") await database.write("ANALYZE dedup_claim");
    planned = recordPlans(database);
  });
  afterAll(() => opened[Symbol.asyncDispose]());

  async function listed(query: ListQuery): Promise<Claim[]> {
    const listing = createSqlListing(planned.database, opened.instances[0].clock);
    const claims: Claim[] = [];
    for (let after = query.after; ; ) {
      const page = await listing.page({ ...query, after });
      expect(page.claims.length).toBeLessThanOrEqual(query.limit);
      claims.push(...page.claims);
      if (page.next === undefined) return claims;
      after = page.next;
    }
  }

  function expected({ namespace, prefix, state, owner }: ListQuery): Claim[] {
    return kept
      .filter((claim) => {
        const stands = stateOf(claim, clock.now());
        if (stands === undefined || claim.id.namespace !== namespace) return false;
        if (prefix !== "" && !(claim.id.kind === "key" && claim.id.text.startsWith(prefix))) return false;
        return (state === undefined || stands === state) && (owner === "" || claim.owner === owner);
      })
      .sort((a, b) => Buffer.compare(placeOf(a), placeOf(b)));
  }

  const filters: readonly Partial<ListQuery>[] = [
    {},
    { namespace: "other" },
    { namespace: "empty" },
    { prefix: "imports/" },
    { prefix: "ü" },
    { prefix: "%" },
    { prefix: "\u{1f4a5}" },
    { prefix: "no such" },
    { owner: "owner-3" },
    { owner: "nobody" },
    { owner: "owner-2", prefix: "imports" },
    ...(["in_progress", "abandoned", "completed"] as const).flatMap((state) => [
      { state },
      { state, owner: "owner-1" },
    ]),
  ];

  it.each(filters)("have each claim that matches %o once, in order, however large the pages", async (filter) => {
    for (const limit of [1_000, 7]) {
      const query = { ...ALL, ...filter, limit };
      expect((await listed(query)).map(({ token }) => token)).toEqual(expected(query).map(({ token }) => token));
    }
  });

  it("go along indexes, and sort nothing", async () => {
    planned.asked.length = 0;
    await listed(ALL);
    await listed({ ...ALL, owner: "owner-1" });
    await listed({ ...ALL, state: "abandoned" });
    const steps = planned.asked.filter(({ sql }) => sql.includes("dedup_claim")).map(({ plan }) => plan.join(" "));
    expect(steps.length).toBeGreaterThan(2);
    for (const step of steps) expect(step).not.toMatch(/SCAN dedup|Seq Scan|TEMP B-TREE|Sort /);
    const indexes = ["dedup_claim_owner", "dedup_claim_open"];
    for (const index of indexes) expect(steps.join("\n")).toContain(index);
  });

  it("leave claims, and what removes them, to indexes as well", async () => {
    const { truth, clock: sqlClock } = opened.instances[0];
    planned.asked.length = 0;
    await createSqlSweep(planned.database, sqlClock)(1);
    const steps = planned.asked.filter(({ sql }) => sql.includes("expire_ms <=")).map(({ plan }) => plan.join(" "));
    expect(steps.join("\n")).toContain("dedup_claim_expire");
    expect(await truth.get(idAt(1))).toBeDefined();
  });
});

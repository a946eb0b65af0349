import { describe, expect, it } from "vitest";
import { COPIES_GONE_MS, LONGEST_DOCUMENT_MS } from "../../src/conversation/hot/copy-store.ts";
import { NO_COPIES } from "../../src/conversation/hot/hot-copies.ts";
import type { Ledger } from "../../src/conversation/ledger/ledger.ts";
import { createSqlLedger } from "../../src/conversation/ledger/sql-ledger.ts";
import { createSqlRemains } from "../../src/conversation/upkeep/sql-remains.ts";
import { type Clock, systemClock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { freshRedis } from "../support/fresh.ts";
import { until } from "../support/until.ts";
import {
  believing,
  copiesOf,
  type HotInstance,
  keyOf,
  openAgain,
  openTruth,
  startHot,
  stateWith,
} from "./hot-parts.ts";
import { DEFAULT_POLICY, KINDS } from "./ledgers.ts";

/** The ledger of an instance without Redis. */
function withoutRedis(database: Database, clock: Clock = systemClock): Ledger {
  return createSqlLedger({ database, clock, copies: NO_COPIES, policyFor: () => DEFAULT_POLICY, onCommit: () => {} });
}

const save = (ledger: Ledger, id: string, value: number) =>
  ledger.carryOut({ kind: "save", key: keyOf(id), requestId: "", state: stateWith(value), messages: [] });

async function unhealed(database: Database): Promise<readonly string[]> {
  const rows = await database.query<{ id: string }>("SELECT id FROM conversation WHERE unhealed <> 0 ORDER BY id");
  return rows.map(({ id }) => id);
}

/** The number that the document says, if there is one. */
async function documentOf({ redis }: HotInstance, id: string): Promise<number | undefined> {
  const text = await redis.command("get", `conversation:${id}`);
  return typeof text === "string" ? (JSON.parse(text) as { value: number }).value : undefined;
}

describe("what an instance without Redis writes", () => {
  it("beside others that have it is not hidden by their copies", async () => {
    const { where, database } = await openTruth("postgres");
    const one = await startHot({ database, redisUrl: await freshRedis(), sweepMs: 20 });
    await believing(one);
    await one.save("saved", 1);
    await one.save("deleted", 1);
    await copiesOf([one], "saved", 1);
    await copiesOf([one], "deleted", 1);
    const other = withoutRedis(openAgain(where));
    expect((await save(other, "saved", 2)).degraded).toBe(false);
    await other.carryOut({ kind: "delete", key: keyOf("deleted"), requestId: "" });
    await until(async () => (await one.value("saved")).value === 2, { what: "the newer version" });
    await until(async () => (await one.value("deleted")).value === undefined, { what: "the deletion" });
    await copiesOf([one], "saved", 2);
    await until(async () => (await unhealed(database)).length === 0, { what: "the healing" });
  });

  it.each(KINDS)("between two runs with Redis is not hidden by the copies of the first, %s", async (kind) => {
    const { database } = await openTruth(kind);
    const redisUrl = await freshRedis();
    const before = await startHot({ database, redisUrl });
    await believing(before);
    await before.save("c", 1);
    await copiesOf([before], "c", 1);
    await before.close();
    await save(withoutRedis(database), "c", 2);
    const after = await startHot({ database, redisUrl });
    await believing(after);
    expect((await after.value("c")).value).toBe(2);
    await copiesOf([after], "c", 2);
  });

  it.each(KINDS)(
    "for days between two runs with Redis is not hidden by the documents of the first, %s",
    async (kind) => {
      const { database } = await openTruth(kind);
      const redisUrl = await freshRedis();
      const before = await startHot({ database, redisUrl, documents: true });
      await believing(before);
      const forEver = { ttlMs: "never", sliding: undefined } as const;
      for (const id of ["saved", "deleted"]) {
        const order = { kind: "save", key: keyOf(id), requestId: "", state: stateWith(1), messages: [] } as const;
        await before.ledger.carryOut({ ...order, expiry: forEver });
        await until(async () => (await documentOf(before, id)) === 1, { what: `the document of ${id}` });
      }
      await before.close();
      const later = { ...systemClock, now: () => systemClock.now() + LONGEST_DOCUMENT_MS };
      const without = withoutRedis(database, later);
      await save(without, "saved", 2);
      await without.carryOut({ kind: "delete", key: keyOf("deleted"), requestId: "" });
      // Its tombstone is not to be kept any more, but for the document.
      const afterwards = later.now() + DEFAULT_POLICY.tombstoneMs;
      for await (const page of createSqlRemains(database).outlived(afterwards * 1000)) expect(page).toEqual([]);
      const after = await startHot({ database, redisUrl, documents: true });
      await believing(after);
      await until(async () => (await documentOf(after, "saved")) === 2, { what: "the newer document" });
      expect(await documentOf(after, "deleted")).toBeUndefined();
    },
  );

  it.each(KINDS)("is not marked where there are no copies, nor when they are long gone, %s", async (kind) => {
    const { database } = await openTruth(kind);
    await save(withoutRedis(database), "before", 1);
    const one = await startHot({ database, redisUrl: await freshRedis() });
    await believing(one);
    await one.close();
    await save(withoutRedis(database), "soon after", 1);
    const later = { ...systemClock, now: () => systemClock.now() + COPIES_GONE_MS };
    await save(withoutRedis(database, later), "long after", 1);
    expect(await unhealed(database)).toEqual(["soon after"]);
  });
});

import { describe, expect, it } from "vitest";
import { copyKeys } from "../../src/conversation/hot/copy-keys.ts";
import type { Database, SqlRow } from "../../src/infra/database.ts";
import { freshRedis } from "../support/fresh.ts";
import { until } from "../support/until.ts";
import { copied, heldUp, stopped } from "./cover-parts.ts";
import { believing, copiesOf, keyOf, openAgain, openTruth, startHot, stateWith } from "./hot-parts.ts";

/** The real database, for a reader who is told at once and hears of it only when the gate opens. */
function slowToHear(database: Database, reached: () => void, gate: Promise<void>): Database {
  return {
    ...database,
    async query<Row extends SqlRow>(sql: string, params?: Parameters<Database["query"]>[1]) {
      const rows = await database.query<Row>(sql, params);
      if (!sql.includes("conversation_state")) return rows;
      reached();
      await gate;
      return rows;
    },
  };
}

describe("a reader that is slow", () => {
  it("does not put an old copy over a newer one, nor where one is on its way", async () => {
    const { database, redisUrl, one } = await copied("postgres");
    for (const value of [2, 3]) {
      await one.redis.command("flushdb");
      const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      const slow = await startHot({ redisUrl, database: slowToHear(database, reached.resolve, gate.promise) });
      await believing(slow);
      const reading = slow.value("c");
      await reached.promise;
      const committed = Promise.withResolvers<void>();
      // Of the second one only the cover is there when the slow reader comes.
      const writer =
        value === 2
          ? one
          : await startHot({
              redisUrl,
              isDoomed: true,
              database: heldUp(database, { after: () => stopped(committed.resolve) }),
            });
      await believing(writer);
      const written = writer.save("c", value).then(() => committed.resolve());
      await committed.promise;
      if (value === 2) await written;
      gate.resolve();
      expect((await reading).value).toBe(value - 1);
      // What it sent is there when what is sent after it is answered.
      await slow.redis.ping();
      expect((await one.value("c")).value).toBe(value);
      expect(await one.copied("c")).not.toBe(value - 1);
    }
  });

  it("does not bring back what was given a moment to live, and has expired", async () => {
    const { database } = await openTruth("postgres");
    const redisUrl = await freshRedis();
    const [one, other] = await Promise.all([0, 1].map(() => startHot({ database, redisUrl })));
    if (one === undefined || other === undefined) throw new Error("no instances");
    await one.save("c", 1);
    const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const slow = await startHot({ redisUrl, database: slowToHear(database, reached.resolve, gate.promise) });
    await believing(one, other, slow);
    await one.redis.command("flushdb");
    const reading = slow.value("c");
    await reached.promise;
    const expiry = { ttlMs: 1, sliding: false };
    const given = { kind: "save", key: keyOf("c"), requestId: "", messages: [], state: stateWith(2), expiry } as const;
    const saved = await one.ledger.carryOut(given);
    if (saved.kind !== "done") throw new Error("it was not saved");
    const { copy } = copyKeys(keyOf("c"));
    const isFilled = async () => (await one.copied("c")) === 2 || (await one.redis.command("exists", copy)) === 0;
    await until(isFilled, { what: "the copy" });
    await until(() => Date.now() * 1000 > (saved.held.expiresUs ?? 0) + 1_000, { what: "the end" });
    gate.resolve();
    expect((await reading).value).toBe(1);
    await slow.redis.ping();
    expect(await other.copied("c")).not.toBe(1);
  });

  it("leaves no old copy behind where a flush took the cover away", async () => {
    const { where, database } = await openTruth("postgres");
    const redisUrl = await freshRedis();
    const one = await startHot({ database, redisUrl });
    await believing(one);
    await one.save("c", 1);
    const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const before = async () => {
      reached.resolve();
      await gate.promise;
    };
    const writer = await startHot({ redisUrl, database: heldUp(openAgain(where), { before }) });
    await believing(writer);
    const writing = writer.save("c", 2);
    await reached.promise;
    await one.redis.command("flushdb");
    // The cover is gone, and what is to be covered is not committed yet.
    expect(await one.value("c")).toEqual({ value: 1, layer: "postgres" });
    await copiesOf([one], "c", 1);
    gate.resolve();
    await writing;
    await copiesOf([one], "c", 2);
  });

  it("does not make this instance go back, even where Redis does", async () => {
    const { one } = await copied();
    const { copy } = copyKeys(keyOf("c"));
    const [old] = await one.redis.getBuffers([copy]);
    if (old == null) throw new Error("no copy");
    await one.save("c", 2);
    await copiesOf([one], "c", 2);
    await one.redis.command("set", copy, old);
    expect(await one.value("c")).toEqual({ value: 2, layer: "sqlite" });
  });
});

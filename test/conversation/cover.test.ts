import { describe, expect, it } from "vitest";
import { AT } from "../../src/conversation/hot/copy-bytes.ts";
import { copyKeys } from "../../src/conversation/hot/copy-keys.ts";
import type { Database, SqlRow, SqlSession } from "../../src/infra/database.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { freshRedis } from "../support/fresh.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { believing, copiesOf, keyOf, openAgain, openTruth, startHot, stateWith } from "./hot-parts.ts";

type Point = (rows: SqlSession) => Promise<void>;

/** The real database, for an instance that is held up at a point of each transaction: before it commits, or after. */
function heldUp(database: Database, points: { before?: Point; after?: () => Promise<void> }): Database {
  return {
    ...database,
    async transaction<T>(work: (tx: SqlSession) => Promise<T>): Promise<T> {
      const result = await database.transaction(async (tx) => {
        const done = await work(tx);
        await points.before?.(tx);
        return done;
      });
      await points.after?.();
      return result;
    },
  };
}

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

/** Goes no further than this. */
function stopped(reached: () => void): Promise<never> {
  reached();
  return new Promise(() => {});
}

/** An instance that has a conversation "c" of the value 1, and its copy. */
async function copied(...[kind]: Parameters<typeof openTruth>) {
  const { where, database } = await openTruth(kind);
  const redisUrl = await freshRedis();
  const one = await startHot({ database, redisUrl });
  await believing(one);
  await one.save("c", 1);
  await copiesOf([one], "c", 1);
  return { where, database, redisUrl, one };
}

describe("a writer that stops", () => {
  it("between its cover and its commit leaves what was there before", async () => {
    const { where, redisUrl, one } = await copied("postgres");
    const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const before = async () => {
      reached.resolve();
      await gate.promise;
      throw new UnavailableError("SQL_UNAVAILABLE", "the connection was lost");
    };
    const doomed = await startHot({ redisUrl, database: heldUp(openAgain(where), { before }) });
    await believing(doomed);
    const refused = expect(doomed.save("c", 2)).rejects.toThrow(UnavailableError);
    await reached.promise;
    expect(await one.copied("c")).toBeUndefined();
    expect(await one.value("c")).toEqual({ value: 1, layer: "postgres" });
    gate.resolve();
    await refused;
    // Nobody knows that it was not committed, and what readers bring is older than the cover.
    for (let i = 0; i < 3; i++) expect(await one.value("c")).toEqual({ value: 1, layer: "postgres" });
    await one.save("c", 3);
    await copiesOf([one], "c", 3);
  });

  it("between its commit and its copy leaves a cover that yields to the first reader", async () => {
    const { database, redisUrl, one } = await copied("postgres");
    const { promise: reached, resolve } = Promise.withResolvers<void>();
    const after = () => stopped(resolve);
    const doomed = await startHot({ redisUrl, isDoomed: true, database: heldUp(database, { after }) });
    await believing(doomed);
    void doomed.save("c", 2);
    await reached;
    expect(await one.value("c")).toEqual({ value: 2, layer: "postgres" });
    await copiesOf([one], "c", 2);
  });

  it("because SQL is away takes no copy with it, so that readers still have it", async () => {
    const { database, redisUrl, one } = await copied("postgres");
    const { copy } = copyKeys(keyOf("c"));
    const covered = async () => (await one.redis.getBuffers([copy]))[0]?.toString("latin1", 4, 20) !== "0".repeat(16);
    let wasCovered = false;
    const refusing: Database = {
      ...database,
      transaction: (work) =>
        database.transaction((tx) =>
          work({
            ...tx,
            async query(sql, params) {
              if (!sql.startsWith("UPDATE conversation_head")) return tx.query(sql, params);
              await until(covered, { what: "the cover" });
              wasCovered = true;
              throw new UnavailableError("SQL_UNAVAILABLE", "away");
            },
          }),
        ),
    };
    const lonely = await startHot({ redisUrl, database: refusing });
    await believing(lonely);
    await expect(lonely.save("c", 2)).rejects.toThrow(UnavailableError);
    expect(wasCovered).toBe(true);
    await copiesOf([one, lonely], "c", 1);
  });
});

describe("a cover", () => {
  it("is not taken away by the writer before, who gave up", async () => {
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: await freshRedis() });
    await believing(one);
    await one.save("c", 1);
    await copiesOf([one], "c", 1);
    const held = (await one.get("c")).what?.held;
    if (held === undefined) throw new Error("it is not there");
    const before = await one.copies.cover([{ ...held, stamp: held.stamp + 1 }]);
    const after = await one.copies.cover([{ ...held, stamp: held.stamp + 2 }]);
    before.withdraw();
    await one.redis.ping();
    expect(await one.copied("c")).toBeUndefined();
    expect(await one.value("c")).toEqual({ value: 1, layer: "sqlite" });
    const copy = await one.copies.read(keyOf("c"));
    expect(copy).toBeUndefined();
    const changed = { ...held, stamp: held.stamp + 2 };
    after.lift([{ held: changed, state: undefined }]);
    await until(async () => (await one.copies.readHeld(keyOf("c")))?.stamp === changed.stamp, { what: "the copy" });
  });

  it("that ran out before anybody knew whether its writer committed is not taken away by one who gives up", async () => {
    const { database } = await openTruth();
    const one = await startHot({ database, redisUrl: await freshRedis() });
    await believing(one);
    await one.save("c", 1);
    await copiesOf([one], "c", 1);
    const held = (await one.get("c")).what?.held;
    if (held === undefined) throw new Error("it is not there");
    const { copy } = copyKeys(keyOf("c"));
    const coverStamp = async () =>
      Number((await one.redis.getBuffers([copy]))[0]?.toString("latin1", AT.cover, AT.until));
    await one.copies.cover([{ ...held, stamp: held.stamp + 1 }]);
    await one.redis.command("setrange", copy, AT.until, "1".padStart(16, "0"));
    const next = await one.copies.cover([{ ...held, stamp: held.stamp + 2 }]);
    expect(await coverStamp()).toBe(held.stamp + 2);
    next.withdraw();
    await until(async () => (await coverStamp()) === held.stamp + 1, { what: "the cover of before" });
    expect(await one.copied("c")).toBeUndefined();
    // Nor does it keep out what the truth says.
    expect(await one.value("c")).toEqual({ value: 1, layer: "sqlite" });
    await copiesOf([one], "c", 1);
  });
});

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

describe("a write whose copy cannot be made", () => {
  it("is healed by others, because the cover may have gone with Redis", async () => {
    const redisUrl = new URL(await freshRedis());
    await using proxy = await startTcpProxy(Number(redisUrl.port));
    const { where, database } = await openTruth("postgres");
    const other = await startHot({ database, redisUrl: redisUrl.href, sweepMs: 20 });
    redisUrl.port = String(proxy.port);
    const [reached, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const after = async () => {
      reached.resolve();
      await gate.promise;
    };
    const cut = await startHot({ database: heldUp(openAgain(where), { after }), redisUrl: redisUrl.href });
    await believing(other, cut);
    await other.save("c", 1);
    await copiesOf([other], "c", 1);
    const { copy } = copyKeys(keyOf("c"));
    const [old] = await other.redis.getBuffers([copy]);
    if (old == null) throw new Error("no copy");
    const writing = cut.save("c", 2);
    await reached.promise;
    proxy.cut();
    await other.redis.command("set", copy, old);
    expect((await other.value("c")).value).toBe(1);
    gate.resolve();
    await writing;
    await until(async () => (await other.value("c")).value === 2, { what: "the old copy to be dropped" });
  });
});

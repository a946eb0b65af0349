import { describe, expect, it } from "vitest";
import { AT } from "../../src/conversation/hot/copy-bytes.ts";
import { copyKeys } from "../../src/conversation/hot/copy-keys.ts";
import type { Database } from "../../src/infra/database.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { freshRedis } from "../support/fresh.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { copied, heldUp, stopped } from "./cover-parts.ts";
import { believing, copiesOf, keyOf, openAgain, openTruth, startHot } from "./hot-parts.ts";

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

  it("is not taken away by an attempt before it that had the same stamp", async () => {
    const { one } = await copied();
    const held = (await one.get("c")).what?.held;
    if (held === undefined) throw new Error("it is not there");
    const next = { ...held, stamp: held.stamp + 1 };
    const first = await one.copies.cover([next]);
    const second = await one.copies.cover([next]);
    first.withdraw();
    await one.redis.ping();
    expect(await one.copied("c")).toBeUndefined();
    second.withdraw();
    // The first one is back: who put it there could not take it away, and it runs out by itself.
    await one.redis.ping();
    expect(await one.copied("c")).toBeUndefined();
    expect((await one.value("c")).value).toBe(1);
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

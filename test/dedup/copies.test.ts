import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { createSqlHead } from "../../src/dedup/copies/sql-head.ts";
import type { Database } from "../../src/infra/database.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { freshRedis } from "../support/fresh.ts";
import { movedClock } from "../support/moved-clock.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { SQL_KINDS } from "../support/test-database.ts";
import { until } from "../support/until.ts";
import { type DedupInstance, type InstanceOptions, startInstance } from "./instances.ts";
import { claimOrder, completeOrder, idOf, type OpenTruth, openTruths, type TruthsOptions, tokenOf } from "./truths.ts";

async function openPair(kind: "sqlite" | "postgres" = "sqlite", options: TruthsOptions = {}) {
  const opened = await openTruths(kind, { count: 2, ...options });
  onTestFinished(() => opened[Symbol.asyncDispose]());
  return opened.instances;
}

/** A database that can be taken away. */
function fickle() {
  let isAway = false;
  const unlessAway = <T>(work: () => Promise<T>): Promise<T> =>
    isAway ? Promise.reject(new UnavailableError("SQL_UNAVAILABLE", "taken away by the test")) : work();
  const spoil = (database: Database): Database => ({
    ...database,
    query: (sql, params) => unlessAway(() => database.query(sql, params)),
    transaction: (work) => unlessAway(() => database.transaction(work)),
  });
  return { spoil, take: () => (isAway = true), bring: () => (isAway = false) };
}

/** A Redis whose scripts are sent when the gate is opened. */
function gated(isShut = true) {
  let gate = Promise.withResolvers<void>();
  const sent: Promise<unknown>[] = [];
  let waiting = 0;
  const wrapRedis = (redis: Redis): Redis => ({
    ...redis,
    get connected() {
      return redis.connected;
    },
    run: (...args) => {
      waiting++;
      const sending = gate.promise.then(() => redis.run(...args));
      sent.push(sending.catch(() => undefined));
      return sending;
    },
  });
  if (!isShut) gate.resolve();
  return {
    wrapRedis,
    waiting: () => waiting,
    shut() {
      waiting = 0;
      gate = Promise.withResolvers<void>();
    },
    /** Resolves when what waited was answered, also where nobody waits for the answer any more. */
    async open() {
      gate.resolve();
      await Promise.all(sent);
    },
  };
}

const DONE = "done of me from the copy";
const ASKED = "done of me from the truth";

describe("copies of completed claims in Redis", () => {
  let truth: OpenTruth;
  let redisUrl: string;
  beforeEach(async () => {
    [truth] = await openPair();
    redisUrl = await freshRedis();
  });
  const start = (options: InstanceOptions = {}) => startInstance(truth, { redisUrl, ...options });

  it("answer duplicates, with the result", async () => {
    const instance = await start();
    await instance.done("a");
    await instance.copied("a");
    expect(await instance.outcome("a")).toBe(DONE);
  });

  it("are made anew by the first duplicate when Redis was flushed", async () => {
    const instance = await start();
    await instance.done("a");
    await instance.copied("a");
    await instance.redis?.command("flushdb");
    expect(await instance.outcome("a")).toBe(ASKED);
    await instance.copied("a");
    expect(await instance.outcome("a")).toBe(DONE);
  });

  it("are none of claims in progress", async () => {
    const instance = await start();
    await instance.dedup.claim(claimOrder(idOf("a")));
    expect(await instance.outcome("a")).toBe("in_progress");
    await instance.copies.close();
    expect(await instance.redis?.command("dbsize")).toBe(0);
  });

  it("answer, degraded, when the truth is away, and nobody is the first", async () => {
    const clock = movedClock();
    const { take, bring, spoil } = fickle();
    [truth] = await openPair("sqlite", { clock, spoil });
    const instance = await start({ clock });
    await instance.done("a");
    await instance.copied("a");
    take();
    clock.move(1_999);
    expect(await instance.outcome("a")).toBe(DONE);
    clock.move(1);
    expect(await instance.outcome("a")).toBe("done of me from the copy, degraded");
    await expect(instance.outcome("b")).rejects.toMatchObject({ reason: "SQL_UNAVAILABLE" });
    const retry = claimOrder(idOf("a"), { request: { id: "r", meaning: "m" } });
    expect(await instance.dedup.claim(retry)).toMatchObject({ kind: "copy", degraded: true });
    bring();
    clock.move(500);
    expect(await instance.outcome("b")).toBe("first");
    await until(async () => (await instance.outcome("a")) === DONE, { what: "copies that are believed again" });
  });

  it("are not believed when their time is over, by the clock of the truth", async () => {
    const clock = movedClock();
    [truth] = await openPair("sqlite", { clock });
    const instance = await start({ clock });
    const token = await tokenOf(truth.truth.claim(claimOrder(idOf("a"))));
    await instance.dedup.complete(completeOrder(idOf("a"), token, { ttlMs: 60_000 }));
    await instance.copied("a");
    clock.move(59_999);
    expect(await instance.copies.read(idOf("a"))).toBeDefined();
    clock.move(1);
    expect(await instance.copies.read(idOf("a"))).toBeUndefined();
    expect(await instance.outcome("a")).toBe("first");
  });

  it("are gone when a claim is forgotten, and the next is the first", async () => {
    const [one, two] = [await start(), await start()];
    const token = await one.done("a");
    await two.copied("a");
    expect(await one.forget("a", token)).toBe(true);
    expect(await two.outcome("a")).toBe("first");
  });

  it("are gone as well when the claim is completed just while it is forgotten", async () => {
    const holder = await start();
    const token = await tokenOf(truth.truth.claim(claimOrder(idOf("a"))));
    const get: OpenTruth["truth"]["get"] = async (id) => {
      const found = await truth.truth.get(id);
      if (found?.claim.status === "in_progress") {
        await holder.dedup.complete(completeOrder(id, token));
        await holder.copied("a");
      }
      return found;
    };
    const other = await startInstance({ ...truth, truth: { ...truth.truth, get } }, { redisUrl });
    expect(await other.forget("a", token)).toBe(true);
    expect(await holder.copies.read(idOf("a"))).toBeUndefined();
    expect(await holder.outcome("a")).toBe("first");
  });

  it("that come late do not bring back what was forgotten", async () => {
    const late = gated();
    const [one, two] = [await start({ wrapRedis: late.wrapRedis }), await start()];
    const token = await one.done("a");
    await until(() => late.waiting() > 0, { what: "a copy on its way" });
    expect(await two.forget("a", token)).toBe(true);
    await late.open();
    await one.copies.close();
    expect(await two.copies.read(idOf("a"))).toBeUndefined();
    expect(await two.outcome("a")).toBe("first");
  });

  it("that come late do not hide a younger claim", async () => {
    const late = gated();
    const [one, two] = [await start({ wrapRedis: late.wrapRedis }), await start()];
    const token = await one.done("a", "old");
    await until(() => late.waiting() > 0, { what: "a copy on its way" });
    await two.forget("a", token);
    await two.done("a", "new");
    await two.copied("a");
    await late.open();
    await one.copies.close();
    expect(await two.outcome("a")).toBe("new of me from the copy");
  });

  it("that come much too late are not stored at all", async () => {
    const late = gated(false);
    const fillMs = 200;
    const instance = await start({ wrapRedis: late.wrapRedis, fillMs });
    const serverMs = async () => {
      const time = await instance.redis?.command("time");
      return Array.isArray(time) ? Number(time[0]) * 1000 : 0;
    };
    // From now on the clock of the server is known. On a busy machine the first copies may be too late themselves.
    await instance.done("a");
    await until(async () => (await instance.outcome("a")) === DONE, { what: "a copy" });
    late.shut();
    await instance.done("b");
    await until(() => late.waiting() > 0, { what: "a copy on its way" });
    const since = await serverMs();
    await until(async () => (await serverMs()) > since + 1_000 + fillMs, { what: "a moment that is too late" });
    await late.open();
    await instance.copies.close();
    expect(await instance.copies.read(idOf("b"))).toBeUndefined();
  });

  it("are not made of a claim that is about to be forgotten", async () => {
    const instance = await start();
    const token = await instance.done("a");
    await instance.copies.close();
    await instance.redis?.command("flushdb");
    await truth.truth.forbidCopies(idOf("a"), token);
    expect(await instance.outcome("a")).toBe(ASKED);
    await instance.copies.close();
    expect(await instance.redis?.command("dbsize")).toBe(0);
  });

  it("are not believed of another truth", async () => {
    const instance = await start();
    await instance.done("a");
    await instance.copied("a");
    const [elsewhere] = await openPair();
    await truth.database.query("SELECT 1 AS one");
    await elsewhere.database.write("UPDATE holdfast_migration SET applied_at = applied_at + 1");
    const other = await startInstance(elsewhere, { redisUrl });
    expect(await other.outcome("a")).toBe("first");
  });

  it("let a retry of a call that claimed and completed at once be told again that it is the first", async () => {
    const instance = await start();
    const order = claimOrder(idOf("a"), { atOnce: true, request: { id: "r", meaning: "m" } });
    const token = await tokenOf(truth.truth.claim(order));
    expect(await instance.outcome("a")).toBe(" of me from the truth");
    await instance.copied("a");
    expect(await instance.dedup.claim(order)).toMatchObject({ kind: "first", again: true, claim: { token } });
    expect(await instance.outcome("a")).toBe(" of me from the copy");
  });

  it("are not believed when they are garbage", async () => {
    const instance = await start();
    await instance.done("a");
    await instance.copied("a");
    for (const garbage of ["", "x", "hfd1", "hfd1".padEnd(95, "x"), "\0".repeat(200)]) {
      await instance.redis?.command("set", "holdfast:dedup:default/key/a", garbage);
      expect(await instance.outcome("a")).toBe(ASKED);
      await instance.copies.close();
      expect(await instance.outcome("a")).toBe(DONE);
    }
    await instance.redis?.command("del", "holdfast:dedup:default/key/a");
    await instance.redis?.command("rpush", "holdfast:dedup:default/key/a", "a list");
    expect(await instance.outcome("a")).toBe(ASKED);
  });
});

describe("copies in a Redis that fails", () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(() => redis.stop());

  async function startTwo(): Promise<[DedupInstance, DedupInstance, OpenTruth]> {
    const [first, second] = await openPair("postgres");
    const one = await startInstance(first, { redisUrl: redis.url });
    const two = await startInstance(second ?? first, { redisUrl: redis.url });
    return [one, two, first];
  }

  it("are not believed when it comes back with what it had, which may be forgotten since", async () => {
    const [one, two] = await startTwo();
    const token = await one.done("a");
    await two.copied("a");
    await one.redis?.command("save");
    await one.forget("a", token);
    await redis.kill();
    await redis.restart();
    await until(() => two.redis?.connected, { what: "contact with Redis" });
    expect(await two.redis?.command("exists", "holdfast:dedup:default/key/a")).toBe(1);
    expect(await two.outcome("a")).toBe("first");
  });

  const away = () => Promise.reject(new UnavailableError("REDIS_UNAVAILABLE", "taken away by the test"));
  const UNREACHED: readonly [string, InstanceOptions["wrapRedis"]][] = [
    ["has none", undefined],
    ["does not reach it", (it) => ({ ...it, connected: true, command: away, run: away, getBuffers: away })],
    ["does not know in which life it is", (it) => ({ ...it, connected: true, lifeOf: () => undefined })],
  ];

  it.each(UNREACHED)("are believed by nobody any more when one forgets who %s", async (why, wrapRedis) => {
    const [, two, truth] = await startTwo();
    const apart = await startInstance(truth, wrapRedis && { redisUrl: redis.url, wrapRedis });
    const token = await two.done(why);
    await two.copied(why);
    expect(await two.outcome(why)).toBe(DONE);
    expect(await apart.forget(why, token)).toBe(true);
    expect(await two.outcome(why)).toBe("first");
    await until(() => two.copies.areCertain, { what: "a generation that is known" });
    // The copy is there still: it is of a generation that has ended.
    expect(await two.redis?.command("strlen", `holdfast:dedup:default/key/${why}`)).toBeGreaterThan(100);
    expect(await two.copies.read(idOf(why))).toBeUndefined();
    expect(await two.outcome(why)).toBe("in_progress");
  });

  it("cost a release the time of a timeout and of a belief, no more, while it is frozen; claims go on", async () => {
    const [one, two] = await startTwo();
    const token = await one.done("c");
    await two.copied("c");
    redis.pause();
    try {
      expect(await one.forget("c", token)).toBe(true);
      expect(await two.outcome("c")).toBe("first");
      expect(await one.outcome("c")).toBe("in_progress");
    } finally {
      redis.resume();
    }
    expect(await two.outcome("c")).toBe("in_progress");
  });
});

describe.each(SQL_KINDS)("the head of copies in %s", (kind) => {
  it("has nobody wait who forgets where nobody ever had copies, or after those who had were waited for", async () => {
    const clock = movedClock();
    const [{ database, clock: sqlClock }] = await openPair(kind, { clock });
    const head = createSqlHead(database, sqlClock);
    expect(await head.end()).toBe(0);
    await head.open();
    expect(await head.end()).toBe(2_100);
    clock.move(10_000);
    // When it ended is not known to the moment: who finds it ended of late waits as well.
    expect(await head.end()).toBe(2_100);
    clock.move(3_600_000);
    expect(await head.end()).toBe(0);
  });

  it("gives each generation a number of its own", async () => {
    const [{ database, clock }] = await openPair(kind);
    const head = createSqlHead(database, clock);
    const seen: number[] = [];
    for (let at = 0; at < 3; at++) {
      await head.open();
      await head.open();
      seen.push((await head.read()).generation);
      await head.end();
      expect((await head.read()).generation).toBeLessThan(0);
    }
    expect(seen).toEqual([...new Set(seen)].toSorted((a, b) => a - b));
    expect(seen.every((generation) => generation > 0)).toBe(true);
  });
});

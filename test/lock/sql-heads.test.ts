import { describe, expect, it } from "vitest";
import { Failure, UnavailableError } from "../../src/infra/failure.ts";
import { beginMode, holdHead } from "../../src/lock/authority/sql-heads.ts";
import { GRANTS_PER_EPOCH } from "../../src/lock/record/token.ts";
import { movedClock } from "../support/moved-clock.ts";
import { SQL_KINDS } from "../support/test-database.ts";
import { openSqlAuthorities, releaseOrder, renewOrder, takeOrder } from "./authorities.ts";
import { granted } from "./suite/parts.ts";

const changing = { kind: "unavailable", reason: "LOCK_AUTHORITY_CHANGING" };

describe.each(SQL_KINDS)("who decides about locks, kept in %s", (kind) => {
  it("waits until the last lease of who decided before is over, and then counts on", async () => {
    const clock = movedClock();
    await using opened = await openSqlAuthorities(kind, { clock });
    const [{ authority, heads }] = opened.instances;
    const first = await granted(authority, "nightly", { ttlMs: 20_000 });
    await granted(authority, "weekly", { ttlMs: 45_000 });
    expect(await heads.become("redis")).toMatchObject({ mode: "redis", quietMs: 45_000, longestMs: 0 });
    clock.move(5_000);
    expect(await heads.become(kind)).toMatchObject({ mode: kind, quietMs: 40_000 });
    for (const ask of [
      () => authority.take(takeOrder("other")),
      () => authority.renew(renewOrder(first.grant)),
      () => authority.release(releaseOrder(first.grant)),
      () => authority.look("nightly"),
      () => authority.list({ prefix: "", owner: undefined, mayUse: () => true, limit: 1, after: undefined }),
    ]) {
      await expect(ask()).rejects.toMatchObject({ ...changing, retryAfterMs: 40_000 });
    }
    clock.move(40_000);
    const next = await granted(authority, "nightly");
    expect(Math.floor(next.grant.token / GRANTS_PER_EPOCH)).toBe(Math.floor(first.grant.token / GRANTS_PER_EPOCH) + 2);
  });

  it("does not let go of the time to wait when it changes again meanwhile", async () => {
    const clock = movedClock();
    await using opened = await openSqlAuthorities(kind, { clock });
    const [{ authority, heads }] = opened.instances;
    await granted(authority, "nightly", { ttlMs: 60_000 });
    await heads.become("redis");
    await heads.allowLeases("redis", 1_000);
    clock.move(10_000);
    expect((await heads.become("redlock")).quietMs).toBe(50_000);
    expect((await heads.read()).quietMs).toBe(50_000);
    expect((await heads.become("redlock")).quietMs).toBe(50_000);
  });

  it("is left alone by who no longer decides", async () => {
    await using opened = await openSqlAuthorities(kind);
    const [{ authority, heads }] = opened.instances;
    await granted(authority, "nightly", { ttlMs: 1_000 });
    await heads.become("redis");
    const { epoch } = await heads.read();
    expect([await heads.allowLeases(kind, 3_600_000), await heads.nextEpoch(kind)]).toEqual([false, undefined]);
    expect(await heads.read()).toMatchObject({ mode: "redis", epoch, longestMs: 0 });
    await expect(authority.take(takeOrder("nightly"))).rejects.toMatchObject(changing);
    await expect(authority.take(takeOrder("nightly", { ttlMs: 7_200_000 }))).rejects.toMatchObject(changing);
  });

  it("waits for the leases that are held, and not for those that were given back or are over", async () => {
    const clock = movedClock();
    await using opened = await openSqlAuthorities(kind, { clock });
    const [{ authority, heads }] = opened.instances;
    const back = await granted(authority, "given-back", { ttlMs: 3_600_000 });
    await authority.release(releaseOrder(back.grant));
    await granted(authority, "over", { ttlMs: 1_000 });
    const short = await granted(authority, "held", { ttlMs: 5_000 });
    await authority.renew(renewOrder(short.grant, { ttlMs: 9_000 }));
    clock.move(2_000);
    expect(await heads.become("redis")).toMatchObject({ quietMs: 7_000 });
  });

  it("waits for what was announced of leases that are kept elsewhere, and not for long for what was short", async () => {
    const clock = movedClock();
    await using opened = await openSqlAuthorities(kind, { clock });
    const [{ heads }] = opened.instances;
    await heads.become("redis");
    expect(await heads.announce("redis", 3_600_000)).toMatchObject({ mode: "redis", busyMs: 3_600_000 });
    expect(await heads.announce("redis", 1_000)).toMatchObject({ busyMs: 3_600_000 });
    clock.move(3_599_000);
    expect(await heads.announce("redis", 5_000)).toMatchObject({ busyMs: 5_000 });
    await heads.nextEpoch("redis");
    expect(await heads.read()).toMatchObject({ busyMs: 5_000, longestMs: 0 });
    expect(await heads.announce("redlock", 9_000)).toBeUndefined();
    expect(await heads.become(kind)).toMatchObject({ quietMs: 5_000, busyMs: 0 });
    expect(await heads.announce("redis", 9_000)).toBeUndefined();
  });

  it("is not read, and nothing is announced, past a change that is under way", async () => {
    await using opened = await openSqlAuthorities(kind, { count: 2 });
    const { heads: asking, database: asked } = opened.instances.at(-1) ?? opened.instances[0];
    const { database, heads } = opened.instances[0];
    await heads.become("redis");
    const holds = Promise.withResolvers<void>();
    const commits = Promise.withResolvers<void>();
    const changing = database.transaction(async (tx) => {
      const row = await holdHead(kind, tx);
      holds.resolve();
      await commits.promise;
      await beginMode(tx, row, kind, Date.now());
    });
    await holds.promise;
    // In SQLite a reader sees what was committed last; there is one instance only, which would be that which changes it.
    const reading = kind === "postgres" ? asking.read() : undefined;
    const announcing = asking.announce("redis", 1_000);
    // Whoever does not wait has its answer by now.
    for (let pings = 0; pings < 5; pings++) await asked.ping();
    commits.resolve();
    await changing;
    expect(await announcing).toBeUndefined();
    if (reading !== undefined) expect((await reading).mode).toBe(kind);
  });

  it("begins each epoch once, whoever asks at the same time", async () => {
    await using opened = await openSqlAuthorities(kind, { count: 2 });
    const all = Array.from({ length: 20 }, (_, at) =>
      opened.instances[at % opened.instances.length]?.heads.nextEpoch(kind),
    );
    const epochs = await Promise.all(all);
    expect(new Set(epochs).size).toBe(20);
    expect((await opened.instances[0].heads.read()).epoch).toBe(Math.max(...epochs.map(Number)));
  });

  it("grants nothing late to who took while it changed", async () => {
    await using opened = await openSqlAuthorities(kind, { count: 2 });
    const [{ authority, heads }] = opened.instances;
    await granted(authority, "first", { ttlMs: 30_000 });
    const takes = Array.from({ length: 60 }, (_, at) =>
      authority.take(takeOrder(`lock-${at}`)).catch((error: unknown) => error),
    );
    const head = await heads.become("redis");
    const ended = await Promise.all(takes);
    const refused = ended.filter((one) => one instanceof Failure);
    for (const one of refused) expect(one).toMatchObject(changing);
    const last = await authority.take(takeOrder("last")).catch((error: unknown) => error);
    expect(last).toMatchObject(changing);
    expect(head.quietMs).toBeGreaterThan(0);
  });
});

describe.each(SQL_KINDS)("an authority over locks whose %s fails", (kind) => {
  it("cannot decide while it does not answer, and says so", async () => {
    let isAway = false;
    await using opened = await openSqlAuthorities(kind, {
      spoil: (database) => ({
        ...database,
        query: (...args) => (isAway ? away() : database.query(...args)),
        transaction: (work) => (isAway ? away() : database.transaction(work)),
      }),
    });
    const [{ authority }] = opened.instances;
    const { grant } = await granted(authority, "nightly");
    isAway = true;
    const unavailable = { kind: "unavailable", reason: "LOCK_AUTHORITY_UNAVAILABLE" };
    for (const ask of [
      () => authority.take(takeOrder("other")),
      () => authority.renew(renewOrder(grant)),
      () => authority.release(releaseOrder(grant)),
      () => authority.look("nightly"),
    ]) {
      await expect(ask()).rejects.toMatchObject(unavailable);
    }
    isAway = false;
    expect((await authority.renew(renewOrder(grant))).kind).toBe("renewed");
  });

  it("goes on with the others when it refuses one, and tries again what was undone", async () => {
    let undone = 0;
    await using opened = await openSqlAuthorities(kind, {
      spoil: (database) => ({
        ...database,
        transaction: (work) => {
          if (undone-- > 0) return Promise.reject(new Failure("conflict", "SQL_CONFLICT", "a test says so"));
          return database.transaction((tx) => {
            const each: typeof tx.each = (sql, rows) => (isHurtful(rows) ? refuse() : tx.each(sql, rows));
            const query: typeof tx.query = (sql, params = []) => (isHurtful(params) ? refuse() : tx.query(sql, params));
            return work({ ...tx, each, query });
          });
        },
      }),
    });
    const [{ authority }] = opened.instances;
    undone = 3;
    const names = ["one", "hurtful", "two"];
    const ended = await Promise.allSettled(names.map((name) => authority.take(takeOrder(name))));
    expect(ended.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect((await authority.look("two")).lease?.grant.name).toBe("two");
  });
});

function away(): Promise<never> {
  return Promise.reject(new UnavailableError("SQL_UNAVAILABLE", "a test says so"));
}

function refuse(): Promise<never> {
  return Promise.reject(new Error("refused"));
}

function isHurtful(params: readonly unknown[]): boolean {
  const text = (one: unknown): string =>
    one instanceof Uint8Array
      ? Buffer.from(one).toString("latin1")
      : Array.isArray(one)
        ? one.map(text).join()
        : String(one);
  return params.some((one) => text(one).includes("hurtful"));
}

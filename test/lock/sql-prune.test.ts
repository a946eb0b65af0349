import { describe, expect, it } from "vitest";
import { createLog } from "../../src/infra/log.ts";
import { ATTEMPT_KEPT_MS, RECORD_KEPT_MS } from "../../src/lock/authority/authority.ts";
import { pruneAttempts, pruneRecords } from "../../src/lock/authority/sql-prune.ts";
import { startLockSweeper } from "../../src/lock/authority/sql-sweeper.ts";
import { recordPlans } from "../conversation/plans.ts";
import { movedClock } from "../support/moved-clock.ts";
import { SQL_KINDS } from "../support/test-database.ts";
import { named, openSqlAuthorities, releaseOrder, type SqlKind, takeOrder } from "./authorities.ts";
import { granted } from "./suite/parts.ts";

async function openMoved(kind: SqlKind) {
  const clock = movedClock();
  const opened = await openSqlAuthorities(kind, { clock });
  const [{ database, authority, heads }] = opened.instances;
  const sweeper = startLockSweeper({ database, clock: async () => clock.now(), log: createLog({ level: "silent" }) });
  const count = async (table: string) => {
    const [row] = await database.query<{ count: number }>(`SELECT COUNT(*) AS count FROM ${table}`);
    return row?.count;
  };
  return {
    ...{ clock, database, authority, heads, sweeper, count },
    async [Symbol.asyncDispose]() {
      await sweeper.close();
      await opened[Symbol.asyncDispose]();
    },
  };
}

describe.each(SQL_KINDS)("locks that nobody has had for long, in %s", (kind) => {
  it("are forgotten, and their tokens are not granted again", async () => {
    await using open = await openMoved(kind);
    const { authority, clock, sweeper, count } = open;
    const names = Array.from({ length: 450 }, (_, at) => `job-${at}`);
    await Promise.all(names.map((name) => granted(authority, name, { ttlMs: 1_000 })));
    let last = 0;
    for (let round = 0; round < 5; round++) {
      const { grant } = await granted(authority, "often", { ttlMs: 1_000 });
      last = grant.token;
      await authority.release(releaseOrder(grant));
    }
    clock.move(500 + RECORD_KEPT_MS);
    const kept = await granted(authority, "kept");
    await sweeper.sweep();
    expect(await count("lock_record")).toBe(452);
    clock.move(501);
    await sweeper.sweep();
    expect(await count("lock_record")).toBe(1);
    expect(await authority.look("often")).toEqual({ lease: undefined, lastToken: 0 });
    expect((await authority.look("kept")).lease?.grant.token).toBe(kept.grant.token);
    expect((await granted(authority, "often")).grant.token).toBeGreaterThan(last);
    expect((await granted(authority, "new")).grant.token).toBeGreaterThan(last);
  });

  it("keep their tokens from being granted again when another epoch has begun since", async () => {
    await using open = await openMoved(kind);
    const { authority, clock, sweeper, heads } = open;
    const { grant } = await granted(authority, "nightly", { ttlMs: 1_000 });
    await heads.nextEpoch(kind);
    clock.move(2_000 + RECORD_KEPT_MS);
    await sweeper.sweep();
    const next = await granted(authority, "nightly");
    expect(next.grant.token).toBeGreaterThan(grant.token);
    expect(Math.floor(next.grant.token / 2 ** 32)).toBe(Math.floor(grant.token / 2 ** 32) + 1);
  });

  it("are as good as free while they are being forgotten", async () => {
    await using open = await openMoved(kind);
    const { authority, clock, sweeper } = open;
    const names = Array.from({ length: 300 }, (_, at) => `job-${at}`);
    const before = await Promise.all(names.map((name) => granted(authority, name, { ttlMs: 1_000 })));
    clock.move(2_000 + RECORD_KEPT_MS);
    const [after] = await Promise.all([
      Promise.all(names.map((name) => granted(authority, name))),
      sweeper.sweep(),
      sweeper.sweep(),
    ]);
    for (const [at, { grant }] of after.entries()) expect(grant.token).toBeGreaterThan(before[at]?.grant.token ?? 0);
    await sweeper.sweep();
    for (const { grant } of after) expect((await authority.look(grant.name)).lease?.grant.token).toBe(grant.token);
  });
});

describe.each(SQL_KINDS)("attempts to take locks, in %s", (kind) => {
  it("are known for ten minutes after the lease, and then forgotten", async () => {
    await using open = await openMoved(kind);
    const { authority, clock, sweeper, count } = open;
    const order = takeOrder("nightly", { request: named("r1"), ttlMs: 30_000 });
    await authority.take(order);
    await authority.remember("nightly", named("f1", "ForceRelease"), "found");
    clock.move(30_000 + ATTEMPT_KEPT_MS - 1);
    await sweeper.sweep();
    await expect(authority.take(order)).rejects.toMatchObject({ reason: "LOCK_ATTEMPT_OVER" });
    expect(await authority.remember("nightly", named("f1", "ForceRelease"), "again")).toBe("again");
    clock.move(1);
    await sweeper.sweep();
    expect(await count("lock_attempt")).toBe(1);
    expect((await authority.take(order)).kind).toBe("granted");
  });

  it("are known for longer when the lease was renewed", async () => {
    await using open = await openMoved(kind);
    const { authority, clock } = open;
    const order = takeOrder("nightly", { request: named("r1"), ttlMs: 30_000 });
    const taken = await authority.take(order);
    if (taken.kind !== "granted") throw new Error("not granted");
    const { token, name } = taken.lease.grant;
    await authority.renew({ name, token, ttlMs: 3_600_000, streamId: undefined, heir: undefined });
    clock.move(3_600_000 + ATTEMPT_KEPT_MS - 1);
    await expect(authority.take(order)).rejects.toMatchObject({ reason: "LOCK_ATTEMPT_OVER" });
  });
});

describe.each(SQL_KINDS)("much that is kept of locks, in %s", (kind) => {
  it("is not looked through for what is over, nor for one lock", async () => {
    await using open = await openMoved(kind);
    const { database, clock, authority } = open;
    await granted(authority, "some");
    const now = clock.now();
    const numbers = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)";
    await database.write(`INSERT INTO lock_record (name, token, owner, purpose, caller, instance_id, stream_id, request_id,
      request_meaning, ttl_ms, acquire_ms, expire_ms, renewals, ended, ended_ms, streak, wanted_until_ms, rival, rival_until_ms)
      ${numbers} SELECT 'job-' || CAST(n AS TEXT), n, 'o', '', '', 'i', '', '', '', 1000, 0,
        ${now} + CAST(n AS BIGINT) * 1000 - ${RECORD_KEPT_MS} - 100000, 0, '', 0, 1, 0, '', 0 FROM n`);
    await database.write(`INSERT INTO lock_attempt (name, request_id, meaning, note, forget_ms)
      ${numbers} SELECT 'job-' || CAST(n AS TEXT), 'r', 'm', '', ${now} + CAST(n AS BIGINT) * 1000 - 100000 FROM n`);
    await database.write("ANALYZE");
    const planned = recordPlans(database);
    const moved = async () => clock.now();
    expect(await pruneRecords(planned.database, moved, 60)).toBe(60);
    expect(await pruneRecords(planned.database, moved, 60)).toBe(40);
    expect(await pruneAttempts(planned.database, moved, 60)).toBe(60);
    expect(await pruneAttempts(planned.database, moved, 60)).toBe(40);
    await using other = await openSqlAuthorities(kind, { clock, spoil: () => planned.database });
    const [{ authority: watched }] = other.instances;
    await watched.take(takeOrder("job-5000", { request: named("r") })).catch(() => undefined);
    await Promise.all([1, 2, 3].map((at) => watched.take(takeOrder(`job-${6_000 + at}`, { request: named("s") }))));
    await watched.look("job-7000");
    await watched.list({ prefix: "job-19", owner: undefined, mayUse: () => true, limit: 10, after: undefined });
    // None of eleven thousand is held any more: a call looks at some of them, and tells where to go on.
    let pages = 0;
    for (let after: string | undefined = ""; after !== undefined; ) {
      const page = await watched.list({ prefix: "job-1", owner: undefined, mayUse: () => true, limit: 10, after });
      expect(page.leases).toEqual([]);
      ({ after } = page);
      pages++;
    }
    expect(pages).toBe(3);
    const looked = planned.asked.filter(({ sql }) => /lock_(record|attempt)/.test(sql));
    expect(looked.length).toBeGreaterThan(8);
    const scans =
      kind === "sqlite"
        ? /^SCAN lock_(record|attempt)(?! USING .*INDEX lock_record_held)/
        : /Seq Scan on lock_(record|attempt)/;
    const costly = looked.flatMap(({ sql, plan }) =>
      plan.filter((step) => scans.test(step)).map((step) => `${step}: ${sql}`),
    );
    expect(costly).toEqual([]);
  });
});

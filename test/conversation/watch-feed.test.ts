import { describe, expect, it, onTestFinished } from "vitest";
import { KIND } from "../../src/conversation/ledger/book.ts";
import type { Change, Scope } from "../../src/conversation/watch/change.ts";
import { createChangeBell } from "../../src/conversation/watch/change-bell.ts";
import { createFeed } from "../../src/conversation/watch/feed.ts";
import { Follower } from "../../src/conversation/watch/follower.ts";
import { createSqlChanges } from "../../src/conversation/watch/sql-changes.ts";
import { pruneChanges } from "../../src/conversation/watch/sql-prune.ts";
import { Window } from "../../src/conversation/watch/window.ts";
import { createLocalBackplane, createLocalHub } from "../../src/infra/backplane-local.ts";
import type { Database, SqlRow, SqlValue } from "../../src/infra/database.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { done, KINDS, save } from "./ledgers.ts";
import { openWatches, structState, TestWatch, type WatchInstance, type WatchRequest } from "./watch-parts.ts";

const saved = (instance: WatchInstance, id: string, collection = "conversation") =>
  done(instance, save("", { key: { collection, id }, state: structState() }));

async function opened(instance: WatchInstance, request: WatchRequest): Promise<TestWatch> {
  const one = new TestWatch(instance, request);
  onTestFinished(() => one.end());
  await one.next();
  return one.run();
}

/** A database, and how often it was asked. */
function counted(database: Database) {
  const asked = { times: 0 };
  const query = <Row extends SqlRow>(sql: string, params?: readonly SqlValue[]) => {
    asked.times++;
    return database.query<Row>(sql, params);
  };
  return { asked, database: { ...database, query } };
}

describe.each(KINDS)("the feed of all watchers over %s", (kind) => {
  it("asks SQL once for all of them, and not at all for those whom a commit does not concern", async () => {
    await using open = await openWatches(kind);
    const { asked, database } = counted(open.second.database);
    const crowded = open.instance(database);
    const idle = await Promise.all(
      Array.from({ length: 200 }, (_, at) => opened(crowded, { collection: "idle", id: `c${at}` })),
    );
    const busy = await Promise.all(Array.from({ length: 100 }, () => opened(crowded, { collection: "busy" })));
    asked.times = 0;
    for (let more = 0; more < 30; more++) await saved(open.first, `c${more}`, "busy");
    for (const one of busy) await one.has(30);
    // One look for a commit, and perhaps some more while time passes; far from one for each watcher.
    expect(asked.times).toBeLessThan(100);
    await saved(open.first, "c7", "idle");
    await idle[7]?.has(1);
    expect(idle.filter(({ changes }) => changes.length > 0)).toHaveLength(1);
  });

  it("looks at none but those who watch the conversation or its collection", async () => {
    await using open = await openWatches(kind);
    const { first } = open;
    let looks = 0;
    const watched = (collection: string, id?: string): Scope => ({
      get collection() {
        looks++;
        return collection;
      },
      ...{ id, filter: undefined },
    });
    const bell = createChangeBell(createLocalBackplane({ hub: createLocalHub() }));
    const feed = createFeed({ changes: createSqlChanges(first.database), bell });
    using parts = new DisposableStack();
    const ids = Array.from({ length: 1_000 }, (_, at) => `c${at}`);
    for (const id of ids) parts.use(feed.follow(watched("busy", id), 0, 0, () => undefined));
    for (const id of ids) parts.use(feed.follow(watched(id), 0, 0, () => undefined));
    let woken = 0;
    parts.use(feed.follow(watched("busy"), 0, 0, () => woken++));
    parts.defer(() => bell.close());
    looks = 0;
    await saved(first, "c7", "busy");
    bell.ring();
    await until(() => woken > 0, { what: "the change" });
    expect(looks).toBeLessThan(10);
  });

  it("asks nothing while nobody watches", async () => {
    await using open = await openWatches(kind);
    const { asked, database } = counted(open.second.database);
    const quiet = open.instance(database);
    const one = await opened(quiet, { collection: "conversation" });
    await saved(open.first, "a");
    await one.has(1);
    one.end();
    await until(() => one.ended !== undefined, { what: "the end of the watch" });
    const before = asked.times;
    await saved(open.first, "b");
    const again = await opened(open.first, { collection: "conversation" });
    await saved(open.first, "c");
    await again.has(1);
    // What was under way when the last one left is all there may be.
    expect(asked.times).toBeLessThanOrEqual(before + 1);
  });

  it("reads a state once for all who want it", async () => {
    await using open = await openWatches(kind);
    const { asked, database } = counted(open.second.database);
    const crowded = open.instance(database);
    const request = { collection: "conversation", includeState: true };
    const watches = await Promise.all(Array.from({ length: 50 }, () => opened(crowded, request)));
    asked.times = 0;
    await saved(open.first, "a");
    for (const one of watches) {
      await one.has(1);
      expect(one.changes[0]?.state).toEqual({ user_id: "u1" });
    }
    expect(asked.times).toBeLessThan(25);
  });

  it("tells those who watch of the gap, when it was away for longer than changes are kept", async () => {
    await using open = await openWatches(kind);
    let isAway = false;
    let underWay = 0;
    const { database } = open.second;
    const query = async <Row extends SqlRow>(sql: string, params?: readonly SqlValue[]) => {
      await until(() => !isAway, { what: "the database to be back" });
      underWay++;
      return database.query<Row>(sql, params).finally(() => underWay--);
    };
    const frozen = open.instance({ ...database, query });
    const wide = await opened(frozen, { collection: "conversation" });
    const narrow = await opened(frozen, { collection: "conversation", id: "other" });
    await saved(open.first, "a");
    await wide.has(1);
    isAway = true;
    await until(() => underWay === 0, { what: "what is under way to end" });
    await saved(open.first, "b");
    await pruneChanges(open.first.database, Number.MAX_SAFE_INTEGER, 1_000);
    isAway = false;
    await Promise.all([wide.hasEvent("compacted"), narrow.hasEvent("compacted")]);
    await saved(open.first, "other");
    await Promise.all([wide.has(2), narrow.has(1)]);
    expect(wide.changes.map(({ summary }) => summary?.id)).toEqual(["a", "other"]);
  });

  it("forgets the oldest changes first, and none behind one that is not old", async () => {
    await using open = await openWatches(kind);
    const { database } = open.first;
    const times = [];
    for (let more = 0; more < 6; more++) {
      times.push(open.clock.now() * 1000);
      await saved(open.first, "a");
      open.clock.move(more === 2 ? -5 : 10);
    }
    const kept = async () =>
      (await database.query<{ seq: number }>("SELECT seq FROM conversation_change ORDER BY seq")).map(({ seq }) => seq);
    expect(await pruneChanges(database, (times[2] ?? 0) + 1, 2)).toBe(2);
    expect(await kept()).toEqual([3, 4, 5, 6]);
    expect(await pruneChanges(database, times[2] ?? 0, 100)).toBe(0);
    expect(await pruneChanges(database, (times[2] ?? 0) + 1, 100)).toBe(2);
    expect(await kept()).toEqual([5, 6]);
    expect(await pruneChanges(database, Number.MAX_SAFE_INTEGER, 100)).toBe(2);
    expect(await pruneChanges(database, Number.MAX_SAFE_INTEGER, 100)).toBe(0);
  });
});

describe("a watch whose SQL goes away", () => {
  it("ends with UNAVAILABLE, and says when to try again", async () => {
    await using open = await openWatches("postgres");
    const url = new URL(open.where);
    await using proxy = await startTcpProxy(Number(url.port));
    url.port = String(proxy.port);
    const database = openPostgres({ url: url.href, poolSize: 4, statementTimeoutMs: 2_000, connectTimeoutMs: 1_000 });
    onTestFinished(() => database.close());
    const behind = open.instance(database);
    const watches = [await opened(behind, {}), await opened(behind, { id: "a" })];
    await saved(open.first, "a");
    for (const one of watches) await one.has(1);
    proxy.cut();
    await until(() => watches.every(({ ended }) => ended !== undefined), { what: "the end of the watches" });
    const away = new TestWatch(behind, {});
    await away.next();
    for (const { ended } of [...watches, away]) {
      expect(ended).toBeInstanceOf(UnavailableError);
      expect(ended).toMatchObject({ reason: "SQL_UNAVAILABLE", retryAfterMs: 1_000 });
    }
    proxy.restore();
    const start = { case: "resumeToken" as const, value: watches[0]?.token ?? "" };
    await saved(open.first, "b");
    const back = await until(
      async () => {
        const one = await opened(behind, { start });
        if (one.ended !== undefined) throw one.ended;
        return one;
      },
      { what: "SQL to be back" },
    );
    const [change] = await back.has(1);
    expect(change?.summary?.id).toBe("b");
  });

  it("bears that SQL fails once", async () => {
    await using open = await openWatches("sqlite");
    const { database } = open.first;
    let failures = 0;
    const query: Database["query"] = async (sql, params) => {
      if (failures-- > 0) throw new UnavailableError("SQL_UNAVAILABLE", "away for a moment");
      return database.query(sql, params);
    };
    const one = await opened(open.instance({ ...database, query }), {});
    for (const count of [1, 2]) {
      failures = 2;
      await saved(open.first, "a");
      await one.has(count);
    }
  });
});

describe("the window of the latest changes", () => {
  const change = (seq: number, bytes = 10): Change => ({
    ...{ seq, collection: "conversation", id: `c${seq % 3}`, kind: KIND.updated, version: seq, previousVersion: 1 },
    ...{ generation: 1, stateVersion: seq, positions: undefined, before: undefined, changedUs: 0 },
    summary: new Uint8Array(bytes),
  });
  const scope = { collection: "conversation", id: "c0", filter: undefined };

  it("holds no more than it may, in number and in bytes", () => {
    const window = new Window(0, { changes: 3, bytes: 10_000 });
    for (let seq = 1; seq <= 5; seq++) window.add(change(seq));
    expect([window.start, window.position, window.get(2), window.get(3)?.seq]).toEqual([2, 5, undefined, 3]);
    window.add(change(6, 8_600));
    expect([window.start, window.get(6)?.seq]).toEqual([4, 6]);
    window.add(change(7, 20_000));
    expect([window.start, window.position, window.get(7)]).toEqual([7, 7, undefined]);
    window.add(change(8));
    expect([window.start, window.get(8)?.seq]).toEqual([7, 8]);
  });

  it("wakes a follower once for all that it has not taken, and tells it when it is too slow", () => {
    const window = new Window(0, { changes: 4, bytes: 10_000 });
    let woken = 0;
    const follower = new Follower(scope, 0, window, () => woken++);
    const add = (seq: number) => {
      window.add(change(seq));
      follower.offer(change(seq));
    };
    for (const seq of [1, 2]) add(seq);
    expect([woken, follower.take(), follower.at]).toEqual([0, undefined, 2]);
    for (const seq of [3, 4, 5, 6]) add(seq);
    expect(woken).toBe(1);
    expect([follower.take(), follower.at]).toMatchObject([{ seq: 3 }, 3]);
    for (const seq of [7, 8, 9, 10, 11, 12]) add(seq);
    expect([follower.take(), follower.at]).toEqual(["behind", 5]);
    follower.skipTo(8);
    expect([follower.take(), follower.take(), follower.take(), follower.at]).toMatchObject([
      ...[{ seq: 9 }, { seq: 12 }, undefined, 12],
    ]);
  });
});

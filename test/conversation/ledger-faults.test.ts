import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { describe, expect, it } from "vitest";
import { NO_COPIES } from "../../src/conversation/hot/hot-copies.ts";
import { createSqlLedger } from "../../src/conversation/ledger/sql-ledger.ts";
import { systemClock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { Failure, UnavailableError } from "../../src/infra/failure.ts";
import { createFences } from "../../src/infra/fences.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { mayMount, mountSmallDisk } from "../support/small-disk.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { expectCounts } from "./ledger-tables.ts";
import {
  append,
  DEFAULT_POLICY,
  done,
  KEY,
  KINDS,
  message,
  messagesOf,
  openLedgers,
  patch,
  remove,
  save,
  state,
  stateOf,
} from "./ledgers.ts";

const key = (id: string) => ({ collection: "conversation", id });

/** A ledger of its own over this database. */
function ledgerOver(database: Database) {
  return createSqlLedger({
    ...{ database, copies: NO_COPIES, clock: systemClock },
    ...{ policyFor: () => DEFAULT_POLICY, onCommit: () => {} },
  });
}

/** The same, and how often it went to the database for a transaction, and in them for a state. */
function watchedLedger(database: Database) {
  let [transactions, states] = [0, 0];
  const ledger = ledgerOver({
    ...database,
    transaction: (work) => {
      transactions++;
      return database.transaction((tx) =>
        work({
          ...tx,
          query: (sql, params) => {
            if (sql.startsWith("SELECT state FROM")) states++;
            return tx.query(sql, params);
          },
        }),
      );
    },
  });
  const begin = () => {
    [transactions, states] = [0, 0];
  };
  return { ledger, begin, counts: () => ({ transactions, states }) };
}

describe.each(KINDS)("the ledger in %s", (kind) => {
  it("carries the others out when the database refuses one of them", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    // In the way of what will be created.
    await one.database.write("INSERT INTO conversation_state VALUES ('conversation', 'c5', $1, $2)", [
      open.clock.now() * 1000,
      Buffer.from("in the way"),
    ]);
    const ids = Array.from({ length: 10 }, (_, at) => `c${at}`);
    const outcomes = await Promise.allSettled(ids.map((id) => done(one, save(id, { key: key(id) }))));
    const failed = outcomes.flatMap((outcome, at) => (outcome.status === "rejected" ? [at] : []));
    expect(failed).toEqual([5]);
    for (const id of ids) expect(await stateOf(one, key(id))).toBe(id === "c5" ? undefined : id);
    await expectCounts(one.database, "conversation");
    const seqs = await one.database.query<{ seq: number }>("SELECT seq FROM conversation_change ORDER BY seq");
    expect(seqs.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  it("goes again when the database undid a commit for reasons of its own", async () => {
    await using open = await openLedgers(kind);
    const [{ database }] = open.instances;
    let undone = 0;
    const ledger = ledgerOver({
      ...database,
      transaction: (work) =>
        database.transaction(async (tx) => {
          const result = await work(tx);
          if (++undone <= 2) throw new Failure("conflict", "SQL_CONFLICT", "undone");
          return result;
        }),
    });
    const [saved, appended] = await Promise.all([ledger.carryOut(save("a")), ledger.carryOut(append([message("m1")]))]);
    expect([saved.kind, appended.kind, undone]).toEqual(["done", "done", 3]);
    expect(await messagesOf({ database })).toEqual(["m1"]);
  });

  it("takes no more memory for one commit than some large states", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    const ids = Array.from({ length: 12 }, (_, at) => `c${at}`);
    for (const id of ids) await done(one, save("", { key: key(id) }));
    const before = one.commits();
    const large = Buffer.alloc(3 * 1024 * 1024, "x");
    const merge = () => ({ ...state(""), bytes: large });
    const outcomes = await Promise.all([
      ...ids.map((id) => done(one, patch("", { key: key(id), merge }))),
      done(one, remove({ key: key("c0") })),
    ]);
    expect(outcomes.every(({ changed }) => changed)).toBe(true);
    expect(one.commits() - before).toBe(5);
    for (const id of ids.slice(1)) expect((await stateOf(one, key(id)))?.length).toBe(large.length);
    await expectCounts(one.database, "conversation");
  });

  it("reads a large state once for all who expected another version, and not those of many in one commit", async () => {
    await using open = await openLedgers(kind);
    const [{ database }] = open.instances;
    const watched = watchedLedger(database);
    const bytes = Buffer.alloc(3 * 1024 * 1024, "x");
    const ids = Array.from({ length: 12 }, (_, at) => `c${at}`);
    for (const id of ids) await done(watched, save("", { key: key(id), state: { ...state(""), bytes } }));
    const refused = (id: string) => watched.ledger.carryOut(save("y", { key: key(id), expectedVersion: 1 }));
    watched.begin();
    const same = await Promise.all(Array.from({ length: 30 }, () => refused("c0")));
    expect(watched.counts()).toEqual({ transactions: 1, states: 1 });
    watched.begin();
    const others = await Promise.all(ids.map(refused));
    expect(watched.counts()).toEqual({ transactions: 4, states: 12 });
    for (const outcome of [...same, ...others]) {
      expect(outcome.kind === "conflict" && outcome.conflict.state?.length).toBe(bytes.length);
    }
  });

  it("puts no more than some thousand messages into one commit, however small they are", async () => {
    await using open = await openLedgers(kind);
    const [{ database }] = open.instances;
    const watched = watchedLedger(database);
    const messages = Array.from({ length: 500 }, (_, at) => message(`m${at}`));
    watched.begin();
    const ids = Array.from({ length: 12 }, (_, at) => `c${at}`);
    await Promise.all(ids.map((id) => done(watched, append(messages, { key: key(id), create: true }))));
    expect(watched.counts().transactions).toBe(3);
    for (const id of ids) expect((await messagesOf({ database }, key(id))).length).toBe(messages.length);
  });
});

describe("while SQL is away", () => {
  it("writes are UNAVAILABLE, and done again when Postgres is back", async () => {
    await using open = await openLedgers("postgres");
    const url = new URL(open.where);
    await using proxy = await startTcpProxy(Number(url.port));
    url.port = String(proxy.port);
    const database = openPostgres({ url: url.href, poolSize: 2, statementTimeoutMs: 20_000, connectTimeoutMs: 20_000 });
    await using _ = { [Symbol.asyncDispose]: () => database.close() };
    const ledger = ledgerOver(database);
    await done({ ledger }, save("a"));
    proxy.cut();
    const fence = { lock: "l", token: 1 };
    const writes = [patch("b"), patch("b", { fence }), append([message("m")]), save("c", { key: key("c2") })];
    const outcomes = await Promise.allSettled(writes.map((write) => ledger.carryOut(write)));
    for (const outcome of outcomes) {
      expect(outcome.status === "rejected" && outcome.reason).toBeInstanceOf(UnavailableError);
    }
    const fences = createFences({ database, lastTokenOf: async () => 1, clock: systemClock });
    await expect(fences.raise(fence)).rejects.toBeInstanceOf(UnavailableError);
    proxy.restore();
    await until(() => ledger.carryOut(patch("d", { fence })), { what: "a write after Postgres came back" });
    expect(await stateOf({ database })).toBe("ad");
    await fences.raise(fence);
  });

  it("writes are UNAVAILABLE while another process holds the SQLite file", async () => {
    await using open = await openLedgers("sqlite");
    const database = openSqlite({ path: open.where, busyTimeoutMs: 50 });
    await using _ = { [Symbol.asyncDispose]: () => database.close() };
    const other = new Sqlite(open.where);
    other.exec("BEGIN IMMEDIATE");
    const ledger = ledgerOver(database);
    await expect(ledger.carryOut(save("a"))).rejects.toBeInstanceOf(UnavailableError);
    other.exec("ROLLBACK");
    other.close();
    expect((await done({ ledger }, save("b"))).created).toBe(true);
  });

  it.runIf(mayMount())("writes are UNAVAILABLE while the disk is full, and nothing of them is left", async () => {
    using disk = mountSmallDisk(4);
    const database = openSqlite({ path: join(disk.path, "holdfast.db") });
    await using _ = { [Symbol.asyncDispose]: () => database.close() };
    await migrate(database, migrations);
    const ledger = ledgerOver(database);
    await done({ ledger }, save("a"));
    const appended: string[] = [];
    const appendSome = async () => {
      for (let at = 0; at < 100; at++) {
        const id = `m${appended.length}`;
        await ledger.carryOut(append([message(id, "x".repeat(200_000))]));
        appended.push(id);
      }
    };
    await expect(appendSome()).rejects.toBeInstanceOf(UnavailableError);
    expect(await messagesOf({ database })).toEqual(appended);
    await expectCounts(database, KEY.collection);
    disk.resize(64);
    expect((await done({ ledger }, append([message("last")]))).held.messageCount).toBe(appended.length + 1);
  });
});

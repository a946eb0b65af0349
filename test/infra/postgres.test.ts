import { inspect } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Database } from "../../src/infra/database.ts";
import { Failure, UnavailableError } from "../../src/infra/failure.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { freePort } from "../support/free-port.ts";
import { type PostgresServer, startPostgres } from "../support/postgres-server.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

async function errorOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => "no error",
    (thrown: unknown) => thrown,
  );
}

async function expectUnavailable(
  work: Promise<unknown>,
  words: RegExp = /^Postgres is not usable: /,
): Promise<UnavailableError> {
  const error = await errorOf(work);
  expect(error).toBeInstanceOf(UnavailableError);
  expect(error).toMatchObject({ reason: "SQL_UNAVAILABLE", message: expect.stringMatching(words) });
  if (!(error instanceof UnavailableError)) throw error;
  // Where it is, is for the log.
  expect(error.message).not.toMatch(/127\.0\.0\.1|localhost|test_/);
  expect(error.cause).toMatchObject({ message: expect.stringMatching(/^Postgres at 127\.0\.0\.1:\d+\//) });
  return error;
}

const insert = "INSERT INTO item (id) VALUES ($1)";
const limits = { poolSize: 4, statementTimeoutMs: 1000, connectTimeoutMs: 1000 };

describe("Postgres", () => {
  let server: PostgresServer;
  let url: string;
  let db: Database;

  beforeAll(async () => {
    server = await startPostgres({ settings: { max_connections: "12", superuser_reserved_connections: "0" } });
  });
  afterAll(() => server.stop());
  beforeEach(async () => {
    url = await until(() => server.createDatabase(), { what: "a database on the server" });
    db = openPostgres({ url, ...limits });
    await until(() => db.write("CREATE TABLE IF NOT EXISTS item (id BIGINT NOT NULL PRIMARY KEY)").then(() => true), {
      what: "the table",
    });
  });
  afterEach(() => db.close());

  const ids = async () => (await db.query<{ id: number }>("SELECT id FROM item ORDER BY id")).map((row) => row.id);
  const works = () => until(() => db.ping().then(() => true), { what: "an answer from Postgres" });

  it("fails what is under way when the server is killed, and works by itself once it is back", async () => {
    await db.write(insert, [1]);
    const started = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const transaction = db.transaction(async (tx) => {
      await tx.query(insert, [2]);
      started.resolve();
      await gate.promise;
      await tx.query(insert, [3]);
    });
    const outcome = errorOf(transaction);
    await started.promise;
    await server.kill();
    gate.resolve();
    expect(await outcome).toBeInstanceOf(UnavailableError);
    await expectUnavailable(db.query("SELECT 1 AS one"), /ECONNREFUSED|terminated|reset/);
    await expectUnavailable(db.writeAll([{ sql: insert, params: [4] }]));
    await server.restart();
    await works();
    expect(await ids()).toEqual([1]);
  });

  it("works after a restart that nobody noticed", async () => {
    await Promise.all(Array.from({ length: 4 }, (_, id) => db.write(insert, [id])));
    await server.restart();
    await works();
    expect(await ids()).toEqual([0, 1, 2, 3]);
  });

  it("ends every call when the server is frozen, and works by itself once it is thawed", async () => {
    await Promise.all(Array.from({ length: 4 }, (_, id) => db.write(insert, [id])));
    server.pause();
    try {
      const calls = [
        ...Array.from({ length: 8 }, () => db.query("SELECT id FROM item")),
        ...Array.from({ length: 4 }, () => db.writeAll([{ sql: insert, params: [99] }])),
        db.transaction((tx) => tx.query(insert, [98])),
      ];
      await Promise.all(calls.map((call) => expectUnavailable(call, /did not answer|in time|too long/)));
      // A new connection to it gets no answer either.
      await expectUnavailable(db.ping());
    } finally {
      server.resume();
    }
    await works();
    await Promise.all(Array.from({ length: 8 }, (_, id) => db.write(insert, [10 + id])));
  });

  it("closes though the server is frozen", async () => {
    const handle = openPostgres({ url, ...limits });
    await handle.ping();
    server.pause();
    try {
      const call = expectUnavailable(handle.query("SELECT 1 AS one"));
      await handle.close();
      await call;
    } finally {
      server.resume();
    }
  });

  it("ends calls on a network that went silent, and uses new connections once it is back", async () => {
    await using proxy: TcpProxy = await startTcpProxy(server.port);
    const through = new URL(url);
    through.port = String(proxy.port);
    const handle = openPostgres({ url: through.href, ...limits });
    await handle.ping();
    proxy.freeze();
    await expectUnavailable(handle.query("SELECT 1 AS one"), /did not answer/);
    proxy.cut();
    await expectUnavailable(handle.ping());
    proxy.restore();
    proxy.thaw();
    await until(() => handle.ping().then(() => true), { what: "an answer through the network" });
    await handle.close();
  });

  it("stops a statement that takes too long and keeps its connection", async () => {
    const pid = async () => (await db.query("SELECT pg_backend_pid() AS pid"))[0]?.pid;
    const before = await pid();
    await expectUnavailable(db.query("SELECT pg_sleep($1)", [60]), /statement timeout/);
    expect(await pid()).toBe(before);
  });

  it("says that no connection became free", async () => {
    const held = Promise.withResolvers<void>();
    const holders = Array.from({ length: 4 }, () => db.transaction(() => held.promise));
    await expectUnavailable(db.ping(), /no connection became free/);
    held.resolve();
    await Promise.all(holders);
    await db.ping();
  });

  it("says that the server has too many connections", async () => {
    const crowd = openPostgres({ url, ...limits, poolSize: 20 });
    const held = Promise.withResolvers<void>();
    const outcomes = Array.from({ length: 20 }, () => errorOf(crowd.transaction(() => held.promise)));
    await expectUnavailable(
      Promise.any(outcomes).then((error) => Promise.reject(error)),
      /too many connections/,
    );
    held.resolve();
    await Promise.all(outcomes);
    await crowd.close();
    await works();
  });

  it("leaves a server that became read-only, and writes again once it may", async () => {
    const database = new URL(url).pathname.slice(1);
    await db.write(`ALTER DATABASE ${database} SET default_transaction_read_only = on`);
    const readOnly = openPostgres({ url, ...limits });
    await expectUnavailable(readOnly.write(insert, [1]), /read-only/);
    await db.write(`ALTER DATABASE ${database} RESET default_transaction_read_only`);
    await until(() => readOnly.write(insert, [2]).then(() => true), { what: "a write" });
    await readOnly.close();
  });

  it.each([
    ["53100", /disk is full/],
    ["53200", /memory/],
    ["57P01", /shutting down/],
    ["55P03", /lock/],
    ["58030", /system failed/],
  ])("tells the server's trouble %s as an outage", async (code, words) => {
    await expectUnavailable(db.write(`DO $$ BEGIN RAISE EXCEPTION 'no way' USING ERRCODE = '${code}'; END $$`), words);
    await db.ping();
  });

  it("tells a transaction that the server undid for another as a conflict", async () => {
    await db.write(insert, [1]);
    const snapshot = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const outcome = errorOf(
      db.transaction(async (tx) => {
        await tx.query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ");
        await tx.query("SELECT id FROM item");
        snapshot.resolve();
        await gate.promise;
        await tx.query("UPDATE item SET id = id + 1");
      }),
    );
    await snapshot.promise;
    await db.write("UPDATE item SET id = 100");
    gate.resolve();
    const error = await outcome;
    expect(error).toBeInstanceOf(Failure);
    expect(error).toMatchObject({ kind: "conflict", reason: "SQL_CONFLICT" });
  });

  it("keeps no more statements prepared on the server than it may", async () => {
    const single = openPostgres({ url, ...limits, poolSize: 1 });
    let most = 0;
    for (let n = 0; n < 1500; n += 1) {
      await single.query(`SELECT ${n} AS n WHERE 1 = $1`, [1]);
      if (n % 100 > 0) continue;
      const [row] = await single.query<{ count: number }>("SELECT COUNT(*) AS count FROM pg_prepared_statements");
      most = Math.max(most, row?.count ?? 0);
    }
    expect(most).toBeGreaterThan(100);
    expect(most).toBeLessThanOrEqual(1025);
    await single.close();
  });

  describe("the password", () => {
    const secret = "s3cr3t-w0rd";
    const nowhere = async () => `postgres://somebody:${secret}@127.0.0.1:${await freePort()}/db`;
    const noDatabase = async () => `postgres://holdfast:${secret}@127.0.0.1:${server.port}/nowhere`;
    const noUser = async () => `postgres://nobody:${secret}@127.0.0.1:${server.port}/postgres`;

    it.each([
      ["nobody listens", nowhere],
      ["the database does not exist", noDatabase],
      ["the user does not exist", noUser],
    ])("is not in the error when %s", async (_, make) => {
      const handle = openPostgres({ url: await make(), ...limits });
      const error = await expectUnavailable(handle.ping());
      expect(inspect(error, { depth: 10, showHidden: true })).not.toContain(secret);
      expect(JSON.stringify(error)).not.toContain(secret);
      await handle.close();
    });

    it.each([
      `postgres://user:${secret}@host:notaport/db`,
      `mysql://user:${secret}@host/db`,
      `user:${secret}@host/db`,
      `postgres://user:${secret}@host/db?sslrootcert=/does/not/exist`,
    ])("is not in the error when the url is wrong", (wrong) => {
      let error: unknown;
      try {
        openPostgres({ url: wrong, ...limits });
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toMatchObject({ reason: "DATABASE_URL_INVALID" });
      expect(inspect(error, { depth: 10, showHidden: true })).not.toContain(secret);
    });
  });
});

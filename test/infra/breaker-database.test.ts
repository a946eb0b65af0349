import { describe, expect, it, onTestFinished } from "vitest";
import { withBreaker } from "../../src/infra/breaker-database.ts";
import { createBreaker } from "../../src/infra/circuit-breaker.ts";
import { systemClock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { startPostgres } from "../support/postgres-server.ts";
import { until } from "../support/until.ts";

/** Counts how often the database itself was asked. */
function counted(database: Database): { database: Database; asked: () => number } {
  let asked = 0;
  return {
    asked: () => asked,
    database: {
      ...database,
      query(sql, params) {
        asked++;
        return database.query(sql, params);
      },
    },
  };
}

describe("a Postgres behind a breaker", () => {
  it("is left alone while it is frozen, says that SQL is unavailable, and is used again once it answers", async () => {
    const server = await startPostgres();
    onTestFinished(() => server.stop());
    const real = openPostgres({ url: server.url, poolSize: 2, statementTimeoutMs: 300, connectTimeoutMs: 300 });
    const { database, asked } = counted(real);
    const breaker = createBreaker({
      part: "SQL",
      failureThreshold: 2,
      resetTimeoutMs: 100,
      halfOpenMaxCalls: 1,
      probe: () => database.ping(),
      clock: systemClock,
    });
    const guarded = withBreaker(database, breaker);
    onTestFinished(() => guarded.close());
    expect(await guarded.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);

    server.pause();
    const ask = () => guarded.query("SELECT 1 AS one");
    await expect(ask()).rejects.toMatchObject({ reason: "SQL_UNAVAILABLE" });
    await expect(ask()).rejects.toMatchObject({ reason: "SQL_UNAVAILABLE" });
    expect(breaker.state).not.toBe("closed");
    const before = asked();
    for (let i = 0; i < 100; i++) await expect(ask()).rejects.toMatchObject({ reason: "SQL_UNAVAILABLE" });
    await expect(guarded.writeAll([{ sql: "SELECT 1 AS one" }])).rejects.toMatchObject({ kind: "unavailable" });
    expect(asked()).toBe(before);

    server.resume();
    await until(() => breaker.state === "closed", { what: "the breaker to close" });
    expect(await guarded.query("SELECT 1 AS one")).toEqual([{ one: 1 }]);
  });

  it("counts no error of the statement itself", async () => {
    const server = await startPostgres();
    onTestFinished(() => server.stop());
    const real = openPostgres({ url: server.url, poolSize: 2, statementTimeoutMs: 5_000, connectTimeoutMs: 5_000 });
    const breaker = createBreaker({
      failureThreshold: 1,
      resetTimeoutMs: 60_000,
      halfOpenMaxCalls: 1,
      probe: () => real.ping(),
      clock: systemClock,
    });
    const guarded = withBreaker(real, breaker);
    onTestFinished(() => guarded.close());
    for (let i = 0; i < 5; i++) await expect(guarded.query("SELECT no_such_column")).rejects.toThrow();
    expect(breaker.state).toBe("closed");
  });
});

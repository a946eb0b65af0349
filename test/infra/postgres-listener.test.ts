import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Database } from "../../src/infra/database.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openPostgresListener, type PostgresListener } from "../../src/infra/postgres-listener.ts";
import { freePort } from "../support/free-port.ts";
import { type PostgresServer, startPostgres } from "../support/postgres-server.ts";
import { until } from "../support/until.ts";

describe("the Postgres listener", () => {
  let server: PostgresServer;
  let db: Database;
  let listener: PostgresListener;
  let states: string[];

  beforeAll(async () => {
    server = await startPostgres();
  });
  afterAll(() => server.stop());
  beforeEach(async () => {
    db = openPostgres({ url: server.url, poolSize: 2, statementTimeoutMs: 5000, connectTimeoutMs: 5000 });
    listener = openPostgresListener({
      url: server.url,
      connectTimeoutMs: 500,
      heartbeatMs: 500,
      retryMs: { least: 10, most: 100 },
    });
    states = [];
    listener.onUp(() => states.push("up"));
    listener.onDown(() => states.push("down"));
  });
  afterEach(async () => {
    await listener.close();
    await db.close();
  });

  const notify = (channel: string, payload: string) => db.query("SELECT pg_notify($1, $2)", [channel, payload]);
  const isUp = () => until(() => listener.up, { what: "the listener to be up" });
  const isDown = () => until(() => !listener.up, { what: "the listener to be down" });

  it("is down until every channel is listened to, and then hears", async () => {
    const heard: string[] = [];
    listener.listen("one", (payload) => heard.push(`one ${payload}`));
    listener.listen('"odd" Channel', (payload) => heard.push(`odd ${payload}`));
    expect(listener.up).toBe(false);
    await isUp();
    await notify("one", "first");
    await notify('"odd" Channel', "second");
    await notify("another", "not for us");
    await notify("one", "");
    await until(() => heard.length === 3, { what: "three messages" });
    expect(heard).toEqual(["one first", "odd second", "one "]);
    expect(states).toEqual(["up"]);
  });

  it("hears a channel that was added while it was up, until that is ended", async () => {
    await isUp();
    const heard: string[] = [];
    const also: string[] = [];
    const unlisten = listener.listen("late", (payload) => heard.push(payload));
    const unlistenAlso = listener.listen("late", (payload) => also.push(payload));
    await until(
      async () => {
        await notify("late", "hello");
        return heard.length > 0;
      },
      { what: "a message on the new channel" },
    );
    unlisten();
    unlisten();
    const before = heard.length;
    const alsoBefore = also.length;
    await until(
      async () => {
        await notify("late", "for the other");
        return also.length > alsoBefore;
      },
      { what: "a message for the other listener" },
    );
    expect(heard).toHaveLength(before);
    unlistenAlso();
  });

  it("says that it is down when the server is killed, and hears again once it is back", async () => {
    const heard: string[] = [];
    listener.listen("one", (payload) => heard.push(payload));
    await isUp();
    await server.kill();
    await isDown();
    expect(states).toEqual(["up", "down"]);
    expect(listener.lastError).toContain("127.0.0.1");
    await server.restart();
    await isUp();
    expect(states).toEqual(["up", "down", "up"]);
    await until(() => notify("one", "back").then(() => true), { what: "a NOTIFY" });
    await until(() => heard.includes("back"), { what: "a message after the restart" });
  });

  it("notices a frozen server by itself", async () => {
    const heard: string[] = [];
    listener.listen("one", (payload) => heard.push(payload));
    await isUp();
    server.pause();
    try {
      await isDown();
      expect(states).toEqual(["up", "down"]);
    } finally {
      server.resume();
    }
    await isUp();
    await notify("one", "thawed");
    await until(() => heard.includes("thawed"), { what: "a message after the thaw" });
  });

  it("keeps the password out of its errors", async () => {
    const url = `postgres://user:s3cr3t@127.0.0.1:${await freePort()}/db`;
    const lonely = openPostgresListener({ url, retryMs: { least: 10, most: 10 } });
    await until(() => lonely.lastError, { what: "an error" });
    expect(lonely.lastError).not.toContain("s3cr3t");
    expect(lonely.up).toBe(false);
    await lonely.close();
  });
});

import { expect, it } from "vitest";
import { createPostgresBackplane, type PostgresBackplane } from "../../src/infra/backplane-postgres.ts";
import type { Database } from "../../src/infra/database.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openPostgresListener } from "../../src/infra/postgres-listener.ts";
import { type BackplaneWorld, describeBackplane } from "../conformance/backplane.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startPostgres } from "../support/postgres-server.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

async function openWorld(): Promise<BackplaneWorld> {
  const server = await startPostgres();
  const proxy = await startTcpProxy(server.port);
  const url = new URL(await server.createDatabase());
  url.port = String(proxy.port);
  const databases: Database[] = [];
  return {
    join: () => {
      const database = openDatabase(url.href);
      databases.push(database);
      return join(url.href, database, `i${databases.length}`);
    },
    faults: {
      killed: { begin: server.kill, end: server.restart },
      frozen: { begin: server.pause, end: server.resume },
      "cut off": { begin: proxy.cut, end: proxy.restore },
      "silent on the network": { begin: proxy.freeze, end: proxy.thaw },
    },
    close: async () => {
      await Promise.all(databases.map((database) => database.close()));
      await proxy.close();
      await server.stop();
    },
  };
}

function openDatabase(url: string): Database {
  return openPostgres({ url, poolSize: 4, statementTimeoutMs: 1_000, connectTimeoutMs: 1_000 });
}

function join(url: string, database: Database, instanceId: string): PostgresBackplane {
  const openListener = () => openPostgresListener({ url, connectTimeoutMs: 1_000, retryMs: { least: 50, most: 500 } });
  return createPostgresBackplane({ database, openListener, instanceId, heartbeatMs: 400 });
}

describeBackplane("the backplane over Postgres", openWorld, ["killed", "frozen", "cut off", "silent on the network"]);

it("delivers what a transaction announced when it commits, and nothing of one that does not", async () => {
  const url = await freshDatabase();
  const database = openDatabase(url);
  await database.write("CREATE TABLE thing (id INTEGER PRIMARY KEY)");
  const a = join(url, database, "a");
  const b = join(url, database, "b");
  const heard: string[] = [];
  b.subscribe("cache", (message) => heard.push(message));
  await until(() => a.live && b.live, { what: "both to be live" });
  const insert = { sql: "INSERT INTO thing (id) VALUES (1)" };
  await database.writeAll([insert, a.announce("cache", "first")]);
  await expect(database.writeAll([a.announce("cache", "never"), insert])).rejects.toThrow();
  await a.publish("cache", "last");
  await until(() => heard.includes("last"), { what: "the last message" });
  expect(heard).toEqual(["first", "last"]);
  await Promise.all([a.close(), b.close()]);
  await database.close();
});

it("refuses a message that Postgres could not carry, and goes on", async () => {
  const url = await freshDatabase();
  const database = openDatabase(url);
  const a = join(url, database, "a");
  const b = join(url, database, "b");
  const heard: string[] = [];
  b.subscribe("t", (message) => heard.push(message));
  await until(() => a.live && b.live, { what: "both to be live" });
  const refusal = { kind: "too_large", reason: "BACKPLANE_MESSAGE_TOO_LARGE" };
  await expect(a.publish("t", "é".repeat(4_000))).rejects.toMatchObject(refusal);
  expect(() => a.announce("t", "x".repeat(8_000))).toThrow("less than 8000 bytes");
  await a.publish("t", "x".repeat(7_900));
  await until(() => heard.length === 1, { what: "the long message" });
  await Promise.all([a.close(), b.close()]);
  await database.close();
});

import { setTimeout as delay } from "node:timers/promises";
import type { Config, DatabaseSettings } from "../config.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import { UnavailableError } from "../infra/failure.ts";
import type { Log } from "../infra/log.ts";
import { migrations } from "../infra/migrations/all.ts";
import { migrate } from "../infra/migrations.ts";
import { operatorText } from "./start-failure.ts";

/** How long a start waits for a Postgres that does not answer, as when both come up together. */
const patienceMs = 30_000;
const retryMs = 500;
/** It is asked again twice a second: unlike Redis it has no stand-in for durable data, so its return must not be missed. */
const sqlBreaker = { failureThreshold: 3, resetTimeoutMs: 500, halfOpenMaxCalls: 1 };

/**
 * Opens the database and brings its schema up to date. Nothing can be served before that: not even what Redis holds, because
 * whether this build understands the schema is not known. So a Postgres that is away is waited for, within bounds, and a start
 * without it fails and says so; once started, the server lives through its absence.
 */
export async function startDatabase(
  config: Config,
  log: Log,
  stop: AbortSignal,
  parts: AsyncDisposableStack,
): Promise<Database> {
  if (config.database.kind === "sqlite") {
    const { lockDataDirectory } = await import("../infra/data-directory.ts");
    parts.use(lockDataDirectory(config.dataDir));
  }
  const database = await open(config.database);
  const told = new Set<string>();
  const giveUpAt = performance.now() + patienceMs;
  try {
    for (;;) {
      try {
        await migrate(database, migrations);
        if (told.size > 0) log.info({}, "the database answers");
        return database.shared ? await leftAloneWhileItFails(database, log) : database;
      } catch (err) {
        if (!(err instanceof UnavailableError) || performance.now() > giveUpAt) throw err;
        const why = operatorText(err);
        // Said when the wait begins, and when it is for something else; not each time.
        if (!told.has(why)) log.warn({ patienceMs }, `the database does not answer yet: ${why}`);
        told.add(why);
        await delay(retryMs, undefined, { signal: stop });
      }
    }
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** A database across a network can freeze. One in this process's own files fails at once if it fails. */
async function leftAloneWhileItFails(database: Database, log: Log): Promise<Database> {
  const [{ withBreaker }, { createBreaker }] = await Promise.all([
    import("../infra/breaker-database.ts"),
    import("../infra/circuit-breaker.ts"),
  ]);
  const breaker = createBreaker({
    part: "SQL",
    ...sqlBreaker,
    probe: () => database.ping(),
    clock: systemClock,
    log: log.child({ component: "breaker" }),
  });
  return withBreaker(database, breaker);
}

/** Loads the driver that is needed and not the other: it would cost start-up time and memory for nothing. */
async function open(settings: DatabaseSettings): Promise<Database> {
  if (settings.kind === "sqlite") {
    const { openSqlite } = await import("../infra/sqlite.ts");
    return openSqlite({ path: settings.file });
  }
  const { openPostgres } = await import("../infra/postgres.ts");
  return openPostgres(settings);
}

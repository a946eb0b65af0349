import { join } from "node:path";
import { expect, onTestFinished } from "vitest";
import { createGrowth } from "../../src/audit/archive/growth.ts";
import { createSqlArchive } from "../../src/audit/archive/sql-archive.ts";
import { type Archiver, createArchiver } from "../../src/audit/queue/archiver.ts";
import { createRedisBacklog } from "../../src/audit/queue/redis-backlog.ts";
import { createRedisLease } from "../../src/audit/queue/redis-lease.ts";
import { createRedisQueue } from "../../src/audit/queue/redis-queue.ts";
import { unseal } from "../../src/audit/record/leaf.ts";
import { idOf, type Sealed } from "../../src/audit/record/record.ts";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import { systemClock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { open } from "../infra/redis-clients.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import type { RedisServer } from "../support/redis-server.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";
import { type openQueue, recordOf, STREAM, seedsFor } from "./queue-parts.ts";

export type Client = ReturnType<typeof open>;

/** A lease that nobody would wait for: whoever takes over within a test does so without. */
export const LONG_MS = 600_000;

export async function openDatabase(kind: "sqlite" | "postgres", url?: string): Promise<Database> {
  const directory = scratchDirectory("archiver");
  const timeouts = { statementTimeoutMs: 20_000, connectTimeoutMs: 2_000 };
  const database =
    kind === "sqlite"
      ? openSqlite({ path: join(directory.path, "audit.db") })
      : openPostgres({ url: url ?? (await freshDatabase()), poolSize: 5, ...timeouts });
  onTestFinished(async () => {
    await database.close();
    directory.remove();
  });
  await migrate(database, migrations);
  return database;
}

export interface World {
  readonly redis: Client;
  readonly database: Database;
  readonly queue: ReturnType<typeof openQueue>;
  /** One line each, of all archivers. */
  readonly lines: string[];
  archiver(name?: string, ttlMs?: number): Archiver;
}

export async function world(redis: Client, database: Database, streamKey = STREAM): Promise<World> {
  const growth = createGrowth(createLocalBackplane());
  const lines: string[] = [];
  const log = createLog({ level: "debug", destination: { write: (line) => void lines.push(line) } });
  return {
    redis,
    database,
    queue: createRedisQueue({ redis, streamKey, maxLength: 250_000, growth, onLost: () => {} }),
    lines,
    archiver(name = "one", ttlMs = 5_000) {
      const archiver = createArchiver({
        backlog: createRedisBacklog({ redis, streamKey, consumer: name, blockMs: 50 }),
        lease: createRedisLease({ redis, streamKey, holder: name, ttlMs }),
        archive: createSqlArchive({ database, growth, clock: systemClock, log }),
        clock: systemClock,
        log,
      });
      onTestFinished(() => archiver.close());
      return archiver;
    },
  };
}

export async function fresh(kind: "sqlite" | "postgres" = "sqlite"): Promise<World> {
  return world(open(await freshRedis(), { commandTimeoutMs: 10_000 }), await openDatabase(kind));
}

export async function onServer(server: RedisServer, kind: "sqlite" | "postgres" = "sqlite"): Promise<World> {
  return world(open(server.url, { commandTimeoutMs: 1_000 }), await openDatabase(kind));
}

/** The identities in the archive, in its order; all are checked for being what was sealed. */
export async function archived({ database }: Pick<World, "database">): Promise<string[]> {
  const rows = await database.query<{ leaf: Uint8Array }>("SELECT leaf FROM audit_record ORDER BY leaf_index");
  return rows.map(({ leaf }) => {
    const record = unseal(leaf);
    expect(Buffer.from(leaf).equals(recordOf(record.producer, record.sequence).leaf)).toBe(true);
    return idOf(record);
  });
}

export async function conflicts({ database }: World): Promise<number> {
  const [row] = await database.query<{ count: number }>("SELECT count(*) AS count FROM audit_conflict");
  return Number(row?.count);
}

export const ids = (records: readonly Sealed[]) => records.map(idOf);
export const drained = ({ queue }: Pick<World, "queue">) => queue.drained(AbortSignal.timeout(60_000));

/** Queues whatever happens, as a producer does: again and again until it is said to be there. */
export async function insist({ queue }: World, records: readonly Sealed[]): Promise<void> {
  const seeds = seedsFor(...new Set(records.map(({ producer }) => producer)));
  await until(async () => (await queue.append({ records, seeds, settled: true })).length, {
    what: "records to be queued",
  });
}

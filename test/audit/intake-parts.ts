import { join } from "node:path";
import { onTestFinished } from "vitest";
import type { Archive } from "../../src/audit/archive/archive.ts";
import { createIntake, type Intake } from "../../src/audit/intake/intake.ts";
import type { Journal } from "../../src/audit/journal/journal.ts";
import type { Queue } from "../../src/audit/queue/queue.ts";
import { idOf, type Sealed } from "../../src/audit/record/record.ts";
import type { Database } from "../../src/infra/database.ts";
import type { Redis } from "../../src/infra/redis.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { open as openRedis } from "../infra/redis-clients.ts";
import { freshRedis } from "../support/fresh.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { openArchives, sealed } from "./archives.ts";
import { open as openJournal, readAll } from "./journals.ts";
import { inStream, openQueue, seedsFor } from "./queue-parts.ts";

export type Tier = "redis" | "sql" | "journal";

/** The identities in each tier. */
export interface Whereabouts {
  readonly journal: readonly string[];
  readonly queue: readonly string[];
  readonly archive: readonly string[];
}

/** The write path of an instance over a real SQLite file, a real Redis and a journal on the disk, each of which can be taken away. */
export interface IntakeParts {
  readonly intake: Intake;
  readonly archive: Archive;
  readonly journal: Journal;
  readonly queue: Queue;
  /** Past what can be lost. */
  readonly redis: Redis;
  /** Those that the intake said are in the journal alone. */
  readonly local: Sealed[];
  /** Makes tiers fail from now on. */
  lose(...tiers: readonly Tier[]): Promise<void>;
  /** Redis answers again. */
  regain(): Promise<void>;
  /** Looks into the tiers themselves, whether they are away or not. */
  where(): Promise<Whereabouts>;
  conflicts(): Promise<readonly string[]>;
  /** Another instance over the same Redis and archive, with a journal of its own. */
  beside(): Promise<{ readonly intake: Intake; readonly journal: Journal }>;
}

export interface IntakeOptions {
  readonly withRedis?: boolean;
  /** How many records may wait in Redis. */
  readonly maxLength?: number;
  readonly journalBytes?: number;
}

export async function openIntake(options: IntakeOptions = {}): Promise<IntakeParts> {
  const { withRedis = true, maxLength = 250_000, journalBytes = 2 ** 30 } = options;
  const archives = await openArchives("sqlite");
  const directory = scratchDirectory("intake");
  onTestFinished(async () => {
    await archives[Symbol.asyncDispose]();
    directory.remove();
  });
  const { archive, database } = archives.instances[0];
  const own = openSqlite({ path: archives.where });
  onTestFinished(() => own.close());
  const { journal } = await openJournal(join(directory.path, "journal"), { maxBytes: journalBytes });
  onTestFinished(() => journal.close());
  const url = new URL(await freshRedis());
  const past = openRedis(url.href, { commandTimeoutMs: 10_000 });
  const proxy = await startTcpProxy(Number(url.port));
  onTestFinished(() => proxy.close());
  url.port = String(proxy.port);
  const redis = openRedis(url.href, { commandTimeoutMs: 5_000 });
  const queue = openQueue(redis, undefined, maxLength);
  // It has connected, and knows its scripts.
  await queue.condition();
  const local: Sealed[] = [];
  const intake = createIntake({
    ...{ archive, journal, queue: withRedis ? queue : undefined },
    onLocal: (records) => void local.push(...records),
  });
  const take: Readonly<Record<Tier, () => Promise<void> | void>> = {
    redis: () => proxy.cut(),
    sql: () => database.close(),
    journal: () => journal.close(),
  };
  return {
    ...{ intake, archive, journal, queue, local, redis: past },
    async lose(...tiers) {
      for (const tier of tiers) await take[tier]();
    },
    async regain() {
      proxy.restore();
      await until(() => queue.condition(), { what: "Redis to answer again" });
    },
    where: async () => ({
      journal: (await readAll(journal)).map(idOf),
      queue: await inStream(past),
      archive: await idsIn(own, "audit_record", "leaf_index"),
    }),
    conflicts: () => idsIn(own, "audit_conflict", "producer, sequence"),
    async beside() {
      const other = await openJournal(join(directory.path, "journal-beside"), { maxBytes: journalBytes });
      onTestFinished(() => other.journal.close());
      const beside = createIntake({ archive, journal: other.journal, queue, onLocal: () => {} });
      return { intake: beside, journal: other.journal };
    },
  };
}

async function idsIn(database: Database, table: string, order: string): Promise<string[]> {
  type Row = { producer: string; sequence: number };
  return (await database.query<Row>(`SELECT producer, sequence FROM ${table} ORDER BY ${order}`)).map(idOf);
}

/** A record of the producer p. */
export const p = (sequence: number, actor = "user:1") => sealed({ producer: "p", sequence }, { actor });

/** A producer of which the queue has 1, where there is one. */
export async function known(options?: IntakeOptions): Promise<IntakeParts> {
  const parts = await openIntake(options);
  await parts.queue.append({ records: [p(1)], seeds: seedsFor("p") });
  return parts;
}

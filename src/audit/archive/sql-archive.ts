import type { Clock } from "../../infra/clock.ts";
import type { Database, SqlSession } from "../../infra/database.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { bigintArray, textArray } from "../../infra/postgres-array.ts";
import { idOf, type RecordId } from "../record/record.ts";
import type { Archive, Archived, Placed, Prepared } from "./archive.ts";
import type { Growth } from "./growth.ts";
import { type Differing, openAppender, prepare, type SqlAppender } from "./sql-appender.ts";

export interface SqlArchiveOptions {
  readonly database: Database;
  readonly growth: Growth;
  readonly clock: Clock;
  readonly log: Log;
}

/** What to select for `archivedOf`. */
export const ARCHIVED_COLUMNS = "leaf_index, producer, sequence, occur_us, status, review, leaf";

export type ArchivedRow = {
  leaf_index: number;
  producer: string;
  sequence: number;
  occur_us: number;
  status: number;
  review: Uint8Array | null;
  leaf: Uint8Array | null;
};

export function archivedOf(row: ArchivedRow): Archived {
  const { producer, sequence, status, review, leaf } = row;
  return { leafIndex: row.leaf_index, producer, sequence, occurUs: row.occur_us, status, review, leaf };
}

/** Callers at the same time share a commit of at most this much, so that none occupies SQLite's thread for long. */
const COMMIT_RECORDS = { sqlite: 2_000, postgres: 5_000 } as const;
const COMMIT_BYTES = 8 * 1024 * 1024;
/** Distinct actions are few; an attacker's are not remembered without end. */
const KNOWN_ACTIONS = 10_000;

interface Job {
  readonly prepared: Prepared;
  readonly differing: "refuse" | "keep";
  readonly bytes: number;
  resolve(placed: readonly Placed[]): void;
  reject(error: unknown): void;
}

/** The archive over SQL, the same statements on both dialects but for the insert of many rows. */
export function createSqlArchive({ database, growth, clock, log }: SqlArchiveOptions): Archive {
  const { kind } = database;
  const knownActions = new Set<string>();
  let queue: Job[] = [];
  let draining: Promise<void> | undefined;

  async function transaction<T>(
    work: (tx: SqlSession, appender: SqlAppender) => Promise<T>,
    keepsDiffering: () => boolean = () => false,
  ): Promise<T> {
    let size: number | undefined;
    let actions: ReadonlySet<string> = new Set();
    let differing: readonly Differing[] = [];
    const result = await database.transaction(async (tx) => {
      const appender = await openAppender(kind, tx, (action) => knownActions.has(action), producersOf(queue));
      const before = appender.frontier.size;
      const answer = await work(tx, appender);
      if (appender.differing.length > 0 && keepsDiffering()) await putAside(tx, appender.differing);
      await appender.finish();
      size = appender.frontier.size > before ? appender.frontier.size : undefined;
      ({ actions, differing } = appender);
      return answer;
    });
    for (const action of actions) if (knownActions.size < KNOWN_ACTIONS) knownActions.add(action);
    if (differing.length > 0 && keepsDiffering()) {
      for (const { record } of differing) {
        log.error(
          { id: idOf(record) },
          "another record came under an identity that is held; it was put aside in audit_conflict",
        );
      }
    }
    if (size !== undefined) growth.announce(size);
    return result;
  }

  async function putAside(tx: SqlSession, differing: readonly Differing[]): Promise<void> {
    const now = clock.now();
    await tx.each(
      `INSERT INTO audit_conflict (producer, sequence, leaf_hash, leaf, found_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (producer, sequence, leaf_hash) DO NOTHING`,
      differing.map(({ record, hash }) => [record.producer, record.sequence, hash, record.leaf, now]),
    );
  }

  /** The jobs at the head of the queue that go into the next commit: all of them refuse what differs, or all keep it. */
  function takeJobs(): Job[] {
    const jobs: Job[] = [];
    let records = 0;
    let bytes = 0;
    for (const job of queue) {
      const fits = records + job.prepared.length <= COMMIT_RECORDS[kind] && bytes + job.bytes <= COMMIT_BYTES;
      if (jobs.length > 0 && (!fits || job.differing !== jobs[0]?.differing)) break;
      jobs.push(job);
      records += job.prepared.length;
      bytes += job.bytes;
    }
    queue = jobs.length === queue.length ? [] : queue.slice(jobs.length);
    return jobs;
  }

  /** Commits what waits when the transaction has begun: whoever came while it waited for its turn shares it. */
  async function commitNext(): Promise<void> {
    let jobs: readonly Job[] = [];
    try {
      await commit(() => {
        jobs = takeJobs();
        return jobs;
      });
    } catch (error) {
      if (jobs.length > 1 && !(error instanceof UnavailableError)) await commitOneByOne(jobs);
      // It did not begin: none of those who wait for it would fare better.
      else for (const job of jobs.length > 0 ? jobs : queue.splice(0)) job.reject(error);
    }
  }

  /** One of them may be what the database refuses; the others must not fail with it. */
  async function commitOneByOne(jobs: readonly Job[]): Promise<void> {
    for (const job of jobs) {
      try {
        await commit(() => [job]);
      } catch (error) {
        job.reject(error);
      }
    }
  }

  async function commit(take: () => readonly Job[]): Promise<void> {
    let jobs: readonly Job[] = [];
    const placed = await transaction(
      (_, appender) => {
        jobs = take();
        const [first] = jobs;
        return appender.appendPrepared(
          first !== undefined && jobs.length === 1 ? first.prepared : jobs.flatMap((job) => job.prepared),
        );
      },
      () => jobs[0]?.differing === "keep",
    );
    let at = 0;
    for (const job of jobs) {
      job.resolve(placed.slice(at, at + job.prepared.length));
      at += job.prepared.length;
    }
  }

  async function drain(): Promise<void> {
    while (queue.length > 0) await commitNext();
    draining = undefined;
  }

  function append(prepared: Prepared, differing: Job["differing"]): Promise<readonly Placed[]> {
    if (prepared.length === 0) return Promise.resolve([]);
    return new Promise((resolve, reject) => {
      let bytes = 0;
      for (const { record } of prepared) bytes += record.leaf.length;
      queue.push({ prepared, differing, bytes, resolve, reject });
      // After this turn, so that whoever else calls in it shares the commit.
      draining ??= Promise.resolve().then(drain);
    });
  }

  async function findOne({ producer, sequence }: RecordId): Promise<Archived | undefined> {
    const [row] = await database.query<ArchivedRow>(
      `SELECT ${ARCHIVED_COLUMNS} FROM audit_record WHERE producer = $1 AND sequence = $2`,
      [producer, sequence],
    );
    return row && archivedOf(row);
  }

  return {
    kind,
    append: (records, differing) => append(records.map(prepare), differing),
    prepare: (records) => records.map(prepare),
    appendPrepared: append,
    transaction: (work) => transaction(work),
    async find(ids) {
      const [only] = ids;
      if (only !== undefined && ids.length === 1) return [await findOne(only)];
      if (kind === "sqlite") {
        const found: (Archived | undefined)[] = [];
        for (const id of ids) found.push(await findOne(id));
        return found;
      }
      const rows = await database.query<ArchivedRow>(
        `SELECT r.leaf_index, r.producer, r.sequence, r.occur_us, r.status, r.review, r.leaf
          FROM unnest($1::text[], $2::bigint[]) AS wanted (producer, sequence)
          JOIN audit_record r ON r.producer = wanted.producer AND r.sequence = wanted.sequence`,
        [textArray(ids.map(({ producer }) => producer)), bigintArray(ids.map(({ sequence }) => sequence))],
      );
      const byId = new Map(rows.map((row) => [idOf(row), archivedOf(row)]));
      return ids.map((id) => byId.get(idOf(id)));
    },
    async lastSequence(producer) {
      const [row] = await database.query<{ last_sequence: number }>(
        "SELECT last_sequence FROM audit_producer WHERE producer = $1",
        [producer],
      );
      return row?.last_sequence ?? 0;
    },
    async countHeld(producer, ranges) {
      const counts: number[] = [];
      for (const { first, last } of ranges) {
        const [row] = await database.query<{ held: number }>(
          "SELECT count(*) AS held FROM audit_record WHERE producer = $1 AND sequence BETWEEN $2 AND $3",
          [producer, first, last],
        );
        counts.push(row?.held ?? 0);
      }
      return counts;
    },
    async size() {
      const [head] = await database.query<{ size: number }>("SELECT size FROM audit_head WHERE id = 1");
      return head?.size ?? 0;
    },
    async close() {
      await draining;
    },
  };
}

function producersOf(jobs: readonly Job[]): readonly string[] {
  const producers = new Set<string>();
  for (const { prepared } of jobs) for (const { record } of prepared) producers.add(record.producer);
  return [...producers];
}

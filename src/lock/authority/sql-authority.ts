import { LockAuthority } from "../../gen/holdfast/v1/lock_pb.js";
import { createBatches, repeatUndone } from "../../infra/batches.ts";
import type { Database, SqlSession } from "../../infra/database.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { type NamedRequest, RequestIdReusedError } from "../../infra/named-request.ts";
import type { SqlClock } from "../../infra/sql-clock.ts";
import { LockAttemptOverError, LockAuthorityChangingError, LockAuthorityUnavailableError } from "../failures.ts";
import {
  decideRelease,
  decideRenew,
  decideTake,
  isWanted,
  type ReleaseOrder,
  type RenewOrder,
  type TakeOrder,
} from "../record/decide.ts";
import { type Grant, isLive, type LockRecord } from "../record/grant.ts";
import { tokenAfter } from "../record/token.ts";
import { ATTEMPT_KEPT_MS, type Authority, type Lease, type Released, type Renewed, type Taken } from "./authority.ts";
import type { AttemptKey } from "./sql-attempts.ts";
import { openSqlBook, type SqlBook } from "./sql-book.ts";
import { requireDecides } from "./sql-heads.ts";
import { createSqlLook } from "./sql-look.ts";

export interface SqlAuthorityOptions {
  readonly database: Database;
  readonly clock: SqlClock;
  readonly log: Log;
  /** Tells the other instances that a lock is free that one of them may wait for. */
  readonly announce: (name: string) => Promise<void>;
}

/** What is done with a lock in the transaction that has read it. */
interface Job {
  readonly key: AttemptKey;
  /** Returns what to do once it is committed. */
  carryOut(page: Page): () => void;
  reject(error: unknown): void;
}

interface Page {
  readonly book: SqlBook;
  /** Locks to be announced as free when it is committed. */
  readonly freed: Set<string>;
}

/** Calls at the same time share a commit, up to this many. */
const MOST_JOBS = 200;

/** SQLite or Postgres decides: what is committed there is so for every instance, and survives a restart. */
export function createSqlAuthority({ database, clock, log, announce }: SqlAuthorityOptions): Authority {
  const { kind } = database;
  const authority = kind === "sqlite" ? LockAuthority.SQLITE : LockAuthority.POSTGRES;
  const look = createSqlLook(database, clock);
  const batches = createBatches<Job>({
    portion: () => MOST_JOBS,
    process: async (jobs) => {
      await process(jobs);
      return [];
    },
  });

  /** `requestId`: what is remembered under it is read too. Empty: nothing. */
  function enter<T>(name: string, requestId: string, work: (page: Page) => T): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const carryOut = (page: Page): (() => void) => {
        try {
          const result = work(page);
          return () => resolve(result);
        } catch (error) {
          return () => reject(error);
        }
      };
      batches.add({ key: { name, requestId }, carryOut, reject });
    });
  }

  /** Never rejects. */
  async function process(jobs: readonly Job[]): Promise<void> {
    try {
      const { freed, answers } = await repeatUndone(() => database.transaction((tx) => commit(tx, jobs)));
      for (const name of freed) announceFree(name);
      for (const answer of answers) answer();
    } catch (error) {
      const failure = failureOf(error);
      if (jobs.length === 1 || failure instanceof UnavailableError) for (const job of jobs) job.reject(failure);
      // One of them may be what the database refuses; the others must not fail with it.
      else for (const job of jobs) await process([job]);
    }
  }

  async function commit(tx: SqlSession, jobs: readonly Job[]) {
    const keys = jobs.map(({ key }) => key);
    const book = await openSqlBook({
      ...{ kind, tx, clock, names: new Set(keys.map(({ name }) => name)) },
      attempts: keys.filter(({ requestId }) => requestId !== ""),
    });
    requireDecides(kind, book.head, book.nowMs);
    const page: Page = { book, freed: new Set() };
    const answers = jobs.map((job) => job.carryOut(page));
    await book.write();
    return { freed: page.freed, answers };
  }

  function announceFree(name: string): void {
    announce(name).catch((error: unknown) =>
      // Whoever waits asks again by itself.
      log.debug({ err: error, lock: name }, "could not tell other instances that a lock is free"),
    );
  }

  function failureOf(error: unknown): unknown {
    const isAway = error instanceof UnavailableError && !(error instanceof LockAuthorityChangingError);
    return isAway ? new LockAuthorityUnavailableError(`${kind} does not answer`, error) : error;
  }

  function take(order: TakeOrder, { book }: Page): Taken {
    const { name, request } = order;
    const { head, nowMs } = book;
    const before = book.record(name);
    const wasGranted = request !== undefined && known(book, name, request) !== undefined;
    const token = tokenAfter(Math.max(before?.grant.token ?? 0, head.floor), head.epoch);
    const decision = decideTake(before, order, wasGranted, nowMs, token);
    if (decision.kind === "yield") return decision;
    if (decision.kind === "attempt_over") throw new LockAttemptOverError(name, request?.id ?? "");
    if (decision.kind === "request_reused") throw new RequestIdReusedError(request?.id ?? "");
    const { grant } = decision.record;
    const isNew = decision.kind === "granted" && grant.token === token;
    book.put(decision.record);
    const lease = leaseOf(decision.record, nowMs);
    if (decision.kind === "held") return { kind: "held", holder: lease };
    if (isNew) keepAttemptOf(book, grant);
    return { kind: "granted", lease };
  }

  function renew(order: RenewOrder, { book }: Page): Renewed {
    const before = book.record(order.name);
    const decision = decideRenew(before, order, book.nowMs);
    if (decision.kind === "over") return { ...decision, holder: liveLease(before, book.nowMs) };
    const { grant } = decision.record;
    book.put(decision.record);
    keepAttemptOf(book, grant);
    return { kind: "renewed", lease: leaseOf(decision.record, book.nowMs) };
  }

  function release(order: ReleaseOrder, { book, freed }: Page): Released {
    const before = book.record(order.name);
    const after = decideRelease(before, order, book.nowMs);
    if (before === undefined || after === undefined) {
      return { released: false, lease: liveLease(before, book.nowMs) };
    }
    book.put(after);
    const { name, requestId } = before.grant;
    if (order.undo && requestId !== "") book.forgetAttempt({ name, requestId });
    if (isWanted(after, book.nowMs)) freed.add(name);
    return { released: true, lease: leaseOf(before, book.nowMs) };
  }

  function remember(name: string, request: NamedRequest, text: string, { book }: Page): string {
    const note = known(book, name, request);
    if (note !== undefined) return note;
    const { id, meaning } = request;
    book.keepAttempt({ name, requestId: id, meaning, note: text, forgetMs: book.nowMs + ATTEMPT_KEPT_MS });
    return text;
  }

  return {
    kind: authority,
    take: (order) => enter(order.name, order.request?.id ?? "", (page) => take(order, page)),
    renew: (order) => enter(order.name, "", (page) => renew(order, page)),
    release: (order) => enter(order.name, "", (page) => release(order, page)),
    remember: (name, request, text) => enter(name, request.id, (page) => remember(name, request, text, page)),
    ...look,
    close: () => batches.close(),
  };
}

/** What is remembered under the request's id. */
function known(book: SqlBook, name: string, { id, meaning }: NamedRequest): string | undefined {
  const attempt = book.attempt({ name, requestId: id });
  if (attempt !== undefined && attempt.meaning !== meaning) throw new RequestIdReusedError(id);
  return attempt?.note;
}

/** From the end of the lease on, it is remembered for as long as attempts are. */
function keepAttemptOf(book: SqlBook, { name, requestId, requestMeaning, expireMs }: Grant): void {
  if (requestId === "") return;
  book.keepAttempt({ name, requestId, meaning: requestMeaning, note: "", forgetMs: expireMs + ATTEMPT_KEPT_MS });
}

function leaseOf({ grant }: LockRecord, nowMs: number): Lease {
  return { grant, remainingMs: Math.max(0, grant.expireMs - nowMs) };
}

function liveLease(record: LockRecord | undefined, nowMs: number): Lease | undefined {
  return record !== undefined && isLive(record.grant, nowMs) ? leaseOf(record, nowMs) : undefined;
}

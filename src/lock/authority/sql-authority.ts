import { setImmediate as nextTurn } from "node:timers/promises";
import { LockAuthority } from "../../gen/holdfast/v1/lock_pb.js";
import type { Database, SqlSession } from "../../infra/database.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Log } from "../../infra/log.ts";
import { type NamedRequest, RequestIdReusedError } from "../../infra/named-request.ts";
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
import type { Authority, Lease, Released, Renewed, Taken } from "./authority.ts";
import type { Heads } from "./head.ts";
import { readRecords, SqlBook } from "./sql-book.ts";
import type { SqlClock } from "./sql-clock.ts";
import { type HeadRow, readHead } from "./sql-heads.ts";
import { createSqlLook } from "./sql-look.ts";

export interface SqlAuthorityOptions {
  readonly database: Database;
  readonly heads: Heads;
  readonly clock: SqlClock;
  readonly log: Log;
  /** Tells the other instances that a lock is free that one of them may wait for. */
  readonly announce: (name: string) => Promise<void>;
}

/** What is done with a lock in the transaction that has read it. */
interface Job {
  readonly name: string;
  carryOut(page: Page): Promise<() => void>;
  reject(error: unknown): void;
}

interface Page {
  readonly book: SqlBook;
  readonly head: HeadRow;
  /** Locks to be announced as free when it is committed. */
  readonly freed: string[];
}

/** Calls at the same time share a commit, up to this many. */
const MOST_JOBS = 200;

/** SQLite or Postgres decides: what is committed there is so for every instance, and survives a restart. */
export function createSqlAuthority({ database, heads, clock, log, announce }: SqlAuthorityOptions): Authority {
  const { kind } = database;
  const authority = kind === "sqlite" ? LockAuthority.SQLITE : LockAuthority.POSTGRES;
  const look = createSqlLook(database, clock);
  let queue: Job[] = [];
  let draining: Promise<void> | undefined;

  function enter<T>(name: string, work: (page: Page) => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const carryOut = async (page: Page): Promise<() => void> => {
        try {
          const result = await work(page);
          return () => resolve(result);
        } catch (error) {
          return () => reject(error);
        }
      };
      queue.push({ name, carryOut, reject });
      draining ??= drain();
    });
  }

  async function drain(): Promise<void> {
    // Whoever else calls in this turn shares the commit.
    await nextTurn();
    while (queue.length > 0) {
      const jobs = queue.slice(0, MOST_JOBS);
      queue = queue.slice(MOST_JOBS);
      await process(jobs);
    }
    draining = undefined;
  }

  async function process(jobs: readonly Job[]): Promise<void> {
    try {
      const { freed, answers } = await database.transaction((tx) => commit(tx, jobs));
      for (const name of freed) announceFree(name);
      for (const answer of answers) answer();
    } catch (error) {
      const failure = failureOf(error);
      for (const job of jobs) job.reject(failure);
    }
  }

  async function commit(tx: SqlSession, jobs: readonly Job[]) {
    const head = await readHead(kind, tx, "share");
    const records = await readRecords(kind, tx, [...new Set(jobs.map(({ name }) => name))]);
    const nowMs = await clock(tx);
    if (head.mode !== kind) throw new LockAuthorityChangingError(`${head.mode || "nobody"} decides now, not ${kind}`);
    if (head.quiet_until_ms > nowMs) {
      throw new LockAuthorityChangingError("leases of before may last", head.quiet_until_ms - nowMs);
    }
    const page: Page = { book: new SqlBook(tx, nowMs, records), head, freed: [] };
    const answers: (() => void)[] = [];
    for (const job of jobs) answers.push(await job.carryOut(page));
    await page.book.write();
    return { freed: page.freed, answers };
  }

  function announceFree(name: string): void {
    announce(name).catch((error: unknown) =>
      // Whoever waits asks again by itself.
      log.debug({ err: error, lock: name }, "could not tell other instances that a lock is free"),
    );
  }

  /** A longer lease than any before has to be known to whoever may have to wait it out, before it is granted. */
  async function enterLease<T>(name: string, work: (page: Page) => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await enter(name, work);
      } catch (error) {
        if (!(error instanceof LeaseTooLong)) throw error;
        await allow(error.ttlMs);
      }
    }
  }

  async function allow(ttlMs: number): Promise<void> {
    try {
      if (!(await heads.allowLeases(kind, ttlMs))) throw new LockAuthorityChangingError(`${kind} no longer decides`);
    } catch (error) {
      throw failureOf(error);
    }
  }

  function failureOf(error: unknown): unknown {
    const isAway = error instanceof UnavailableError && !(error instanceof LockAuthorityChangingError);
    return isAway ? new LockAuthorityUnavailableError(`${kind} does not answer`, error) : error;
  }

  async function take(order: TakeOrder, { book, head }: Page): Promise<Taken> {
    const { name, request } = order;
    const before = book.record(name);
    const attempt = request && (await book.attempt({ name, requestId: request.id }));
    if (attempt !== undefined && attempt.meaning !== request?.meaning)
      throw new RequestIdReusedError(request?.id ?? "");
    const token = tokenAfter(Math.max(before?.grant.token ?? 0, head.floor), head.epoch);
    const decision = decideTake(before, order, attempt !== undefined, book.nowMs, token);
    if (decision.kind === "yield") return decision;
    if (decision.kind === "attempt_over") throw new LockAttemptOverError(name, request?.id ?? "");
    if (decision.kind === "request_reused") throw new RequestIdReusedError(request?.id ?? "");
    if (decision.kind === "granted" && order.ttlMs > head.longest_ms) throw new LeaseTooLong(order.ttlMs);
    book.put(decision.record);
    const lease = leaseOf(decision.record, book.nowMs);
    if (decision.kind === "held") return { kind: "held", holder: lease };
    if (request !== undefined && decision.record !== before) await keep(book, lease.grant, request);
    return { kind: "granted", lease };
  }

  function keep(book: SqlBook, { name, expireMs }: Grant, { id, meaning }: NamedRequest): Promise<void> {
    return book.keepAttempt({ name, requestId: id }, { meaning, note: "" }, expireMs);
  }

  async function renew(order: RenewOrder, { book, head }: Page): Promise<Renewed> {
    const before = book.record(order.name);
    const decision = decideRenew(before, order, book.nowMs);
    if (decision.kind === "over") return { ...decision, holder: liveLease(before, book.nowMs) };
    const { grant } = decision.record;
    const ttlMs = order.ttlMs ?? grant.ttlMs;
    if (ttlMs > head.longest_ms) throw new LeaseTooLong(ttlMs);
    book.put(decision.record);
    if (grant.requestId !== "") await keep(book, grant, { id: grant.requestId, meaning: grant.requestMeaning });
    return { kind: "renewed", lease: leaseOf(decision.record, book.nowMs) };
  }

  async function release(order: ReleaseOrder, { book, freed }: Page): Promise<Released> {
    const before = book.record(order.name);
    const after = decideRelease(before, order, book.nowMs);
    if (before === undefined || after === undefined) {
      return { released: false, lease: liveLease(before, book.nowMs) };
    }
    book.put(after);
    const { name, requestId } = before.grant;
    if (order.undo && requestId !== "") await book.forgetAttempt({ name, requestId });
    if (isWanted(after, book.nowMs)) freed.push(name);
    return { released: true, lease: leaseOf(before, book.nowMs) };
  }

  async function remember(name: string, request: NamedRequest, text: string, { book }: Page): Promise<string> {
    const named = { name, requestId: request.id };
    const known = await book.attempt(named);
    if (known === undefined) {
      await book.keepAttempt(named, { meaning: request.meaning, note: text }, book.nowMs);
      return text;
    }
    if (known.meaning !== request.meaning) throw new RequestIdReusedError(request.id);
    return known.note;
  }

  return {
    kind: authority,
    take: (order) => enterLease(order.name, (page) => take(order, page)),
    renew: (order) => enterLease(order.name, (page) => renew(order, page)),
    release: (order) => enter(order.name, (page) => release(order, page)),
    remember: (name, request, text) => enter(name, (page) => remember(name, request, text, page)),
    ...look,
    async close() {
      await draining;
    },
  };
}

/** Longer than what has been announced; never leaves this file. */
class LeaseTooLong extends Error {
  readonly ttlMs: number;

  constructor(ttlMs: number) {
    super(`a lease of ${ttlMs} ms has not been announced`);
    this.ttlMs = ttlMs;
  }
}

function leaseOf({ grant }: LockRecord, nowMs: number): Lease {
  return { grant, remainingMs: Math.max(0, grant.expireMs - nowMs) };
}

function liveLease(record: LockRecord | undefined, nowMs: number): Lease | undefined {
  return record !== undefined && isLive(record.grant, nowMs) ? leaseOf(record, nowMs) : undefined;
}

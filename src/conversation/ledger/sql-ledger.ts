import type { Clock } from "../../infra/clock.ts";
import type { Database } from "../../infra/database.ts";
import { UnavailableError } from "../../infra/failure.ts";
import { carryOut } from "../change/carry-out.ts";
import type { Order, Outcome } from "../change/order.ts";
import type { Copy, HotCopies } from "../hot/hot-copies.ts";
import { type ConversationKey, type PolicyFor, textOf } from "../record/conversation.ts";
import { NO_LONGER_ADMITTED } from "../record/policies.ts";
import { UnknownCollectionError } from "../record/unknown-collection.ts";
import type { Ledger } from "./ledger.ts";
import { openSqlBook } from "./sql-book.ts";

export interface SqlLedgerOptions {
  readonly database: Database;
  readonly copies: HotCopies;
  readonly policyFor: PolicyFor;
  readonly clock: Clock;
  /** Called after each commit that watchers have something of. */
  readonly onCommit: () => void;
}

/** Writes at the same time share a commit of at most this much, so that none occupies SQLite's thread for long. */
const MOST_ORDERS = 200;
const MOST_BYTES = 8 * 1024 * 1024;

interface Job {
  readonly order: Order;
  readonly bytes: number;
  resolve(outcome: Outcome): void;
  reject(error: unknown): void;
}

type Settled = { readonly outcome: Outcome } | { readonly error: unknown };

/** One batch of writes after the other, each in one transaction under the lock of the head. */
export function createSqlLedger({ database, copies, policyFor, clock, onCommit }: SqlLedgerOptions): Ledger {
  let queue: Job[] = [];
  let draining: Promise<void> | undefined;

  function takeJobs(): Job[] {
    const jobs: Job[] = [];
    let bytes = 0;
    for (const job of queue) {
      // It looks at what others leave in the tables, not only in the book.
      const isAlone = job.order.kind === "restore";
      if (jobs.length > 0 && (isAlone || jobs.length >= MOST_ORDERS || bytes + job.bytes > MOST_BYTES)) break;
      jobs.push(job);
      bytes += job.bytes;
      if (isAlone) break;
    }
    queue = queue.slice(jobs.length);
    return jobs;
  }

  async function commit(jobs: readonly Job[]): Promise<void> {
    const keys = [...new Map(jobs.map(({ order: { key } }) => [textOf(key), key])).values()];
    const nowUs = clock.now() * 1000;
    const cover = await copies.cover(keys, nowUs);
    if (!cover.complete) copies.doubt(keys);
    let settled: Settled[] = [];
    let made: Copy[] = [];
    let told = false;
    await database.transaction(async (tx) => {
      const book = await openSqlBook({
        ...{ kind: database.kind, tx, nowUs, leastStamp: cover.leastStamp },
        unhealed: () => !cover.complete,
      });
      await book.prefetch(keys);
      settled = [];
      for (const { order } of jobs) settled.push(await settle(order, book));
      await book.write();
      made = madeBy(settled);
      told = book.entries.some(({ kind }) => kind !== undefined);
    });
    // Again, because a healing may have ended between the two.
    if (!cover.complete) copies.doubt(keys);
    else copies.fill(made);
    for (const [at, job] of jobs.entries()) {
      const one = settled[at];
      if (one === undefined) job.reject(new Error("a write got no outcome"));
      else if ("error" in one) job.reject(one.error);
      else job.resolve(one.outcome);
    }
    if (told) onCommit();
  }

  /** A rule that refuses leaves nothing in the book; the others go on. */
  async function settle(order: Order, book: Parameters<typeof carryOut>[1]): Promise<Settled> {
    const policy = policyFor(order.key.collection) ?? (order.kind === "expire" ? NO_LONGER_ADMITTED : undefined);
    if (policy === undefined) return { error: new UnknownCollectionError(order.key.collection) };
    try {
      return { outcome: await carryOut(order, book, policy) };
    } catch (error) {
      return { error };
    }
  }

  /** One of them may be what the database refuses; the others must not fail with it. */
  async function commitEach(jobs: readonly Job[]): Promise<void> {
    try {
      await commit(jobs);
    } catch (error) {
      if (jobs.length === 1 || error instanceof UnavailableError) for (const job of jobs) job.reject(error);
      else for (const job of jobs) await commitEach([job]);
    }
  }

  async function drain(): Promise<void> {
    while (queue.length > 0) await commitEach(takeJobs());
    draining = undefined;
  }

  return {
    carryOut: (order) =>
      new Promise((resolve, reject) => {
        queue.push({ order, bytes: bytesOf(order), resolve, reject });
        // After this turn, so that whoever else calls in it shares the commit.
        draining ??= Promise.resolve().then(drain);
      }),
    async close() {
      await draining;
    },
  };
}

function bytesOf(order: Order): number {
  let bytes = "state" in order ? order.state.bytes.length : 0;
  if ("messages" in order) for (const { body } of order.messages) bytes += body.length;
  return bytes;
}

/** The copies that can be made at once: of those whose state is at hand. The others are made when they are read. */
function madeBy(settled: readonly Settled[]): Copy[] {
  const made = new Map<string, Copy>();
  for (const one of settled) {
    if ("error" in one || one.outcome.kind !== "done" || !one.outcome.changed) continue;
    const { held, state } = one.outcome;
    made.delete(textOf(held satisfies ConversationKey));
    if (state !== undefined && held.presence === "live") made.set(textOf(held), { held, state });
  }
  return [...made.values()];
}

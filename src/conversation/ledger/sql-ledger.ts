import { createBatches, repeatUndone } from "../../infra/batches.ts";
import type { Clock } from "../../infra/clock.ts";
import type { Database, SqlSession } from "../../infra/database.ts";
import { UnavailableError } from "../../infra/failure.ts";
import { carryOut } from "../change/carry-out.ts";
import type { Order, Outcome } from "../change/order.ts";
import type { Changed, Cover, HotCopies } from "../hot/hot-copies.ts";
import { mayBeCopied } from "../hot/sql-copies-truth.ts";
import { type PolicyFor, textOf } from "../record/conversation.ts";
import { NO_LONGER_ADMITTED } from "../record/policies.ts";
import { UnknownCollectionError } from "../record/unknown-collection.ts";
import type { CarriedOut, Ledger } from "./ledger.ts";
import { openSqlBook, type SqlBook } from "./sql-book.ts";

export interface SqlLedgerOptions {
  readonly database: Database;
  readonly copies: HotCopies;
  readonly policyFor: PolicyFor;
  readonly clock: Clock;
  /** Called after each commit that watchers have something of. */
  readonly onCommit: () => void;
}

/** Writes at the same time share a commit of about this much, so that none occupies SQLite's thread, or memory, for long. */
const MOST_ORDERS = 200;
const MOST_BYTES = 8 * 1024 * 1024;
/** As which a message counts beside its own: to find a place for a small one and to store it takes time as well. */
const MESSAGE_BYTES = 4096;

const UNHEALED = "UPDATE conversation SET unhealed = 1 WHERE collection = $1 AND id = $2";

interface Job {
  readonly order: Order;
  readonly bytes: number;
  resolve(outcome: CarriedOut): void;
  reject(error: unknown): void;
}

type Settled = { readonly outcome: Outcome } | { readonly error: unknown };

interface Commit {
  /** One for each of the first jobs. Those behind them were too much for one commit. */
  readonly settled: readonly Settled[];
  readonly isTold: boolean;
  /** Whether Redis could not be told. */
  readonly degraded: boolean;
}

/** One batch of writes after the other, each in one transaction under the lock of the head. */
export function createSqlLedger({ database, copies, policyFor, clock, onCommit }: SqlLedgerOptions): Ledger {
  const batches = createBatches({ portion: portionOf, process });

  async function commit(jobs: readonly Job[]): Promise<Commit> {
    const orders = jobs.map(({ order }) => order);
    let changed: readonly Changed[] = [];
    let cover: Promise<Cover> | undefined;
    let mayBeCommitted = false;
    try {
      const done = await database.transaction(async (tx): Promise<Commit> => {
        const book = await openSqlBook({ kind: database.kind, tx, clock, orders });
        const settled: Settled[] = [];
        for (const order of orders) {
          settled.push(await settle(order, book));
          if (book.bytes > MOST_BYTES) break;
        }
        changed = changedBy(settled);
        // Redis and the database are busy at the same time: it is the commit that has to wait for both.
        cover = copies.cover(changed.map(({ held }) => held));
        const [isCopiedByOthers] = await Promise.all([
          !copies.areKept && changed.length > 0 && mayBeCopied(tx, book.nowUs),
          book.write(),
        ]);
        const { complete } = await cover;
        if (!complete || isCopiedByOthers) await markUnhealed(tx, changed);
        mayBeCommitted = true;
        return { settled, isTold: book.isTold, degraded: !complete };
      });
      // Once more, because a healing may have ended between the two.
      if (done.degraded) copies.doubt(changed.map(({ held }) => held));
      else (await cover)?.lift(changed);
      return done;
    } catch (error) {
      // What Postgres refused or undid is not committed; where it was lost on the way, nobody knows.
      if (!mayBeCommitted || !(error instanceof UnavailableError)) (await cover)?.withdraw();
      throw error;
    }
  }

  async function markUnhealed(tx: SqlSession, changed: readonly Changed[]): Promise<void> {
    copies.doubt(changed.map(({ held }) => held));
    await tx.each(
      UNHEALED,
      changed.map(({ held: { collection, id } }) => [collection, id]),
    );
  }

  /** A rule that refuses leaves nothing in the book; the others go on. */
  async function settle(order: Order, book: SqlBook): Promise<Settled> {
    const policy = policyFor(order.key.collection) ?? (order.kind === "expire" ? NO_LONGER_ADMITTED : undefined);
    if (policy === undefined) return { error: new UnknownCollectionError(order.key.collection) };
    try {
      return { outcome: await carryOut(order, book, policy) };
    } catch (error) {
      return { error };
    }
  }

  /** Carries them out, and tells each what became of it. Never rejects. Returns those that were too much for one commit. */
  async function process(jobs: readonly Job[]): Promise<readonly Job[]> {
    let done: Commit;
    try {
      done = await repeatUndone(() => commit(jobs));
    } catch (error) {
      if (jobs.length === 1 || error instanceof UnavailableError) for (const job of jobs) job.reject(error);
      // One of them may be what the database refuses; the others must not fail with it.
      else for (const job of jobs) await process([job]);
      return [];
    }
    const { settled, isTold, degraded } = done;
    for (const [at, one] of settled.entries()) {
      if ("error" in one) jobs[at]?.reject(one.error);
      else jobs[at]?.resolve({ ...one.outcome, degraded });
    }
    if (isTold) onCommit();
    return jobs.slice(settled.length);
  }

  return {
    carryOut: (order) =>
      new Promise((resolve, reject) => batches.add({ order, bytes: bytesOf(order), resolve, reject })),
    close: () => batches.close(),
  };
}

function portionOf(queue: readonly Job[]): number {
  let count = 0;
  let bytes = 0;
  for (const job of queue) {
    // It changes what others left in the tables, which the book does not know.
    const isAlone = job.order.kind === "restore";
    if (count > 0 && (isAlone || count >= MOST_ORDERS || bytes + job.bytes > MOST_BYTES)) break;
    count++;
    bytes += job.bytes;
    if (isAlone) break;
  }
  return count;
}

function bytesOf(order: Order): number {
  let bytes = "state" in order ? order.state.bytes.length : 0;
  if ("messages" in order) for (const { body } of order.messages) bytes += MESSAGE_BYTES + body.length;
  return bytes;
}

/** How those stand that were changed, after the last change of each. */
function changedBy(settled: readonly Settled[]): Changed[] {
  const changed = new Map<string, Changed>();
  for (const one of settled) {
    if ("error" in one || one.outcome.kind !== "done" || !one.outcome.changed) continue;
    const { held, state } = one.outcome;
    const text = textOf(held);
    const before = changed.get(text);
    const isBefore = before?.held.stateVersion === held.stateVersion;
    changed.set(text, { held, state: state ?? (isBefore ? before?.state : undefined) });
  }
  return [...changed.values()];
}

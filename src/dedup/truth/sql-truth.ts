import { type Batches, createBatches, repeatUndone } from "../../infra/batches.ts";
import type { Database } from "../../infra/database.ts";
import { UnavailableError } from "../../infra/failure.ts";
import { RequestIdReusedError } from "../../infra/named-request.ts";
import type { SqlClock } from "../../infra/sql-clock.ts";
import { type Claim, type ClaimId, stateOf, textOf } from "../record/claim.ts";
import {
  type ClaimDecision,
  type ClaimOrder,
  type CompleteOrder,
  decideClaim,
  decideComplete,
  decideRelease,
  type ReleaseOrder,
} from "../record/decide.ts";
import { SqlBook } from "./sql-book.ts";
import { forbidCopies, type Held, readClaims, readResult } from "./sql-rows.ts";
import { drawTokens } from "./sql-tokens.ts";
import type { Claimed, Completed, Found, Truth } from "./truth.ts";

export interface SqlTruthOptions {
  readonly database: Database;
  readonly clock: SqlClock;
}

/** What is done with a claim in the transaction that holds it. */
interface Change {
  readonly id: ClaimId;
  readonly takesToken: boolean;
  readonly bytes: number;
  /** Returns what is told to the caller when it is committed. */
  carryOut(book: SqlBook): () => void;
  reject(error: unknown): void;
}

interface Look {
  readonly id: ClaimId;
  resolve(seen: Seen): void;
  reject(error: unknown): void;
}

interface Seen {
  readonly held: Held | undefined;
  readonly nowMs: number;
}

/** Calls at the same time share a commit, up to so many, and about so many bytes of results. */
const MOST_JOBS = 200;
const MOST_BYTES = 8 * 1024 * 1024;

/**
 * SQLite or Postgres decides. Who comes second is told so by what is committed, without a transaction of its own: only who may be the
 * first, or changes a claim, takes part in one.
 */
export function createSqlTruth({ database, clock }: SqlTruthOptions): Truth {
  const { kind } = database;
  const looks: Batches<Look> = createBatches({ portion: () => MOST_JOBS, process: lookTogether });
  const changes: Batches<Change> = createBatches({ portion: portionOf, process: commitTogether });

  async function lookTogether(jobs: readonly Look[]): Promise<readonly Look[]> {
    try {
      const [found, nowMs] = await Promise.all([readClaims(kind, database, idsOf(jobs), "look"), clock(database)]);
      for (const job of jobs) job.resolve({ held: found.get(textOf(job.id)), nowMs });
    } catch (error) {
      for (const job of jobs) job.reject(error);
    }
    return [];
  }

  const look = (id: ClaimId) => new Promise<Seen>((resolve, reject) => looks.add({ id, resolve, reject }));

  async function commitTogether(jobs: readonly Change[]): Promise<readonly Change[]> {
    try {
      const { answers, taken } = await repeatUndone(() => commit(jobs));
      if (taken.size === 0) {
        for (const answer of answers) answer();
        return [];
      }
      jobs.forEach((job, at) => {
        if (!taken.has(textOf(job.id))) answers[at]?.();
      });
      return jobs.filter(({ id }) => taken.has(textOf(id)));
    } catch (error) {
      if (jobs.length === 1 || error instanceof UnavailableError) for (const job of jobs) job.reject(error);
      // One of them may be what the database refuses; the others must not fail with it.
      else for (const job of jobs) while ((await commitTogether([job])).length > 0);
      return [];
    }
  }

  function commit(jobs: readonly Change[]) {
    const takers = jobs.reduce((sum, { takesToken }) => sum + (takesToken ? 1 : 0), 0);
    return database.transaction(async (tx) => {
      // Sent at once and answered in this order: what time it is, and the tokens, are asked for when the claims are held.
      const [held, nowMs, tokens] = await Promise.all([
        readClaims(kind, tx, idsOf(jobs), "hold"),
        clock(tx),
        drawTokens(kind, tx, takers),
      ]);
      const book = new SqlBook(held, nowMs, tokens);
      const answers = jobs.map((job) => job.carryOut(book));
      return { answers, taken: await book.write(kind, tx) };
    });
  }

  function change<T>(id: ClaimId, work: (book: SqlBook) => T, { takesToken = false, bytes = 0 } = {}): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const carryOut = (book: SqlBook) => {
        const result = work(book);
        return () => resolve(result);
      };
      changes.add({ id, takesToken, bytes, carryOut, reject });
    });
  }

  function decideAndKeep(order: ClaimOrder, book: SqlBook): Seen & { readonly decision: ClaimDecision } {
    const decision = decideClaim(book.claim(order.id), order, book.nowMs, book.token());
    if (decision.kind === "first") book.put(decision.claim);
    return { decision, held: undefined, nowMs: book.nowMs };
  }

  /** No token is needed for who is not the first. */
  function decideBySight(order: ClaimOrder, { held, nowMs }: Seen): ClaimDecision | undefined {
    const decision = decideClaim(held?.claim, order, nowMs, Number.POSITIVE_INFINITY);
    return decision.kind === "first" ? undefined : decision;
  }

  async function claim(order: ClaimOrder): Promise<Claimed> {
    for (;;) {
      const seen = await look(order.id);
      const bySight = decideBySight(order, seen);
      const { decision, held, nowMs } =
        bySight === undefined
          ? await change(order.id, (book) => decideAndKeep(order, book), { takesToken: true })
          : { ...seen, decision: bySight };
      if (decision.kind === "request_reused") throw new RequestIdReusedError(order.request?.id ?? "");
      if (decision.kind === "in_progress") return { kind: "in_progress", claim: decision.claim, nowMs };
      if (decision.kind !== "duplicate") {
        return { kind: "first", claim: decision.claim, nowMs, again: decision.kind === "again" };
      }
      const value = await resultOf(decision.claim, held);
      // Forgotten in between: it may be ours by now.
      if (value !== "gone") return { kind: "duplicate", claim: decision.claim, value, nowMs };
    }
  }

  async function resultOf(claim: Claim, held: Held | undefined): Promise<Uint8Array | undefined | "gone"> {
    if (claim.resultBytes === undefined || held?.value !== undefined) return held?.value;
    return (await readResult(database, claim.token)) ?? "gone";
  }

  async function found(claim: Claim, nowMs: number, held?: Held): Promise<Found | "gone"> {
    const value = await resultOf(claim, held);
    return value === "gone" ? value : { claim, value, nowMs };
  }

  async function get(id: ClaimId): Promise<Found | undefined> {
    for (;;) {
      const { held, nowMs } = await look(id);
      if (held === undefined || stateOf(held.claim, nowMs) === undefined) return undefined;
      const one = await found(held.claim, nowMs, held);
      if (one !== "gone") return one;
    }
  }

  async function complete(order: CompleteOrder): Promise<Completed> {
    const options = { bytes: order.result?.value.length ?? 0 };
    const decide = (book: SqlBook) => {
      const decision = decideComplete(book.claim(order.id), order, book.nowMs);
      if (decision.kind === "completed") book.put(decision.claim, order.result);
      return { decision, nowMs: book.nowMs };
    };
    const { decision, nowMs } = await change(order.id, decide, options);
    if (decision.kind !== "refused")
      return { completed: true, claim: decision.claim, again: decision.kind === "again" };
    const { current } = decision;
    if (current === undefined) return { completed: false, current: undefined };
    const one = await found(current, nowMs);
    return { completed: false, current: one === "gone" ? await get(order.id) : one };
  }

  function release(order: ReleaseOrder): Promise<boolean> {
    return change(order.id, (book) => {
      const decision = decideRelease(book.claim(order.id), order, book.nowMs);
      if (decision.kind === "released") book.put(decision.claim);
      if (decision.kind === "forgotten") book.forget(order.id);
      return decision.kind !== "not_there";
    });
  }

  return {
    layer: kind,
    ...{ claim, complete, release, get },
    forbidCopies: (id, token) => forbidCopies(database, id, token),
    async close() {
      await looks.close();
      await changes.close();
    },
  };
}

function portionOf(queue: readonly Change[]): number {
  let bytes = 0;
  let count = 0;
  for (const job of queue) {
    bytes += job.bytes;
    if (count > 0 && (count === MOST_JOBS || bytes > MOST_BYTES)) break;
    count++;
  }
  return count;
}

/** Each once. */
function idsOf(jobs: readonly { readonly id: ClaimId }[]): readonly ClaimId[] {
  return [...new Map(jobs.map(({ id }) => [textOf(id), id])).values()];
}

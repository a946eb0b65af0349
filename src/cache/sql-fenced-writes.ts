import { type Batches, createBatches, repeatUndone } from "../infra/batches.ts";
import type { Database, SqlRow, SqlSession, SqlStatement } from "../infra/database.ts";
import { UnavailableError } from "../infra/failure.ts";
import type { Fence } from "../infra/fencing.ts";
import { holdFences, raiseFences } from "../infra/sql-fences.ts";

/** What one write comes to: its statements go right after each other. */
export interface FencedStep {
  readonly namespace: string;
  readonly key: string;
  readonly statements: readonly SqlStatement[];
}

/** The rows of each step's first statement; or the token, newer than the writer's, for which nothing was carried out. */
export type FencedOutcome = { readonly rows: readonly SqlRow[][] } | { readonly newest: number };

/** Carries out writes and compares the token of their lock in one transaction, which nobody else under that lock shares. */
export interface SqlFencedWrites {
  carryOut(fence: Fence, steps: readonly FencedStep[]): Promise<FencedOutcome>;
}

interface Job {
  readonly fence: Fence;
  readonly steps: readonly FencedStep[];
  resolve(outcome: FencedOutcome): void;
  reject(error: unknown): void;
}

interface Line {
  readonly batches: Batches<Job>;
  waiting: number;
}

/** Statements of one transaction, beyond those of its first call: others under the lock wait for as long as they take. */
const MOST_STEPS = 200;

/**
 * Calls under one lock could only wait for each other, each with a connection of its own: so they stand in a line, and share
 * commits. Each lock has its own line, so that a holder elsewhere who is frozen in a transaction holds up nobody else.
 */
export function createSqlFencedWrites(database: Database): SqlFencedWrites {
  const lines = new Map<string, Line>();

  async function process(jobs: readonly Job[]): Promise<readonly Job[]> {
    try {
      const outcomes = await repeatUndone(() => database.transaction((tx) => commit(tx, jobs)));
      jobs.forEach((job, i) => {
        const outcome = outcomes[i];
        if (outcome === undefined) job.reject(new Error("a fenced write got no outcome"));
        else job.resolve(outcome);
      });
    } catch (error) {
      // What one of them asks for may be at fault; an absence is everybody's.
      if (jobs.length > 1 && !(error instanceof UnavailableError)) for (const job of jobs) await process([job]);
      else for (const job of jobs) job.reject(error);
    }
    return [];
  }

  async function commit(tx: SqlSession, jobs: readonly Job[]): Promise<FencedOutcome[]> {
    const newest = await holdFences(database.kind, tx, [...new Set(jobs.map(({ fence }) => fence.lock))]);
    const raised = new Map<string, number>();
    const accepted: FencedStep[] = [];
    const refusals = jobs.map(({ fence, steps }) => {
      const seen = newest.get(fence.lock) ?? 0;
      if (seen > fence.token) return seen;
      if (seen < fence.token) {
        newest.set(fence.lock, fence.token);
        raised.set(fence.lock, fence.token);
      }
      accepted.push(...steps);
      return undefined;
    });
    const rows = await writeAll(tx, accepted);
    if (raised.size > 0) await raiseFences(tx, raised);
    return jobs.map(({ steps }, i): FencedOutcome => {
      const refusal = refusals[i];
      if (refusal !== undefined) return { newest: refusal };
      return { rows: steps.map((step) => rows.get(step) ?? []) };
    });
  }

  /** All are sent without waiting for each other, and run in the order in which they are sent. */
  async function writeAll(tx: SqlSession, steps: readonly FencedStep[]): Promise<Map<FencedStep, SqlRow[]>> {
    const results = await Promise.all(
      // One order for all, so that transactions under different locks do not lock each other out of the same keys.
      steps.toSorted(byKey).map(async (step): Promise<[FencedStep, SqlRow[]]> => {
        const [rows = []] = await Promise.all(step.statements.map(({ sql, params }) => tx.query(sql, params)));
        return [step, rows];
      }),
    );
    return new Map(results);
  }

  function lineOf(lock: string): Line {
    const known = lines.get(lock);
    if (known !== undefined) return known;
    const line = { batches: createBatches({ portion: portionOf, process }), waiting: 0 };
    lines.set(lock, line);
    return line;
  }

  return {
    async carryOut(fence, steps) {
      const line = lineOf(fence.lock);
      line.waiting++;
      try {
        return await new Promise<FencedOutcome>((resolve, reject) => {
          line.batches.add({ fence, steps, resolve, reject });
        });
      } finally {
        line.waiting--;
        if (line.waiting === 0) lines.delete(fence.lock);
      }
    },
  };
}

function portionOf(queue: readonly Job[]): number {
  let steps = 0;
  let count = 0;
  for (const job of queue) {
    steps += job.steps.length;
    if (count > 0 && steps > MOST_STEPS) break;
    count++;
  }
  return count;
}

function byKey(one: FencedStep, other: FencedStep): number {
  if (one.namespace !== other.namespace) return one.namespace < other.namespace ? -1 : 1;
  if (one.key === other.key) return 0;
  return one.key < other.key ? -1 : 1;
}

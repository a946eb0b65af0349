import { join } from "node:path";
import type { ClaimId } from "../../src/dedup/record/claim.ts";
import type { ClaimOrder, CompleteOrder, ReleaseOrder } from "../../src/dedup/record/decide.ts";
import { createSqlTruth } from "../../src/dedup/truth/sql-truth.ts";
import type { Claimed, Truth } from "../../src/dedup/truth/truth.ts";
import { type Clock, systemClock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { createSqlClock, type SqlClock } from "../../src/infra/sql-clock.ts";
import { freshDatabase } from "../support/fresh.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { openTestDatabase, type SQL_KINDS } from "../support/test-database.ts";

export interface OpenTruth {
  readonly truth: Truth;
  readonly database: Database;
  readonly clock: SqlClock;
}

/** One truth, as one or several instances have it. */
export interface OpenTruths extends AsyncDisposable {
  readonly instances: readonly [OpenTruth, ...OpenTruth[]];
}

export interface TruthsOptions {
  readonly count?: number;
  /** Instead of the clock of the database. */
  readonly clock?: Clock;
  /** What is used instead of the database: one that fails when it is told to, say. */
  readonly spoil?: (database: Database) => Database;
}

/** Instances over one new, empty database; in SQLite there is only one. */
export async function openTruths(
  kind: (typeof SQL_KINDS)[number],
  { count = 1, clock, spoil = (database) => database }: TruthsOptions = {},
): Promise<OpenTruths> {
  await using parts = new AsyncDisposableStack();
  const directory = parts.adopt(scratchDirectory("dedup"), (it) => it.remove());
  const where = kind === "postgres" ? await freshDatabase() : join(directory.path, "dedup.db");
  const open = async (): Promise<OpenTruth> => {
    const database = spoil(parts.adopt(openTestDatabase(kind, where), (it) => it.close()));
    await migrate(database, migrations);
    const sqlClock: SqlClock = clock ? async () => clock.now() : createSqlClock(kind, systemClock);
    const truth = parts.adopt(createSqlTruth({ database, clock: sqlClock }), (it) => it.close());
    return { truth, database, clock: sqlClock };
  };
  const instances: [OpenTruth, ...OpenTruth[]] = [await open()];
  while (kind === "postgres" && instances.length < count) instances.push(await open());
  const kept = parts.move();
  return { instances, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

export function idOf(text: string, namespace = "default"): ClaimId {
  return { namespace, kind: "key", text };
}

export function claimOrder(id: ClaimId, given: Partial<ClaimOrder> = {}): ClaimOrder {
  return { id, ttlMs: 86_400_000, leaseMs: 60_000, atOnce: false, owner: "me", request: undefined, ...given };
}

export function completeOrder(id: ClaimId, token: number, given: Partial<CompleteOrder> = {}): CompleteOrder {
  return { id, token, ttlMs: undefined, result: undefined, ...given };
}

export function releaseOrder(id: ClaimId, token: number, forgetCompleted = false): ReleaseOrder {
  return { id, token, forgetCompleted };
}

export function resultOf(text: string) {
  const value = Buffer.from(text);
  return { value, bytes: value.length };
}

/** The token of who is the first. */
export async function tokenOf(claiming: Promise<Claimed>): Promise<number> {
  const claimed = await claiming;
  if (claimed.kind !== "first") throw new Error(`was not the first: ${claimed.kind}`);
  return claimed.claim.token;
}

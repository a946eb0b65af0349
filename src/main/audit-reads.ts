import type { Archive } from "../audit/archive.ts";
import { createGroupRpcs } from "../audit/group-rpcs.ts";
import type { Growth } from "../audit/growth.ts";
import type { Journal } from "../audit/journal.ts";
import { createListRpcs } from "../audit/list-rpcs.ts";
import { createLookupRpcs } from "../audit/lookup-rpcs.ts";
import { createProofRpcs } from "../audit/proof-rpcs.ts";
import type { Queue } from "../audit/queue.ts";
import { createReviewRpcs } from "../audit/review-rpcs.ts";
import type { Settled } from "../audit/settled.ts";
import type { SigningKey } from "../audit/signing-key.ts";
import { createSqlGroups } from "../audit/sql-groups.ts";
import { createSqlLeaves } from "../audit/sql-leaves.ts";
import { createSqlReviews } from "../audit/sql-reviews.ts";
import { createSqlSearch } from "../audit/sql-search.ts";
import { createSqlSequences } from "../audit/sql-sequences.ts";
import { createSqlTree } from "../audit/sql-tree.ts";
import { createTailRpc } from "../audit/tail-rpc.ts";
import type { Config } from "../config.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import type { Log } from "../infra/log.ts";

export interface AuditReadParts {
  readonly config: Config;
  readonly log: Log;
  readonly database: Database;
  readonly archive: Archive;
  readonly queue: Queue | undefined;
  readonly journal: Journal;
  readonly growth: Growth;
  readonly settled: Settled;
  readonly signingKey: SigningKey;
}

/** The RPCs of those who look into the log, review it, follow it and have it proved. */
export function createAuditReads(options: AuditReadParts) {
  const { config, log, database, archive, queue, journal, growth, signingKey } = options;
  const { instanceId } = config;
  const clock = systemClock;
  const search = createSqlSearch({ database });
  const settled = async (signal: AbortSignal) => void (await options.settled(signal));
  return {
    ...createListRpcs({ search, archive, settled: options.settled, clock }),
    ...createLookupRpcs({ archive, queue, journal, sequences: createSqlSequences(database) }),
    ...createReviewRpcs({ archive, reviews: createSqlReviews({ archive, clock }), search, settled: options.settled }),
    ...createGroupRpcs({
      ...{ growth, clock, log, settled, instanceId },
      groups: createSqlGroups({ database, clock }),
      servedBy: database.kind,
    }),
    ...createTailRpc({ archive, growth, settled, instanceId, leaves: createSqlLeaves(database) }),
    ...createProofRpcs({
      ...{ archive, signingKey, clock, settled: options.settled },
      store: createSqlTree(database),
      origin: config.audit.origin,
    }),
  };
}

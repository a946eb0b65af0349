import type { Archive } from "../audit/archive/archive.ts";
import type { Growth } from "../audit/archive/growth.ts";
import { createSqlLeaves } from "../audit/archive/sql-leaves.ts";
import { createGroupRpcs } from "../audit/groups/group-rpcs.ts";
import { createSqlGroups } from "../audit/groups/sql-groups.ts";
import { createTailRpc } from "../audit/groups/tail-rpc.ts";
import type { Settled } from "../audit/intake/settled.ts";
import type { Journal } from "../audit/journal/journal.ts";
import { createProofRpcs } from "../audit/proof/proof-rpcs.ts";
import type { SigningKey } from "../audit/proof/signing-key.ts";
import { createSqlTree } from "../audit/proof/sql-tree.ts";
import type { Queue } from "../audit/queue/queue.ts";
import { createLookupRpcs } from "../audit/review/lookup-rpcs.ts";
import { createReviewRpcs } from "../audit/review/review-rpcs.ts";
import { createSqlReviews } from "../audit/review/sql-reviews.ts";
import { createSqlSequences } from "../audit/review/sql-sequences.ts";
import { createListRpcs } from "../audit/search/list-rpcs.ts";
import { createSqlSearch } from "../audit/search/sql-search.ts";
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

import type { Config } from "../config.ts";
import type { Copies } from "../dedup/copies/copies.ts";
import { createNoCopies } from "../dedup/copies/no-copies.ts";
import { createRecall } from "../dedup/copies/recall.ts";
import { createSqlHead } from "../dedup/copies/sql-head.ts";
import { createDedup } from "../dedup/dedup.ts";
import { createSqlListing } from "../dedup/list/sql-listing.ts";
import { createDedupMetrics } from "../dedup/metrics.ts";
import { createDedupService } from "../dedup/service.ts";
import { createSqlSweep } from "../dedup/sql-sweep.ts";
import { startClaimSweeper } from "../dedup/sweeper.ts";
import { createSqlTruth } from "../dedup/truth/sql-truth.ts";
import type { Truth } from "../dedup/truth/truth.ts";
import type { Mounted } from "../infra/call.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import { createSqlClock, type SqlClock } from "../infra/sql-clock.ts";
import { databaseIdOf } from "../infra/sql-id.ts";
import type { Sweeper } from "../infra/sweeper.ts";
import type { Coordination } from "./coordination.ts";

export interface DedupParts extends Pick<Coordination, "redis"> {
  readonly config: Config;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly database: Database;
  /** What is added here is taken apart before the parts it stands on. */
  readonly parts: AsyncDisposableStack;
}

/** Deduplication over the tiers of this topology. */
export async function startDedup(options: DedupParts): Promise<Mounted> {
  const { config, metrics, database, parts } = options;
  const log = options.log.child({ component: "dedup" });
  const clock = createSqlClock(database.kind, systemClock);
  const copies = parts.adopt(await openCopies(options, clock, log), (it: Copies) => it.close());
  const truth = parts.adopt(createSqlTruth({ database, clock }), (it: Truth) => it.close());
  const measures = createDedupMetrics(metrics, copies);
  const removeSome = measures.countRemoved(createSqlSweep(database, clock));
  const { sweepIntervalMs: intervalMs } = config.dedup;
  parts.adopt(startClaimSweeper({ removeSome, intervalMs, log }), (it: Sweeper) => it.close());
  return createDedupService({
    dedup: measures.countCalls(createDedup({ truth, copies })),
    listing: createSqlListing(database, clock),
    layer: truth.layer,
  });
}

/** Loaded only where there is Redis, as all that speaks to it. */
async function openCopies({ config, database, redis }: DedupParts, clock: SqlClock, log: Log): Promise<Copies> {
  const head = createSqlHead(database, clock);
  const recall = createRecall(head);
  if (redis === undefined) return createNoCopies(recall);
  const { startRedisCopies } = await import("../dedup/copies/redis-copies.ts");
  return startRedisCopies({
    ...{ redis: redis.client, breaker: redis.breaker, head, recall, clock: systemClock, log },
    commandTimeoutMs: config.redis?.commandTimeoutMs ?? Number.POSITIVE_INFINITY,
    truthId: await databaseIdOf(database),
  });
}

import type { Config } from "../config.ts";
import { type HotCopies, NO_COPIES } from "../conversation/hot/hot-copies.ts";
import type { RedisCopies } from "../conversation/hot/redis-copies.ts";
import { createSqlCopiesTruth, mayBeCopied } from "../conversation/hot/sql-copies-truth.ts";
import type { Ledger } from "../conversation/ledger/ledger.ts";
import { createSqlLedger } from "../conversation/ledger/sql-ledger.ts";
import { type ConversationMetrics, createConversationMetrics } from "../conversation/metrics.ts";
import { createUsages } from "../conversation/read/usage.ts";
import { createPolicyFor } from "../conversation/record/policies.ts";
import { createConversationService } from "../conversation/service.ts";
import { createRemoval } from "../conversation/upkeep/removal.ts";
import { createSqlRemains } from "../conversation/upkeep/sql-remains.ts";
import { startConversationSweeper } from "../conversation/upkeep/sweeper.ts";
import { type ChangeBell, createChangeBell } from "../conversation/watch/change-bell.ts";
import { pruneChanges } from "../conversation/watch/sql-prune.ts";
import { ConversationStateService } from "../gen/holdfast/v1/conversation_pb.js";
import type { Mounted } from "../infra/call.ts";
import { systemClock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import type { Fences } from "../infra/fencing.ts";
import { lateRpcs } from "../infra/late-rpcs.ts";
import type { Log } from "../infra/log.ts";
import type { Metrics } from "../infra/metrics.ts";
import { databaseIdOf } from "../infra/sql-id.ts";
import type { Sweeper } from "../infra/sweeper.ts";
import type { Coordination } from "./coordination.ts";

export interface ConversationParts extends Pick<Coordination, "redis" | "backplane"> {
  readonly config: Config;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly database: Database;
  readonly fences: Fences;
  /** What is added here is taken apart before the parts it stands on. */
  readonly parts: AsyncDisposableStack;
}

/** RPCs whose code is loaded when somebody asks for them: all, since many a server has no conversations. */
const RPCS = [
  ...(["save", "patch", "appendMessages", "delete", "extendTtl", "restore", "fork", "watch", "cleanup"] as const),
  ...(["get", "exists", "getStatus", "listMessages", "list", "listVersions", "getStats"] as const),
];

/** So many changes are forgotten at a time. */
const CHANGES_PER_PORTION = 1_000;

/** Conversations over the tiers of this topology. */
export async function startConversations(options: ConversationParts): Promise<Mounted> {
  const { config, metrics, database, backplane, fences, parts } = options;
  const { policies, changesKeptMs, sweepIntervalMs } = config.conversation;
  const log = options.log.child({ component: "conversation" });
  const clock = systemClock;
  const policyFor = createPolicyFor(policies);
  const usages = createUsages();
  const redisCopies = await openCopies(options, log);
  const copies: HotCopies = redisCopies ?? NO_COPIES;
  if (redisCopies === undefined && (await mayBeCopied(database, clock.now() * 1000))) {
    log.warn({}, "others have hot copies in Redis, or had of late: they may read what was before for a moment longer");
  }
  const bell = parts.adopt(createChangeBell(backplane), (it: ChangeBell) => it.close());
  const measures = parts.adopt(
    createConversationMetrics({ metrics, database, usages, copies: redisCopies?.condition, log }),
    (it: ConversationMetrics) => it.close(),
  );
  const ledger = parts.adopt(
    measures.countWrites(createSqlLedger({ database, copies, policyFor, clock, onCommit: bell.ring })),
    (it: Ledger) => it.close(),
  );
  const remains = createSqlRemains(database);
  const removal = measures.countRemoved(createRemoval({ remains, ledger, clock }));
  parts.adopt(
    startConversationSweeper({
      ...{ remains, removal, changesKeptMs, clock, log, intervalMs: sweepIntervalMs },
      removeChanges: async (untilUs) =>
        (await pruneChanges(database, untilUs, CHANGES_PER_PORTION)) === CHANGES_PER_PORTION,
    }),
    (it: Sweeper) => it.close(),
  );
  return createConversationService([
    lateRpcs(ConversationStateService, RPCS, async () => {
      const { createConversationRpcs } = await import("./conversation-rpcs.ts");
      const { instanceId } = config;
      const shared = { instanceId, database, bell, ledger, copies, removal, usages, fences, policyFor, clock };
      return createConversationRpcs(shared);
    }),
  ]);
}

/** Loaded only where there is Redis, as all that speaks to it. */
async function openCopies(
  { config, database, redis, parts }: ConversationParts,
  log: Log,
): Promise<RedisCopies | undefined> {
  if (redis === undefined) return undefined;
  const { startRedisCopies } = await import("../conversation/hot/redis-copies.ts");
  return parts.adopt(
    await startRedisCopies({
      ...{ redis: redis.client, breaker: redis.breaker, clock: systemClock, log },
      commandTimeoutMs: config.redis?.commandTimeoutMs ?? Number.POSITIVE_INFINITY,
      truth: createSqlCopiesTruth(database),
      truthId: await databaseIdOf(database),
      documents: config.conversation.legacyCopies,
    }),
    (it: RedisCopies) => it.close(),
  );
}

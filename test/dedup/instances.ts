import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { onTestFinished } from "vitest";
import type { Copies } from "../../src/dedup/copies/copies.ts";
import { createNoCopies } from "../../src/dedup/copies/no-copies.ts";
import { createRecall } from "../../src/dedup/copies/recall.ts";
import { startRedisCopies } from "../../src/dedup/copies/redis-copies.ts";
import { createSqlHead } from "../../src/dedup/copies/sql-head.ts";
import { createDedup, type Dedup } from "../../src/dedup/dedup.ts";
import type { ClaimId } from "../../src/dedup/record/claim.ts";
import { ValueSchema } from "../../src/gen/holdfast/v1/cache_pb.js";
import { DedupServiceClaimResponseSchema } from "../../src/gen/holdfast/v1/dedup_pb.js";
import { type CircuitBreaker, createBreaker } from "../../src/infra/circuit-breaker.ts";
import { type Clock, systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { createRedis, parseRedisUrl, type Redis } from "../../src/infra/redis.ts";
import { databaseIdOf } from "../../src/infra/sql-id.ts";
import { until } from "../support/until.ts";
import { claimOrder, completeOrder, idOf, type OpenTruth, releaseOrder } from "./truths.ts";

export interface InstanceOptions {
  /** Without it the instance has no Redis. */
  readonly redisUrl?: string;
  readonly clock?: Clock;
  /** Between the copies and Redis. */
  readonly wrapRedis?: (redis: Redis) => Redis;
  readonly fillMs?: number;
}

/** One instance: claims over a truth, with copies. */
export interface DedupInstance {
  readonly dedup: Dedup;
  readonly copies: Copies;
  readonly redis: Redis | undefined;
  readonly breaker: CircuitBreaker;
  /** Claims and completes a thing, and returns the token. */
  done(text: string, result?: string): Promise<number>;
  /** How a Claim without a name ends: "first", or the result with what answered. */
  outcome(text: string): Promise<string>;
  /** Resolves when the copy of a completed claim answers. */
  copied(text: string): Promise<void>;
  forget(text: string, token: number): Promise<boolean>;
}

export async function startInstance(opened: OpenTruth, options: InstanceOptions = {}): Promise<DedupInstance> {
  const { redisUrl, clock = systemClock, wrapRedis = (it) => it, fillMs } = options;
  const { database, truth, clock: sqlClock } = opened;
  const redis = redisUrl === undefined ? undefined : wrapRedis(openRedis(redisUrl));
  const breaker = createBreaker({
    ...{ failureThreshold: 2, resetTimeoutMs: 1_000_000, halfOpenMaxCalls: 1, clock: systemClock },
    probe: async () => void (await redis?.ping()),
  });
  onTestFinished(() => breaker.close());
  const head = createSqlHead(database, sqlClock);
  const recall = createRecall(head);
  if (redis !== undefined) {
    redis.connect();
    await until(() => redis.connected, { what: "contact with Redis" });
  }
  const copies =
    redis === undefined
      ? createNoCopies(recall)
      : await startRedisCopies({
          ...{ redis, breaker, head, recall, clock, commandTimeoutMs: 250 },
          truthId: await databaseIdOf(database),
          ...(fillMs !== undefined && { fillMs }),
          log: createLog({ level: "silent" }),
        });
  const dedup = createDedup({ truth, copies });

  async function outcome(text: string): Promise<string> {
    const answer = await dedup.claim(claimOrder(idOf(text)));
    if (answer.kind !== "copy" && answer.kind !== "duplicate") return answer.kind;
    const { result, owner } = fromBinary(DedupServiceClaimResponseSchema, answer.reply);
    const from = answer.kind === "duplicate" ? "truth" : answer.degraded ? "copy, degraded" : "copy";
    return `${result?.kind.value ?? ""} of ${owner} from the ${from}`;
  }

  return {
    ...{ dedup, copies, redis, breaker, outcome },
    async done(text, result = "done") {
      const id: ClaimId = idOf(text);
      const claimed = await dedup.claim(claimOrder(id));
      if (claimed.kind !== "first") throw new Error(`was not the first: ${claimed.kind}`);
      const { token } = claimed.claim;
      const value = toBinary(ValueSchema, create(ValueSchema, { kind: { case: "text", value: result } }));
      await dedup.complete(completeOrder(id, token, { result: { value, bytes: result.length } }));
      return token;
    },
    async copied(text) {
      await until(async () => (await copies.read(idOf(text))) !== undefined, { what: `a copy of ${text}` });
    },
    forget: (text, token) => dedup.release(releaseOrder(idOf(text), token, true)),
  };
}

function openRedis(url: string): Redis {
  const parsed = parseRedisUrl(url);
  if (typeof parsed === "string") throw new Error(parsed);
  const redis = createRedis({ mode: "single", nodes: [], connectTimeoutMs: 1_000, ...parsed, commandTimeoutMs: 250 });
  onTestFinished(() => redis.close());
  return redis;
}

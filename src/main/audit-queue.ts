import { randomBytes } from "node:crypto";
import type { Archive } from "../audit/archive/archive.ts";
import type { Growth } from "../audit/archive/growth.ts";
import { type Archiver, createArchiver } from "../audit/queue/archiver.ts";
import { createGiveWay } from "../audit/queue/give-way.ts";
import { guardQueue } from "../audit/queue/guarded-queue.ts";
import type { Queue } from "../audit/queue/queue.ts";
import { createRedisBacklog } from "../audit/queue/redis-backlog.ts";
import { createRedisLease } from "../audit/queue/redis-lease.ts";
import { createRedisQueue } from "../audit/queue/redis-queue.ts";
import type { Config } from "../config.ts";
import type { Clock } from "../infra/clock.ts";
import type { Log } from "../infra/log.ts";
import type { Coordination } from "./coordination.ts";

export interface AuditQueueParts {
  readonly config: Config;
  readonly log: Log;
  readonly redis: NonNullable<Coordination["redis"]>;
  readonly growth: Growth;
  readonly archive: Archive;
  readonly clock: Clock;
  readonly onLost: () => void;
  readonly parts: AsyncDisposableStack;
}

/** The queue in Redis, and the archiver that empties it whenever this instance is the one. */
export async function startAuditQueue(options: AuditQueueParts): Promise<{ queue: Queue; archiver: Archiver }> {
  const { config, log, redis, growth, archive, clock, onLost, parts } = options;
  const { stream: streamKey, streamMaxLength: maxLength } = config.audit;
  const queue = guardQueue(
    createRedisQueue({ redis: redis.client, streamKey, maxLength, growth, onLost }),
    redis.breaker,
  );
  // An instance's id may be fixed, but a former life of it must not pass for this one.
  const holder = `${config.instanceId}.${randomBytes(4).toString("hex")}`;
  const isInThread = archive.kind === "sqlite";
  const backlog = createRedisBacklog({
    ...{ redis: redis.client, streamKey, consumer: config.instanceId },
    mostRecords: isInThread ? 4_000 : 8_000,
  });
  const lease = createRedisLease({ redis: redis.client, streamKey, holder });
  // When half of the queue is full, what comes in has gone first for long enough.
  const giveWay = isInThread ? createGiveWay(queue, maxLength / 2) : undefined;
  const archiver = createArchiver({ backlog, lease, archive, giveWay, clock, log });
  parts.defer(() => archiver.close());
  return { queue, archiver };
}

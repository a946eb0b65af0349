import type { Announcer } from "../cache/change.ts";
import { createDurableStore } from "../cache/durable.ts";
import { createHealer, RefugeAwayError } from "../cache/healer.ts";
import { createKept } from "../cache/kept.ts";
import { createLastResort } from "../cache/last-resort.ts";
import { createMemoryStore } from "../cache/memory.ts";
import type { Namespace } from "../cache/namespace.ts";
import type { PolicyFor } from "../cache/policy.ts";
import { createResilientStore } from "../cache/resilient.ts";
import { createSqlStore } from "../cache/sql.ts";
import { createSqlMarkReclaimer } from "../cache/sql-mark-reclaimer.ts";
import { startSqlReclaimer } from "../cache/sql-reclaimer.ts";
import type { CacheStore, Refuge } from "../cache/store.ts";
import { startSweeper } from "../cache/sweeper.ts";
import type { Versions } from "../cache/version.ts";
import { createAbsenceNotes } from "../infra/absence.ts";
import type { Breaker } from "../infra/breaker.ts";
import type { Clock } from "../infra/clock.ts";
import type { Database } from "../infra/database.ts";
import type { Fences } from "../infra/fencing.ts";
import { createGuarded, isCallersMistake } from "../infra/guarded.ts";
import type { Log } from "../infra/log.ts";
import type { Redis } from "../infra/redis.ts";
import { RedisReplyError } from "../infra/redis-failure.ts";

/** The shared layers of a topology, put together. */
export interface Layers {
  readonly storeOf: (namespace: Namespace) => CacheStore;
  /** Changes that Redis has not heard of yet. */
  unhealed(): Promise<number>;
  close(): Promise<void>;
}

export interface LayersOptions {
  readonly database: Database;
  readonly redis: { readonly client: Redis; readonly breaker: Breaker; readonly timeoutMs: number } | undefined;
  /** Frames a change for the backplane in use; undefined where there are no other instances. */
  readonly announcer: Announcer | undefined;
  readonly policyFor: PolicyFor;
  readonly versions: Versions;
  readonly fences: Fences;
  readonly clock: Clock;
  readonly log: Log;
}

const HEAL_SWEEP_MS = 5_000;
/** What may be remembered in memory while neither Redis nor SQL answers. */
const LAST_RESORT_BYTES = 64 * 1024 * 1024;

export async function createLayers(options: LayersOptions): Promise<Layers> {
  const { database, redis, announcer, clock, versions, fences, log } = options;
  const newStamp = () => versions.next();
  // Where Redis carries the messages, what SQL stores is announced from there.
  const sql = createSqlStore({ database, announcer: redis === undefined ? announcer : undefined, clock, newStamp });
  const marks = createSqlMarkReclaimer({ database, forgetMark: sql.forgetMark, newStamp });
  const reclaimer = startSqlReclaimer({ database, marks, log });
  if (redis === undefined || announcer === undefined) {
    const sweeper = startSweeper(sql, clock, log);
    const close = async () => {
      await Promise.all([sweeper.close(), reclaimer.close()]);
    };
    return { storeOf: () => sql, unhealed: async () => 0, close };
  }
  const { client, breaker, timeoutMs } = redis;
  // Not loaded where there is no Redis: its client would cost start-up time and memory for nothing.
  const { createRedisStore } = await import("../cache/redis.ts");
  const hot = createRedisStore({ redis: client, announcer, clock, newStamp });
  const kept = createKept();
  const memory = createMemoryStore({ clock, newStamp, maxBytes: LAST_RESORT_BYTES, log });
  const refuge = createLastResort({ refuge: sql, memory, log });
  const sweeper = startSweeper(refuge, clock, log);
  const healer = createHealer({
    primary: hot,
    refuge,
    sources: [memory, sql],
    kept,
    isDurable: (name) => options.policyFor(name)?.durable ?? false,
    reachable: () => breaker.state === "closed" && client.connected,
    now: () => clock.now(),
    log,
    sweepMs: HEAL_SWEEP_MS,
  });
  breaker.beforeClose(healer.heal);
  await recollect(sql, versions, kept.addAll);
  // Not at the next sweep: an outage too short to open the breaker, or a start, leaves changes behind as well.
  const stopHearing = client.onConnected(() => healer.soon());
  healer.soon();
  const isAnswer = (error: unknown) =>
    isCallersMistake(error) || error instanceof RedisReplyError || error instanceof RefugeAwayError;
  const guarded = createGuarded(breaker, timeoutMs, isAnswer);
  const noteAbsence = createAbsenceNotes("the cache", log, clock);
  const resilient = createResilientStore({
    primary: hot,
    refuge,
    isOwnRefuge: !database.shared,
    guarded,
    kept,
    healer,
    fences,
    newStamp,
    noteAbsence,
  });
  const durable = createDurableStore({ truth: sql, hot, guarded, kept, healer, now: () => clock.now(), noteAbsence });
  return {
    storeOf: (namespace) => (namespace.policy.durable ? durable : resilient),
    unhealed: () => refuge.unhealedCount(),
    async close() {
      stopHearing();
      healer.close();
      await Promise.all([sweeper.close(), reclaimer.close()]);
    },
  };
}

/** What an earlier run could not heal is still to be healed, and its versions must not be given out again. */
async function recollect(refuge: Refuge, versions: Versions, addAll: () => void): Promise<void> {
  const left = await refuge.unhealed(1);
  const marks = await refuge.unhealedMarks(1);
  if (left.length === 0 && marks.length === 0) return;
  addAll();
  versions.observe(await refuge.latestUnhealed());
}

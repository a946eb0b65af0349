import { LockAuthority } from "../../gen/holdfast/v1/lock_pb.js";
import type { Frame } from "../../infra/backplane-frame.ts";
import type { Breaker } from "../../infra/breaker.ts";
import type { Clock } from "../../infra/clock.ts";
import { UnavailableError } from "../../infra/failure.ts";
import { createGuarded } from "../../infra/guarded.ts";
import type { Log } from "../../infra/log.ts";
import { RequestIdReusedError } from "../../infra/named-request.ts";
import { type Redis, type RedisArgument, RedisReplyError, type RedisScript } from "../../infra/redis.ts";
import { LockAttemptOverError, LockAuthorityChangingError, LockAuthorityUnavailableError } from "../failures.ts";
import type { LossCause, ReleaseOrder, RenewOrder, TakeOrder } from "../record/decide.ts";
import { type Authority, LOCK_TOPIC, type Looked, type Renewed, type Taken } from "./authority.ts";
import type { Heads } from "./head.ts";
import { keysOf, type LockKeys, partitionsOf } from "./redis-keys.ts";
import { listLocks } from "./redis-list.ts";
import { createRedisLives, type RedisLife } from "./redis-lives.ts";
import { createRedisPatience } from "./redis-patience.ts";
import { leaseOf } from "./redis-record.ts";
import { lookScript, releaseScript, rememberScript, renewScript, takeScript } from "./redis-scripts.ts";
import { createRedisStrays } from "./redis-strays.ts";

export interface RedisAuthorityOptions {
  readonly redis: Redis;
  readonly breaker: Breaker;
  /** No call waits longer for Redis. */
  readonly commandTimeoutMs: number;
  /** Asked when a life of Redis begins, and only then. */
  readonly heads: Pick<Heads, "nextEpoch">;
  /** No smaller epoch is granted in: see epochFloorOf (redis-lives.ts). Asked for each call. */
  readonly epochFloor: () => number;
  /** Frames what tells the other instances that a lock is free. Undefined: there are none. */
  readonly frame: ((topic: string, message: string) => Frame) | undefined;
  readonly clock: Clock;
  readonly log: Log;
  /** The time instead of Redis', for tests. */
  readonly nowMs?: () => number;
}

type Values = readonly unknown[];

/** So often a call is sent again when Redis says that it has to be: each time for another reason, if all is well. */
const MOST_TRIES = 4;
const NOWHERE: Frame = { channel: "", payload: "" };

/**
 * Redis decides, in one script for each call. What it has forgotten costs a new epoch, so that tokens never go back.
 * Written without async functions: each lock that is taken passes through here twice.
 */
export function createRedisAuthority(options: RedisAuthorityOptions): Authority {
  const { redis, breaker, commandTimeoutMs, frame, clock, log, nowMs } = options;
  const partitions = partitionsOf(redis.mode);
  const guarded = createGuarded(breaker, commandTimeoutMs, (error) => error instanceof RedisReplyError);
  const lives = createRedisLives({ ...options, guarded });
  const patience = createRedisPatience(clock, commandTimeoutMs);
  const strays = createRedisStrays({
    ...{ redis, clock, log },
    release: (name, take) => releaseArguments(name, { take, end: "released" }),
  });
  const timeArgument = () => nowMs?.() ?? 0;

  function send(
    keys: LockKeys,
    script: RedisScript,
    scriptKeys: readonly string[],
    args: () => readonly RedisArgument[],
  ): Promise<Values> {
    return guarded(() => redis.run(script, scriptKeys, args())).then((reply) => {
      const values = Array.isArray(reply) ? reply : [];
      if (nowMs === undefined) patience.heard(keys, Number(values[1]));
      return values;
    });
  }

  /** For what has to be done in the life that the partition is in. */
  function sendAlive(
    keys: LockKeys,
    script: RedisScript,
    scriptKeys: readonly string[],
    args: (life: RedisLife) => readonly RedisArgument[],
    tries = MOST_TRIES,
  ): Promise<Values> {
    if (tries === 0) {
      return Promise.reject(new LockAuthorityUnavailableError("Redis begins one life after another"));
    }
    const again = () => sendAlive(keys, script, scriptKeys, args, tries - 1);
    const life = lives.of(keys);
    if (life === undefined) return lives.begin(keys).then(again);
    return send(keys, script, scriptKeys, () => args(life)).then((values) => {
      const [kind] = values;
      if (kind !== "life" && kind !== "late") return values;
      if (kind === "life") lives.ended(keys, life);
      return again();
    });
  }

  function take(order: TakeOrder): Promise<Taken> {
    const { name, request, ttlMs, owner, purpose, caller, instanceId, streamId, waits } = order;
    const keys = keysOf(name, partitions);
    // Whoever named the request can ask again, and is given the grant then.
    const take = request === undefined ? strays.name() : "";
    const who = JSON.stringify([owner, purpose, caller]);
    let wasSent = false;
    const args = ({ name: life, epoch }: RedisLife) => {
      wasSent = true;
      const until = nowMs === undefined ? patience.until(keys) : 0;
      const all = [timeArgument(), life, epoch, until, ttlMs, who, instanceId, waits ? 1 : 0, take, streamId];
      return request === undefined ? all : [...all, request.id, request.meaning];
    };
    const scriptKeys =
      request === undefined ? [keys.record, keys.life] : [keys.record, keys.life, keys.attempts + request.id];
    return sendAlive(keys, takeScript, scriptKeys, args).then(
      (values) => takenOf(order, values),
      (error: unknown) => {
        if (wasSent && take !== "" && error instanceof UnavailableError) strays.add(name, take, ttlMs);
        throw failureOf(error);
      },
    );
  }

  function takenOf(order: TakeOrder, [kind, time, ...more]: Values): Taken {
    const { name, request, ttlMs } = order;
    const now = Number(time);
    if (kind === "granted") {
      const token = Number(more[0]);
      const { owner, purpose, caller, instanceId, streamId } = order;
      const grant = {
        ...{ name, token, owner, purpose, caller, instanceId, streamId, ttlMs },
        ...{ requestId: request?.id ?? "", requestMeaning: request?.meaning ?? "" },
        ...{ acquireMs: now, expireMs: now + ttlMs, renewals: 0, end: "" as const, endMs: 0 },
      };
      return { kind, lease: { grant, remainingMs: ttlMs } };
    }
    if (kind === "yield") return { kind, afterMs: Number(more[0]) };
    if (kind === "over") throw new LockAttemptOverError(name, request?.id ?? "");
    if (kind === "reused") throw new RequestIdReusedError(request?.id ?? "");
    const lease = leaseOf(name, now, more);
    if (lease === undefined) throw unexpected(takeScript, kind);
    return kind === "again" ? { kind: "granted", lease } : { kind: "held", holder: lease };
  }

  function renew({ name, token, ttlMs, streamId, heir }: RenewOrder): Promise<Renewed> {
    const keys = keysOf(name, partitions);
    const args = ({ name: life, epoch }: RedisLife) => [
      ...[timeArgument(), life, epoch, token, ttlMs ?? "", optional(streamId)],
      ...[optional(heir?.streamId), heir?.instanceId ?? ""],
    ];
    return sendAlive(keys, renewScript, [keys.record, keys.life, keys.attempts], args).then(
      ([kind, time, ...record]) => {
        const lease = leaseOf(name, Number(time), record);
        if (isLossCause(kind)) return { kind: "over", cause: kind, holder: lease };
        if (kind !== "renewed" || lease === undefined) throw unexpected(renewScript, kind);
        return { kind, lease };
      },
      rethrow,
    );
  }

  function release(order: ReleaseOrder) {
    const { name } = order;
    const keys = keysOf(name, partitions);
    return send(keys, releaseScript, [keys.record, keys.attempts], () => releaseArguments(name, order)).then(
      ([kind, time, ...record]) => ({ released: kind === "released", lease: leaseOf(name, Number(time), record) }),
      rethrow,
    );
  }

  function releaseArguments(name: string, order: Partial<ReleaseOrder> & { readonly take?: string }): RedisArgument[] {
    const { token = 0, take = "", end = "released", streamId, undo = false } = order;
    const { channel, payload } = frame?.(LOCK_TOPIC, name) ?? NOWHERE;
    return [timeArgument(), token, take, end, optional(streamId), undo ? 1 : 0, channel, payload];
  }

  function look(name: string): Promise<Looked> {
    const keys = keysOf(name, partitions);
    const args = ({ name: life, epoch }: RedisLife) => [timeArgument(), life, epoch];
    return sendAlive(keys, lookScript, [keys.record, keys.life], args).then(([kind, time, ...more]) => {
      if (kind === "free") return { lease: undefined, lastToken: Number(more[0]) };
      const lease = leaseOf(name, Number(time), more);
      if (lease === undefined) throw unexpected(lookScript, kind);
      return { lease, lastToken: lease.grant.token };
    }, rethrow);
  }

  return {
    kind: LockAuthority.REDIS,
    take,
    renew,
    release,
    look,
    list: (query) =>
      listLocks(
        {
          scan: (pattern, cursor, count) => guarded(() => redis.scan(pattern, cursor, count)),
          look: (name) => look(name).then(({ lease }) => lease),
        },
        query,
      ).catch(rethrow),
    remember(name, { id, meaning }, text) {
      const keys = keysOf(name, partitions);
      return send(keys, rememberScript, [keys.attempts + id], () => [timeArgument(), meaning, text]).then(
        ([kind, , kept]) => {
          if (kind === "reused") throw new RequestIdReusedError(id);
          return String(kept);
        },
        rethrow,
      );
    },
    async close() {
      strays.close();
    },
  };
}

function optional(text: string | undefined): string {
  return text === undefined ? "" : `=${text}`;
}

function isLossCause(kind: unknown): kind is LossCause {
  return kind === "expired" || kind === "released" || kind === "forced" || kind === "taken_over";
}

function rethrow(error: unknown): never {
  throw failureOf(error);
}

function failureOf(error: unknown): unknown {
  if (!(error instanceof UnavailableError)) return error;
  if (error instanceof LockAuthorityUnavailableError || error instanceof LockAuthorityChangingError) return error;
  return new LockAuthorityUnavailableError(error.message, error);
}

function unexpected({ name }: RedisScript, kind: unknown): TypeError {
  return new TypeError(`script ${name} answered ${String(kind)}`);
}

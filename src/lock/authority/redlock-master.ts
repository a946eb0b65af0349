import type { Breaker } from "../../infra/breaker.ts";
import { UnavailableError } from "../../infra/failure.ts";
import { createGuarded, isCallersMistake } from "../../infra/guarded.ts";
import type { Log } from "../../infra/log.ts";
import type { Redis, RedisArgument, RedisScript } from "../../infra/redis.ts";
import { systemTimer, type Timer } from "../../infra/timer.ts";
import { LockAuthorityChangingError } from "../failures.ts";
import { clockMargin } from "../wait/valid-for.ts";
import type { Heads } from "./head.ts";
import { LIFE_KEY, lockKeys } from "./redlock-keys.ts";
import { ASK, ENROL, READ_ONLY } from "./redlock-scripts.ts";

/** A Redis of its own, which knows nothing of the others. */
export interface RedlockServer {
  /** For the log; without secrets. */
  readonly name: string;
  readonly redis: Redis;
  /** Of this server alone, so that one that is frozen holds nobody up. */
  readonly breaker: Breaker;
}

export interface MasterOptions {
  readonly server: RedlockServer;
  readonly commandTimeoutMs: number;
  readonly heads: Pick<Heads, "read" | "nextEpoch">;
  readonly log: Log;
  readonly monotonic: () => number;
  readonly timer?: Timer;
}

/** One of the masters, as this instance sees it. */
export interface Master {
  /** The run id of the server it is now. Undefined while it is not reached. */
  readonly run: string | undefined;
  /** Why its vote was missing when it was last asked. */
  readonly missing: string | undefined;
  /** Begins its life if nobody has. Rejects when it does not vote. */
  meet(): Promise<void>;
  /** As Redis.scan. Rejects when it does not vote. */
  scan: Redis["scan"];
  /** Whether it knows of this lock, held or not. */
  has(name: string): Promise<boolean>;
  /** Runs a script of redlock-scripts.ts, with this server's life before its arguments. Rejects when it does not vote. */
  ask(script: RedisScript, keys: readonly string[], args: readonly RedisArgument[]): Promise<readonly unknown[]>;
  /** The same, without waiting for it: it matters only when another master fails, and then all that answer are asked again. */
  tell(script: RedisScript, keys: readonly string[], args: readonly RedisArgument[]): void;
}

/** It answers, and its answer must not count. */
export class NotVotingError extends UnavailableError {
  /** Without its name, for whoever may not know that. */
  readonly why: string;

  constructor(name: string, why: string, retryAfterMs = 1_000) {
    super("REDLOCK_NOT_VOTING", `${name} does not vote: ${why}`, {
      retryAfterMs: Math.max(1, Math.ceil(retryAfterMs)),
    });
    this.why = why;
  }
}

/** What scripts answer in a life without an epoch. */
const NO_LIFE = -2;

/** A life that could not be begun, because SQL was away, is tried again after this long. */
const ENROL_AGAIN_MS = 500;

/**
 * A master that restarted, was flushed or replaced may have forgotten what it voted for. In its new life it votes only when the
 * longest lease that may have been granted is over, and its tokens are of an epoch that no token had before.
 */
export function createMaster(options: MasterOptions): Master {
  const { commandTimeoutMs, heads, log, monotonic, timer = systemTimer } = options;
  const { name, redis, breaker } = options.server;
  const guarded = createGuarded(breaker, commandTimeoutMs, isCallersMistake);
  let enrolling: Promise<void> | undefined;
  let enrolAt = Number.NEGATIVE_INFINITY;
  let missing: string | undefined = "it has not been asked yet";

  async function ask(script: RedisScript, keys: readonly string[], args: readonly RedisArgument[]) {
    try {
      const reply = await vote(script, keys, args);
      missing = undefined;
      return reply;
    } catch (error) {
      missing = error instanceof NotVotingError ? error.why : "it does not answer";
      throw error;
    }
  }

  async function vote(script: RedisScript, keys: readonly string[], args: readonly RedisArgument[]) {
    const first = await send(script, keys, args);
    if (first[0] !== NO_LIFE) return voted(first);
    // A first life begins at once: the first callers need not be sent away for it.
    await begin(String(first[1]));
    return voted(await send(script, keys, args));
  }

  async function send(script: RedisScript, keys: readonly string[], args: readonly RedisArgument[]) {
    const reply = await guarded(async () => {
      const run = redis.lifeOf(LIFE_KEY) ?? (await firstLife());
      return run === "" ? undefined : redis.run(script, keys, [run, ...args]);
    });
    if (reply === undefined) throw new NotVotingError(name, "it does not tell its run id (INFO server)");
    if (!Array.isArray(reply)) throw new TypeError(`${script.name} did not answer with a list`);
    return reply;
  }

  function voted(reply: readonly unknown[]): readonly unknown[] {
    if (reply[0] === NO_LIFE) throw new NotVotingError(name, "it began a new life, which has no epoch yet");
    if (reply[0] === -1) throw new NotVotingError(name, "leases of before it began may last", Number(reply[1]));
    return reply;
  }

  /** Before the first connection there is none: a command waits for it. */
  async function firstLife(): Promise<string> {
    await redis.ping();
    const run = redis.lifeOf(LIFE_KEY);
    if (run === undefined) throw new UnavailableError("REDIS_UNAVAILABLE", `${name} was lost again`);
    return run;
  }

  /** Resolves when its life began, or when that takes too long for a caller to wait for. */
  async function begin(sign: string): Promise<void> {
    if (enrolling === undefined && monotonic() < enrolAt) return;
    enrolling ??= enrol(sign)
      .catch((error: unknown) => {
        enrolAt = monotonic() + ENROL_AGAIN_MS;
        log.warn({ err: error, server: name }, "a lock master cannot be given an epoch yet");
      })
      .finally(() => {
        enrolling = undefined;
      });
    let cancel = () => {};
    const isLate = new Promise<void>((resolve) => {
      cancel = timer(resolve, commandTimeoutMs);
    });
    await Promise.race([enrolling, isLate]);
    cancel();
  }

  async function enrol(sign: string): Promise<void> {
    const [run = ""] = sign.split(" ");
    const epoch = await heads.nextEpoch("redlock");
    // Read after its sign was put up: whatever it voted for before is no longer than this.
    const { mode, longestMs, quietMs } = await heads.read();
    if (epoch === undefined || mode !== "redlock") throw new LockAuthorityChangingError("redlock no longer decides");
    const oldestMs = Math.max(longestMs, quietMs);
    const waitMs = oldestMs === 0 ? 0 : Math.ceil(oldestMs + clockMargin(oldestMs));
    const reply = await guarded(() => redis.run(ENROL, [LIFE_KEY], [run, sign, epoch, waitMs]));
    if (!Array.isArray(reply) || reply[0] !== 1) return;
    log.info({ server: name, epoch, waitMs }, "a lock master began a new life; it votes when older leases are over");
  }

  async function meet(): Promise<void> {
    await ask(ASK, lockKeys("", undefined), READ_ONLY);
  }

  async function scan(pattern: string, cursor: string, count: number) {
    // What it does not have may be held all the same while it does not vote.
    if (cursor === "0") await meet();
    return guarded(() => redis.scan(pattern, cursor, count));
  }

  return {
    get run() {
      return redis.lifeOf(LIFE_KEY);
    },
    get missing() {
      return missing;
    },
    meet,
    ask,
    tell(script, keys, args) {
      ask(script, keys, args).catch((error: unknown) =>
        log.debug({ err: error, server: name, script: script.name }, "a lock master could not be told"),
      );
    },
    scan,
    has: async (name) => (await guarded(() => redis.command("exists", ...lockKeys(name, undefined).slice(0, 1)))) === 1,
  };
}

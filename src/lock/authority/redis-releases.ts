import type { Frame } from "../../infra/backplane-frame.ts";
import type { RedisArgument } from "../../infra/redis.ts";
import type { ReleaseOrder } from "../record/decide.ts";
import { LOCK_TOPIC, type Released } from "./authority.ts";
import { failureOf, unexpected } from "./redis-answers.ts";
import type { Batch, BatchedOrder, RedisBatches } from "./redis-batches.ts";
import { keysOf, type LockKeys } from "./redis-keys.ts";
import { leaseOf } from "./redis-record.ts";
import { releaseScript } from "./redis-scripts.ts";

export interface RedisReleasesParts {
  readonly batches: RedisBatches;
  readonly partitions: number;
  /** Frames what tells the other instances that a lock is free. Undefined: there are none. */
  readonly frame: ((topic: string, message: string) => Frame) | undefined;
  /** The time that scripts are given: 0 for the server's. */
  readonly time: () => number;
  readonly heard: (keys: LockKeys, nowMs: number) => void;
}

export interface RedisReleases {
  release(order: ReleaseOrder): Promise<Released>;
  /** What the script is to be given so that it ends what this take was granted. */
  ofTake(name: string, take: string): { readonly keys: readonly string[]; readonly args: readonly RedisArgument[] };
}

const NOWHERE: Frame = { channel: "", payload: "" };
/** Of a brief order. */
const RELEASED: Released = { released: true, lease: undefined, unkept: true };

/** Ends leases, by the batch. */
export function createRedisReleases(parts: RedisReleasesParts): RedisReleases {
  const { batches, partitions, frame, time, heard } = parts;
  const framed = (name: string) => frame?.(LOCK_TOPIC, name) ?? NOWHERE;

  function batchOf(keys: LockKeys, channel: string): Batch {
    const group = `release ${keys.partition}`;
    return (
      batches.find(group) ??
      batches.begin(group, {
        script: releaseScript,
        keys: [],
        args: [time(), channel],
        orders: [],
        heard: (nowMs) => heard(keys, nowMs),
      })
    );
  }

  return {
    release(order) {
      const { name, token, streamId, end, undo, brief } = order;
      const of = keysOf(name, partitions);
      const { channel, payload } = framed(name);
      const { keys, args, orders } = batchOf(of, channel);
      const how = (undo ? "u" : "") + (end === "forced" ? "f" : "") + (streamId === undefined ? "" : "s");
      keys.push(of.record);
      args.push(brief ? `b${how}` : how, token, payload);
      if (streamId !== undefined) args.push(streamId);
      if (undo) keys.push(of.attempts);
      return new Promise((resolve, reject) => {
        orders.push(new RedisRelease(name, resolve, reject));
      });
    },
    ofTake(name, take) {
      const { channel, payload } = framed(name);
      return { keys: [keysOf(name, partitions).record], args: [time(), channel, "t", take, payload] };
    },
  };
}

/** One order, until it has its answer. */
class RedisRelease implements BatchedOrder {
  readonly #name: string;
  readonly #resolve: (released: Released) => void;
  readonly #reject: (error: unknown) => void;

  constructor(name: string, resolve: (released: Released) => void, reject: (error: unknown) => void) {
    this.#name = name;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  answered(answer: unknown): void {
    if (answer === 1) {
      this.#resolve(RELEASED);
      return;
    }
    if (!Array.isArray(answer)) throw unexpected(releaseScript, answer);
    const [kind, time, ...record]: readonly unknown[] = answer;
    if (kind !== "released" && kind !== "not") throw unexpected(releaseScript, kind);
    this.#resolve({ released: kind === "released", lease: leaseOf(this.#name, Number(time), record) });
  }

  failed(error: unknown): void {
    this.#reject(failureOf(error));
  }
}

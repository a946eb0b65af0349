import type { Clock } from "../../infra/clock.ts";
import type { Guarded } from "../../infra/guarded.ts";
import type { Redis, RedisArgument } from "../../infra/redis.ts";
import type { RedisScript } from "../../infra/redis-script.ts";
import type { ConversationKey } from "../record/conversation.ts";
import { copyKeys } from "./copy-keys.ts";

export interface CopyCallsOptions {
  readonly redis: Redis;
  /** See `createRedisLives`. */
  readonly lifeAt: (key: string) => string | undefined;
  readonly clock: Pick<Clock, "monotonic">;
}

/** What was held up on its way for longer than this comes too late. */
const LATE_MS = 10_000;
/** One call of a script must not hold up the others for long. */
const MOST_KEYS = 50;
const MOST_BYTES = 1024 * 1024;

/** How scripts are called that take pairs of a copy and its document. */
export function createCopyCalls({ redis, lifeAt, clock }: CopyCallsOptions) {
  const isCluster = redis.mode === "cluster";
  /** By how much the clock of a server, in a life of it, is ahead of our monotonic one. */
  const offsets = new Map<string, number>();

  function pairOf(key: ConversationKey): readonly string[] {
    const { copy, document, together } = copyKeys(key);
    return [copy, together || !isCluster ? document : copy];
  }

  /** Of keys of one server. `args` is told in which life it will be. */
  async function call(
    script: RedisScript,
    keys: readonly ConversationKey[],
    args: (life: string) => readonly RedisArgument[],
    through: Guarded,
  ): Promise<{ readonly values: readonly unknown[]; readonly life: string }> {
    const pairs = keys.flatMap(pairOf);
    return through(async () => {
      // Where there is no connection yet, this is what makes one.
      let life = lifeAt(pairs[0] ?? "");
      if (life === undefined) await redis.ping();
      life ??= lifeAt(pairs[0] ?? "") ?? "";
      const reply = await redis.run(script, pairs, args(life));
      if (!Array.isArray(reply)) throw new TypeError(`script ${script.name} did not answer with a list`);
      const [now, ...values] = reply;
      if (offsets.size > 100) offsets.clear();
      offsets.set(life, Number(now) - clock.monotonic());
      return { values, life };
    });
  }

  /** By the clock of the server. Before that is known, everything is late: then it is known. */
  function tooLateAt(began: number, life: string): number {
    const offset = offsets.get(life);
    return offset === undefined ? 0 : Math.floor(began + LATE_MS + offset);
  }

  /** Once more where it was late though it has not taken long: now the clock of the server is known. */
  async function inTime<Reply>(
    began: number,
    attempt: () => Promise<Reply>,
    isLate: (reply: Reply) => boolean,
  ): Promise<Reply> {
    const reply = await attempt();
    return isLate(reply) && clock.monotonic() - began < LATE_MS ? await attempt() : reply;
  }

  /** What one call takes: in a cluster one conversation. */
  function portions<T extends ConversationKey>(items: readonly T[], bytesOf: (item: T) => number = () => 0): T[][] {
    const all: T[][] = [];
    let bytes = 0;
    for (const item of items) {
      const last = all.at(-1);
      bytes += bytesOf(item);
      if (last === undefined || isCluster || last.length >= MOST_KEYS || bytes > MOST_BYTES) {
        all.push([item]);
        bytes = bytesOf(item);
      } else {
        last.push(item);
      }
    }
    return all;
  }

  /** Each portion succeeds or fails by itself. */
  async function each<T, Result>(
    items: readonly T[][],
    work: (portion: readonly T[]) => Promise<readonly Result[]>,
  ): Promise<PromiseSettledResult<Result>[]> {
    const settled = await Promise.allSettled(items.map(work));
    return settled.flatMap((result, at): PromiseSettledResult<Result>[] => {
      if (result.status === "rejected") return (items[at] ?? []).map(() => result);
      return result.value.map((value) => ({ status: "fulfilled", value }));
    });
  }

  return { call, tooLateAt, inTime, portions, each };
}

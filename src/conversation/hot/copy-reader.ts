import type { Guarded } from "../../infra/guarded.ts";
import type { Redis } from "../../infra/redis.ts";
import { createRedisReader } from "../../infra/redis-reader.ts";
import { createTimeLimit } from "../../infra/time-limit.ts";
import { createRecent } from "./recent.ts";
import { createRoom } from "./room.ts";

/** Reads copies, so much at a time that covers get through beside it. */
export interface CopyReader {
  /** Null: there is none. Undefined: so much was asked for already that it could not be asked for in time. */
  read(copy: string): Promise<Buffer | null | undefined>;
  /** How large a copy is now. */
  note(copy: string, bytes: number): void;
}

export interface CopyReaderOptions {
  readonly redis: Pick<Redis, "getBuffers">;
  readonly guarded: Guarded;
  /** No reader waits longer than this in all. */
  readonly timeoutMs: number;
  /** How large a copy can be, but for what is held beside its state. */
  readonly largest: number;
}

/** How many of the largest copies are asked for at a time. */
const LARGEST_AT_A_TIME = 32;
/** What is no larger holds nobody up, so it need not wait. */
const SMALL = 8 * 1024;
const MOST_KNOWN = 20_000;
/** How much each copy of unknown size says about the next one. */
const WEIGHT = 1 / 64;
const LEAST_USUAL = 4 * 1024;

export function createCopyReader({ redis, guarded, timeoutMs, largest }: CopyReaderOptions): CopyReader {
  const reader = createRedisReader(redis);
  const room = createRoom(LARGEST_AT_A_TIME * largest);
  const sizes = createRecent<number>(MOST_KNOWN);
  /** What a copy of unknown size counts as: what such copies had of late. Careful until some were seen. */
  let usual = largest / 4;
  // Who is let in after half of the time has the other half for the answer.
  const waiting = createTimeLimit(timeoutMs / 2);
  const reading = createTimeLimit(timeoutMs);

  async function fetch(copy: string): Promise<Buffer | null> {
    const [bytes = null] = await guarded(() => reader.fetch([copy], []));
    const size = bytes?.length ?? 0;
    if (sizes.get(copy) === undefined) usual = Math.max(LEAST_USUAL, usual + (size - usual) * WEIGHT);
    if (bytes !== null) sizes.set(copy, size);
    return bytes;
  }

  function fetchWhenThereIsRoom(copy: string, bytes: number): Promise<Buffer | null | undefined> {
    return new Promise((resolve, reject) => {
      const giveUp = () => resolve(undefined);
      const [wait, whole] = [waiting.begin(giveUp), reading.begin(giveUp)];
      const end = () => {
        whole.onOverdue = undefined;
      };
      const fetchInTime = async () => {
        const isOverdue = wait.onOverdue === undefined;
        wait.onOverdue = undefined;
        return isOverdue ? undefined : await fetch(copy);
      };
      room.run(bytes, fetchInTime).then(resolve, reject).finally(end);
    });
  }

  return {
    read(copy) {
      const known = sizes.get(copy);
      if (known !== undefined && known <= SMALL) return fetch(copy);
      const bytes = known ?? usual;
      return room.hasRoom(bytes) ? room.run(bytes, () => fetch(copy)) : fetchWhenThereIsRoom(copy, bytes);
    },
    note: sizes.set,
  };
}

import type { Redis } from "./redis.ts";

/** Raw values by Redis key. Calls made in one turn of the event loop share one round trip, and each mark is fetched once. */
export interface RedisReader {
  /** The values of `keys`, then those of `marks`. */
  fetch(keys: readonly string[], marks: readonly string[]): Promise<(Buffer | null)[]>;
}

interface Waiting {
  readonly positions: readonly number[];
  readonly resolve: (values: (Buffer | null)[]) => void;
  readonly reject: (error: unknown) => void;
}

interface Batch {
  readonly wanted: string[];
  readonly marks: Map<string, number>;
  readonly waiting: Waiting[];
}

/** One reply must not grow without bound, nor hold up the commands behind it for long. */
const MOST_KEYS = 500;

export function createRedisReader(redis: Pick<Redis, "getBuffers">): RedisReader {
  let batch: Batch | undefined;

  async function send({ wanted, waiting }: Batch): Promise<void> {
    try {
      const chunks: Promise<(Buffer | null)[]>[] = [];
      for (let at = 0; at < wanted.length; at += MOST_KEYS) {
        chunks.push(redis.getBuffers(wanted.length <= MOST_KEYS ? wanted : wanted.slice(at, at + MOST_KEYS)));
      }
      const values = chunks.length === 1 ? await (chunks[0] ?? []) : (await Promise.all(chunks)).flat();
      for (const one of waiting) one.resolve(one.positions.map((at) => values[at] ?? null));
    } catch (error) {
      for (const one of waiting) one.reject(error);
    }
  }

  function flush(): void {
    const full = batch;
    batch = undefined;
    if (full !== undefined) void send(full);
  }

  return {
    fetch(keys, marks) {
      if (batch === undefined) {
        batch = { wanted: [], marks: new Map(), waiting: [] };
        setImmediate(flush);
      }
      const { wanted, marks: known, waiting } = batch;
      const positions: number[] = [];
      for (const key of keys) positions.push(wanted.push(key) - 1);
      for (const mark of marks) {
        let at = known.get(mark);
        if (at === undefined) {
          at = wanted.push(mark) - 1;
          known.set(mark, at);
        }
        positions.push(at);
      }
      return new Promise((resolve, reject) => {
        waiting.push({ positions, resolve, reject });
      });
    },
  };
}

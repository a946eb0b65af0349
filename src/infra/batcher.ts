/**
 * Collects what is asked for in one turn of the event loop and does it in one go: many small calls become one large one
 * without waiting for a timer.
 */
export type Batcher<Item, Result> = (item: Item) => Promise<Result>;

interface Pending<Item, Result> {
  readonly item: Item;
  readonly resolve: (result: Result) => void;
  readonly reject: (error: unknown) => void;
}

/** `flush` answers one result an item, in order. Larger batches are cut into pieces of `most`. */
export function createBatcher<Item, Result>(
  flush: (items: readonly Item[]) => Promise<readonly Result[]>,
  most: number,
): Batcher<Item, Result> {
  let pending: Pending<Item, Result>[] = [];

  async function run(batch: readonly Pending<Item, Result>[]): Promise<void> {
    try {
      const results = await flush(batch.map((one) => one.item));
      batch.forEach((one, i) => {
        one.resolve(results[i] as Result);
      });
    } catch (error) {
      for (const one of batch) one.reject(error);
    }
  }

  function flushAll(): void {
    const all = pending;
    pending = [];
    for (let at = 0; at < all.length; at += most) void run(all.slice(at, at + most));
  }

  return (item) =>
    new Promise((resolve, reject) => {
      if (pending.length === 0) setImmediate(flushAll);
      pending.push({ item, resolve, reject });
    });
}

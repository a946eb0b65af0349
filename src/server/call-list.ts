import type { Call } from "./call.ts";

/**
 * The calls under way. Linked through the calls themselves, and unlinked without a trace: a Set that calls come to and leave
 * at this rate keeps the collector from freeing them (see infra/churn-table.ts).
 */
export interface CallList extends Iterable<Call> {
  add(call: Call): void;
  /** False when it was not in the list. */
  delete(call: Call): boolean;
  readonly size: number;
}

export function createCallList(): CallList {
  let newest: Call | undefined;
  let size = 0;

  return {
    add(call) {
      call.isListed = true;
      call.older = newest;
      if (newest !== undefined) newest.newer = call;
      newest = call;
      size++;
    },
    delete(call) {
      if (!call.isListed) return false;
      call.isListed = false;
      const { older, newer } = call;
      if (older !== undefined) older.newer = newer;
      if (newer === undefined) newest = older;
      else newer.older = older;
      call.older = undefined;
      call.newer = undefined;
      size--;
      return true;
    },
    /** What ends while the list is gone through does not disturb it. */
    *[Symbol.iterator]() {
      const all: Call[] = [];
      for (let call = newest; call !== undefined; call = call.older) all.push(call);
      yield* all.reverse();
    },
    get size() {
      return size;
    },
  };
}

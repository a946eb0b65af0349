import { LRUCache } from "lru-cache";
import type { CacheRecord } from "./record.ts";
import type { UnhealedMark } from "./store.ts";
import { invalidationStamp, isInvalidation, madeStamp } from "./version.ts";

/** The stamps of namespaces ("" among the tags) and tags, in memory. */
export interface MemoryMarks {
  ensure(namespace: string, tags: readonly string[]): number[];
  areCurrent(namespace: string, record: Pick<CacheRecord, "tags" | "stamps">): boolean;
  /** No tags: the namespace. Returns the marks as they stand now. */
  invalidate(namespace: string, tags: readonly string[], stamp: number, keep: boolean): UnhealedMark[];
  isInvalidated(namespace: string, tags: readonly string[], version: number): boolean;
  readonly unhealed: ReadonlyMap<string, UnhealedMark>;
  settle(mark: UnhealedMark): void;
}

/** Beyond this the least used is forgotten, and with it everything that carries it. */
const MOST_MARKS = 100_000;

/** `onLoss` is called for each unhealed mark that had to go because there are too many. */
export function createMemoryMarks(newStamp: () => number, onLoss: () => void): MemoryMarks {
  const stamps = new LRUCache<string, number>({ maxSize: MOST_MARKS, sizeCalculation: () => 1 });
  const unhealed = new Map<string, UnhealedMark>();
  const nameOf = (namespace: string, tag: string) => `${namespace}/${tag}`;

  function remember(name: string, mark: UnhealedMark): void {
    unhealed.delete(name);
    unhealed.set(name, mark);
    const [eldest] = unhealed.size > MOST_MARKS ? unhealed.keys() : [];
    if (eldest === undefined) return;
    unhealed.delete(eldest);
    onLoss();
  }

  return {
    unhealed,
    ensure: (namespace, tags) =>
      tags.map((tag) => {
        const name = nameOf(namespace, tag);
        const stamp = stamps.get(name) ?? madeStamp(newStamp());
        stamps.set(name, stamp);
        return stamp;
      }),
    areCurrent: (namespace, { tags, stamps: own }) =>
      ["", ...tags].every((tag, i) => stamps.get(nameOf(namespace, tag)) === own[i]),
    invalidate: (namespace, tags, stamp, keep) =>
      (tags.length === 0 ? [""] : tags).map((tag) => {
        const name = nameOf(namespace, tag);
        const have = stamps.get(name) ?? 0;
        const next = have >= invalidationStamp(stamp) ? have + 1 + (have % 2) : invalidationStamp(stamp);
        const mark = { namespace, tag, stamp: next };
        stamps.set(name, next);
        if (keep || unhealed.has(name)) remember(name, mark);
        return mark;
      }),
    isInvalidated: (namespace, tags, version) =>
      ["", ...tags].some((tag) => {
        const stamp = stamps.get(nameOf(namespace, tag)) ?? 0;
        return isInvalidation(stamp) && stamp > version;
      }),
    settle({ namespace, tag, stamp }) {
      const name = nameOf(namespace, tag);
      if (unhealed.get(name)?.stamp === stamp) unhealed.delete(name);
    },
  };
}

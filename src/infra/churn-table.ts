/**
 * A small map for entries that come and go with each call. A `Map` under such churn builds its table anew every few hundred
 * calls, and each table that was left points to the next: once one of them has grown old, the collector keeps all that follow,
 * with the calls in them, until its next full collection. Measured, that took a third of the processor time of a read from
 * Redis. This one never rebuilds: it has a fixed number of buckets, and an entry that leaves points nowhere.
 */
export interface ChurnTable<Value> {
  get(name: string): Value | undefined;
  set(name: string, value: Value): void;
  delete(name: string): void;
  clear(): void;
  readonly size: number;
}

interface Entry<Value> {
  readonly name: string;
  value: Value;
  next: Entry<Value> | undefined;
}

/** Many more than there are calls under way at a time, as a rule. */
const BUCKETS = 4_096;
/** Names differ at their ends; the whole of a long one need not be looked at to spread them. */
const HASHED_CHARACTERS = 24;

export function createChurnTable<Value>(): ChurnTable<Value> {
  const buckets = new Array<Entry<Value> | undefined>(BUCKETS).fill(undefined);
  let size = 0;

  function find(name: string): Entry<Value> | undefined {
    for (let entry = buckets[bucketOf(name)]; entry !== undefined; entry = entry.next) {
      if (entry.name === name) return entry;
    }
    return undefined;
  }

  return {
    get: (name) => find(name)?.value,
    set(name, value) {
      const known = find(name);
      if (known !== undefined) {
        known.value = value;
        return;
      }
      const bucket = bucketOf(name);
      buckets[bucket] = { name, value, next: buckets[bucket] };
      size++;
    },
    delete(name) {
      const bucket = bucketOf(name);
      let before: Entry<Value> | undefined;
      for (let entry = buckets[bucket]; entry !== undefined; before = entry, entry = entry.next) {
        if (entry.name !== name) continue;
        if (before === undefined) buckets[bucket] = entry.next;
        else before.next = entry.next;
        entry.next = undefined;
        size--;
        return;
      }
    },
    clear() {
      if (size > 0) buckets.fill(undefined);
      size = 0;
    },
    get size() {
      return size;
    },
  };
}

function bucketOf(name: string): number {
  let hash = name.length;
  for (let i = Math.max(0, name.length - HASHED_CHARACTERS); i < name.length; i++) {
    hash = (Math.imul(hash, 31) + name.charCodeAt(i)) | 0;
  }
  return (hash ^ (hash >>> 12)) & (BUCKETS - 1);
}

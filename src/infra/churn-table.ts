/**
 * A small map for entries that come and go with each call. With a `Map` in its place, what had ended survived young collections
 * until the next full one, and calls cost visibly more. The likely reason is that a `Map` under churn builds its table anew, and
 * each table that was left points to the next (docs/decisions/0014 says what was measured and what was not). This one never
 * rebuilds: it has a fixed number of buckets, and an entry that leaves points nowhere.
 */
export interface ChurnTable<Value> {
  get(name: string): Value | undefined;
  set(name: string, value: Value): void;
  delete(name: string): void;
  clear(): void;
  /** All of them. Looks into every bucket: not for each call. */
  values(): Value[];
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
    values() {
      const all: Value[] = [];
      for (let entry of buckets) for (; entry !== undefined; entry = entry.next) all.push(entry.value);
      return all;
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

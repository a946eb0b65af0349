/** What this instance did for a collection since it started. */
export interface Usage {
  hotHits: number;
  sqlHits: number;
  conflicts: number;
}

/** Counts of reads and refused writes, by collection. */
export interface Usages {
  /** To be counted up. */
  of(collection: string): Usage;
  /** Of all of them. */
  total(): Usage;
}

/** Callers choose the names, so there is an end to what is remembered of them: more are not counted. */
const MOST_COLLECTIONS = 10_000;

export function createUsages(): Usages {
  const usages = new Map<string, Usage>();
  return {
    of(collection) {
      const known = usages.get(collection);
      if (known !== undefined) return known;
      const usage: Usage = { hotHits: 0, sqlHits: 0, conflicts: 0 };
      if (usages.size < MOST_COLLECTIONS) usages.set(collection, usage);
      return usage;
    },
    total() {
      const total: Usage = { hotHits: 0, sqlHits: 0, conflicts: 0 };
      for (const { hotHits, sqlHits, conflicts } of usages.values()) {
        total.hotHits += hotHits;
        total.sqlHits += sqlHits;
        total.conflicts += conflicts;
      }
      return total;
    },
  };
}

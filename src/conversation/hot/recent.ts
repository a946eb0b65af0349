/** What was noted of late, by name; what was noted long ago is forgotten. */
export interface Recent<T> {
  get(name: string): T | undefined;
  set(name: string, value: T): void;
}

export function createRecent<T>(most: number): Recent<T> {
  // Two halves, the older of which is dropped when the newer is full: no entry has to be moved to know which is the oldest.
  let newer = new Map<string, T>();
  let older = new Map<string, T>();
  return {
    get: (name) => newer.get(name) ?? older.get(name),
    set(name, value) {
      newer.set(name, value);
      if (newer.size * 2 <= most) return;
      older = newer;
      newer = new Map();
    },
  };
}

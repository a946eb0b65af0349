/**
 * Which keys and namespaces changed while Redis was away, as this instance remembers it, so that a read knows when it must
 * not believe Redis. The record itself is in SQL; this is only the index to it.
 */
export interface Kept {
  readonly any: boolean;
  hasKey(namespace: string, key: string): boolean;
  hasMark(namespace: string): boolean;
  addKeys(namespace: string, keys: readonly string[]): void;
  addMark(namespace: string): void;
  /** What is kept is not known (after a start, or too much to list): everything may be. */
  addAll(): void;
  /** Begins a healing; changes added from here on outlive it. */
  beginHealing(): void;
  /** Everything kept before the healing began is healed. */
  endHealing(): void;
}

/** Beyond this many keys it is cheaper to ask SQL about every key for a while. */
const MOST = 100_000;

interface Generation {
  readonly keys: Set<string>;
  readonly marks: Set<string>;
  all: boolean;
}

export function createKept(): Kept {
  let now = emptyGeneration();
  let healing: Generation | undefined;
  const nameOf = (namespace: string, key: string) => `${namespace}/${key}`;
  const isKept = (has: (one: Generation) => boolean) => has(now) || (healing !== undefined && has(healing));

  return {
    get any() {
      return isKept((one) => one.all || one.keys.size > 0 || one.marks.size > 0);
    },
    hasKey: (namespace, key) => isKept((one) => one.all || one.keys.has(nameOf(namespace, key))),
    hasMark: (namespace) => isKept((one) => one.all || one.marks.has(namespace)),
    addKeys(namespace, keys) {
      for (const key of keys) now.keys.add(nameOf(namespace, key));
      if (now.keys.size > MOST) {
        now.all = true;
        now.keys.clear();
      }
    },
    addMark: (namespace) => now.marks.add(namespace),
    addAll() {
      now.all = true;
    },
    beginHealing() {
      if (healing === undefined) {
        healing = now;
      } else {
        for (const key of now.keys) healing.keys.add(key);
        for (const mark of now.marks) healing.marks.add(mark);
        healing.all ||= now.all;
      }
      now = emptyGeneration();
    },
    endHealing() {
      healing = undefined;
    },
  };
}

function emptyGeneration(): Generation {
  return { keys: new Set(), marks: new Set(), all: false };
}

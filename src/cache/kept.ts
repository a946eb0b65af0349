/**
 * Which keys and namespaces changed while Redis was away, as this instance remembers it, so that a read knows when it must
 * not believe Redis. The record itself is in SQL; this is only the index to it.
 */
export interface Kept {
  readonly any: boolean;
  hasKey(namespace: string, key: string): boolean;
  hasMark(namespace: string): boolean;
  addKeys(namespace: string, keys: readonly string[]): void;
  /** No tags: the namespace. */
  addMarks(namespace: string, tags: readonly string[]): void;
  /** Tags ("" is the namespace itself) invalidated meanwhile; undefined when not known. */
  raisedTags(namespace: string): ReadonlySet<string> | undefined;
  /** What is kept is not known (after a start, or too much to list): everything may be. */
  addAll(): void;
  /** Begins a healing; changes added from here on outlive it. */
  beginHealing(): void;
  /** These are healed, whatever becomes of the rest; unless they changed since the healing began. */
  healedKeys(namespace: string, keys: readonly string[]): void;
  healedMarks(namespace: string, tags: readonly string[]): void;
  /** Everything kept before the healing began is healed. */
  endHealing(): void;
}

/** Beyond this many keys or tags it is cheaper to ask SQL about every key for a while. */
const MOST = 100_000;

interface Generation {
  readonly keys: Set<string>;
  readonly marks: Map<string, Set<string>>;
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
    addMarks: (namespace, tags) => addMarks(now, namespace, tags.length === 0 ? [""] : tags),
    raisedTags(namespace) {
      if (isKept((one) => one.all)) return undefined;
      const [ours, healings] = [now.marks.get(namespace), healing?.marks.get(namespace)];
      return new Set([...(ours ?? []), ...(healings ?? [])]);
    },
    addAll() {
      now.all = true;
    },
    beginHealing() {
      if (healing === undefined) {
        healing = now;
      } else {
        for (const key of now.keys) healing.keys.add(key);
        for (const [namespace, tags] of now.marks) addMarks(healing, namespace, tags);
        healing.all ||= now.all;
      }
      now = emptyGeneration();
    },
    healedKeys(namespace, keys) {
      for (const key of keys) healing?.keys.delete(nameOf(namespace, key));
    },
    healedMarks(namespace, tags) {
      const left = healing?.marks.get(namespace);
      for (const tag of tags) left?.delete(tag);
      if (left?.size === 0) healing?.marks.delete(namespace);
    },
    endHealing() {
      healing = undefined;
    },
  };
}

function emptyGeneration(): Generation {
  return { keys: new Set(), marks: new Map(), all: false };
}

function addMarks(generation: Generation, namespace: string, tags: Iterable<string>): void {
  const known = generation.marks.get(namespace) ?? new Set();
  for (const tag of tags) known.add(tag);
  generation.marks.set(namespace, known);
  if (known.size > MOST || generation.marks.size > MOST) {
    generation.all = true;
    generation.marks.clear();
  }
}

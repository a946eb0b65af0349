import { LRUCache } from "lru-cache";
import type { Clock } from "../infra/clock.ts";
import type { Log } from "../infra/log.ts";
import { createMemoryLeases } from "./memory-leases.ts";
import { createMemoryMarks } from "./memory-marks.ts";
import { type CacheRecord, type Draft, isFresh } from "./record.ts";
import {
  type Guard,
  isOvertaken,
  type KeyPage,
  ListingInterruptedError,
  type MemoryRefuge,
  type ReadResult,
  refuseFenced,
  type Write,
  type WriteResult,
} from "./store.ts";

export interface MemoryStoreOptions {
  readonly clock: Clock;
  readonly newStamp: () => number;
  readonly maxBytes: number;
  readonly log: Log;
}

interface Entry {
  readonly namespace: string;
  readonly key: string;
  readonly record: CacheRecord;
}

const CURSOR = "memory:";
const OVERHEAD_BYTES = 500;
const MOST_ANSWERS = 100_000;

export function createMemoryStore({ clock, newStamp, maxBytes, log }: MemoryStoreOptions): MemoryRefuge {
  // Two, so that what another layer has as well is the first to go.
  const healed = newEntries();
  const unhealed = newEntries();
  const marks = createMemoryMarks(newStamp, dropped);
  const leases = createMemoryLeases(clock);
  const answers = new LRUCache<string, { answer: string; expiresAt: number }>({
    maxSize: MOST_ANSWERS,
    sizeCalculation: () => 1,
  });
  let lost = 0;

  const nameOf = (namespace: string, key: string) => `${namespace}/${key}`;
  const answerName = (namespace: string, key: string, id: string) => JSON.stringify([namespace, key, id]);

  function dropped(): void {
    lost++;
    if (lost > 1) return;
    log.error({ maxBytes }, "memory is full of cache changes that no other layer has: the oldest are being dropped");
  }

  function find(namespace: string, key: string): Entry | undefined {
    const name = nameOf(namespace, key);
    return unhealed.get(name) ?? healed.get(name);
  }

  function put(entry: Entry, isUnhealed: boolean): void {
    const name = nameOf(entry.namespace, entry.key);
    healed.delete(name);
    unhealed.delete(name);
    (isUnhealed ? unhealed : healed).set(name, entry);
    while (healed.calculatedSize + unhealed.calculatedSize > maxBytes) {
      if (healed.pop() === undefined && unhealed.pop() !== undefined) dropped();
    }
  }

  function resultOf(namespace: string, entry: Entry | undefined): ReadResult {
    const record = entry?.record;
    return { record, valid: record !== undefined && marks.areCurrent(namespace, record), layer: "l1" };
  }

  function writeOne(namespace: string, write: Write, over: "any" | "kept"): WriteResult {
    const { key, draft, guard, request } = write;
    const there = find(namespace, key)?.record;
    const stamps = write.stamps ?? marks.ensure(namespace, ["", ...draft.tags]);
    if (isOvertaken(guard, stamps)) return { stored: false, why: "overtaken", stamp: Math.max(...stamps), layer: "l1" };
    const visible = over === "kept" ? unhealed.get(nameOf(namespace, key))?.record : there;
    if (guard.kind === "lease" && !leases.holds(namespace, key, guard.token))
      return { stored: false, why: "lease", layer: "l1" };
    if (!holds(guard, draft, visible, over))
      return { stored: false, why: guard.kind === "lease" ? "lease" : "version", layer: "l1" };
    const mayBump = guard.kind !== "newer" && there !== undefined && there.version >= draft.version;
    const version = mayBump ? there.version + 1 : draft.version;
    const record = { ...detached(draft), version, stamps };
    put({ namespace, key, record }, write.unhealed ?? false);
    if (guard.kind !== "newer") leases.void(namespace, key);
    if (request !== undefined) {
      const { answer, expiresAt } = request;
      answers.set(answerName(namespace, key, request.id), { answer, expiresAt });
    }
    return { stored: true, version, stamps, layer: "l1" };
  }

  function list(namespace: string, prefix: string, limit: number, cursor: string | undefined): KeyPage {
    if (cursor !== undefined && !cursor.startsWith(CURSOR)) throw new ListingInterruptedError();
    const after = cursor?.slice(CURSOR.length);
    const now = clock.now();
    const found: Entry[] = [];
    for (const entries of [healed, unhealed]) {
      for (const entry of entries.values()) {
        const isWanted = entry.namespace === namespace && entry.key.startsWith(prefix);
        if (!isWanted || (after !== undefined && entry.key <= after)) continue;
        if (isFresh(entry.record, now) && marks.areCurrent(namespace, entry.record)) found.push(entry);
      }
    }
    found.sort((a, b) => (a.key < b.key ? -1 : 1));
    const keys = found.slice(0, limit).map(({ key, record }) => ({
      key,
      version: record.version,
      expiresAt: record.expiresAt,
    }));
    return { keys, cursor: found.length > limit ? CURSOR + (keys.at(-1)?.key ?? "") : undefined };
  }

  return {
    layer: "l1",
    get any() {
      return unhealed.size > 0 || marks.unhealed.size > 0;
    },
    get lost() {
      return lost;
    },
    keeps: (namespace, key) => unhealed.has(nameOf(namespace, key)),
    isInvalidated: marks.isInvalidated,
    read: async (namespace, keys) => keys.map((key) => resultOf(namespace, find(namespace, key))),
    readKept: async (namespace, keys) => keys.map((key) => resultOf(namespace, unhealed.get(nameOf(namespace, key)))),
    async write(namespace, writes) {
      refuseFenced(writes);
      return writes.map((write) => writeOne(namespace, write, "any"));
    },
    async keep(namespace, writes) {
      refuseFenced(writes);
      return writes.map((write) => writeOne(namespace, { ...write, unhealed: true }, "kept"));
    },
    async invalidate(namespace, tags, stamp) {
      marks.invalidate(namespace, tags, stamp, false);
      return {};
    },
    keepInvalidation: async (namespace, tags, stamp) => marks.invalidate(namespace, tags, stamp, true),
    acquireLease: leases.acquire,
    releaseLease: leases.release,
    async recall(namespace, key, requestId) {
      const known = answers.get(answerName(namespace, key, requestId));
      return known !== undefined && known.expiresAt > clock.now() ? known.answer : undefined;
    },
    list: async (namespace, prefix, limit, cursor) => list(namespace, prefix, limit, cursor),
    unhealed: async (limit) =>
      firstOf(unhealed.values(), limit).map(({ namespace, key, record }) => ({
        namespace,
        key,
        version: record.version,
      })),
    unhealedMarks: async (limit) => firstOf(marks.unhealed.values(), limit),
    unhealedCount: async () => unhealed.size + marks.unhealed.size,
    async latestUnhealed() {
      let latest = 0;
      for (const { record } of unhealed.values()) latest = Math.max(latest, record.version);
      for (const { stamp } of marks.unhealed.values()) latest = Math.max(latest, stamp);
      return latest;
    },
    raisedTags: async (namespace) =>
      new Set([...marks.unhealed.values()].filter((mark) => mark.namespace === namespace).map((mark) => mark.tag)),
    async settle(entries, forget) {
      for (const { namespace, key, version } of entries) {
        const name = nameOf(namespace, key);
        const entry = unhealed.get(name);
        if (entry?.record.version !== version) continue;
        unhealed.delete(name);
        if (!forget) put(entry, false);
      }
    },
    async settleMarks(raised) {
      for (const mark of raised) marks.settle(mark);
    },
    async sweep(now, limit) {
      let swept = 0;
      for (const [name, { record }] of healed.entries()) {
        if (swept === limit) break;
        if (record.staleUntil === undefined || record.staleUntil > now) continue;
        healed.delete(name);
        swept++;
      }
      for (const [name, { expiresAt }] of answers.entries()) if (expiresAt <= now) answers.delete(name);
      return swept === limit;
    },
  };
}

/** Only measures: the bound is one for both, and whoever keeps it must see what goes. */
function newEntries(): LRUCache<string, Entry> {
  return new LRUCache({
    maxSize: Number.MAX_SAFE_INTEGER,
    sizeCalculation: ({ namespace, key, record }) => {
      const { data, contentType } = record.value;
      const body = typeof data === "string" ? 2 * data.length : data.byteLength;
      const tags = record.tags.reduce((sum, tag) => sum + 2 * tag.length + 32, 0);
      return OVERHEAD_BYTES + 4 * (namespace.length + key.length) + body + 2 * contentType.length + tags;
    },
  });
}

function holds(guard: Guard, draft: Draft, there: CacheRecord | undefined, over: "any" | "kept"): boolean {
  switch (guard.kind) {
    case "none":
      return !guard.ordered || there === undefined || there.version < draft.version;
    case "newer": {
      if (there === undefined || there.version < draft.version) return true;
      return there.version === draft.version && there.deleted && !draft.deleted;
    }
    case "version": {
      // What is kept here says nothing of the version that the layer above had.
      if (there === undefined) return guard.seen === 0 || guard.orAbsent === true || over === "kept";
      return there.version === guard.seen;
    }
    case "lease":
      return there === undefined || there.version === guard.seen;
  }
}

function firstOf<T>(values: Iterable<T>, limit: number): T[] {
  const first: T[] = [];
  for (const value of values) {
    if (first.length === limit) break;
    first.push(value);
  }
  return first;
}

/** Bytes that arrived as part of a larger buffer would keep all of it alive. */
function detached(draft: Draft): Draft {
  const { data, contentType } = draft.value;
  return typeof data === "string" ? draft : { ...draft, value: { data: Uint8Array.from(data), contentType } };
}

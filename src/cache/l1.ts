import { LRUCache } from "lru-cache";
import { createChurnTable } from "../infra/churn-table.ts";
import type { Namespace, TagMark } from "./namespace.ts";
import type { CacheRecord, CacheValue } from "./record.ts";

/** A copy in this process's memory. */
export interface Held {
  readonly record: CacheRecord;
  readonly namespace: Namespace;
  readonly generation: number;
  readonly marks: readonly TagMark[];
  /** From when on a shared layer must be asked whether the copy is still right; on the monotonic clock. */
  readonly checkAt: number;
  /** The epoch it was read in: after a gap in the backplane every earlier copy is suspect. */
  readonly epoch: number;
  /** What it counts for against the bound. */
  readonly bytes: number;
  /** Whether a reader was already asked to compute the value anew. */
  refreshAsked: boolean;
}

/** Where a change of a key is watched for while a read or write of it is under way. */
export interface Pending {
  /** Changes up to this version have been heard of: an older record must not be kept. */
  floor: number;
  users: number;
  readonly invalidations: number;
  readonly epoch: number;
}

/** The first layer: copies bounded by bytes, dropped when another instance says the key changed. */
export interface L1 {
  /** The copy, unless it was invalidated. It may be due for a check, suspect or expired: see isCurrent. */
  get(namespace: Namespace, key: string): Held | undefined;
  /** Whether the copy may be served without asking anyone. */
  isCurrent(held: Held): boolean;
  /** Begin and end of a read or write: what changed in between is not overwritten by what was on its way. */
  begin(namespace: Namespace, key: string): Pending;
  end(namespace: Namespace, key: string, pending: Pending): void;
  /**
   * Keeps a record, unless the key or what it belongs to changed since `pending` began. Makes room for it; told not to, it only
   * keeps what there is room for.
   */
  put(namespace: Namespace, key: string, record: CacheRecord, pending: Pending, makeRoom?: boolean): Held | undefined;
  /** Forgets copies older than the version. */
  drop(namespace: Namespace, key: string, version: number): void;
  /** Forgets this copy, because a shared layer does not have it any more. */
  forget(namespace: Namespace, key: string, held: Held): void;
  dropTag(namespace: Namespace, tag: string): void;
  dropNamespace(namespace: Namespace): void;
  /** Something may have been missed: every copy must be checked before it is served again. */
  suspectAll(): void;
  /** Whether the record could be kept without another having to go. */
  hasRoomFor(namespace: Namespace, key: string, record: CacheRecord): boolean;
  readonly entries: number;
  readonly bytes: number;
}

export interface L1Options {
  readonly maxBytes: number;
  /** Bound on the number of entries, beside the bytes. Undefined: none. */
  readonly maxItems: number | undefined;
  readonly monotonic: () => number;
}

// Measured, heap and malloc together, after a full collection; see docs/decisions/0013-memory.md. A test holds the sum to
// what entries really take.
const OVERHEAD_BYTES = 440;
/** What bytes cost more than a text of the same length: a view, its buffer, and where that is kept. */
const RAW_BYTES = 250;
/** A tag costs a copy its place in three lists and up to two numbers. The text itself is shared where it can be. */
const TAG_BYTES = 120;
/** And more when no other copy has it: then its text and what copies with it share are there for this one alone. */
const NEW_TAG_BYTES = 200;

export function createL1({ maxBytes, maxItems, monotonic }: L1Options): L1 {
  const pendings = createChurnTable<Pending>();
  let epoch = 0;
  const copies = new LRUCache<string, Held>({
    maxSize: Math.max(1, maxBytes),
    sizeCalculation: (held) => held.bytes,
    dispose: (held, _name, reason) => {
      const { counters, tags } = held.namespace;
      counters.l1Entries--;
      counters.l1Bytes -= held.bytes;
      if (reason === "evict") counters.l1Evictions++;
      held.marks.forEach((mark, i) => {
        mark.holders--;
        const tag = held.record.tags[i];
        if (mark.holders === 0 && tag !== undefined && tags.get(tag) === mark) tags.delete(tag);
      });
    },
  });

  const nameOf = (namespace: Namespace, key: string) => `${namespace.name}/${key}`;

  function isDead(held: Held, namespace: Namespace): boolean {
    if (held.namespace !== namespace || held.generation !== namespace.generation) return true;
    for (const mark of held.marks) if (mark.dead) return true;
    return false;
  }

  function marksFor(namespace: Namespace, tags: readonly string[]): readonly TagMark[] {
    if (tags.length === 0) return NO_MARKS;
    return tags.map((tag) => {
      let mark = namespace.tags.get(tag);
      if (mark === undefined) {
        mark = { dead: false, holders: 0 };
        namespace.tags.set(tag, mark);
      }
      mark.holders++;
      return mark;
    });
  }

  /** In place of the copy that the key has, if any. */
  function isRoomFor(bytes: number, before: Held | undefined): boolean {
    if (copies.calculatedSize - (before?.bytes ?? 0) + bytes > maxBytes) return false;
    return before !== undefined || maxItems === undefined || copies.size < maxItems;
  }

  return {
    get(namespace, key) {
      const name = nameOf(namespace, key);
      const held = copies.get(name);
      if (held === undefined) return undefined;
      if (!isDead(held, namespace)) return held;
      copies.delete(name);
      return undefined;
    },
    isCurrent: (held) => held.epoch === epoch && held.checkAt > monotonic(),
    begin(namespace, key) {
      const name = nameOf(namespace, key);
      const shared = pendings.get(name);
      // Two that overlap share a floor, but only if nothing was invalidated in between: the later one may keep what it reads.
      if (shared !== undefined && shared.invalidations === namespace.invalidations && shared.epoch === epoch) {
        shared.users++;
        return shared;
      }
      const pending = { floor: shared?.floor ?? 0, users: 1, invalidations: namespace.invalidations, epoch };
      pendings.set(name, pending);
      return pending;
    },
    end(namespace, key, pending) {
      const name = nameOf(namespace, key);
      if (--pending.users === 0 && pendings.get(name) === pending) pendings.delete(name);
    },
    put(namespace, key, record, pending, makeRoom = true) {
      const { l1TtlMs } = namespace.policy;
      if (l1TtlMs === 0 || record.deleted || record.version < pending.floor) return undefined;
      if (pending.invalidations !== namespace.invalidations || namespace.generation === Number.POSITIVE_INFINITY) {
        return undefined;
      }
      const name = nameOf(namespace, key);
      const bytes = sizeOf(record, name, namespace);
      if (bytes > maxBytes) return undefined;
      const before = copies.peek(name);
      if (before !== undefined && before.record.version > record.version && !isDead(before, namespace))
        return undefined;
      if (!makeRoom && !isRoomFor(bytes, before)) return undefined;
      const held: Held = {
        record: compacted(record, namespace),
        namespace,
        generation: namespace.generation,
        marks: marksFor(namespace, record.tags),
        checkAt: monotonic() + l1TtlMs,
        epoch: pending.epoch,
        bytes,
        refreshAsked: before?.record.version === record.version && before.refreshAsked,
      };
      namespace.counters.l1Entries++;
      namespace.counters.l1Bytes += bytes;
      copies.set(flat(name), held);
      // Not by the library's own bound, for which it would set aside room for all of the items at once.
      if (maxItems !== undefined && copies.size > maxItems) copies.pop();
      return held;
    },
    drop(namespace, key, version) {
      const name = nameOf(namespace, key);
      const pending = pendings.get(name);
      if (pending !== undefined && pending.floor < version) pending.floor = version;
      const held = copies.peek(name);
      if (held !== undefined && held.record.version < version) copies.delete(name);
    },
    forget(namespace, key, held) {
      const name = nameOf(namespace, key);
      if (copies.peek(name) === held) copies.delete(name);
    },
    dropTag(namespace, tag) {
      namespace.invalidations++;
      const mark = namespace.tags.get(tag);
      if (mark === undefined) return;
      mark.dead = true;
      namespace.tags.delete(tag);
    },
    dropNamespace(namespace) {
      namespace.invalidations++;
      namespace.generation++;
    },
    suspectAll() {
      epoch++;
    },
    hasRoomFor(namespace, key, record) {
      const name = nameOf(namespace, key);
      return isRoomFor(sizeOf(record, name, namespace), copies.peek(name));
    },
    get entries() {
      return copies.size;
    },
    get bytes() {
      return copies.calculatedSize;
    },
  };
}

const NO_MARKS: readonly TagMark[] = [];

function sizeOf(record: CacheRecord, name: string, { tags }: Namespace): number {
  const { data, contentType } = record.value;
  let bytes = OVERHEAD_BYTES + textBytes(name) + textBytes(contentType);
  bytes += typeof data === "string" ? textBytes(data) : data.byteLength + RAW_BYTES;
  for (const tag of record.tags) bytes += textBytes(tag) + TAG_BYTES + (tags.has(tag) ? 0 : NEW_TAG_BYTES);
  return bytes;
}

/** V8 keeps a byte for each character, or two when a single one does not fit in a byte. */
function textBytes(text: string): number {
  return WIDE.test(text) ? 2 * text.length : text.length;
}

const WIDE = /[\u0100-\uffff]/;

/** A text put together from others keeps all of them until it is read in place. */
function flat(text: string): string {
  text.charCodeAt(0);
  return text;
}

/** The lists of the copy kept last in a namespace. Most copies have no tags and the namespace's one stamp: they share these. */
const lists = new WeakMap<Namespace, Pick<CacheRecord, "tags" | "stamps">>();

/** The record as it is kept: with nothing in it that only this copy holds, or that holds more than it shows. */
function compacted(record: CacheRecord, namespace: Namespace): CacheRecord {
  const last = lists.get(namespace);
  const tags = last !== undefined && areEqual(last.tags, record.tags) ? last.tags : record.tags;
  const stamps = last !== undefined && areEqual(last.stamps, record.stamps) ? last.stamps : record.stamps;
  if (last?.tags !== tags || last.stamps !== stamps) lists.set(namespace, { tags, stamps });
  const { version, deleted, value, createdAt, expiresAt, staleUntil } = record;
  return { version, deleted, value: detached(value), createdAt, expiresAt, staleUntil, tags, stamps };
}

function areEqual<T>(one: readonly T[], other: readonly T[]): boolean {
  return one.length === other.length && one.every((item, i) => item === other[i]);
}

/** Bytes that arrived as part of a larger buffer would keep all of it alive. */
function detached(value: CacheValue): CacheValue {
  const { data, contentType } = value;
  if (typeof data === "string" || data.byteLength === data.buffer.byteLength) return value;
  return { data: new Uint8Array(data), contentType };
}

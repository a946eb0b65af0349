import { UnavailableError } from "../infra/failure.ts";
import type { Log } from "../infra/log.ts";
import type { MemoryRefuge, ReadResult, Refuge, Unhealed, Write, WriteResult } from "./store.ts";

export interface LastResortOptions {
  readonly refuge: Refuge;
  readonly memory: MemoryRefuge;
  readonly log: Log;
}

/**
 * A refuge, and this process's memory for when the refuge is away too. What memory keeps is newer than what the refuge kept
 * before it went away, so memory is asked first and the newer of both counts; each change is healed and settled where it is.
 */
export function createLastResort({ refuge, memory, log }: LastResortOptions): Refuge {
  let isAway = false;

  async function either<T>(work: () => Promise<T>, fallback: () => Promise<T> | T): Promise<T> {
    try {
      const result = await work();
      if (isAway) log.info({}, "cache changes are kept in SQL again");
      isAway = false;
      return result;
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      if (!isAway) log.warn({ err: error }, "neither Redis nor SQL keeps cache changes: memory does");
      isAway = true;
      return fallback();
    }
  }

  async function readBoth(
    namespace: string,
    keys: readonly string[],
    read: (store: Refuge) => Promise<ReadResult[]>,
  ): Promise<ReadResult[]> {
    // Before the refuge: what is moved there meanwhile is seen in one of them at least.
    const own = await read(memory);
    const results = await either(
      () => read(refuge),
      () => keys.map((): ReadResult => ({ ...UNKNOWN, layer: refuge.layer })),
    );
    return results.map((theirs, i) => {
      const mine = own[i];
      if (mine?.record !== undefined && mine.record.version >= (theirs.record?.version ?? 0)) return mine;
      const { record } = theirs;
      if (record === undefined || !memory.isInvalidated(namespace, record.tags, record.version)) return theirs;
      return { ...theirs, valid: false };
    });
  }

  /** Where memory has the newest, memory decides; as soon as the refuge is back, it is moved there, to outlive this process. */
  async function keep(namespace: string, writes: readonly Write[]): Promise<WriteResult[]> {
    const [here, there] = [
      writes.filter(({ key }) => memory.keeps(namespace, key)),
      writes.filter(({ key }) => !memory.keeps(namespace, key)),
    ];
    const [own, theirs] = await Promise.all([
      here.length === 0 ? [] : memory.keep(namespace, here),
      there.length === 0
        ? []
        : either(
            () => refuge.keep(namespace, there),
            () => memory.keep(namespace, there),
          ),
    ]);
    if (here.length > 0) await move(namespace, here, own);
    const results = new Map([...zip(here, own), ...zip(there, theirs)]);
    return writes.map((write) => {
      const result = results.get(write);
      if (result === undefined) throw new Error("a write got no result");
      return result;
    });
  }

  async function move(namespace: string, writes: readonly Write[], results: readonly WriteResult[]): Promise<void> {
    const copies: Write[] = [];
    const moved: Unhealed[] = [];
    for (const [{ key, draft }, result] of zip(writes, results)) {
      if (!result.stored) continue;
      const { version } = result;
      const guard = { kind: "newer", grantedAt: version } as const;
      copies.push({ key, draft: { ...draft, version }, guard, unhealed: true, announce: "no" });
      moved.push({ namespace, key, version });
    }
    const stored = await either(
      () => refuge.write(namespace, copies),
      () => [],
    );
    await memory.settle(
      moved.filter((_, i) => stored[i]?.stored),
      true,
    );
  }

  return {
    layer: refuge.layer,
    read: (namespace, keys) => readBoth(namespace, keys, (store) => store.read(namespace, keys)),
    readKept: (namespace, keys) => readBoth(namespace, keys, (store) => store.readKept(namespace, keys)),
    keep,
    write: (namespace, writes) =>
      either(
        () => refuge.write(namespace, writes),
        () => memory.write(namespace, writes),
      ),
    async invalidate(namespace, tags, stamp) {
      if (memory.any) await memory.invalidate(namespace, tags, stamp);
      return either(
        () => refuge.invalidate(namespace, tags, stamp),
        () => ({ degraded: true }),
      );
    },
    keepInvalidation: (namespace, tags, stamp) =>
      either(
        async () => {
          const marks = await refuge.keepInvalidation(namespace, tags, stamp);
          // What memory keeps is judged by memory's own marks.
          if (memory.any) await memory.invalidate(namespace, tags, stamp);
          return marks;
        },
        () => memory.keepInvalidation(namespace, tags, stamp),
      ),
    acquireLease: (namespace, key, token, expiresAt) =>
      either(
        () => refuge.acquireLease(namespace, key, token, expiresAt),
        () => memory.acquireLease(namespace, key, token, expiresAt),
      ),
    releaseLease: (namespace, key, token) =>
      either(
        () => refuge.releaseLease(namespace, key, token),
        () => memory.releaseLease(namespace, key, token),
      ),
    recall: async (namespace, key, requestId) =>
      (await memory.recall(namespace, key, requestId)) ??
      either(
        () => refuge.recall(namespace, key, requestId),
        () => undefined,
      ),
    list: (namespace, prefix, limit, cursor) =>
      either(
        () => refuge.list(namespace, prefix, limit, cursor),
        () => memory.list(namespace, prefix, limit, cursor),
      ),
    async unhealed(limit) {
      const own = await memory.unhealed(limit);
      return own.length === limit ? own : [...own, ...(await refuge.unhealed(limit - own.length))];
    },
    async unhealedMarks(limit) {
      const own = await memory.unhealedMarks(limit);
      return own.length === limit ? own : [...own, ...(await refuge.unhealedMarks(limit - own.length))];
    },
    async unhealedCount() {
      const own = await memory.unhealedCount();
      return own + (await refuge.unhealedCount());
    },
    latestUnhealed: async () => Math.max(await memory.latestUnhealed(), await refuge.latestUnhealed()),
    async raisedTags(namespace) {
      const theirs = await refuge.raisedTags(namespace);
      return memory.any ? new Set([...theirs, ...(await memory.raisedTags(namespace))]) : theirs;
    },
    async settle(entries, forget) {
      const own = entries.filter(({ namespace, key }) => memory.keeps(namespace, key));
      await memory.settle(own, forget);
      const theirs = entries.filter((entry) => !own.includes(entry));
      if (theirs.length > 0) await refuge.settle(theirs, forget);
    },
    async settleMarks(marks) {
      await memory.settleMarks(marks);
      await refuge.settleMarks(marks);
    },
    async sweep(now, limit) {
      const more = await memory.sweep(now, limit);
      return (await refuge.sweep(now, limit)) || more;
    },
  };
}

const UNKNOWN = { record: undefined, valid: false, unknown: true } as const;

function zip<A, B>(as: readonly A[], bs: readonly B[]): [A, B][] {
  return as.flatMap((a, i): [A, B][] => {
    const b = bs[i];
    return b === undefined ? [] : [[a, b]];
  });
}

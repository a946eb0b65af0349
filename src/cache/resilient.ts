import { type Guarded, isCallersMistake } from "./guarded.ts";
import type { Healer } from "./healer.ts";
import type { Kept } from "./kept.ts";
import type { CacheStore, Guard, ReadResult, Refuge, Write, WriteResult } from "./store.ts";

/**
 * A shared layer that may go away, backed by a refuge that remembers what changed meanwhile. No call fails because the layer
 * does; and once a change is in the refuge, no read believes the layer about it until it is healed.
 */
export interface ResilientOptions {
  readonly primary: CacheStore;
  readonly refuge: Refuge;
  readonly guarded: Guarded;
  readonly kept: Kept;
  readonly healer: Healer;
}

export function createResilientStore({ primary, refuge, guarded, kept, healer }: ResilientOptions): CacheStore {
  /** On the layer if it can be reached, else on the refuge. */
  async function either<T>(work: () => Promise<T>, fallback: () => Promise<T>): Promise<T> {
    try {
      return await guarded(work);
    } catch (error) {
      if (isCallersMistake(error)) throw error;
      return fallback();
    }
  }

  async function readRefuge(namespace: string, keys: readonly string[]): Promise<ReadResult[]> {
    try {
      const [results, raised] = await Promise.all([refuge.readKept(namespace, keys), refuge.raisedTags(namespace)]);
      return results.map((result) =>
        result.record === undefined ? { ...UNKNOWN, layer: refuge.layer, raised } : { ...result, degraded: true },
      );
    } catch {
      // Neither answers. Memory may still have a copy; that the refuge fails is for its own health check to report.
      return keys.map(() => ({ ...UNKNOWN, layer: refuge.layer }));
    }
  }

  /** What the layer says, except where the refuge knows better. */
  async function corrected(namespace: string, keys: readonly string[], said: ReadResult[]): Promise<ReadResult[]> {
    const raised = kept.hasMark(namespace) ? await refuge.raisedTags(namespace) : NO_TAGS;
    const doubtful = keys.filter((key) => kept.hasKey(namespace, key));
    const known = doubtful.length === 0 ? [] : await refuge.readKept(namespace, doubtful);
    const newer = new Map(doubtful.map((key, i) => [key, known[i]]));
    return said.map((result, i) => {
      const better = newer.get(keys[i] ?? "");
      if (better?.record !== undefined && better.record.version > (result.record?.version ?? 0)) {
        return { ...better, degraded: true };
      }
      const { record } = result;
      if (record === undefined || raised.size === 0) return result;
      return raised.has("") || record.tags.some((tag) => raised.has(tag)) ? { ...result, valid: false } : result;
    });
  }

  async function keep(namespace: string, writes: readonly Write[]): Promise<WriteResult[]> {
    kept.addKeys(
      namespace,
      writes.map((write) => write.key),
    );
    const results = await refuge.keep(
      namespace,
      writes.map((write) => ({ ...write, guard: withoutLease(write.guard), announce: "no" })),
    );
    healer.soon();
    return results.map((result) => ({ ...result, degraded: true }));
  }

  return {
    layer: primary.layer,
    async read(namespace, keys) {
      return either(
        async () => {
          const said = await primary.read(namespace, keys);
          return kept.any ? corrected(namespace, keys, said) : said;
        },
        () => readRefuge(namespace, keys),
      );
    },
    async write(namespace, writes) {
      return either(
        async () => {
          const doubtful = writes.filter(({ guard, key }) => guard.kind !== "none" && kept.hasKey(namespace, key));
          if (doubtful.length > 0) await healer.healKeys(namespace, doubtful);
          return primary.write(namespace, writes);
        },
        () => keep(namespace, writes),
      );
    },
    async invalidate(namespace, tags, stamp) {
      return either(
        () => primary.invalidate(namespace, tags, stamp),
        async () => {
          kept.addMark(namespace);
          await refuge.keepInvalidation(namespace, tags, stamp);
          healer.soon();
          return { degraded: true };
        },
      );
    },
    acquireLease: (namespace, key, token, expiresAt) =>
      either(
        () => primary.acquireLease(namespace, key, token, expiresAt),
        () => refuge.acquireLease(namespace, key, token, expiresAt),
      ),
    recall: (namespace, key, id) =>
      either(
        async () =>
          (await primary.recall(namespace, key, id)) ?? (kept.any ? refuge.recall(namespace, key, id) : undefined),
        () => refuge.recall(namespace, key, id),
      ),
    list: (namespace, prefix, limit, cursor) =>
      either(
        () => primary.list(namespace, prefix, limit, cursor),
        async () => ({ ...(await refuge.list(namespace, prefix, limit, cursor)), degraded: true }),
      ),
  };
}

const NO_TAGS: ReadonlySet<string> = new Set();
const UNKNOWN = { record: undefined, valid: false, degraded: true, unknown: true } as const;

/** The lease is in the layer that is away; that the key did not change since it was given can still be held to. */
function withoutLease(guard: Guard): Guard {
  if (guard.kind !== "lease") return guard;
  return { kind: "version", seen: guard.seen, orAbsent: true };
}

import type { NoteAbsence } from "../infra/absence.ts";
import { createContact } from "../infra/contact.ts";
import type { Guarded } from "../infra/guarded.ts";
import type { Healer } from "./healer.ts";
import type { Kept } from "./kept.ts";
import { type CacheRecord, tombstone } from "./record.ts";
import type { CacheStore, Guard, HotStore, ReadResult, Refuge, Write, WriteResult } from "./store.ts";

/**
 * A durable namespace: SQL is the truth, Redis holds hot copies. A write first puts a tombstone with its version over the hot
 * copy, then commits in SQL, then refreshes the copy. So no crash between the steps can leave an old value in Redis, and no
 * reader that was slow can put one back: its copy is older than the tombstone.
 */
export interface DurableOptions {
  readonly truth: Refuge;
  readonly hot: HotStore;
  readonly guarded: Guarded;
  readonly kept: Kept;
  readonly healer: Healer;
  readonly now: () => number;
  readonly noteAbsence: NoteAbsence;
}

export function createDurableStore(options: DurableOptions): CacheStore {
  const { truth, hot, guarded, kept, healer, now, noteAbsence } = options;

  /** The hot layer's answer, or undefined when it is away: then the truth is asked, and nothing waits. */
  async function ifHot<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await guarded(work);
    } catch (error) {
      noteAbsence(error);
      return undefined;
    }
  }

  const contact = createContact(
    () => truth.recall("", "", ""),
    () => now(),
  );

  /** A hot copy is right as long as it is there; but that SQL is away must be said. */
  function marked(copy: ReadResult): ReadResult {
    return contact.lost ? { ...copy, degraded: true } : copy;
  }

  async function read(namespace: string, keys: readonly string[]): Promise<ReadResult[]> {
    const inDoubt = (key: string) => kept.any && (kept.hasMark(namespace) || kept.hasKey(namespace, key));
    // Before and after: what is healed while the answer is on the way is in neither, and older in that.
    const doubted = new Set(kept.any ? keys.filter(inDoubt) : []);
    const copies = await ifHot(() => hot.read(namespace, keys));
    const wanted = keys.filter((key, i) => !isAnswer(copies?.[i]) || doubted.has(key) || inDoubt(key));
    if (wanted.length === 0 && copies !== undefined) return copies.map(marked);
    const truths = await readTruth(namespace, wanted, copies === undefined);
    const truthOf = new Map(wanted.map((key, i) => [key, truths[i]]));
    return keys.map((key, i) => {
      const copy = copies?.[i];
      if (copy !== undefined && !truthOf.has(key)) return marked(copy);
      const result = truthOf.get(key) ?? MISSING;
      const { record } = result;
      if (record === undefined || !result.valid || copy === undefined) return result;
      if ((copy.record?.version ?? 0) > record.version) return { ...result, passing: true };
      if (!record.deleted) refresh(namespace, key, record);
      return result;
    });
  }

  async function readTruth(namespace: string, keys: readonly string[], degraded: boolean): Promise<ReadResult[]> {
    try {
      const results = await contact.ask(() => truth.read(namespace, keys));
      return degraded ? results.map((result) => ({ ...result, degraded })) : results;
    } catch (error) {
      noteAbsence(error);
      return keys.map(() => ({ ...MISSING, layer: truth.layer, degraded: true, unknown: true, error }));
    }
  }

  /** Beside the caller's path: a copy that cannot be made is only a slower read next time. */
  function refresh(namespace: string, key: string, record: CacheRecord): void {
    const { stamps, ...draft } = record;
    void ifHot(() => hot.write(namespace, [{ key, draft, stamps, guard: { kind: "newer" }, announce: "no" }]));
  }

  async function write(namespace: string, writes: readonly Write[]): Promise<WriteResult[]> {
    // A write that cannot succeed must not cost the hot copy, which is all there is to read meanwhile.
    await contact.assure();
    const drops = await ifHot(() =>
      hot.write(
        namespace,
        writes.map(({ key, draft, guard }) => ({
          key,
          draft: tombstone(draft.version, now()),
          stamps: [0],
          guard: guard.kind === "lease" ? guard : { kind: "none" },
          announce: "drop",
        })),
      ),
    );
    const unhealed = drops === undefined;
    const keys = writes.map((one) => one.key);
    if (unhealed) kept.addKeys(namespace, keys);
    const passed = writes.filter((_, i) => drops === undefined || drops[i]?.stored);
    const results = await contact.ask(() =>
      truth.write(
        namespace,
        passed.map((one) => ({ ...one, guard: forTruth(one.guard), announce: "no", unhealed })),
      ),
    );
    if (unhealed) {
      // Again, because a healing may have ended between the two.
      kept.addKeys(namespace, keys);
      healer.soon();
    } else {
      await refreshAll(namespace, passed, results);
      await endLeases(namespace, passed);
    }
    let next = 0;
    return writes.map((_, i) => {
      const refused = drops?.[i];
      const result = refused?.stored === false ? refused : results[next++];
      if (result === undefined) throw new Error("a write got no result");
      return unhealed ? { ...result, degraded: true } : result;
    });
  }

  /** Only now: whoever were given the next lease before would not have seen the value. One that cannot be ended ends by itself. */
  async function endLeases(namespace: string, writes: readonly Write[]): Promise<void> {
    const leased = writes.flatMap(({ key, guard }) => (guard.kind === "lease" ? [{ key, token: guard.token }] : []));
    if (leased.length === 0) return;
    await ifHot(() => Promise.all(leased.map(({ key, token }) => hot.releaseLease(namespace, key, token))));
  }

  async function refreshAll(
    namespace: string,
    writes: readonly Write[],
    results: readonly WriteResult[],
  ): Promise<void> {
    const refreshes = writes.flatMap(({ key, draft, announce }, i): Write[] => {
      const result = results[i];
      if (result?.stored !== true) return [];
      const { version, stamps } = result;
      return [{ key, draft: { ...draft, version }, stamps, guard: { kind: "newer" }, announce }];
    });
    // If this fails the tombstone stays until it expires, and reads go to the truth.
    if (refreshes.length > 0) await ifHot(() => hot.write(namespace, refreshes));
  }

  return {
    layer: truth.layer,
    read,
    write,
    async invalidate(namespace, tags, stamp) {
      kept.addMarks(namespace, tags);
      const marks = await truth.keepInvalidation(namespace, tags, stamp);
      // Again, because a healing may have ended between the two.
      kept.addMarks(namespace, tags);
      const done = await ifHot(async () => {
        await hot.raise(namespace, marks);
        return true;
      });
      healer.soon();
      return done === undefined ? { degraded: true } : {};
    },
    async acquireLease(namespace, key, token, expiresAt) {
      const grant = await ifHot(() => hot.acquireLease(namespace, key, token, expiresAt));
      return grant ?? truth.acquireLease(namespace, key, token, expiresAt);
    },
    async releaseLease(namespace, key, token) {
      const done = await ifHot(async () => {
        await hot.releaseLease(namespace, key, token);
        return true;
      });
      if (done === undefined) await truth.releaseLease(namespace, key, token);
    },
    recall: (namespace, key, id) => truth.recall(namespace, key, id),
    list: (namespace, prefix, limit, cursor) => truth.list(namespace, prefix, limit, cursor),
  };
}

/** Whether a hot copy can be served as it is; anything else is for the truth to say. */
function isAnswer(copy: ReadResult | undefined): boolean {
  return copy?.record !== undefined && copy.valid && !copy.record.deleted;
}

const MISSING: ReadResult = { record: undefined, valid: false, layer: "postgres" };

/** The lease itself was checked where it lives; the truth holds the write to what the lease was given for. */
function forTruth(guard: Guard): Guard {
  if (guard.kind !== "lease") return guard;
  return { kind: "version", seen: guard.seen, orAbsent: true, grantedAt: guard.grantedAt };
}

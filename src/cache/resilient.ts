import type { NoteAbsence } from "../infra/absence.ts";
import type { Fences } from "../infra/fencing.ts";
import { type Guarded, isCallersMistake } from "../infra/guarded.ts";
import { createFencedWrites } from "./fenced-writes.ts";
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
  readonly fences: Fences;
  /** Of this process's version clock. */
  readonly newStamp: () => number;
  readonly noteAbsence: NoteAbsence;
  /** Whether nobody else keeps changes in the refuge, so that what `kept` does not list is not there. Default: false. */
  readonly isOwnRefuge?: boolean;
}

export function createResilientStore(options: ResilientOptions): CacheStore {
  const { primary, refuge, guarded, kept, healer, fences, newStamp, noteAbsence } = options;

  /** On the layer if it can be reached, else on the refuge. */
  async function either<T>(work: () => Promise<T>, fallback: () => Promise<T>): Promise<T> {
    try {
      return await guarded(work);
    } catch (error) {
      if (isCallersMistake(error)) throw error;
      noteAbsence(error);
      return fallback();
    }
  }

  /** What the refuge says, or `otherwise` when it does not: for what can be done without it. */
  async function ifRefuge<T, U>(work: Promise<T>, otherwise: U): Promise<T | U> {
    try {
      return await work;
    } catch (error) {
      noteAbsence(error);
      return otherwise;
    }
  }

  function readRefuge(namespace: string, keys: readonly string[]): Promise<ReadResult[]> {
    const isKept = kept.hasMark(namespace) || keys.some((key) => kept.hasKey(namespace, key));
    if (options.isOwnRefuge && !isKept) return Promise.resolve(keys.map(() => ({ ...UNKNOWN, layer: refuge.layer })));
    return askRefuge(namespace, keys);
  }

  async function askRefuge(namespace: string, keys: readonly string[]): Promise<ReadResult[]> {
    try {
      const [results, raised] = await Promise.all([
        refuge.readKept(namespace, keys),
        // What was invalidated here is gone from memory already; this only tells of what other instances invalidated.
        ifRefuge(refuge.raisedTags(namespace), NO_TAGS),
      ]);
      return results.map((result) =>
        result.record === undefined ? { ...UNKNOWN, layer: refuge.layer, raised } : { ...result, degraded: true },
      );
    } catch (error) {
      noteAbsence(error);
      // Neither answers. Memory may still have a copy; that the refuge fails is for its own health check to report.
      return keys.map(() => ({ ...UNKNOWN, layer: refuge.layer }));
    }
  }

  const ask = (namespace: string, keys: readonly string[]): Promise<ReadResult[] | undefined> =>
    either(
      () => primary.read(namespace, keys),
      async () => undefined,
    );

  /** What the refuge knows better; undefined when nothing of this is in doubt. */
  async function consult(namespace: string, keys: readonly string[]): Promise<Doubts | undefined> {
    const doubtful = keys.filter((key) => kept.hasKey(namespace, key));
    if (doubtful.length === 0 && !kept.hasMark(namespace)) return undefined;
    const unknown = doubtful.map((): ReadResult => ({ ...UNKNOWN, layer: refuge.layer }));
    const [raised, known] = await Promise.all([
      kept.raisedTags(namespace) ?? ifRefuge(refuge.raisedTags(namespace), undefined),
      doubtful.length === 0 ? [] : ifRefuge(refuge.readKept(namespace, doubtful), unknown),
    ]);
    return { raised, better: new Map(doubtful.map((key, i) => [key, known[i]])) };
  }

  /** What the layer says, except where the refuge knows better, or cannot be asked though it may. */
  function corrected(said: ReadResult, better: ReadResult | undefined, raised: Doubts["raised"]): ReadResult {
    if (better?.record !== undefined && better.record.version > (said.record?.version ?? 0)) {
      return { ...better, degraded: true };
    }
    if (better?.unknown || raised === undefined) return { ...UNKNOWN, layer: refuge.layer };
    const { record } = said;
    if (record === undefined || raised.size === 0) return said;
    return raised.has("") || record.tags.some((tag) => raised.has(tag)) ? { ...said, valid: false } : said;
  }

  async function keep(namespace: string, writes: readonly Write[]): Promise<WriteResult[]> {
    const keys = writes.map((write) => write.key);
    kept.addKeys(namespace, keys);
    const results = await refuge.keep(
      namespace,
      writes.map((write) => ({ ...write, guard: forRefuge(write.guard), announce: "no" })),
    );
    // Again, because a healing may have ended between the two.
    kept.addKeys(namespace, keys);
    healer.soon();
    return results.map((result) => ({ ...result, degraded: true }));
  }

  function writeOrKeep(namespace: string, writes: readonly Write[]): Promise<WriteResult[]> {
    return either(
      () => writeHealed(namespace, writes),
      () => keep(namespace, writes),
    );
  }

  async function writeHealed(namespace: string, writes: readonly Write[]): Promise<WriteResult[]> {
    // Also before a write without a guard: an older value left in the refuge would be shown when the layer goes away again.
    const doubtful = kept.any ? writes.filter(({ key }) => kept.hasKey(namespace, key)) : [];
    if (doubtful.length > 0) await healer.healKeys(namespace, doubtful);
    return primary.write(namespace, writes);
  }

  const writeFenced = createFencedWrites({
    layer: primary.layer,
    write: (namespace, writes) => guarded(() => writeHealed(namespace, writes)),
    ...{ fences, newStamp, noteAbsence },
  });

  /** While changes are kept here that the layer may not have heard of. */
  async function readInDoubt(namespace: string, keys: readonly string[]): Promise<ReadResult[]> {
    // Looked at before the layer is asked: what is healed while its answer is on the way is in neither, and older in that.
    const wasInDoubt = kept.any && (kept.hasMark(namespace) || keys.some((key) => kept.hasKey(namespace, key)));
    const said = await ask(namespace, keys);
    if (said === undefined) return readRefuge(namespace, keys);
    const doubts = kept.any ? await consult(namespace, keys) : undefined;
    if (doubts === undefined && !wasInDoubt) return said;
    // Asked again: what was healed while the refuge was asked is only in the layer now.
    const now = await ask(namespace, keys);
    if (now === undefined) return readRefuge(namespace, keys);
    if (doubts === undefined) return now;
    return now.map((one, i) => corrected(one, doubts.better.get(keys[i] ?? ""), doubts.raised));
  }

  return {
    layer: primary.layer,
    read(namespace, keys) {
      if (kept.any) return readInDoubt(namespace, keys);
      // Nothing is in doubt, as a rule: then no async function lies between the caller and the layer.
      return guarded(() => primary.read(namespace, keys)).then(
        (said) => (kept.any ? readInDoubt(namespace, keys) : said),
        (error: unknown) => {
          if (isCallersMistake(error)) throw error;
          noteAbsence(error);
          return readRefuge(namespace, keys);
        },
      );
    },
    async write(namespace, writes) {
      const carryOut = writes[0]?.fence === undefined ? writeOrKeep : writeFenced;
      const results: WriteResult[] = [];
      let left = writes.map((write, at) => ({ at, write }));
      for (let attempt = 1; left.length > 0; attempt++) {
        const orders = left.map(({ write }) => (attempt < ATTEMPTS ? inOrder(write) : write));
        const answers = await carryOut(namespace, orders);
        left = left.flatMap(({ at, write }, i) => {
          const answer = answers[i];
          if (answer === undefined) throw new Error("a write got no result");
          results[at] = answer;
          if (answer.stored || answer.why !== "version" || write.guard.kind !== "none") return [];
          const version = Math.max(answer.version ?? 0, write.draft.version) + 1;
          return [{ at, write: { ...write, draft: { ...write.draft, version } } }];
        });
      }
      return results;
    },
    async invalidate(namespace, tags, stamp) {
      const done = await either(
        () => primary.invalidate(namespace, tags, stamp),
        async () => {
          kept.addMarks(namespace, tags);
          await refuge.keepInvalidation(namespace, tags, stamp);
          kept.addMarks(namespace, tags);
          healer.soon();
          return { degraded: true };
        },
      );
      // What the refuge keeps is judged by its own marks. The healer judges by the layer's, so this may fail.
      if (kept.any && !done.degraded) await ifRefuge(refuge.invalidate(namespace, tags, stamp), undefined);
      return done;
    },
    acquireLease: (namespace, key, token, expiresAt) =>
      either(
        () => primary.acquireLease(namespace, key, token, expiresAt),
        () => refuge.acquireLease(namespace, key, token, expiresAt),
      ),
    releaseLease: (namespace, key, token) =>
      either(
        () => primary.releaseLease(namespace, key, token),
        () => refuge.releaseLease(namespace, key, token),
      ),
    async recall(namespace, key, id) {
      const said = await either(
        async () => ({ answer: await primary.recall(namespace, key, id) }),
        async () => undefined,
      );
      if (said !== undefined && (said.answer !== undefined || !kept.any)) return said.answer;
      return refuge.recall(namespace, key, id);
    },
    list: (namespace, prefix, limit, cursor) =>
      either(
        () => primary.list(namespace, prefix, limit, cursor),
        async () => ({ ...(await refuge.list(namespace, prefix, limit, cursor)), degraded: true }),
      ),
  };
}

interface Doubts {
  /** Undefined: cannot be told. */
  readonly raised: ReadonlySet<string> | undefined;
  readonly better: ReadonlyMap<string, ReadResult | undefined>;
}

const NO_TAGS: ReadonlySet<string> = new Set();
const UNKNOWN = { record: undefined, valid: false, degraded: true, unknown: true } as const;

/** Attempts to come after what is there; who is still outrun then replaces it in any case. */
const ATTEMPTS = 16;

/**
 * A write may be given up on, answered from the refuge, and reach the layer long after: it must not undo what came in between.
 * The answer to one that came too early is heard only by who still waits for it, and that one tries again.
 */
function inOrder(write: Write): Write {
  return write.guard.kind === "none" ? { ...write, guard: { kind: "none", ordered: true } } : write;
}

/** The lease is in the layer that is away; that nothing changed since it was given, as far as is known, can still be held to. */
function forRefuge(guard: Guard): Guard {
  if (guard.kind === "none") return { kind: "none" };
  if (guard.kind !== "lease") return guard;
  return { kind: "version", seen: guard.seen, orAbsent: true, grantedAt: guard.grantedAt };
}

import { UnavailableError } from "../infra/failure.ts";
import type { Log } from "../infra/log.ts";
import type { Kept } from "./kept.ts";
import { tombstone } from "./record.ts";
import type { HotStore, ReadResult, Refuge, Unhealed, UnhealedMark, Write } from "./store.ts";

/** Brings what changed while the upper layer was away back into it, newest only, so that old values never come back. */
export interface Healer {
  /**
   * Heals everything there is when it begins; rejects when the layer cannot be reached. When it is the refuge that cannot be
   * reached, what it holds stays kept: no read believes the layer about that, until it is healed later. One healing runs at a
   * time.
   */
  heal(): Promise<void>;
  /** Heals these keys before a conditional write on them. */
  healKeys(namespace: string, writes: readonly Pick<Write, "key">[]): Promise<void>;
  /** Heals in the background, as soon as the layer answers. */
  soon(): void;
  close(): void;
}

/** One of the places that remember changes. */
export type HealingSource = Pick<Refuge, "unhealed" | "unhealedMarks" | "settleMarks">;

export interface HealerOptions {
  readonly primary: HotStore;
  /** Knows the newest of what any of the sources holds. */
  readonly refuge: Refuge;
  /** Each is healed also while another cannot be asked; what holds the newest comes first. Default: the refuge. */
  readonly sources?: readonly HealingSource[];
  readonly kept: Kept;
  readonly isDurable: (namespace: string) => boolean;
  /** Whether the upper layer is worth trying on our own; while its breaker is open the breaker itself calls heal. */
  readonly reachable: () => boolean;
  readonly now: () => number;
  readonly log: Log;
  /** How often to look for what other instances, or an earlier run of this one, left behind. */
  readonly sweepMs: number;
}

const BATCH = 500;
const SOON_MS = 50;
/** An invalidation of more tags than this at once is healed in several rounds. */
const MOST_MARKS = 1_000;

export function createHealer(options: HealerOptions): Healer {
  const { primary, refuge, kept, isDurable, now, log, sources = [refuge] } = options;
  let running: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  const sweep = setInterval(inBackground, options.sweepMs).unref();

  function heal(): Promise<void> {
    running ??= healAll().finally(() => {
      running = undefined;
    });
    return running;
  }

  async function healAll(): Promise<void> {
    kept.beginHealing();
    let healed = 0;
    let away: RefugeAwayError | undefined;
    async function unlessAway(work: () => Promise<number>): Promise<void> {
      try {
        healed += await work();
      } catch (error) {
        if (!(error instanceof RefugeAwayError)) throw error;
        away = error;
      }
    }

    // All marks first, so that a change older than an invalidation is seen to be.
    for (const source of sources) await unlessAway(() => healMarksOf(source));
    for (const source of sources) await unlessAway(() => healEntriesOf(source));
    if (away === undefined) kept.endHealing();
    else log.warn({ err: away.cause }, "cache not healed yet: what changed meanwhile cannot be read");
    if (kept.any && away === undefined) soon();
    if (healed > 0) log.info({ changes: healed }, "cache healed");
  }

  // A part that is not full holds all there is. What came since is kept anew, and known to be: waiting for a moment without any
  // would, under steady load, keep the layer away for ever.
  async function healMarksOf(source: HealingSource): Promise<number> {
    for (let healed = 0; ; ) {
      const marks = await fromRefuge(() => source.unhealedMarks(MOST_MARKS));
      await healMarks(source, marks);
      healed += marks.length;
      if (marks.length < MOST_MARKS) return healed;
    }
  }

  async function healEntriesOf(source: HealingSource): Promise<number> {
    for (let healed = 0; ; ) {
      const entries = await fromRefuge(() => source.unhealed(BATCH));
      for (const [namespace, group] of Map.groupBy(entries, (entry) => entry.namespace)) {
        kept.healedKeys(namespace, await healEntries(namespace, group));
      }
      healed += entries.length;
      if (entries.length < BATCH) return healed;
    }
  }

  async function healMarks(source: HealingSource, marks: readonly UnhealedMark[]): Promise<void> {
    for (const [namespace, group] of Map.groupBy(marks, (mark) => mark.namespace)) {
      // Copies carry the stamps of the truth, so its marks must be exactly those.
      if (isDurable(namespace)) await primary.raise(namespace, group);
      else await invalidateAll(namespace, group);
      await fromRefuge(() => source.settleMarks(group));
      kept.healedMarks(
        namespace,
        group.map((mark) => mark.tag),
      );
    }
  }

  async function invalidateAll(namespace: string, group: readonly UnhealedMark[]): Promise<void> {
    // Each under its own stamp: a later one would end what was stored between the two.
    const steps = Map.groupBy(group, ({ tag, stamp }) => `${stamp}${tag === "" ? "" : " tags"}`);
    await Promise.all(
      [...steps.values()].map((marks) => {
        const tags = marks.map((mark) => mark.tag).filter((tag) => tag !== "");
        return primary.invalidate(namespace, tags, marks[0]?.stamp ?? 0);
      }),
    );
  }

  /** Returns the keys that are healed now. */
  async function healEntries(namespace: string, entries: readonly Unhealed[]): Promise<readonly string[]> {
    const durable = isDurable(namespace);
    const keys = entries.map((entry) => entry.key);
    const records = await fromRefuge(async () =>
      known(durable ? await refuge.read(namespace, keys) : await refuge.readKept(namespace, keys)),
    );
    const writes = records.flatMap(({ record, valid }, i): Write[] => {
      const key = keys[i];
      if (record === undefined || key === undefined) return [];
      const { stamps, ...draft } = record;
      const dead = record.deleted || !valid || (record.staleUntil !== undefined && record.staleUntil <= now());
      return [
        {
          key,
          draft: dead ? tombstone(record.version, now()) : draft,
          // Whatever was invalidated in the layer since the change was made wins over it.
          guard: { kind: "newer", grantedAt: record.version },
          announce: dead ? "deleted" : "set",
          ...(dead ? { stamps: [0] } : durable ? { stamps } : {}),
        },
      ];
    });
    const results = await primary.write(namespace, writes);
    // Invalidated meanwhile. What the layer holds is older still, so it must go too.
    const overtaken = writes.filter((_, i) => results[i]?.stored === false && results[i].why === "overtaken");
    await primary.write(namespace, overtaken.map(asTombstone));
    const settled = records.flatMap(({ record }, i) => {
      const key = keys[i];
      return record === undefined || key === undefined ? [] : [{ namespace, key, version: record.version }];
    });
    await fromRefuge(() => refuge.settle(settled, !durable));
    return settled.map(({ key }) => key);
  }

  function asTombstone({ key, draft }: Write): Write {
    const dead = tombstone(draft.version, now());
    return { key, draft: dead, guard: { kind: "newer" }, announce: "deleted", stamps: [0] };
  }

  function soon(): void {
    if (timer !== undefined || closed) return;
    timer = setTimeout(() => {
      timer = undefined;
      inBackground();
    }, SOON_MS).unref();
  }

  function inBackground(): void {
    if (closed || !options.reachable()) return;
    heal().catch((error: unknown) => log.warn({ err: error }, "cache not healed yet"));
  }

  return {
    heal,
    async healKeys(namespace, writes) {
      await healEntries(
        namespace,
        writes.map(({ key }) => ({ namespace, key, version: 0 })),
      );
    },
    soon,
    close() {
      closed = true;
      clearInterval(sweep);
      clearTimeout(timer);
    },
  };
}

/** The refuge failed, not the layer that is healed. */
export class RefugeAwayError extends UnavailableError {
  constructor(cause: UnavailableError) {
    super(cause.reason, cause.message, { cause });
  }
}

async function fromRefuge<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof UnavailableError ? new RefugeAwayError(error) : error;
  }
}

/** A part of the refuge may be away while another answers: then a change may be missing in what it says. */
function known(results: readonly ReadResult[]): readonly ReadResult[] {
  if (results.some((result) => result.unknown)) {
    throw new UnavailableError("SQL_UNAVAILABLE", "what changed while Redis was away cannot be read");
  }
  return results;
}

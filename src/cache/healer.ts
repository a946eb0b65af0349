import type { Log } from "../infra/log.ts";
import type { Kept } from "./kept.ts";
import { tombstone } from "./record.ts";
import type { CacheStore, Refuge, Unhealed, UnhealedMark, Write } from "./store.ts";

/** Brings what changed while the upper layer was away back into it, newest only, so that old values never come back. */
export interface Healer {
  /** Heals everything there is; rejects when the layer cannot be reached. One healing runs at a time. */
  heal(): Promise<void>;
  /** Heals these keys before a conditional write on them. */
  healKeys(namespace: string, writes: readonly Pick<Write, "key">[]): Promise<void>;
  /** Heals in the background, as soon as the layer answers. */
  soon(): void;
  close(): void;
}

export interface HealerOptions {
  readonly primary: CacheStore;
  readonly refuge: Refuge;
  readonly kept: Kept;
  readonly isDurable: (namespace: string) => boolean;
  /** Whether the upper layer is worth trying on our own; while its breaker is open the breaker itself calls heal. */
  readonly reachable: () => boolean;
  readonly now: () => number;
  readonly newStamp: () => number;
  readonly log: Log;
  /** How often to look for what other instances, or an earlier run of this one, left behind. */
  readonly sweepMs: number;
}

const BATCH = 500;
const SOON_MS = 50;
/** An invalidation of more tags than this at once is healed in several rounds. */
const MOST_MARKS = 1_000;

export function createHealer(options: HealerOptions): Healer {
  const { primary, refuge, kept, isDurable, now, log } = options;
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
    for (;;) {
      const marks = await refuge.unhealedMarks(MOST_MARKS);
      await healMarks(marks);
      const entries = await refuge.unhealed(BATCH);
      for (const [namespace, group] of Map.groupBy(entries, (entry) => entry.namespace)) {
        await healEntries(namespace, group);
      }
      healed += marks.length + entries.length;
      if (marks.length === 0 && entries.length === 0) break;
    }
    kept.endHealing();
    if (healed > 0) log.info({ changes: healed }, "cache healed");
  }

  async function healMarks(marks: readonly UnhealedMark[]): Promise<void> {
    for (const [namespace, group] of Map.groupBy(marks, (mark) => mark.namespace)) {
      const own = group.filter((mark) => mark.tag === "");
      for (const { stamp } of own) await primary.invalidate(namespace, [], stamp);
      const tags = group.filter((mark) => mark.tag !== "");
      const newest = tags.reduce((stamp, mark) => Math.max(stamp, mark.stamp), 0);
      if (tags.length > 0)
        await primary.invalidate(
          namespace,
          tags.map((mark) => mark.tag),
          newest,
        );
      await refuge.settleMarks(group, !isDurable(namespace));
    }
  }

  async function healEntries(namespace: string, entries: readonly Unhealed[]): Promise<void> {
    const durable = isDurable(namespace);
    // Taken before the records are read: whatever is invalidated from here on must win over them.
    const readAt = options.newStamp();
    const keys = entries.map((entry) => entry.key);
    const records = durable ? await refuge.read(namespace, keys) : await refuge.readKept(namespace, keys);
    const writes = records.flatMap(({ record, valid }, i): Write[] => {
      const key = keys[i];
      if (record === undefined || key === undefined) return [];
      const { stamps, ...draft } = record;
      const dead = record.deleted || !valid || (record.staleUntil !== undefined && record.staleUntil <= now());
      return [
        {
          key,
          draft: dead ? tombstone(record.version, now()) : draft,
          guard: { kind: "newer", grantedAt: readAt },
          announce: dead ? "deleted" : "set",
          ...(dead ? { stamps: [0] } : durable ? { stamps } : {}),
        },
      ];
    });
    const results = await primary.write(namespace, writes);
    // Invalidated meanwhile. What the layer holds is older still, so it must go too.
    const overtaken = writes.filter((_, i) => results[i]?.stored === false && results[i].why === "overtaken");
    await primary.write(namespace, overtaken.map(asTombstone));
    await refuge.settle(
      records.flatMap(({ record }, i) => {
        const key = keys[i];
        return record === undefined || key === undefined ? [] : [{ namespace, key, version: record.version }];
      }),
      !durable,
    );
  }

  function asTombstone({ key, draft }: Write): Write {
    const dead = tombstone(draft.version, now());
    return { key, draft: dead, guard: { kind: "newer" }, announce: "deleted", stamps: [0] };
  }

  function inBackground(): void {
    if (closed || !options.reachable()) return;
    heal().catch((error: unknown) => log.warn({ err: error }, "cache not healed yet"));
  }

  return {
    heal,
    healKeys: (namespace, writes) =>
      healEntries(
        namespace,
        writes.map(({ key }) => ({ namespace, key, version: 0 })),
      ),
    soon() {
      if (timer !== undefined || closed) return;
      timer = setTimeout(() => {
        timer = undefined;
        inBackground();
      }, SOON_MS).unref();
    },
    close() {
      closed = true;
      clearInterval(sweep);
      clearTimeout(timer);
    },
  };
}

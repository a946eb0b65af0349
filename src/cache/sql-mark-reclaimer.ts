import type { Database, SqlRow } from "../infra/database.ts";
import { type CarriedTags, createCarriedTags } from "./carried-tags.ts";

/**
 * Removes the marks of tags that nothing carries any more. Fed by the walk through all entries (see sql-reclaimer.ts), in two
 * goes: a mark that no entry was seen to carry is first called idle, which whoever is about to store an entry with it undoes;
 * one that has been idle for long and that a whole walk has not met either is removed.
 *
 * So an entry never loses its mark. Its writer looked the mark up before it was called idle, or would have undone that; the walk
 * began long after; and by then the entry was there to be met, since no write takes that long. Times are versions, which agree
 * between instances however their clocks are set.
 */
export interface SqlMarkReclaimer {
  /** A walk through all entries begins. */
  begin(): void;
  /** The walk has met an entry. To be called for each, before the walk goes on. */
  meet(namespace: string, tags: readonly string[]): void;
  /** The walk has come to its end. */
  end(): void;
  /** One page of marks, if a walk has ended. Returns how many were removed. */
  step(): Promise<number>;
}

export interface SqlMarkReclaimerOptions {
  readonly database: Database;
  /** Forgets what this process knows of a mark without asking. */
  readonly forgetMark: (namespace: string, tag: string) => void;
  readonly newStamp: () => number;
  /** How far apart the walks are that are looked at. */
  readonly everyMs?: number;
  /** Longer than any write may be under way. */
  readonly idleMs?: number;
}

const HOUR_MS = 3_600_000;
const PAGE = 500;

interface MarkRow extends SqlRow {
  readonly namespace: string;
  readonly tag: string;
  readonly stamp: number;
  readonly idle_since: number | null;
}

interface Walk {
  /** A version. */
  readonly began: number;
  readonly carried: CarriedTags;
}

export function createSqlMarkReclaimer(options: SqlMarkReclaimerOptions): SqlMarkReclaimer {
  const { database, forgetMark, newStamp, everyMs = HOUR_MS, idleMs = 24 * HOUR_MS } = options;
  let walking: Walk | undefined;
  let walked: Walk | undefined;
  let after = { namespace: "", tag: "" };
  let lastBegan = Number.NEGATIVE_INFINITY;

  async function step(): Promise<number> {
    if (walked === undefined) return 0;
    const { carried, began } = walked;
    const rows = await database.query<MarkRow>(
      `SELECT namespace, tag, stamp, idle_since FROM cache_mark
       WHERE (namespace, tag) > ($1, $2) AND tag <> '' AND unhealed = 0 ORDER BY namespace, tag LIMIT ${PAGE}`,
      [after.namespace, after.tag],
    );
    const idle = rows.filter(({ namespace, tag }) => !carried.mayHave(namespace, tag));
    await callIdle(idle.filter((row) => row.idle_since === null));
    const removed = await remove(idle.filter((row) => (row.idle_since ?? began) <= began - idleMs * 1000));
    after = rows.at(-1) ?? after;
    if (rows.length < PAGE) walked = undefined;
    return removed;
  }

  async function callIdle(rows: readonly MarkRow[]): Promise<void> {
    if (rows.length === 0) return;
    await database.writeAll(
      rows.map(({ namespace, tag, stamp }) => ({
        sql: `UPDATE cache_mark SET idle_since = $4
              WHERE namespace = $1 AND tag = $2 AND stamp = $3 AND idle_since IS NULL AND unhealed = 0`,
        params: [namespace, tag, stamp, newStamp()],
      })),
    );
    // Only now: what is looked up from here on is seen to be idle.
    for (const { namespace, tag } of rows) forgetMark(namespace, tag);
  }

  async function remove(rows: readonly MarkRow[]): Promise<number> {
    if (rows.length === 0) return 0;
    const removed = await database.writeAll(
      rows.map(({ namespace, tag, idle_since }) => ({
        // Only if nobody has used it since.
        sql: `DELETE FROM cache_mark
              WHERE namespace = $1 AND tag = $2 AND idle_since = $3 AND unhealed = 0 RETURNING tag`,
        params: [namespace, tag, idle_since],
      })),
    );
    return removed.filter((gone) => gone.length > 0).length;
  }

  return {
    begin() {
      const began = newStamp();
      if (walked !== undefined || began - lastBegan < everyMs * 1000) return;
      lastBegan = began;
      walking = { began, carried: createCarriedTags() };
    },
    meet(namespace, tags) {
      for (const tag of tags) walking?.carried.add(namespace, tag);
    },
    end() {
      if (walking === undefined) return;
      walked = walking;
      walking = undefined;
      after = { namespace: "", tag: "" };
    },
    step,
  };
}

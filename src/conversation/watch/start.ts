import { invalidField } from "../../infra/failure.ts";
import { versionNotReached } from "../change/absence.ts";
import { KIND } from "../ledger/book.ts";
import type { ConversationKey, Held } from "../record/conversation.ts";
import type { Scope } from "./change.ts";
import type { Changes, Mark, OpeningOf } from "./changes.ts";

/** Where a watch is to begin: with what comes after now, after a place, or after a version of its conversation. */
export type Start = "now" | Place | AfterVersion;

export interface AfterVersion {
  readonly version: number;
  /** As the request says it, if that is another one: beyond all that there are. */
  readonly asked?: bigint;
}

/** A place among the changes of one database. */
export interface Place {
  readonly log: number;
  readonly place: number;
}

/** The place of whoever was told that there is a gap, and not yet from where it goes on: whatever is kept is too late for it. */
export const GAP = -1;

const TOO_LATE = "resumed too late";
/** It may never have been there, or so long ago that it is forgotten: no version tells one from the other. */
const NOTHING_KEPT = "nothing is kept of such a conversation";

/** Where a watch begins. */
export interface Begun {
  /** Changes after this place are told. GAP: they cannot be. */
  readonly at: number;
  /** Why they cannot be, for people. */
  readonly gap: string;
  /** The latest place of all. */
  readonly head: number;
  /** Which changes these places are among. */
  readonly log: number;
  readonly held: Held | undefined;
}

export async function begin(changes: Changes, { collection, id }: Scope, start: Start): Promise<Begun> {
  if (typeof start === "object" && "version" in start && id !== undefined) {
    const key = { collection, id };
    const opening = await changes.openingOf(key);
    const find: Find = (first, last, holds) => firstWhere(changes, key, first, last, holds);
    const { version } = start;
    const latest = latestOf(opening);
    if (latest !== undefined && version > latest) {
      throw versionNotReached(key, "after_version", start.asked ?? version, latest);
    }
    const at = await (version === 0 ? sinceCreation(opening, find) : sinceVersion(opening, version, find));
    return { ...opening, at: at ?? GAP, gap: latest === undefined ? NOTHING_KEPT : TOO_LATE };
  }
  const opening = await changes.opening(collection, id);
  if (typeof start === "object" && "place" in start) {
    const { log, place } = start;
    if (log !== opening.log) throw invalidField("resume_token", "is of another database: watch without one");
    if (place > opening.head) {
      throw invalidField("resume_token", "is of changes that this database has lost: watch without one");
    }
    return { ...opening, at: place, gap: TOO_LATE };
  }
  return { ...opening, at: opening.head, gap: TOO_LATE };
}

/** Undefined: nothing is kept of such a conversation. */
function latestOf({ kept, held }: OpeningOf): number | undefined {
  return (kept?.last ?? held)?.version;
}

/** Whoever knows nothing has missed nothing of earlier lives of the conversation. */
async function sinceCreation({ held, head, kept }: OpeningOf, find: Find): Promise<number | undefined> {
  if (kept === undefined) return held === undefined ? head : undefined;
  const { first, last } = kept;
  if (first.kind === KIND.created) return first.seq - 1;
  if (first.generation === last.generation) return undefined;
  const created = await find(first, last, ({ generation }) => generation === last.generation);
  return created && created.seq - 1;
}

/** None is kept without all that follow it: so if one is that is not after the version, nothing is missing. */
async function sinceVersion(opening: OpeningOf, version: number, find: Find): Promise<number | undefined> {
  const { head, kept } = opening;
  if (version === latestOf(opening)) return head;
  // What is not known here may be of anything.
  if (kept === undefined) return undefined;
  const { first, last } = kept;
  // One that was created anew does not say what came before.
  if (first.version > version)
    return first.previousVersion > 0 && first.previousVersion <= version ? first.seq - 1 : undefined;
  const next = await find(first, last, (mark) => mark.version > version);
  return next && next.seq - 1;
}

/** Finds the first change for which something holds, as it does for all that follow, for the last, and not for the first. */
type Find = (first: Mark, last: Mark, holds: (mark: Mark) => boolean) => Promise<Mark | undefined>;

/** In a few steps, however many there are. Undefined when they were forgotten meanwhile. */
async function firstWhere(
  changes: Pick<Changes, "markFrom">,
  key: ConversationKey,
  ...[first, last, holds]: Parameters<Find>
): Promise<Mark | undefined> {
  let low = first;
  let high = last;
  // There is none from here up to `high`.
  let end = high.seq;
  while (low.seq + 1 < end) {
    const middle = Math.floor((low.seq + 1 + end) / 2);
    const mark = await changes.markFrom(key, middle);
    if (mark === undefined) return undefined;
    if (mark.seq < end && !holds(mark)) low = mark;
    else {
      if (mark.seq < end) high = mark;
      end = middle;
    }
  }
  // As long as this one is kept, none behind it was forgotten while they were looked at.
  const still = await changes.markFrom(key, low.seq);
  return still?.seq === low.seq ? high : undefined;
}

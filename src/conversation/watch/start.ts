import type { Held } from "../record/conversation.ts";
import type { Scope } from "./change.ts";
import type { Changes, KeptSince, Opening } from "./changes.ts";

/** Where a watch is to begin: with what comes after now, after a place, or after a version of its conversation. */
export type Start = "now" | { readonly place: number } | { readonly version: number };

/** The place of whoever was told that there is a gap, and not yet from where it goes on: whatever is kept is too late for it. */
export const GAP = -1;

/** Where a watch begins. */
export interface Begun {
  /** Changes after this place are told. GAP: they cannot be. */
  readonly at: number;
  /** The latest place of all. */
  readonly head: number;
  readonly held: Held | undefined;
}

export async function begin(changes: Changes, { collection, id }: Scope, start: Start): Promise<Begun> {
  if (typeof start === "object" && "version" in start && id !== undefined) {
    const kept = await changes.keptSince({ collection, id }, start.version);
    return { at: (start.version === 0 ? sinceCreation(kept) : sinceVersion(kept, start.version)) ?? GAP, ...kept };
  }
  const opening = await changes.opening(collection, id);
  const at = typeof start === "object" && "place" in start ? start.place : opening.head;
  return { at: isPlace(at, opening) ? at : GAP, ...opening };
}

/** A place that is further on than the head was given out by another database, or by this one before it lost something. */
function isPlace(at: number, { head }: Opening): boolean {
  return at >= 0 && at <= head;
}

/** Whoever knows nothing has missed nothing of earlier lives of the conversation. */
function sinceCreation({ createdSeq, first, held, head }: KeptSince): number | undefined {
  if (createdSeq !== undefined) return createdSeq - 1;
  return first === undefined && held === undefined ? head : undefined;
}

/** None is kept without all that follow it: so if the one that made the version is kept, or an older one, nothing is missing. */
function sinceVersion({ known, first, held, head }: KeptSince, version: number): number | undefined {
  if (known?.version === version) return known.seq;
  // One that was never given out here, or of which nothing is known any more.
  if (held === undefined || version > held.version) return undefined;
  if (known !== undefined) return known.seq;
  if (first === undefined) return version === held.version ? head : undefined;
  // One that was created anew does not say what came before.
  return first.previousVersion > 0 && first.previousVersion <= version ? first.seq - 1 : undefined;
}

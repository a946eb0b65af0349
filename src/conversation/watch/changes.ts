import type { ConversationKey, Held } from "../record/conversation.ts";
import type { Change, Scope } from "./change.ts";

/** How much to read at once. */
export interface PageLimits {
  readonly changes: number;
  readonly bytes: number;
}

/** Changes in a row, of those that are kept. */
export interface ChangePage {
  /** Changes after the place asked for are no longer kept, or the place is none of these changes; then there are none here. */
  readonly gap: boolean;
  readonly changes: readonly Change[];
  /** All that was asked for up to this place is in the page. */
  readonly next: number;
  /** The place of the last change of all. */
  readonly head: number;
}

/** How things stood when a watch began. */
export interface Opening {
  /** The place of the last change of all. */
  readonly head: number;
  readonly held: Held | undefined;
}

/** What is kept of one conversation's changes, from the view of somebody who knows it as of a version. */
export interface KeptSince extends Opening {
  /** The newest kept change that is not after the version; not looked for when that is 0. */
  readonly known: { readonly seq: number; readonly version: number } | undefined;
  /** The oldest kept change. */
  readonly first: { readonly seq: number; readonly previousVersion: number } | undefined;
  /** The place of the oldest kept change that created it; only looked for when the version is 0. */
  readonly createdSeq: number | undefined;
}

/** The changes that are kept, in the order of their commits. Each answer is of one moment. */
export interface Changes {
  /** Those after a place: of the scope (whether or not they match its filter), or all. */
  page(scope: Scope | undefined, after: number, limits: PageLimits): Promise<ChangePage>;
  /** Without an id, only the head is known. */
  opening(collection: string, id: string | undefined): Promise<Opening>;
  keptSince(key: ConversationKey, version: number): Promise<KeptSince>;
}

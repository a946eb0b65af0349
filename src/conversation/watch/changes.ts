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
  /** Which changes these are: places among others mean nothing here. */
  readonly log: number;
  readonly held: Held | undefined;
}

/** A change of one conversation, by what tells where it stands. */
export type Mark = Pick<Change, "seq" | "kind" | "version" | "previousVersion" | "generation">;

/** How things stood with one conversation when a watch of it began, and which of its changes are kept. */
export interface OpeningOf extends Opening {
  /** The oldest and the newest change of it that are kept. */
  readonly kept: { readonly first: Mark; readonly last: Mark } | undefined;
}

/** The changes that are kept, in the order of their commits. Each answer is of one moment. */
export interface Changes {
  /** Those after a place: of the scope (whether or not they match its filter), or all. */
  page(scope: Scope | undefined, after: number, limits: PageLimits): Promise<ChangePage>;
  /** Without an id, only the head is known. */
  opening(collection: string, id: string | undefined): Promise<Opening>;
  openingOf(key: ConversationKey): Promise<OpeningOf>;
  /** The first kept change of a conversation at or after a place. */
  markFrom(key: ConversationKey, seq: number): Promise<Mark | undefined>;
}

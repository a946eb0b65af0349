import type { ConversationKey, Held } from "../record/conversation.ts";
import type { Changed, Copy } from "./hot-copies.ts";

const DAY_MS = 86_400_000;

/** A copy of what never expires is made anew now and then, so that what nobody reads does not stay in Redis for ever. */
export const LONGEST_COPY_MS = DAY_MS;

/** A document lasts longer than its copy: who reads nothing else cannot have it made anew. */
export const LONGEST_DOCUMENT_MS = 7 * DAY_MS;

/**
 * After this neither a copy nor a document is left of what was there before: the document was put there while its copy was. The
 * rest is for clocks that do not agree.
 */
export const COPIES_GONE_MS = LONGEST_COPY_MS + LONGEST_DOCUMENT_MS + DAY_MS;

/** A cover that was put over a copy. */
export interface Covered extends Stamped {
  /** Tells it from the cover of another attempt with the same stamp. */
  readonly token: string;
  /** The cover that was there before, though it may have run out: under it lies what nobody may read. Zeros: none. */
  readonly before: { readonly stamp: number; readonly until: number; readonly token: string };
  /** In which life of the server it was put there. */
  readonly life: string;
}

export interface Stamped extends ConversationKey {
  readonly stamp: number;
}

/**
 * - filled: it is there now;
 * - same: it was there already;
 * - newer: a newer one is there;
 * - covered: a change is on its way;
 * - stateless: the state that was to stay is not there;
 * - late: it was held up on the way for so long that it may be out of date.
 */
export const FILLED = ["filled", "same", "newer", "covered", "stateless", "late"] as const;
export type Filled = (typeof FILLED)[number];

/**
 * The place where copies lie. One life of a server knows nothing of what another one left. Whatever it is asked may reject: with an
 * UnavailableError when it is away, and then it may have been done all the same.
 */
export interface CopyStore {
  /** The life of the server that has the key; undefined when it is not reached. Copies from another life are not seen. */
  lifeOf(key: ConversationKey): string | undefined;
  /** Undefined: there is none, or there is a cover over it. */
  read(key: ConversationKey): Promise<Copy | undefined>;
  readHeld(key: ConversationKey): Promise<Held | undefined>;
  /**
   * Covers of these stamps. Also drops our documents. Where a copy is there that is newer, which only one that was held up on its way
   * can find, nothing is done. In the order of the keys; the reason where it failed.
   */
  cover(next: readonly Stamped[]): Promise<PromiseSettledResult<Covered>[]>;
  /** Takes covers away under which nothing was changed. What is covered by another one meanwhile stays so. */
  uncover(covers: readonly Covered[]): Promise<PromiseSettledResult<boolean>[]>;
  /** In the order of the copies. `isChange`: they were just committed, so what others wrote in their documents' place has to go. */
  fill(
    copies: readonly Changed[],
    isChange: boolean,
  ): Promise<PromiseSettledResult<{ readonly filled: Filled; readonly life: string }>[]>;
  /** Drops copies that are older than this, and keeps them out for a while; and all documents of ours. Rejects unless all is done. */
  drop(older: readonly Stamped[]): Promise<void>;
  /** Puts the document of a live conversation beside its copy; false if that copy is not there. */
  putDocument(held: Held, document: Uint8Array): Promise<boolean>;
}

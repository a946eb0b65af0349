import type { ConversationKey, Held } from "../record/conversation.ts";

/** A conversation as a copy has it. */
export interface Copy {
  readonly held: Held;
  readonly state: Uint8Array;
}

/** What a change left. */
export interface Changed {
  readonly held: Held;
  /** Undefined: the change did not bring one, it is still that of `held.stateVersion`. */
  readonly state: Uint8Array | undefined;
}

/** What lies over copies while the truth is changed. */
export interface Cover {
  /**
   * Whether it lies there for sure. If not, what is changed has to be marked as unhealed. It may cease to be so while the change is
   * on its way: to be asked for as late as can be.
   */
  readonly complete: boolean;
  /** The change is committed: this is what it left. */
  lift(changed: readonly Changed[]): void;
  /** The change is not committed, and for certain will not be. Where nobody knows, the cover runs out by itself. */
  withdraw(): void;
}

/**
 * Copies of conversations in Redis, for reading. A change covers the copy first, then is committed, then the copy is made anew. So no
 * crash between the steps leaves an old copy, and no reader that was slow can put one back: it is older than the cover. What is as
 * old as the cover takes its place, since it is what the cover was put there for: that holds only because writers put their covers
 * there one after the other, each when what it waits for is all that can be committed next. Nothing here rejects because Redis is
 * away: a read is slower then, and a change is marked.
 */
export interface HotCopies {
  /** Whether this instance has Redis. If not, others may: what it changes has to be marked for them. */
  readonly areKept: boolean;
  /** Undefined: there is none that can be believed; the truth has to be asked. */
  read(key: ConversationKey): Promise<Copy | undefined>;
  /** The same without the state, which need not be fetched for it. */
  readHeld(key: ConversationKey): Promise<Held | undefined>;
  /** Whether Redis does not answer, so that what the truth answers meanwhile is a fallback. */
  readonly away: boolean;
  /** To be called by who alone may commit now, with what will be held then. */
  cover(changed: readonly Held[]): Promise<Cover>;
  /** What the truth has just said. A newer one that is there stays. */
  fill(copies: readonly Copy[]): void;
  /** These were committed without a cover: no copy of them is believed until it is healed. */
  doubt(keys: readonly ConversationKey[]): void;
}

/** Where there is no Redis. */
export const NO_COPIES: HotCopies = {
  areKept: false,
  read: () => Promise.resolve(undefined),
  readHeld: () => Promise.resolve(undefined),
  away: false,
  cover: () => Promise.resolve({ complete: true, lift: () => {}, withdraw: () => {} }),
  fill: () => {},
  doubt: () => {},
};

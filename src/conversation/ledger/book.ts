import type { Fence } from "../../infra/fencing.ts";
import type { ConversationKey, Held, Message, StateFacts } from "../record/conversation.ts";

/** ConversationChange.Kind, as it is stored. */
export const KIND = {
  created: 1,
  updated: 2,
  appended: 3,
  restored: 4,
  deleted: 5,
  expired: 6,
} as const;
export type Kind = (typeof KIND)[keyof typeof KIND];

export interface KnownMessage {
  readonly position: number;
  readonly contentHash: Uint8Array;
}

/** A version of the history, the current one included. */
export interface KeptVersion extends StateFacts {
  readonly version: number;
  readonly kind: Kind;
  readonly generation: number;
  readonly stateVersion: number;
  readonly messageCount: number;
  readonly stateBytes: number;
  readonly updatedUs: number;
  /** 0: it was not restored. */
  readonly restoredVersion: number;
}

/** What was answered to an attempt that has a name. */
export interface Answered {
  /** What it asked, in short. */
  readonly meaning: string;
  readonly answer: Uint8Array;
}

/** A change that was decided on. All of it is written in one commit, or none. */
export interface Entry {
  readonly before: Held | undefined;
  readonly after: Held;
  /** Undefined: neither the state nor the messages changed, so nobody is told. */
  readonly kind: Kind | undefined;
  /** The state that `after.stateVersion` names, if this change brings it. */
  readonly state: Uint8Array | undefined;
  /** New messages, from this position on. */
  readonly firstPosition: number;
  readonly messages: readonly Message[];
  /** Makes the messages those of this version again; so many of the first ones are those that they were. */
  readonly messagesOf?: { readonly version: number; readonly untouched: number } | undefined;
  /** Whether the messages of the generation were prepared beforehand. */
  readonly adopts?: boolean;
  readonly restoredVersion?: number;
  /** How many versions before the current one are kept. */
  readonly history: number;
}

/**
 * What the truth holds, as it is while nobody else can write, with what was entered already. Rules read from it and enter what they
 * decide. Nothing is written before the end; a rule enters only when nothing can fail any more, so one that fails leaves nothing behind.
 */
export interface Book {
  /** Now. */
  readonly nowUs: number;
  /** Larger than all there was, for the next change of what is held under this key. */
  nextStamp(held: Held | undefined): number;
  held(key: ConversationKey): Promise<Held | undefined>;
  /** The current state. */
  state(held: Held): Promise<Uint8Array>;
  /** Those of the messages with these ids that are there. */
  messages(held: Held, ids: readonly string[]): Promise<ReadonlyMap<string, KnownMessage>>;
  /** The message with this id, which is there: a serialized ConversationMessage. */
  messageBody(held: Held, id: string): Promise<Uint8Array>;
  /**
   * How many of the first messages that are there were there under an earlier version of this life, too. Only while nothing was
   * entered of them.
   */
  messagesSince(held: Held, version: number): Promise<number>;
  keptVersion(held: Held, version: number): Promise<KeptVersion | undefined>;
  stateOf(held: Held, stateVersion: number): Promise<Uint8Array | undefined>;
  /** Until when nobody removes the messages of a generation that is prepared; undefined when they are not prepared, or removed. */
  preparedUntilUs(key: ConversationKey, generation: number): Promise<number | undefined>;
  /** The newest token of a lock under which anything was written; 0: none. Only of locks that the orders name. */
  newestToken(lock: string): number;
  /** From now on older tokens of the lock are refused, of whatever is written under it. */
  sawToken(fence: Fence): void;
  /** What was answered to an earlier attempt of this name. */
  answered(key: ConversationKey, requestId: string): Promise<Answered | undefined>;
  /** Keeps the answer for as long as it may be asked for again. */
  remember(key: ConversationKey, requestId: string, answered: Answered): void;
  enter(entry: Entry): void;
}

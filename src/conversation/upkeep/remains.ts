import type { ConversationKey } from "../record/conversation.ts";

/** A conversation that has expired and still takes up room. */
export interface Expired extends ConversationKey {
  readonly messageCount: number;
  readonly stateBytes: number;
}

/** A tombstone that has been kept for as long as it was to be. */
export interface Outlived extends ConversationKey {
  readonly stamp: number;
}

/** What is left of conversations that are over. Times in microseconds since 1970. */
export interface Remains {
  /** Those that had expired by then, longest gone first, page by page; what a page named may be removed before the next is asked for. */
  expired(untilUs: number): AsyncIterable<readonly Expired[]>;
  /**
   * In the same way. Not those that a copy in Redis has not been told of: they are all that says so, for as long as there can be such
   * a copy.
   */
  outlived(untilUs: number): AsyncIterable<readonly Outlived[]>;
  /** How many were still there, and had outlived by then. */
  removeTombstones(tombstones: readonly Outlived[], untilUs: number): Promise<number>;
  /** One portion of the messages that nobody can read any more. Whether there may be another. */
  removeMessages(nowUs: number): Promise<boolean>;
  /** One portion of the answers that no retry is given any more. Whether there may be another. */
  removeAnswers(nowUs: number): Promise<boolean>;
  /** Removes counts that have come down to nothing, portion by portion: how many of each. */
  removeEmptyCounts(): AsyncIterable<number>;
}

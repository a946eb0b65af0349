import type { Answered } from "../ledger/book.ts";
import type { ConversationKey } from "../record/conversation.ts";

/** The messages of a conversation as they were under a version. */
export interface MessagesToCopy extends ConversationKey {
  readonly generation: number;
  readonly version: number;
}

/** A life of a conversation that has not begun: nobody sees its messages before an order adopts it. */
export interface PreparedGeneration extends ConversationKey {
  readonly generation: number;
}

/**
 * Where a fork gets its messages ready. There may be a million of them, so they are copied in portions between the writes of others;
 * what is never adopted, because this instance ends first, is removed some time later.
 */
export interface ForkCopies {
  /** What was answered to an earlier attempt of this name. */
  answered(target: ConversationKey, requestId: string): Promise<Answered | undefined>;
  /** A generation that the target never had. */
  prepare(target: ConversationKey): Promise<PreparedGeneration>;
  /** How many there were to copy: fewer than the version has, when the original was removed meanwhile. */
  copy(from: MessagesToCopy, to: PreparedGeneration, signal: AbortSignal): Promise<number>;
  /** Lets it be removed at once, unless it was adopted. */
  discard(prepared: PreparedGeneration): Promise<void>;
}

import type { Change } from "./change.ts";

/** A message as it was appended: a serialized ConversationMessage without its position. */
export interface AppendedMessage {
  readonly position: number;
  readonly body: Uint8Array;
}

/** What a change brought with it, and does not hold itself. */
export interface Contents {
  /** The state after the change, serialized. Undefined: it is no longer kept. */
  state(change: Change): Promise<Uint8Array | undefined>;
  /** The first of the messages that it appended, as far as they are kept. */
  messages(change: Change): Promise<readonly AppendedMessage[]>;
}

/** What is sent with one change at most. */
export const MOST_MESSAGES = { messages: 1_000, bytes: 2 * 1024 * 1024 } as const;

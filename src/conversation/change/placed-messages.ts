import { Failure } from "../../infra/failure.ts";
import type { Book, KnownMessage } from "../ledger/book.ts";
import type { Held, Message } from "../record/conversation.ts";
import type { Appended } from "./order.ts";

/** How many messages a conversation may have. */
export const MOST_MESSAGES = 1_000_000;

/** Where messages of an order go. */
export interface Placed {
  /** Those that are not there yet, in their order. */
  readonly fresh: readonly Message[];
  /** One for each, in the order given. */
  readonly appended: readonly Appended[];
}

const NONE: ReadonlyMap<string, KnownMessage> = new Map();
export const NO_MESSAGES: Placed = { fresh: [], appended: [] };

/** Finds each a place, or the one that it has already. */
export async function placeMessages(messages: readonly Message[], live: Held | undefined, book: Book): Promise<Placed> {
  if (messages.length === 0) return NO_MESSAGES;
  const ids = messages.map(({ id }) => id);
  const known = live === undefined ? NONE : await book.messages(live, ids);
  const fresh: Message[] = [];
  const appended = messages.map((message): Appended => {
    const { id } = message;
    const there = known.get(id);
    if (there === undefined) {
      fresh.push(message);
      return { id, position: (live?.messageCount ?? 0) + fresh.length, duplicate: false };
    }
    if (!Buffer.from(message.contentHash).equals(there.contentHash)) {
      throw new Failure(
        "already_exists",
        "MESSAGE_ID_REUSED",
        `a message "${id}" is there already, with other content`,
        {
          metadata: { message_id: id, position: String(there.position) },
        },
      );
    }
    return { id, position: there.position, duplicate: true };
  });
  const total = (live?.messageCount ?? 0) + fresh.length;
  if (total > MOST_MESSAGES) {
    throw new Failure(
      "too_large",
      "TOO_MANY_MESSAGES",
      `the conversation would have ${total} messages; the limit is ${MOST_MESSAGES}`,
    );
  }
  return { fresh, appended };
}

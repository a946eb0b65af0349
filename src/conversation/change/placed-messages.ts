import { Failure } from "../../infra/failure.ts";
import type { Book, KnownMessage } from "../ledger/book.ts";
import type { ConversationKey, Held, Message } from "../record/conversation.ts";
import { differencesOf } from "../record/message-difference.ts";
import { keyIn, named } from "./absence.ts";
import type { Appended, OrderOf } from "./order.ts";

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
export async function placeMessages(
  { messages, key }: OrderOf<"save" | "append">,
  live: Held | undefined,
  book: Book,
): Promise<Placed> {
  if (messages.length === 0) return NO_MESSAGES;
  const ids = messages.map(({ id }) => id);
  const known = live === undefined ? NONE : await book.messages(live, ids);
  const before = live?.messageCount ?? 0;
  const fresh: Message[] = [];
  const appended: Appended[] = [];
  for (const [at, message] of messages.entries()) {
    const { id, contentHash } = message;
    const there = known.get(id);
    if (there === undefined) {
      fresh.push(message);
      appended.push({ id, position: before + fresh.length, duplicate: false });
      continue;
    }
    if (live !== undefined && !Buffer.from(contentHash).equals(there.contentHash)) {
      throw idReused(live, `messages[${at}].id`, message, { ...there, body: await book.messageBody(live, id) });
    }
    appended.push({ id, position: there.position, duplicate: true });
  }
  const total = before + fresh.length;
  if (total > MOST_MESSAGES) {
    const message = `${named(key)} would have ${total} messages; the limit is ${MOST_MESSAGES}`;
    throw new Failure("too_large", "TOO_MANY_MESSAGES", message, { metadata: { field: "messages", ...keyIn(key) } });
  }
  return { fresh, appended };
}

function idReused(
  key: ConversationKey,
  field: string,
  message: Message,
  there: Pick<KnownMessage, "position"> & Pick<Message, "body">,
): Failure {
  const { id, body } = message;
  const differs = differencesOf(body, there.body).join(", ");
  const position = String(there.position);
  const text = `${field}: "${id}" is the message at position ${position} already, with other content: ${differs}`;
  const metadata = { field, ...keyIn(key), message_id: id, position, differs };
  return new Failure("already_exists", "MESSAGE_ID_REUSED", text, { metadata });
}

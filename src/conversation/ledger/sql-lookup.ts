import type { Database, SqlSession } from "../../infra/database.ts";
import type { ConversationKey, Held } from "../record/conversation.ts";
import type { KeptVersion } from "./book.ts";
import { HELD_COLUMNS, type HeldRow, heldOf } from "./sql-row.ts";
import { keptVersionOf, type VersionRow } from "./sql-version-row.ts";

export type MessageRow = { message_id: string; position: number; content_hash: Uint8Array };
export type AnswerRow = { meaning: string; answer: Uint8Array; expires_us: number };

/** What the tables hold, one thing at a time. */
export interface Lookup {
  held(key: ConversationKey): Promise<Held | undefined>;
  state(key: ConversationKey, version: number): Promise<Uint8Array | undefined>;
  messages(held: Held, ids: readonly string[]): Promise<readonly MessageRow[]>;
  messageBody(held: Held, id: string): Promise<Uint8Array | undefined>;
  messagesSince(held: Held, version: number): Promise<number>;
  answer(key: ConversationKey, requestId: string): Promise<AnswerRow | undefined>;
  keptVersion(key: ConversationKey, version: number): Promise<KeptVersion | undefined>;
  garbageDueUs(key: ConversationKey, generation: number): Promise<number | undefined>;
}

export const OF = "collection = $1 AND id = $2";

/**
 * Whether a message is there, where it is looked for by its place: said so that no index of those that are there, or are not, comes in
 * question. By one a planner that knows nothing of the table yet might walk through all messages.
 */
export const IS_THERE = "COALESCE(removed, 0) = 0";

const HELD = `SELECT ${HELD_COLUMNS.join(", ")} FROM conversation WHERE ${OF}`;
const STATE = `SELECT state FROM conversation_state WHERE ${OF} AND version = $3`;
const OF_MESSAGE = `${OF} AND generation = $3 AND message_id = $4 AND removed IS NULL`;
const MESSAGE = `SELECT message_id, position, content_hash FROM conversation_message WHERE ${OF_MESSAGE}`;
const BODY = `SELECT body FROM conversation_message WHERE ${OF_MESSAGE}`;
/* Messages that are there were added in the order of their places, those that a Restore brought back as well. So the last of them
 * that is old enough is found from the end, past those alone that are not. */
const LAST_SINCE = `SELECT position FROM conversation_message
  WHERE ${OF} AND generation = $3 AND position <= $4 AND ${IS_THERE} AND added <= $5 ORDER BY position DESC LIMIT 1`;
const ANSWER = `SELECT meaning, answer, expires_us FROM conversation_request WHERE ${OF} AND request_id = $3`;
const VERSION = `SELECT * FROM conversation_version WHERE ${OF} AND version = $3`;
const GARBAGE = `SELECT due_us FROM conversation_garbage WHERE ${OF} AND generation = $3`;

export function createLookup(kind: Database["kind"], tx: SqlSession): Lookup {
  return {
    async held({ collection, id }) {
      const [row] = await tx.query<HeldRow>(HELD, [collection, id]);
      return row && heldOf(row);
    },
    async state({ collection, id }, version) {
      const [row] = await tx.query<{ state: Uint8Array }>(STATE, [collection, id, version]);
      return row?.state;
    },
    async messages({ collection, id, generation }, ids) {
      // All are on their way before the first is answered.
      const found = await Promise.all(
        ids.map((messageId) => tx.query<MessageRow>(MESSAGE, [collection, id, generation, messageId])),
      );
      return found.flat();
    },
    async messageBody({ collection, id, generation }, messageId) {
      const [row] = await tx.query<{ body: Uint8Array }>(BODY, [collection, id, generation, messageId]);
      return row?.body;
    },
    async messagesSince({ collection, id, generation, messageCount }, version) {
      const [row] = await tx.query<{ position: number }>(LAST_SINCE, [
        collection,
        id,
        generation,
        messageCount,
        version,
      ]);
      return row?.position ?? 0;
    },
    async answer({ collection, id }, requestId) {
      const [row] = await tx.query<AnswerRow>(ANSWER, [collection, id, requestId]);
      return row;
    },
    async keptVersion({ collection, id }, version) {
      const [row] = await tx.query<VersionRow>(VERSION, [collection, id, version]);
      return row && keptVersionOf(row);
    },
    async garbageDueUs({ collection, id }, generation) {
      // Whoever removes the messages holds the row meanwhile.
      const sql = kind === "postgres" ? `${GARBAGE} FOR UPDATE` : GARBAGE;
      const [row] = await tx.query<{ due_us: number }>(sql, [collection, id, generation]);
      return row?.due_us;
    },
  };
}

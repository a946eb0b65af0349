import type { Database } from "../../infra/database.ts";
import { type Contents, MOST_MESSAGES } from "./contents.ts";

const STATE = "SELECT state FROM conversation_state WHERE collection = $1 AND id = $2 AND version = $3";
const MESSAGES = `SELECT position, body FROM (
    SELECT position, body, SUM(LENGTH(body)) OVER (ORDER BY position) AS total FROM (
      SELECT position, body FROM conversation_message
      WHERE collection = $1 AND id = $2 AND generation = $3 AND position >= $4 AND position <= $5 AND added = $6
      ORDER BY position LIMIT $7
    ) taken
  ) summed WHERE total <= $8 ORDER BY position`;

export function createSqlContents(database: Pick<Database, "query">): Contents {
  return {
    async state({ collection, id, stateVersion }) {
      const [row] = await database.query<{ state: Uint8Array }>(STATE, [collection, id, stateVersion]);
      return row?.state;
    },
    async messages({ collection, id, generation, version, positions }) {
      if (positions === undefined) return [];
      const { messages: count, bytes } = MOST_MESSAGES;
      const appended = [collection, id, generation, positions.first, positions.last, version];
      return database.query<{ position: number; body: Uint8Array }>(MESSAGES, [...appended, count, bytes]);
    },
  };
}

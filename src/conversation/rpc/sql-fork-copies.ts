import type { Clock } from "../../infra/clock.ts";
import type { Database, SqlSession } from "../../infra/database.ts";
import { UnavailableError } from "../../infra/failure.ts";
import { createPauses } from "../../infra/pauses.ts";
import { keyIn } from "../change/absence.ts";
import type { ForkCopies, MessagesToCopy, PreparedGeneration } from "./fork-copies.ts";

export interface SqlForkCopiesOptions {
  readonly database: Database;
  readonly clock: Clock;
}

/** Few enough that SQLite, which writes on the thread that answers calls, is busy for some milliseconds only. */
const PORTION = { messages: 500, bytes: 2 * 1024 * 1024 } as const;

/** Messages that are being copied are left alone for so long after the last portion. */
const LEASE_US = 3_600_000_000;

const OF_GENERATION = "collection = $1 AND id = $2 AND generation = $3";
const VISIBLE = `${OF_GENERATION} AND added <= $4 AND (removed IS NULL OR removed > $4) AND position > $5`;

const ANSWER = `SELECT meaning, answer FROM conversation_request
  WHERE collection = $1 AND id = $2 AND request_id = $3 AND expires_us > $4`;
const TAKEN = `SELECT generation FROM conversation_garbage WHERE collection = $1 AND id = $2
  UNION SELECT generation FROM conversation WHERE collection = $1 AND id = $2`;
const PREPARE = "INSERT INTO conversation_garbage (collection, id, generation, due_us) VALUES ($1, $2, $3, $4)";
const RENEW = `UPDATE conversation_garbage SET due_us = $4 WHERE ${OF_GENERATION} AND due_us > $5 RETURNING generation`;
const DISCARD = `UPDATE conversation_garbage SET due_us = $4 WHERE ${OF_GENERATION}`;
const NEXT = `SELECT position, length(body) AS bytes FROM conversation_message WHERE ${VISIBLE}
  ORDER BY position LIMIT ${PORTION.messages}`;
// The copies were added before the version that adopts them, so every version of the copy has them.
const COPY = `INSERT INTO conversation_message
  (collection, id, generation, position, added, removed, message_id, role, content_hash, body)
  SELECT CAST($7 AS TEXT), CAST($8 AS TEXT), CAST($9 AS BIGINT), position, CAST($9 AS BIGINT), NULL,
    message_id, role, content_hash, body
  FROM conversation_message WHERE ${VISIBLE} AND position <= $6 ORDER BY position RETURNING position`;

export function createSqlForkCopies({ database, clock }: SqlForkCopiesOptions): ForkCopies {
  const nowUs = () => clock.now() * 1000;
  const lock = database.kind === "postgres" ? " FOR UPDATE" : "";

  /** The last place of the next portion; undefined when there is none. */
  async function endOfPortion(from: MessagesToCopy, after: number): Promise<number | undefined> {
    const { collection, id, generation, version } = from;
    const params = [collection, id, generation, version, after];
    let last: number | undefined;
    let bytes = 0;
    for (const row of await database.query<{ position: number; bytes: number }>(NEXT, params)) {
      bytes += row.bytes;
      if (last !== undefined && bytes > PORTION.bytes) break;
      last = row.position;
    }
    return last;
  }

  /** Nothing is copied into a generation that is being removed, since nobody would remove that any more. */
  async function renew(tx: SqlSession, { collection, id, generation }: PreparedGeneration): Promise<void> {
    const now = nowUs();
    const renewed = await tx.query(RENEW, [collection, id, generation, now + LEASE_US, now]);
    if (renewed.length > 0) return;
    const metadata = keyIn({ collection, id });
    throw new UnavailableError("FORK_INTERRUPTED", "the copy took too long; try again", { metadata });
  }

  return {
    async answered({ collection, id }, requestId) {
      const [row] = await database.query<{ meaning: string; answer: Uint8Array }>(ANSWER, [
        collection,
        id,
        requestId,
        nowUs(),
      ]);
      return row;
    },

    prepare: ({ collection, id }) =>
      database.transaction(async (tx) => {
        // As whoever writes conversations: until the commit nobody else takes a generation.
        await tx.query(`SELECT seq FROM conversation_head WHERE id = 1${lock}`);
        const rows = await tx.query<{ generation: number }>(TAKEN, [collection, id]);
        const taken = new Set(rows.map((row) => row.generation));
        // Half of the time since 1970: no conversation was created then, so it is nobody else's generation; and all that the copy
        // will ever be is later.
        let generation = Math.floor(nowUs() / 2);
        while (taken.has(generation)) generation++;
        await tx.query(PREPARE, [collection, id, generation, nowUs() + LEASE_US]);
        return { collection, id, generation };
      }),

    async copy(from, to, signal) {
      const pause = createPauses();
      let copied = 0;
      let after = 0;
      for (;;) {
        signal.throwIfAborted();
        const last = await endOfPortion(from, after);
        if (last === undefined) return copied;
        const source = [from.collection, from.id, from.generation, from.version, after, last];
        copied += await database.transaction(async (tx) => {
          await renew(tx, to);
          return (await tx.query(COPY, [...source, to.collection, to.id, to.generation])).length;
        });
        after = last;
        await pause();
      }
    },

    async discard({ collection, id, generation }) {
      await database.write(DISCARD, [collection, id, generation, nowUs()]);
    },
  };
}

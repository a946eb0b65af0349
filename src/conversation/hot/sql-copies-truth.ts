import type { Database, SqlSession } from "../../infra/database.ts";
import { textArray } from "../../infra/postgres-array.ts";
import { HELD_COLUMNS, type HeldRow, heldOf } from "../ledger/sql-row.ts";
import type { ConversationKey, Held } from "../record/conversation.ts";
import type { CopiesTruth, DocumentLimits } from "./copies-truth.ts";
import type { Stamped } from "./copy-store.ts";

const OF = "collection = $1 AND id = $2";
const UNHEALED = "SELECT collection, id, stamp FROM conversation WHERE unhealed <> 0 LIMIT $1";
const STAMP = `SELECT collection, id, stamp FROM conversation WHERE ${OF}`;
const STAMPS = `SELECT c.collection, c.id, c.stamp FROM unnest($1::text[], $2::text[]) AS wanted (collection, id)
  JOIN conversation c ON c.collection = wanted.collection AND c.id = wanted.id`;
const SETTLE = `UPDATE conversation SET unhealed = 0 WHERE ${OF} AND stamp = $3 AND unhealed <> 0`;
const MARK = `UPDATE conversation SET unhealed = 1 WHERE ${OF}`;
const HELD = `SELECT ${HELD_COLUMNS.join(", ")} FROM conversation WHERE ${OF}`;
const STATE = `SELECT state FROM conversation_state WHERE ${OF} AND version = $3`;
const THERE = `${OF} AND generation = $3 AND position > $4 AND added <= $5 AND (removed IS NULL OR removed > $5)`;
const LENGTHS = `SELECT position, length(body) AS bytes FROM conversation_message WHERE ${THERE} ORDER BY position DESC`;
const BODIES = `SELECT body FROM conversation_message WHERE ${THERE} ORDER BY position`;

const ANNOUNCE = "UPDATE conversation_copies SET until_us = $1 WHERE id = 1 AND until_us < $1";
/** Behind those who were told that there are none: what they changed is committed when the first copy is made. */
const ANNOUNCE_BEHIND_WRITERS = `WITH alone AS MATERIALIZED (SELECT seq FROM conversation_head WHERE id = 1 FOR UPDATE)
  UPDATE conversation_copies SET until_us = $1 FROM alone WHERE id = 1 AND until_us < $1`;
const UNTIL = "SELECT until_us FROM conversation_copies WHERE id = 1";

type StampRow = { collection: string; id: string; stamp: number };

/** Whether copies may be in Redis, of whomever: to be asked by who alone may commit. */
export async function mayBeCopied(tx: Pick<SqlSession, "query">, nowUs: number): Promise<boolean> {
  const [row] = await tx.query<{ until_us: number }>(UNTIL);
  return row !== undefined && row.until_us > nowUs;
}

export function createSqlCopiesTruth(database: Database): CopiesTruth {
  /** As the only writer: rows are taken in no particular order, and writers must not wait for each other in a circle. */
  async function alone(work: (tx: SqlSession) => Promise<void>): Promise<void> {
    const lock = database.kind === "postgres" ? " FOR UPDATE" : "";
    await database.transaction(async (tx) => {
      await tx.query(`SELECT seq FROM conversation_head WHERE id = 1${lock}`);
      await work(tx);
    });
  }

  async function stateOf({ collection, id, stateVersion }: Held): Promise<Uint8Array | undefined> {
    const [row] = await database.query<{ state: Uint8Array }>(STATE, [collection, id, stateVersion]);
    return row?.state;
  }

  async function lastMessages(held: Held, limits: DocumentLimits): Promise<Uint8Array[]> {
    const { collection, id, generation, version, messageCount } = held;
    const behind = (position: number) => [collection, id, generation, position, version];
    const from = Math.max(0, messageCount - limits.messages);
    if (from === messageCount) return [];
    const rows = await database.query<{ position: number; bytes: number }>(LENGTHS, behind(from));
    let bytes = 0;
    let first = messageCount + 1;
    for (const row of rows) {
      bytes += row.bytes;
      if (bytes > limits.bytes) break;
      first = row.position;
    }
    if (first > messageCount) return [];
    const bodies = await database.query<{ body: Uint8Array }>(BODIES, behind(first - 1));
    return bodies.map(({ body }) => body);
  }

  return {
    unhealed: (limit) => database.query<StampRow>(UNHEALED, [limit]),
    async stamps(keys) {
      if (database.kind === "postgres") {
        const names = [textArray(keys.map(({ collection }) => collection)), textArray(keys.map(({ id }) => id))];
        return database.query<StampRow>(STAMPS, names);
      }
      const found: Stamped[] = [];
      for (const { collection, id } of keys) found.push(...(await database.query<StampRow>(STAMP, [collection, id])));
      return found;
    },
    settle: (healed) =>
      alone((tx) =>
        tx.each(
          SETTLE,
          healed.map(({ collection, id, stamp }) => [collection, id, stamp]),
        ),
      ),
    mark: (keys) =>
      alone((tx) =>
        tx.each(
          MARK,
          keys.map(({ collection, id }) => [collection, id]),
        ),
      ),
    async announce(untilUs) {
      await database.write(database.kind === "postgres" ? ANNOUNCE_BEHIND_WRITERS : ANNOUNCE, [untilUs]);
    },
    async whole(key: ConversationKey, limits: DocumentLimits) {
      const [row] = await database.query<HeldRow>(HELD, [key.collection, key.id]);
      if (row === undefined) return undefined;
      const held = heldOf(row);
      // What was changed in between may take the state or some messages away; then whoever changed it reads it again.
      const state = await stateOf(held);
      if (state === undefined) return undefined;
      const messages = await lastMessages(held, limits);
      return { held, state, messages };
    },
  };
}

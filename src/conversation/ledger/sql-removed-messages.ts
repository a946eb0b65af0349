import { IS_THERE, OF } from "./sql-lookup.ts";
import { deleteRows, eachRow, type RowsStatement } from "./sql-rows.ts";

/* A restore takes away what the restored version, $5, does not have, and brings back what it has and later ones had not. Only messages
 * between two places, behind $6 and up to $7, are looked at. */
const BETWEEN = `${OF} AND generation = $3 AND position > $6 AND position <= $7`;
export const REMOVE_LATER = eachRow(
  `UPDATE conversation_message SET removed = $4 WHERE ${BETWEEN} AND ${IS_THERE} AND added > $5`,
);
export const BRING_BACK = eachRow(`INSERT INTO conversation_message
    (collection, id, generation, position, added, removed, message_id, role, content_hash, body)
  SELECT collection, id, generation, position, $4, NULL, message_id, role, content_hash, body FROM conversation_message
  WHERE ${BETWEEN} AND added <= $5 AND COALESCE(removed, 0) > $5`);

/** So many of one conversation in one commit. */
const MOST_DROPPED = 1000;

/** Messages that were removed before the oldest version that is kept, else before the current one. */
const isDropped = (row: (column: string) => string) => `collection = ${row("collection")} AND id = ${row("id")}
  AND generation = ${row("generation")} AND removed IS NOT NULL AND removed <= COALESCE(
    (SELECT version FROM conversation_version
      WHERE collection = ${row("collection")} AND id = ${row("id")} ORDER BY version LIMIT 1), ${row("floor")})`;
const DROPPED = { collection: "text", id: "text", generation: "bigint", floor: "bigint" } as const;
const placeOf = (column: string) => `$${Object.keys(DROPPED).indexOf(column) + 1}`;

export const DROP_REMOVED: RowsStatement = {
  ...deleteRows("conversation_message", DROPPED, isDropped, MOST_DROPPED),
  // SQLite knows no LIMIT of what is deleted.
  one: `DELETE FROM conversation_message WHERE rowid IN (
    SELECT rowid FROM conversation_message WHERE ${isDropped(placeOf)} LIMIT ${MOST_DROPPED})`,
};

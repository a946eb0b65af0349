import type { Database } from "../../infra/database.ts";
import { HELD_COLUMNS, type HeldRow, heldOf } from "../ledger/sql-row.ts";
import { currentVersion, keptVersionOf, type VersionRow } from "../ledger/sql-version-row.ts";
import { textOf } from "../record/conversation.ts";
import { isOneOf, listOf } from "./sql-values.ts";
import type { Known, Truth } from "./truth.ts";

/** Bodies up to this length come with the rest of a message: so many as a page holds stay below 4 MiB. */
const SHORT_BYTES = 4096;

const OF = "collection = $1 AND id = $2";
const HELD = HELD_COLUMNS.map((column) => `c.${column}`).join(", ");
const VERSION_COLUMNS = [
  ...["version", "kind", "generation", "state_version", "user_id", "status", "complexity_level", "confidence_score"],
  ...["message_count", "state_bytes", "updated_us", "restored_version"],
]
  .map((column) => `v.${column}`)
  .join(", ");

const SELECT_HELD = `SELECT ${HELD} FROM conversation c WHERE ${OF}`;
const SELECT_KNOWN = `SELECT ${HELD}, s.state FROM conversation c
  LEFT JOIN conversation_state s ON s.collection = c.collection AND s.id = c.id AND s.version = c.state_version
  WHERE c.collection = $1 AND c.id = $2`;
const SELECT_VERSION = `SELECT ${VERSION_COLUMNS}, s.state FROM conversation_version v
  JOIN conversation_state s ON s.collection = v.collection AND s.id = v.id AND s.version = v.state_version
  WHERE v.collection = $1 AND v.id = $2 AND v.generation = $3 AND v.version = $4`;
const SELECT_VERSIONS = `SELECT ${VERSION_COLUMNS} FROM conversation_version v
  WHERE ${OF} AND generation = $3 AND version < $4 ORDER BY version DESC LIMIT $5`;
const VISIBLE = `${OF} AND generation = $3 AND added <= $4 AND (removed IS NULL OR removed > $4)`;

type KnownRow = HeldRow & { state: Uint8Array | null };

export function createSqlTruth(database: Pick<Database, "kind" | "query" | "ping">): Truth {
  const { kind } = database;
  const short = `length(body) <= ${SHORT_BYTES}`;
  const selectMessages = (shortOnes: string) =>
    `SELECT position, role, length(body) AS bytes, CASE WHEN ${shortOnes} THEN body END AS body
      FROM conversation_message WHERE ${VISIBLE} AND position BETWEEN $5 AND $6 ORDER BY position`;
  const selectAny = selectMessages(short);
  const selectByRole = selectMessages(`${short} AND ${isOneOf(kind, "role", "text", "$7")}`);
  const selectBodies = `SELECT position, body FROM conversation_message
    WHERE ${VISIBLE} AND ${isOneOf(kind, "position", "bigint", "$5")}`;

  return {
    layer: kind,
    ping: () => database.ping(),
    async held({ collection, id }) {
      const [row] = await database.query<HeldRow>(SELECT_HELD, [collection, id]);
      return row && heldOf(row);
    },
    async read({ collection, id }) {
      const [row] = await database.query<KnownRow>(SELECT_KNOWN, [collection, id]);
      return row && knownOf(row);
    },
    async readVersion({ collection, id, generation }, version) {
      const params = [collection, id, generation, version];
      const [row] = await database.query<VersionRow & { state: Uint8Array }>(SELECT_VERSION, params);
      return row && { kept: keptVersionOf(row), state: row.state };
    },
    async versions(held, below, limit) {
      const { collection, id, generation, version } = held;
      const params = [collection, id, generation, Math.min(below, version + 1), limit];
      const kept = (await database.query<VersionRow>(SELECT_VERSIONS, params)).map(keptVersionOf);
      if (below <= version || kept[0]?.version === version) return kept;
      return [currentVersion(held), ...kept].slice(0, limit);
    },
    async messages({ collection, id, generation, version }, first, last, roles) {
      const params = [collection, id, generation, version, first, last];
      const rows = await database.query<{ position: number; role: string; bytes: number; body: Uint8Array | null }>(
        roles.length === 0 ? selectAny : selectByRole,
        roles.length === 0 ? params : [...params, listOf(kind, roles)],
      );
      return rows.map(({ body, ...rest }) => ({ ...rest, body: body ?? undefined }));
    },
    async bodies({ collection, id, generation, version }, positions) {
      const rows = await database.query<{ position: number; body: Uint8Array }>(selectBodies, [
        ...[collection, id, generation, version],
        listOf(kind, positions),
      ]);
      return new Map(rows.map(({ position, body }) => [position, body]));
    },
  };
}

function knownOf(row: KnownRow): Known {
  const held = heldOf(row);
  if (held.presence === "live" && row.state === null) throw new Error(`the state of ${textOf(held)} is missing`);
  return { held, state: row.state ?? undefined };
}

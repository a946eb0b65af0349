import type { SqlValue } from "../../infra/database.ts";
import type { Held, Presence } from "../record/conversation.ts";
import { insertRows } from "./sql-rows.ts";

const PRESENCES: readonly Presence[] = ["live", "expired", "deleted"];

export function presenceNumber(presence: Presence): number {
  return PRESENCES.indexOf(presence) + 1;
}

export function presenceOfNumber(number: number): Presence {
  return PRESENCES[number - 1] ?? "live";
}

/** The columns of a conversation in the order of `valuesOf`. */
const COLUMNS = {
  collection: "text",
  id: "text",
  stamp: "bigint",
  version: "bigint",
  presence: "bigint",
  generation: "bigint",
  state_version: "bigint",
  cut_version: "bigint",
  user_id: "text",
  status: "text",
  complexity_level: "text",
  confidence_score: "double precision",
  message_count: "bigint",
  state_bytes: "bigint",
  created_us: "bigint",
  updated_us: "bigint",
  expires_us: "bigint",
  ttl_ms: "bigint",
  sliding: "bigint",
  origin_collection: "text",
  origin_id: "text",
  origin_version: "bigint",
  kept_until_us: "bigint",
} as const;

export const HELD_COLUMNS: readonly string[] = Object.keys(COLUMNS);

/** Takes `valuesOf` and, behind them, whether it is unhealed: that Redis could not be told of the change. */
export const PUT_HELD = insertRows(
  "conversation",
  { ...COLUMNS, unhealed: "bigint" },
  `ON CONFLICT (collection, id) DO UPDATE SET ${[...HELD_COLUMNS.slice(2), "unhealed"]
    .map((column) => `${column} = excluded.${column}`)
    .join(", ")}`,
);

export type HeldRow = {
  collection: string;
  id: string;
  stamp: number;
  version: number;
  presence: number;
  generation: number;
  state_version: number;
  cut_version: number;
  user_id: string;
  status: string;
  complexity_level: string;
  confidence_score: number | null;
  message_count: number;
  state_bytes: number;
  created_us: number;
  updated_us: number;
  expires_us: number | null;
  ttl_ms: number | null;
  sliding: number;
  origin_collection: string | null;
  origin_id: string | null;
  origin_version: number | null;
  kept_until_us: number | null;
};

export function heldOf(row: HeldRow): Held {
  const { origin_collection: collection, origin_id: id, origin_version: version } = row;
  return {
    collection: row.collection,
    id: row.id,
    stamp: row.stamp,
    version: row.version,
    presence: presenceOfNumber(row.presence),
    generation: row.generation,
    stateVersion: row.state_version,
    cutVersion: row.cut_version,
    userId: row.user_id,
    status: row.status,
    complexityLevel: row.complexity_level,
    confidenceScore: row.confidence_score ?? undefined,
    messageCount: row.message_count,
    stateBytes: row.state_bytes,
    createdUs: row.created_us,
    updatedUs: row.updated_us,
    expiresUs: row.expires_us ?? undefined,
    ttlMs: row.ttl_ms ?? undefined,
    sliding: row.sliding !== 0,
    origin: collection === null || id === null || version === null ? undefined : { collection, id, version },
    keptUntilUs: row.kept_until_us ?? undefined,
  };
}

export function valuesOf(held: Held): SqlValue[] {
  return [
    held.collection,
    held.id,
    held.stamp,
    held.version,
    presenceNumber(held.presence),
    held.generation,
    held.stateVersion,
    held.cutVersion,
    held.userId,
    held.status,
    held.complexityLevel,
    held.confidenceScore ?? null,
    held.messageCount,
    held.stateBytes,
    held.createdUs,
    held.updatedUs,
    held.expiresUs ?? null,
    held.ttlMs ?? null,
    held.sliding ? 1 : 0,
    held.origin?.collection ?? null,
    held.origin?.id ?? null,
    held.origin?.version ?? null,
    held.keptUntilUs ?? null,
  ];
}

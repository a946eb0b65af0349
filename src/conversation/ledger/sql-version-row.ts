import type { SqlValue } from "../../infra/database.ts";
import type { Held } from "../record/conversation.ts";
import { type Entry, type KeptVersion, KIND, type Kind } from "./book.ts";
import { insertRows } from "./sql-rows.ts";

/** A row of the history. The order of columns is that of `versionValues`. */
export const PUT_VERSION = insertRows("conversation_version", {
  collection: "text",
  id: "text",
  version: "bigint",
  kind: "bigint",
  generation: "bigint",
  state_version: "bigint",
  user_id: "text",
  status: "text",
  complexity_level: "text",
  confidence_score: "double precision",
  message_count: "bigint",
  state_bytes: "bigint",
  updated_us: "bigint",
  restored_version: "bigint",
});

export type VersionRow = {
  version: number;
  kind: number;
  generation: number;
  state_version: number;
  user_id: string;
  status: string;
  complexity_level: string;
  confidence_score: number | null;
  message_count: number;
  state_bytes: number;
  updated_us: number;
  restored_version: number;
};

const KINDS: ReadonlyMap<number, Kind> = new Map(Object.values(KIND).map((kind) => [kind, kind]));

export function keptVersionOf(row: VersionRow): KeptVersion {
  return {
    version: row.version,
    kind: KINDS.get(row.kind) ?? KIND.updated,
    generation: row.generation,
    stateVersion: row.state_version,
    userId: row.user_id,
    status: row.status,
    complexityLevel: row.complexity_level,
    confidenceScore: row.confidence_score ?? undefined,
    messageCount: row.message_count,
    stateBytes: row.state_bytes,
    updatedUs: row.updated_us,
    restoredVersion: row.restored_version,
  };
}

export function versionValues({ after, restoredVersion }: Entry, kind: Kind): SqlValue[] {
  return [
    ...[after.collection, after.id, after.version, kind, after.generation, after.stateVersion],
    ...[after.userId, after.status, after.complexityLevel, after.confidenceScore ?? null],
    ...[after.messageCount, after.stateBytes, after.updatedUs, restoredVersion ?? 0],
  ];
}

/** The current version is always kept, whether or not there is a row of it: there is one if this would say something else. */
export function currentVersion(held: Held): KeptVersion {
  const { version, generation, stateVersion, userId, status, complexityLevel, confidenceScore } = held;
  const { messageCount, stateBytes, updatedUs } = held;
  const facts = { userId, status, complexityLevel, confidenceScore, messageCount, stateBytes, updatedUs };
  const changed = stateVersion === version ? KIND.updated : KIND.appended;
  const kind = version === generation ? KIND.created : changed;
  return { ...facts, version, kind, generation, stateVersion, restoredVersion: 0 };
}

/** Whether the history has a row of what this makes: always, where one is kept. */
export function hasVersionRow({ after, kind, history }: Entry): boolean {
  if (kind === undefined || after.presence !== "live") return false;
  return history > 0 || currentVersion(after).kind !== kind;
}

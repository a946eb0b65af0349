import { Failure } from "../../infra/failure.ts";
import type { ConversationKey } from "../record/conversation.ts";

const ABSENCE = {
  expired: { reason: "CONVERSATION_EXPIRED", what: "has expired" },
  deleted: { reason: "CONVERSATION_DELETED", what: "was deleted; Save with expected_version 0 creates it again" },
  never: { reason: "CONVERSATION_NOT_FOUND", what: "is not there" },
} as const;

export function notThere(key: ConversationKey, presence: "expired" | "deleted" | undefined): Failure {
  const { reason, what } = ABSENCE[presence ?? "never"];
  return new Failure("not_found", reason, `${named(key)} ${what}`, { metadata: keyIn(key) });
}

/** `version`: as the caller asked for it, which may be beyond all that there are. */
export function versionNotKept(key: ConversationKey, version: number | bigint): Failure {
  const metadata = { ...keyIn(key), version: String(version) };
  return new Failure("not_found", "VERSION_NOT_KEPT", `version ${version} of ${named(key)} is not kept`, { metadata });
}

/** `field` asked for a version that the conversation does not have yet. */
export function versionNotReached(
  key: ConversationKey,
  field: string,
  wanted: number | bigint,
  version: number,
): Failure {
  const message = `${field}: ${named(key)} is at version ${version}, which is older than ${wanted}`;
  const metadata = { field, ...keyIn(key), version: String(version) };
  return new Failure("precondition", "VERSION_NOT_REACHED", message, { metadata });
}

/** What every failure about a conversation tells of it. Whoever is asked about may bring more than a key. */
export function keyIn({ collection, id }: ConversationKey): { collection: string; id: string } {
  return { collection, id };
}

export function named({ collection, id }: ConversationKey): string {
  return `"${id}" in ${collection}`;
}

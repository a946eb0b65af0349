import { Failure } from "../../infra/failure.ts";
import type { ConversationKey } from "../record/conversation.ts";

const ABSENCE = {
  expired: { reason: "CONVERSATION_EXPIRED", what: "has expired" },
  deleted: { reason: "CONVERSATION_DELETED", what: "was deleted" },
  never: { reason: "CONVERSATION_NOT_FOUND", what: "is not there" },
} as const;

export function notThere(key: ConversationKey, presence: "expired" | "deleted" | undefined): Failure {
  const { reason, what } = ABSENCE[presence ?? "never"];
  return new Failure("not_found", reason, `${named(key)} ${what}`, { metadata: { ...key } });
}

export function versionNotKept(key: ConversationKey, version: number): Failure {
  return new Failure("not_found", "VERSION_NOT_KEPT", `version ${version} of ${named(key)} is not kept`);
}

export function named({ collection, id }: ConversationKey): string {
  return `"${id}" in ${collection}`;
}

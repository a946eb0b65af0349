import {
  type ConversationChange,
  ConversationPresence,
  ConversationChange_Kind as Kind,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import type { Presence, Told, Turn } from "./conversation-lives-history.ts";

/* What the server says, in the words of the history. */

export function presenceOf(presence: ConversationPresence): Presence {
  switch (presence) {
    case ConversationPresence.LIVE:
      return "live";
    case ConversationPresence.EXPIRED:
      return "expired";
    case ConversationPresence.DELETED:
      return "deleted";
    default:
      return "never";
  }
}

const TURNS: ReadonlyMap<Kind, Turn> = new Map([
  [Kind.CREATED, "created"],
  [Kind.UPDATED, "updated"],
  [Kind.APPENDED, "appended"],
  [Kind.RESTORED, "restored"],
  [Kind.DELETED, "deleted"],
  [Kind.EXPIRED, "expired"],
]);

export function toldOf({ kind, summary, version, previousVersion, messages }: ConversationChange): Told {
  return {
    ...{ conversation: summary?.id ?? "", turn: TURNS.get(kind) ?? "unknown" },
    ...{ version: Number(version), previousVersion: Number(previousVersion) },
    messages: messages.map(({ id }) => id),
  };
}

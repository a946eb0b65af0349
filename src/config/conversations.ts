import type { CollectionPolicies } from "../conversation/record/policies.ts";
import { readCollections } from "./collections.ts";
import { flag } from "./kind.ts";
import { type Reader, setting } from "./reader.ts";
import { day, duration, hour, minute } from "./units.ts";

export interface ConversationSettings {
  readonly policies: CollectionPolicies;
  /** For how long a watch can be resumed. */
  readonly changesKeptMs: number;
  /** How often what has expired is removed. */
  readonly sweepIntervalMs: number;
  /** Whether Redis holds JSON as well, for code that is not Holdfast. */
  readonly legacyCopies: boolean;
}

export function readConversation(reader: Reader): ConversationSettings {
  return {
    policies: readCollections(reader),
    changesKeptMs: reader.required(
      // The contract promises an hour.
      setting(
        "CONVERSATION_CHANGES_KEPT",
        "conversation.changes_kept",
        duration({ bare: "refused", min: hour, max: 365 * day }),
      ),
      hour,
    ),
    sweepIntervalMs: reader.required(
      // The contract promises that watchers hear of an expiry within a minute.
      setting(
        "CONVERSATION_SWEEP_INTERVAL",
        "conversation.sweep_interval",
        duration({ bare: "ms", min: 100, max: minute }),
      ),
      minute,
    ),
    legacyCopies: reader.required(setting("CONVERSATION_LEGACY_COPIES", "conversation.legacy_copies", flag()), true),
  };
}

import type { ConversationFilter } from "../../gen/holdfast/v1/conversation_pb.js";
import type { Fields } from "../../infra/fields.ts";
import type { StateFacts } from "./conversation.ts";
import { LIMITS } from "./fields.ts";

const MOST_STATUSES = 100;

/** A ConversationFilter that was checked. */
export interface Filter {
  /** Empty: any. */
  readonly statuses: ReadonlySet<string>;
  /** Empty: of any. */
  readonly userId: string;
}

export type FilteredFacts = Pick<StateFacts, "userId" | "status">;

/** Reads a filter. What is wrong is refused, and the result is then of no use. */
export function filterOf(fields: Fields, filter: ConversationFilter | undefined): Filter {
  const { statuses = [], userId = "" } = filter ?? {};
  if (statuses.length > MOST_STATUSES) fields.count("filter.statuses", statuses.length, MOST_STATUSES);
  else
    for (const [at, status] of statuses.entries())
      fields.text(`filter.statuses[${at}]`, status, LIMITS.knownBytes, true);
  fields.text("filter.user_id", userId, LIMITS.knownBytes, true);
  return { statuses: new Set(statuses), userId };
}

export function matches({ statuses, userId }: Filter, facts: FilteredFacts): boolean {
  return (userId === "" || facts.userId === userId) && (statuses.size === 0 || statuses.has(facts.status));
}

export function matchesAll({ statuses, userId }: Filter): boolean {
  return userId === "" && statuses.size === 0;
}

/** The filter as a text: the same for two that say the same, in whatever order. */
export function textOfFilter({ statuses, userId }: Filter): string {
  return JSON.stringify([[...statuses].sort(), userId]);
}

import type { Database } from "../../infra/database.ts";
import type { ListQuery } from "./listing.ts";
import { isOneOf, listOf } from "./sql-values.ts";

/** How to go through the conversations of a listing: indexes that have them in their order, and what else has to hold. */
export interface ListPlan {
  readonly column: "created_us" | "updated_us";
  readonly descending: boolean;
  readonly index: string;
  /** Parts of the index, each where a column is a value; all of it where there is no such column. To be merged. */
  readonly branches: readonly (Branch | undefined)[];
  /** Whether the index sees to the user, and to the statuses. */
  readonly drives: "user" | "status" | undefined;
}

export interface Branch {
  readonly column: "user_id" | "status";
  readonly value: string;
}

/** So many statuses are merged; with more, all conversations are looked through. */
const MOST_BRANCHES = 8;

/** Undefined: nothing can match. */
export async function planListing(
  database: Pick<Database, "kind" | "query">,
  { collection, filter: { statuses, userId }, order }: ListQuery,
): Promise<ListPlan | undefined> {
  if (order === "updated") return { ...EVERYTHING, column: "updated_us", index: "conversation_updated" };
  const plan = { ...EVERYTHING, descending: order === "newest" };
  if (userId !== "") {
    return { ...plan, index: "conversation_user", branches: [{ column: "user_id", value: userId }], drives: "user" };
  }
  if (statuses.size === 0) return plan;
  const used = await usedStatuses(database, collection, [...statuses]);
  if (used.length === 0) return undefined;
  if (used.length > MOST_BRANCHES) return plan;
  const branches = used.map((value): Branch => ({ column: "status", value }));
  return { ...plan, index: "conversation_status", branches, drives: "status" };
}

const EVERYTHING: ListPlan = {
  column: "created_us",
  descending: true,
  index: "conversation_created",
  branches: [undefined],
  drives: undefined,
};

/** Those that any conversation has. */
async function usedStatuses(
  { kind, query }: Pick<Database, "kind" | "query">,
  collection: string,
  statuses: readonly string[],
): Promise<readonly string[]> {
  const rows = await query<{ status: string }>(
    `SELECT status FROM conversation_count WHERE collection = $1 AND presence = 1 AND conversations > 0
      AND ${isOneOf(kind, "status", "text", "$2")}`,
    [collection, listOf(kind, statuses)],
  );
  return rows.map(({ status }) => status);
}

import type { Held } from "../record/conversation.ts";
import type { Filter } from "../record/filter.ts";

/** "newest" and "oldest" by creation, "updated": the last updated first. */
export type ListOrder = "newest" | "oldest" | "updated";

/** Where a page ended: a time, and the id of the conversation that had it. */
export interface ListPlace {
  readonly us: number;
  readonly id: string;
}

export interface ListQuery {
  readonly collection: string;
  readonly filter: Filter;
  /** Only those updated then or later. */
  readonly updatedSinceUs: number | undefined;
  readonly order: ListOrder;
  readonly limit: number;
  readonly after: ListPlace | undefined;
  /** What expires until then is not there. */
  readonly nowUs: number;
}

export interface ListPage {
  readonly rows: readonly Held[];
  /** Where to go on. Undefined: there is nothing more. */
  readonly next: ListPlace | undefined;
}

/** Conversations in an order. A page ends when it is full, or when it has looked at enough: then others may follow. */
export interface Listing {
  page(query: ListQuery): Promise<ListPage>;
}

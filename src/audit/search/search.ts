import type { Archived } from "../archive/archive.ts";
import type { Filter } from "./filter.ts";

/** Records are listed by occurUs, and by their place in the archive where that is the same. */
export interface Position {
  readonly occurUs: number;
  readonly leafIndex: number;
}

export type Order = "newest" | "oldest";

export interface Query {
  readonly filter: Filter;
  readonly order: Order;
  /** At most this many records. */
  readonly limit: number;
  /** Only what comes after this place in this order. */
  readonly after?: Position | undefined;
  /** Only the first so many leaves of the archive. */
  readonly belowLeaf?: number | undefined;
  /** How many records that may match are looked at before the page comes as short as it is. */
  readonly maxScanned?: number | undefined;
}

export interface Found extends Archived {
  /** What retention has dropped is never found. */
  readonly leaf: Uint8Array;
}

export interface Page {
  readonly rows: readonly Found[];
  /** Where to go on. Undefined: there is nothing after this page. */
  readonly next: Position | undefined;
}

/** Finds records of the archive. Rejects with UnavailableError while SQL is away. */
export interface Search {
  /** A page ends early at PAGE_BYTES, or when much was looked at and little matched. */
  page(query: Query): Promise<Page>;
}

export const PAGE_BYTES = 2 * 1024 * 1024;

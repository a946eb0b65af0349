import { FencingTokenStaleError } from "../../infra/fencing.ts";
import type { Book } from "../ledger/book.ts";
import type { Order } from "./order.ts";

/**
 * Refuses what is written under a lock that has been another's since. The token counts as seen whatever comes of the order: it was
 * granted, so all that are older are over.
 */
export function passFence({ fence, objection }: Pick<Order, "fence" | "objection">, book: Book): void {
  if (objection !== undefined) throw objection;
  if (fence === undefined) return;
  const newest = book.newestToken(fence.lock);
  if (fence.token < newest) throw new FencingTokenStaleError(fence, newest);
  if (fence.token > newest) book.sawToken(fence);
}

import { Failure } from "../../infra/failure.ts";
import type { Book, Entry } from "../ledger/book.ts";
import type { CollectionPolicy, Held, Presence } from "../record/conversation.ts";
import { keyIn, named, notThere } from "./absence.ts";
import { encodeAnswer, meaningOf } from "./answer.ts";
import type { Order, Outcome } from "./order.ts";

export type Done = Extract<Outcome, { kind: "done" }>;

/** What a rule stands on. */
export interface Setting<O extends Order = Order> {
  readonly order: O;
  readonly book: Book;
  readonly policy: CollectionPolicy;
  readonly held: Held | undefined;
  readonly presence: Presence | undefined;
}

/** What is there instead of what the order expects, if it expects something else. */
export async function conflictOf({ order, book, held, presence }: Setting): Promise<Outcome | undefined> {
  const expected = order.expectedVersion;
  const live = presence === "live" ? held : undefined;
  if (expected === undefined || expected === (live?.version ?? 0)) return undefined;
  return {
    kind: "conflict",
    conflict: {
      expectedVersion: expected,
      presence: presence ?? "never",
      held: live,
      state: live && (await book.state(live)),
    },
  };
}

/** A late writer does not bring back what was deleted; one that says that it must not exist knows what it does. */
export function refuseTombstone(
  { order, presence }: Pick<Setting, "presence"> & { readonly order: Pick<Order, "key" | "expectedVersion"> },
  wayOut = "to create it again, say so with expected_version 0",
): void {
  if (presence !== "deleted" || order.expectedVersion === 0) return;
  const message = `${named(order.key)} was deleted; ${wayOut}`;
  throw new Failure("precondition", "CONVERSATION_DELETED", message, { metadata: keyIn(order.key) });
}

export function absent(held: Held | undefined, presence: Presence | undefined): Outcome {
  return { kind: "absent", presence: presence === "live" ? "never" : (presence ?? "never"), held };
}

export function mustBeLive({ order, held, presence }: Setting): Held {
  if (held !== undefined && presence === "live") return held;
  throw notThere(order.key, presence === "live" ? undefined : presence);
}

/** An entry that brings nothing but what is held. */
export function plain(before: Held | undefined, after: Held): Omit<Entry, "kind"> {
  return { before, after, state: undefined, firstPosition: 0, messages: [], history: 0 };
}

/** A retry is answered the same, whatever comes between. */
export function remembered({ order, book }: Setting, done: Done): Done {
  const { key, requestId } = order;
  if (requestId === "") return done;
  const answer = encodeAnswer(done, order.answersState === true);
  book.remember(key, requestId, { meaning: meaningOf(order), answer });
  return done;
}

/** Never earlier than before, though the clocks of instances differ: else a listing by it could come upon it twice. */
export function updatedAfter(before: Held | undefined, { nowUs }: Book): number {
  return Math.max(nowUs, before?.updatedUs ?? 0);
}

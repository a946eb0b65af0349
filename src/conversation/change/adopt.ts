import { Failure } from "../../infra/failure.ts";
import { type Book, KIND } from "../ledger/book.ts";
import type { ConversationKey, Held, Presence } from "../record/conversation.ts";
import { keyIn, named, notThere } from "./absence.ts";
import { lifetimeAfter } from "./expiry.ts";
import { factsOf, newborn } from "./newborn.ts";
import type { OrderOf, Outcome } from "./order.ts";
import { plain, refuseTombstone, remembered, type Setting } from "./setting.ts";
import { buryExpired } from "./tombstone.ts";

/** Messages that were prepared are adopted no later than so long before somebody may remove them. */
const PREPARED_MARGIN_US = 60_000_000;

export async function adopt(setting: Setting<OrderOf<"adopt">>): Promise<Outcome> {
  const { order, book, policy, presence } = setting;
  refuseTaken(order.key, presence);
  if (order.originGeneration !== undefined) await originMustBeThere(order, book);
  const { state, generation, messageCount, origin } = order;
  if (messageCount > 0) await mustBePrepared(order, book);
  const before = buryExpired(setting);
  // Its messages were added under a version that is not above the generation.
  const stamp = Math.max(book.nextStamp(before), generation + 1);
  const after: Held = {
    ...order.key,
    ...newborn(stamp, book.nowUs),
    ...factsOf(state),
    ...lifetimeAfter(order.expiry, undefined, policy, book.nowUs),
    ...{ generation, messageCount, origin, stateBytes: state.bytes.length, createdUs: order.createdUs ?? book.nowUs },
  };
  book.enter({
    ...plain(before, after),
    ...{ kind: KIND.created, state: state.bytes, history: policy.history, adopts: true },
  });
  return remembered(setting, {
    ...{ kind: "done", held: after, created: true, appended: [], state: state.bytes, changed: true },
  });
}

/** What is copied takes nobody's place. */
export function refuseTaken(key: ConversationKey, presence: Presence | undefined): void {
  if (presence === "live") {
    const message = `${named(key)} is there already`;
    throw new Failure("already_exists", "CONVERSATION_EXISTS", message, { metadata: keyIn(key) });
  }
  refuseTombstone({ presence, order: { key } }, "while its tombstone is kept, give the copy another target_id");
}

/** What was deleted while it was copied does not live on as the copy. */
async function originMustBeThere({ origin, originGeneration }: OrderOf<"adopt">, book: Book): Promise<void> {
  if (origin === undefined) return;
  const held = await book.held(origin);
  const isSame = held?.presence === "live" && held.generation === originGeneration;
  if (isSame && (held.expiresUs ?? Number.POSITIVE_INFINITY) > book.nowUs) return;
  if (isSame) throw notThere(origin, "expired");
  throw notThere(origin, held?.presence === "live" ? undefined : held?.presence);
}

/** Nobody whose clock is a little ahead may be removing the messages already. */
async function mustBePrepared({ key, generation }: OrderOf<"adopt">, book: Book): Promise<void> {
  const untilUs = await book.preparedUntilUs(key, generation);
  if (untilUs !== undefined && untilUs > book.nowUs + PREPARED_MARGIN_US) return;
  const message = `the messages of ${named(key)} took too long to copy; try again`;
  throw new Failure("conflict", "COPY_OUTLIVED", message, { metadata: keyIn(key) });
}

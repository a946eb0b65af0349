import { type Book, type KeptVersion, KIND } from "../ledger/book.ts";
import type { Held } from "../record/conversation.ts";
import { versionNotKept } from "./absence.ts";
import { lifetimeAfter } from "./expiry.ts";
import { factsOf } from "./newborn.ts";
import type { OrderOf, Outcome } from "./order.ts";
import { conflictOf, mustBeLive, plain, remembered, type Setting, updatedAfter } from "./setting.ts";

export async function restore(setting: Setting<OrderOf<"restore">>): Promise<Outcome> {
  const { order, book, policy } = setting;
  const conflict = await conflictOf(setting);
  if (conflict !== undefined) return conflict;
  const live = mustBeLive(setting);
  const kept = await book.keptVersion(live, order.version);
  const bytes = kept && (await book.stateOf(live, kept.stateVersion));
  if (kept === undefined || bytes === undefined) throw versionNotKept(live, order.askedVersion ?? order.version);
  const stamp = book.nextStamp(live);
  const cuts = takesAway(order, live, kept);
  const after: Held = {
    ...live,
    ...lifetimeAfter(undefined, live, policy, book.nowUs),
    ...factsOf(kept),
    ...{ stamp, version: stamp, stateVersion: stamp, stateBytes: bytes.length, updatedUs: updatedAfter(live, book) },
    messageCount: order.keepMessages ? live.messageCount : kept.messageCount,
    cutVersion: cuts ? stamp : live.cutVersion,
  };
  book.enter({
    ...plain(live, after),
    ...{ kind: KIND.restored, state: bytes, restoredVersion: kept.version, history: policy.history },
    messagesOf: cuts ? { version: kept.version, untouched: await untouchedSince(live, kept, book) } : undefined,
  });
  return remembered(setting, {
    ...{ kind: "done", held: after, created: false, appended: [], state: bytes, changed: true },
  });
}

/**
 * Whether a restore leaves out messages that are there. Since the last one that did, messages were only appended: a version after
 * that has the first ones of those that are there now.
 */
function takesAway({ keepMessages }: OrderOf<"restore">, live: Held, kept: KeptVersion): boolean {
  return !keepMessages && (kept.messageCount < live.messageCount || kept.version < live.cutVersion);
}

/** How many of the first messages are those that they were. */
async function untouchedSince(live: Held, kept: KeptVersion, book: Book): Promise<number> {
  return kept.version < live.cutVersion ? book.messagesSince(live, kept.version) : kept.messageCount;
}

import { KIND } from "../ledger/book.ts";
import type { Held } from "../record/conversation.ts";
import { NO_FACTS } from "./newborn.ts";
import type { OrderOf, Outcome } from "./order.ts";
import { absent, conflictOf, type Done, plain, type Setting, updatedAfter } from "./setting.ts";

export async function remove(setting: Setting<OrderOf<"delete">>): Promise<Outcome> {
  const { held, presence, policy, book } = setting;
  if (held === undefined || presence !== "live") return absent(held, presence);
  const conflict = await conflictOf(setting);
  if (conflict !== undefined) return conflict;
  return bury(setting, held, "deleted", book.nowUs + policy.tombstoneMs * 1000);
}

export async function expire(setting: Setting<OrderOf<"expire">>): Promise<Outcome> {
  const { book, held, policy, presence } = setting;
  if (held?.presence !== "live" || held.expiresUs === undefined || held.expiresUs > book.nowUs) {
    return absent(held, presence);
  }
  return bury(setting, held, "expired", held.expiresUs + policy.tombstoneMs * 1000);
}

/** Leaves a tombstone in its place. */
function bury({ book }: Pick<Setting, "book">, held: Held, presence: "deleted" | "expired", keptUntilUs: number): Done {
  const stamp = book.nextStamp(held);
  const after: Held = {
    ...held,
    ...NO_FACTS,
    ...{ stamp, version: stamp, presence, stateVersion: 0, messageCount: 0, stateBytes: 0 },
    ...{ updatedUs: updatedAfter(held, book), expiresUs: undefined, keptUntilUs },
  };
  book.enter({ ...plain(held, after), kind: KIND[presence] });
  return { kind: "done", held: after, created: false, appended: [], state: undefined, changed: true };
}

/** What has expired and was not removed yet is removed before another takes its place: who watches is told of both. */
export function buryExpired(setting: Pick<Setting, "book" | "policy" | "held">): Held | undefined {
  const { held, policy } = setting;
  if (held?.presence !== "live" || held.expiresUs === undefined) return held;
  return bury(setting, held, "expired", held.expiresUs + policy.tombstoneMs * 1000).held;
}

import { Failure } from "../../infra/failure.ts";
import { type Book, KIND, type Kind } from "../ledger/book.ts";
import {
  type CollectionPolicy,
  type ConversationKey,
  type Held,
  presenceOf,
  type State,
} from "../record/conversation.ts";
import { keyIn } from "./absence.ts";
import { adopt } from "./adopt.ts";
import { answerAgain } from "./answer.ts";
import { lifetimeAfter } from "./expiry.ts";
import { passFence } from "./fence.ts";
import { EMPTY_STATE, factsOf, newborn } from "./newborn.ts";
import type { Merge, Order, OrderOf, Outcome } from "./order.ts";
import { NO_MESSAGES, type Placed, placeMessages } from "./placed-messages.ts";
import { restore } from "./restore.ts";
import {
  absent,
  conflictOf,
  type Done,
  mustBeLive,
  plain,
  refuseTombstone,
  remembered,
  type Setting,
  updatedAfter,
} from "./setting.ts";
import { buryExpired, expire, remove } from "./tombstone.ts";

/** Carries one write out on the book, or throws the Failure that says why not. */
export async function carryOut(order: Order, book: Book, policy: CollectionPolicy): Promise<Outcome> {
  if (order.requestId !== "") {
    const answered = await book.answered(order.key, order.requestId);
    if (answered !== undefined) return answerAgain(order, answered);
  }
  passFence(order, book);
  const held = await book.held(order.key);
  const presence = presenceOf(held, book.nowUs, policy.tombstoneMs);
  const setting = { book, policy, held, presence };
  switch (order.kind) {
    case "save":
      return save({ ...setting, order });
    case "patch":
      return patch({ ...setting, order });
    case "append":
      return append({ ...setting, order });
    case "delete":
      return remove({ ...setting, order });
    case "extend":
      return extend({ ...setting, order });
    case "restore":
      return restore({ ...setting, order });
    case "adopt":
      return adopt({ ...setting, order });
    case "expire":
      return expire({ ...setting, order });
  }
}

async function save(setting: Setting<OrderOf<"save">>): Promise<Outcome> {
  const { order, book, held, presence } = setting;
  const conflict = await conflictOf(setting);
  if (conflict !== undefined) return conflict;
  refuseTombstone(setting);
  const live = presence === "live" ? held : undefined;
  const placed = await placeMessages(order, live, book);
  return enter(setting, live, {
    ...{ kind: live === undefined ? KIND.created : KIND.updated, state: order.state, placed },
    expiry: order.expiry,
  });
}

async function patch(setting: Setting<OrderOf<"patch">>): Promise<Outcome> {
  const { order, book } = setting;
  const conflict = await conflictOf(setting);
  if (conflict !== undefined) return conflict;
  const live = mustBeLive(setting);
  const state = mergedBy(order.merge, await book.state(live), order.key);
  return enter(setting, live, { kind: KIND.updated, state, placed: NO_MESSAGES, expiry: order.expiry });
}

async function append(setting: Setting<OrderOf<"append">>): Promise<Outcome> {
  const { order, book, held, presence } = setting;
  const live = presence === "live" ? held : undefined;
  const placed = await placeMessages(order, live, book);
  if (live !== undefined && placed.fresh.length === 0) {
    const { appended } = placed;
    return remembered(setting, {
      kind: "done",
      held: live,
      created: false,
      appended,
      state: undefined,
      changed: false,
    });
  }
  const conflict = await conflictOf(setting);
  if (conflict !== undefined) return conflict;
  if (!order.create) mustBeLive(setting);
  else refuseTombstone(setting);
  const { merge, key } = order;
  const merged = merge && mergedBy(merge, live === undefined ? EMPTY_STATE.bytes : await book.state(live), key);
  const state = merged ?? (live === undefined ? EMPTY_STATE : undefined);
  const kind = live === undefined ? KIND.created : merged === undefined ? KIND.appended : KIND.updated;
  return enter(setting, live, { kind, state, placed, expiry: order.expiry });
}

async function extend({ order, book, policy, held, presence }: Setting<OrderOf<"extend">>): Promise<Outcome> {
  if (held === undefined || presence !== "live") return absent(held, presence);
  const after = {
    ...held,
    ...lifetimeAfter(order.expiry, undefined, policy, book.nowUs),
    stamp: book.nextStamp(held),
  };
  book.enter({ ...plain(held, after), kind: undefined });
  return { kind: "done", held: after, created: false, appended: [], state: undefined, changed: true };
}

/** What is merged may be more than a state can be. Whoever finds out does not know which one it is. */
function mergedBy(merge: Merge, before: Uint8Array, key: ConversationKey): State {
  try {
    return merge(before);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    const metadata = { ...keyIn(key), ...error.metadata };
    throw new Failure(error.kind, error.reason, error.message, { metadata, cause: error });
  }
}

interface Changed {
  readonly kind: Kind;
  /** Undefined: it stays. */
  readonly state: State | undefined;
  readonly placed: Placed;
  readonly expiry: Parameters<typeof lifetimeAfter>[0];
}

/** Enters a change of what is live, or of a new one. */
function enter(setting: Setting<OrderOf<"save" | "patch" | "append">>, live: Held | undefined, changed: Changed): Done {
  const { order, book, policy } = setting;
  const { kind, state, placed } = changed;
  const before = live ?? buryExpired(setting);
  const stamp = book.nextStamp(before);
  const lifetime = lifetimeAfter(changed.expiry, live, policy, book.nowUs);
  const base: Held = live ?? { ...order.key, ...newborn(stamp, book.nowUs) };
  const messageCount = base.messageCount + placed.fresh.length;
  const after: Held = {
    ...base,
    ...lifetime,
    ...(state && { ...factsOf(state), stateVersion: stamp, stateBytes: state.bytes.length }),
    ...{ stamp, version: stamp, messageCount, updatedUs: updatedAfter(live, book) },
  };
  book.enter({
    ...plain(before, after),
    ...{ kind, state: state?.bytes, firstPosition: base.messageCount + 1, messages: placed.fresh },
    history: policy.history,
  });
  const { appended } = placed;
  const created = live === undefined;
  return remembered(setting, { kind: "done", held: after, created, appended, state: state?.bytes, changed: true });
}

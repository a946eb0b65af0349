import { Failure } from "../../infra/failure.ts";
import { type Book, type Entry, type KeptVersion, KIND, type Kind } from "../ledger/book.ts";
import {
  type CollectionPolicy,
  type ConversationKey,
  type Held,
  type Message,
  type Presence,
  presenceOf,
  type State,
} from "../record/conversation.ts";
import { decodeAnswer, encodeAnswer } from "./answer.ts";
import { lifetimeAfter } from "./expiry.ts";
import type { Appended, Order, OrderOf, Outcome } from "./order.ts";

/** Messages that were prepared are adopted no later than so long before somebody may remove them. */
const PREPARED_MARGIN_US = 60_000_000;

/** How many messages a conversation may have. */
export const MOST_MESSAGES = 1_000_000;

type Done = Extract<Outcome, { kind: "done" }>;

/** What a rule stands on. */
interface Setting<O extends Order = Order> {
  readonly order: O;
  readonly book: Book;
  readonly policy: CollectionPolicy;
  readonly held: Held | undefined;
  readonly presence: Presence | undefined;
}

/** Carries one write out on the book, or throws the Failure that says why not. */
export async function carryOut(order: Order, book: Book, policy: CollectionPolicy): Promise<Outcome> {
  if (order.requestId !== "") {
    const answer = await book.answer(order.key, order.requestId);
    if (answer !== undefined) return decodeAnswer(answer);
  }
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
  const plan = await planMessages(order.messages, live, book);
  return enter(setting, live, {
    ...{ kind: live === undefined ? KIND.created : KIND.updated, state: order.state, plan },
    expiry: order.expiry,
  });
}

async function patch(setting: Setting<OrderOf<"patch">>): Promise<Outcome> {
  const { order, book } = setting;
  const conflict = await conflictOf(setting);
  if (conflict !== undefined) return conflict;
  const live = mustBeLive(setting);
  const state = order.merge(await book.state(live));
  return enter(setting, live, { kind: KIND.updated, state, plan: NO_MESSAGES, expiry: order.expiry });
}

async function append(setting: Setting<OrderOf<"append">>): Promise<Outcome> {
  const { order, book, held, presence } = setting;
  const live = presence === "live" ? held : undefined;
  const plan = await planMessages(order.messages, live, book);
  if (live !== undefined && plan.fresh.length === 0) {
    const { appended } = plan;
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
  const merged = order.merge?.(live === undefined ? new Uint8Array() : await book.state(live));
  const state = merged ?? (live === undefined ? EMPTY_STATE : undefined);
  const kind = live === undefined ? KIND.created : merged === undefined ? KIND.appended : KIND.updated;
  return enter(setting, live, { kind, state, plan, expiry: order.expiry });
}

async function remove(setting: Setting<OrderOf<"delete">>): Promise<Outcome> {
  const { held, presence, policy, book } = setting;
  if (held === undefined || presence !== "live") return absent(held, presence);
  const conflict = await conflictOf(setting);
  if (conflict !== undefined) return conflict;
  return bury(setting, held, "deleted", book.nowUs + policy.tombstoneMs * 1000);
}

async function extend({ order, book, policy, held, presence }: Setting<OrderOf<"extend">>): Promise<Outcome> {
  if (held === undefined || presence !== "live") return absent(held, presence);
  const after = {
    ...held,
    ...lifetimeAfter(order.expiry, undefined, policy, book.nowUs),
    stamp: book.nextStamp(held, held),
  };
  book.enter({ ...plain(held, after), kind: undefined });
  return { kind: "done", held: after, created: false, appended: [], state: undefined, changed: true };
}

async function restore(setting: Setting<OrderOf<"restore">>): Promise<Outcome> {
  const { order, book, policy } = setting;
  const conflict = await conflictOf(setting);
  if (conflict !== undefined) return conflict;
  const live = mustBeLive(setting);
  const kept = await book.keptVersion(live, order.version);
  const bytes = kept && (await book.stateOf(live, kept.stateVersion));
  if (kept === undefined || bytes === undefined) throw versionNotKept(live, order.version);
  const stamp = book.nextStamp(live, live);
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
    messagesOf: cuts ? { version: kept.version, untouched: untouchedSince(live, kept) } : undefined,
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
function untouchedSince(live: Held, kept: KeptVersion): number {
  return kept.version < live.cutVersion ? 0 : kept.messageCount;
}

/** Never earlier than before, though the clocks of instances differ: else a listing by it could come upon it twice. */
function updatedAfter(before: Held | undefined, { nowUs }: Book): number {
  return Math.max(nowUs, before?.updatedUs ?? 0);
}

async function adopt(setting: Setting<OrderOf<"adopt">>): Promise<Outcome> {
  const { order, book, policy, presence } = setting;
  if (presence === "live") {
    throw new Failure("already_exists", "CONVERSATION_EXISTS", `${named(order.key)} is there already`);
  }
  refuseTombstone({ presence, order: { ...order, expectedVersion: undefined } });
  const { state, generation, messageCount, origin } = order;
  if (messageCount > 0) await mustBePrepared(order, book);
  const before = buryExpired(setting);
  // Its messages were added under a version that is not above the generation.
  const stamp = Math.max(book.nextStamp(order.key, before), generation + 1);
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

/** Nobody whose clock is a little ahead may be removing the messages already. */
async function mustBePrepared({ key, generation }: OrderOf<"adopt">, book: Book): Promise<void> {
  const untilUs = await book.preparedUntilUs(key, generation);
  if (untilUs !== undefined && untilUs > book.nowUs + PREPARED_MARGIN_US) return;
  throw new Failure("conflict", "COPY_OUTLIVED", `the messages of ${named(key)} took too long to copy; try again`);
}

async function expire(setting: Setting<OrderOf<"expire">>): Promise<Outcome> {
  const { book, held, policy, presence } = setting;
  if (held?.presence !== "live" || held.expiresUs === undefined || held.expiresUs > book.nowUs) {
    return absent(held, presence);
  }
  return bury(setting, held, "expired", held.expiresUs + policy.tombstoneMs * 1000);
}

/** Leaves a tombstone in its place. */
function bury({ book }: Pick<Setting, "book">, held: Held, presence: "deleted" | "expired", keptUntilUs: number): Done {
  const stamp = book.nextStamp(held, held);
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
function buryExpired(setting: Pick<Setting, "book" | "policy" | "held">): Held | undefined {
  const { held, policy } = setting;
  if (held?.presence !== "live" || held.expiresUs === undefined) return held;
  return bury(setting, held, "expired", held.expiresUs + policy.tombstoneMs * 1000).held;
}

interface Planned {
  /** Those that are not there yet, in their order. */
  readonly fresh: readonly Message[];
  /** One for each, in the order given. */
  readonly appended: readonly Appended[];
}

const NO_MESSAGES: Planned = { fresh: [], appended: [] };

async function planMessages(messages: readonly Message[], live: Held | undefined, book: Book): Promise<Planned> {
  if (messages.length === 0) return NO_MESSAGES;
  const ids = messages.map(({ id }) => id);
  const known = live === undefined ? new Map() : await book.messages(live, ids);
  const fresh: Message[] = [];
  const appended = messages.map((message): Appended => {
    const { id } = message;
    const there = known.get(id);
    if (there === undefined) {
      fresh.push(message);
      return { id, position: (live?.messageCount ?? 0) + fresh.length, duplicate: false };
    }
    if (!Buffer.from(message.contentHash).equals(there.contentHash)) {
      throw new Failure(
        "already_exists",
        "MESSAGE_ID_REUSED",
        `a message "${id}" is there already, with other content`,
        {
          metadata: { message_id: id, position: String(there.position) },
        },
      );
    }
    return { id, position: there.position, duplicate: true };
  });
  const total = (live?.messageCount ?? 0) + fresh.length;
  if (total > MOST_MESSAGES) {
    throw new Failure(
      "too_large",
      "TOO_MANY_MESSAGES",
      `the conversation would have ${total} messages; the limit is ${MOST_MESSAGES}`,
    );
  }
  return { fresh, appended };
}

interface Changed {
  readonly kind: Kind;
  /** Undefined: it stays. */
  readonly state: State | undefined;
  readonly plan: Planned;
  readonly expiry: Parameters<typeof lifetimeAfter>[0];
}

/** Enters a change of what is live, or of a new one. */
function enter(setting: Setting<OrderOf<"save" | "patch" | "append">>, live: Held | undefined, changed: Changed): Done {
  const { order, book, policy } = setting;
  const { kind, state, plan } = changed;
  const before = live ?? buryExpired(setting);
  const stamp = book.nextStamp(order.key, before);
  const lifetime = lifetimeAfter(changed.expiry, live, policy, book.nowUs);
  const base: Held = live ?? { ...order.key, ...newborn(stamp, book.nowUs) };
  const messageCount = base.messageCount + plan.fresh.length;
  const after: Held = {
    ...base,
    ...lifetime,
    ...(state && { ...factsOf(state), stateVersion: stamp, stateBytes: state.bytes.length }),
    ...{ stamp, version: stamp, messageCount, updatedUs: updatedAfter(live, book) },
  };
  book.enter({
    ...plain(before, after),
    ...{ kind, state: state?.bytes, firstPosition: base.messageCount + 1, messages: plan.fresh },
    history: policy.history,
  });
  const { appended } = plan;
  const created = live === undefined;
  return remembered(setting, { kind: "done", held: after, created, appended, state: state?.bytes, changed: true });
}

function plain(before: Held | undefined, after: Held): Omit<Entry, "kind"> {
  return { before, after, state: undefined, firstPosition: 0, messages: [], history: 0 };
}

/** A retry is answered the same, whatever comes between. */
function remembered({ order, book }: Setting, done: Done): Done {
  const { key, requestId } = order;
  if (requestId !== "") book.remember(key, { requestId, answer: encodeAnswer(done, order.answersState === true) });
  return done;
}

function newborn(stamp: number, nowUs: number): Omit<Held, keyof ConversationKey> {
  return {
    ...NO_FACTS,
    ...{
      stamp,
      version: stamp,
      presence: "live",
      generation: stamp,
      stateVersion: stamp,
      cutVersion: 0,
      messageCount: 0,
      stateBytes: 0,
    },
    ...{ createdUs: nowUs, updatedUs: nowUs, expiresUs: undefined, ttlMs: undefined, sliding: false },
    ...{ origin: undefined, keptUntilUs: undefined },
  };
}

const NO_FACTS = { userId: "", status: "", complexityLevel: "", confidenceScore: undefined } as const;
const EMPTY_STATE: State = { ...NO_FACTS, bytes: new Uint8Array() };

function factsOf({ userId, status, complexityLevel, confidenceScore }: typeof NO_FACTS | Omit<State, "bytes">) {
  return { userId, status, complexityLevel, confidenceScore };
}

/** What is there instead of what the order expects, if it expects something else. */
async function conflictOf({ order, book, held, presence }: Setting): Promise<Outcome | undefined> {
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
function refuseTombstone({ order, presence }: Pick<Setting, "order" | "presence">): void {
  if (presence !== "deleted" || order.expectedVersion === 0) return;
  throw new Failure("precondition", "CONVERSATION_DELETED", `${named(order.key)} was deleted`);
}

function absent(held: Held | undefined, presence: Presence | undefined): Outcome {
  return { kind: "absent", presence: presence === "live" ? "never" : (presence ?? "never"), held };
}

function mustBeLive({ order, held, presence }: Setting): Held {
  if (held !== undefined && presence === "live") return held;
  throw notThere(order.key, presence === "live" ? undefined : presence);
}

const ABSENCE = {
  expired: { reason: "CONVERSATION_EXPIRED", what: "has expired" },
  deleted: { reason: "CONVERSATION_DELETED", what: "was deleted" },
  never: { reason: "CONVERSATION_NOT_FOUND", what: "is not there" },
} as const;

export function notThere(key: ConversationKey, presence: "expired" | "deleted" | undefined): Failure {
  const { reason, what } = ABSENCE[presence ?? "never"];
  return new Failure("not_found", reason, `${named(key)} ${what}`, { metadata: { ...key } });
}

export function versionNotKept(key: ConversationKey, version: number): Failure {
  return new Failure("not_found", "VERSION_NOT_KEPT", `version ${version} of ${named(key)} is not kept`);
}

function named({ collection, id }: ConversationKey): string {
  return `"${id}" in ${collection}`;
}

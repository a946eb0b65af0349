import { randomUUID } from "node:crypto";
import {
  type ConversationMessage,
  ConversationMessageOrder,
  ConversationPresence,
  ConversationStateService,
  type ConversationStateServiceGetResponse,
} from "../../gen/holdfast/v1/conversation_pb.js";
import { type Api, ApiError } from "../client/api.ts";
import type { Patience } from "../client/patience.ts";
import type { Fate } from "./conversation-account.ts";
import type { ConversationDocument } from "./conversation-document.ts";
import { Unfit } from "./conversation-json.ts";
import { canonicalText } from "./conversation-messages.ts";
import { type Batch, batchesOf, type Expiry, expiryOf, isAfter, secondsLong } from "./conversation-requests.ts";
import type { Lifetime, Named } from "./conversation-source.ts";

export interface DeliveryOptions {
  readonly api: Api;
  readonly patience: Patience;
  /** Whether the source is alive now: what it still holds has not expired. */
  readonly isAlive: boolean;
  /** Whether the time that is left in the source is kept; else the collection's policy decides. */
  readonly keepsTtl: boolean;
  /** Whether what was changed in the source since is brought, too. */
  readonly updates: boolean;
}

/** A document with its name, ready to be sent. */
export interface Sendable extends Named {
  readonly document: ConversationDocument;
  readonly lifetime: Lifetime;
}

export type Deliver = (sendable: Sendable) => Promise<Fate>;

/** "again": somebody changed the conversation between two calls. */
type Turn = Fate | "again";

const { method } = ConversationStateService;

/** A copy of a million messages takes a while. */
const FORK_MS = 300_000;
/** So long a half-sent conversation is kept that an import left behind when it died. */
const STAGED_SECONDS = 3600;
const TURNS = 5;

/** What a copy that was refused means for the document. */
const FATE_OF_STAGED: ReadonlyMap<string, Turn> = new Map<string, Turn>([
  ["CONVERSATION_EXISTS", "again"],
  ["CONVERSATION_DELETED", "deleted there"],
  // The import stood still for so long that what it had sent is no longer there.
  ["CONVERSATION_EXPIRED", "again"],
  ["CONVERSATION_NOT_FOUND", "again"],
]);

/** Brings one document after the other to a server: each wholly, or not at all. */
export function createDelivery(options: DeliveryOptions): Deliver {
  const { api, patience, isAlive, updates } = options;
  const termOf = ({ lifetime }: Sendable) => (options.keepsTtl ? expiryOf(lifetime) : undefined);

  async function attempt(sendable: Sendable): Promise<Turn> {
    const { collection, id, document } = sendable;
    const request = { collection, id, lastMessages: 1, bypassHotCopy: true };
    const there = await patience.until(() => api.call(method.get, request));
    if (there.presence === ConversationPresence.LIVE) return meet(sendable, there);
    if (there.presence === ConversationPresence.DELETED) return "deleted there";
    if (there.presence === ConversationPresence.EXPIRED && !isAlive) return "expired there";
    const [first = [], ...more] = batchesOf(document.messages);
    if (more.length > 0) return createStaged(sendable, first, more);
    return (await save(sendable, 0n, first, termOf(sendable))) ? "imported" : "again";
  }

  /** Whether it was still as expected, and is saved. */
  async function save(
    { collection, id, document }: Named & Pick<Sendable, "document">,
    expectedVersion: bigint,
    messages: Batch,
    expiry: Expiry | undefined,
  ): Promise<boolean> {
    const request = {
      ...{ collection, id, state: document.state, messages, expectedVersion, returnConflict: true },
      ...{ requestId: randomUUID(), ...(expiry && { expiry }) },
    };
    const { conflict } = await patience.until(() => api.call(method.save, request));
    return conflict === undefined;
  }

  /**
   * What does not fit into one request is put together under another id and then copied in one step. So nobody sees half of it,
   * and when the import dies in the middle, no copy of that half lies over the document that it came from.
   */
  async function createStaged(sendable: Sendable, first: Batch, more: readonly Batch[]): Promise<Turn> {
    const { collection, id, document } = sendable;
    const staged = { collection, id: `import-${randomUUID()}` };
    try {
      await save({ ...staged, document }, 0n, first, secondsLong(STAGED_SECONDS));
      for (const messages of more) {
        await patience.until(() => api.call(method.appendMessages, { ...staged, messages }));
      }
      const expiry = termOf(sendable);
      const request = {
        ...{ ...staged, targetCollection: collection, targetId: id, requestId: randomUUID() },
        ...(expiry && { expiry }),
      };
      await patience.until(() => api.call(method.fork, request, FORK_MS));
      return "imported";
    } catch (error) {
      const fate = error instanceof ApiError ? FATE_OF_STAGED.get(error.reason) : undefined;
      if (fate === undefined) throw error;
      return fate;
    } finally {
      await forget(staged);
    }
  }

  /** What the server does not delete now expires by itself. */
  async function forget(staged: Named): Promise<void> {
    try {
      await api.call(method.delete, staged);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
  }

  async function meet(sendable: Sendable, there: ConversationStateServiceGetResponse): Promise<Turn> {
    const { messages, state: wanted, updated } = sendable.document;
    const { summary, state } = there.conversation ?? {};
    if (summary === undefined || state === undefined) throw new Error("Get answered without the conversation");
    const count = Number(summary.messageCount);
    const isPart = count <= messages.length && (await isLast(sendable, count, there.messages.at(-1)));
    const isWhole = isPart && count === messages.length;
    if (isWhole && canonicalText(state) === canonicalText(wanted)) return "already there";
    if (!isAfter(updated, summary.updateTime)) return "newer there";
    if (!updates || !isPart) return "older there";
    const [rest = [], ...more] = batchesOf(messages.slice(count));
    if (more.length > 0) {
      const ahead = messages.length - count;
      throw new Unfit(
        "SOURCE_FAR_AHEAD",
        `has ${ahead} messages more than what is there; one request cannot bring them`,
      );
    }
    return (await save(sendable, summary.version, rest, termOf(sendable))) ? "updated" : "again";
  }

  /** Whether the last message there stands in the same place in the document: its id says that those before it do, too. */
  async function isLast(
    { collection, id, document }: Sendable,
    count: number,
    sent: ConversationMessage | undefined,
  ): Promise<boolean> {
    if (count === 0) return true;
    const last = sent ?? (await lastMessage({ collection, id }));
    return last?.position === BigInt(count) && last.id === document.messages[count - 1]?.message.id;
  }

  /** For when it had no room beside a large state. */
  async function lastMessage(named: Named): Promise<ConversationMessage | undefined> {
    const request = { ...named, order: ConversationMessageOrder.NEWEST_FIRST, pageSize: 1 };
    return (await patience.until(() => api.call(method.listMessages, request))).messages[0];
  }

  return async (sendable) => {
    for (let turn = 1; turn <= TURNS; turn++) {
      if (hasEnded(sendable.lifetime)) return "gone from the source";
      const fate = await attempt(sendable);
      if (fate !== "again") return fate;
    }
    return "newer there";
  };
}

function hasEnded(lifetime: Lifetime): boolean {
  return typeof lifetime === "object" && lifetime.endsAtMs <= performance.now();
}

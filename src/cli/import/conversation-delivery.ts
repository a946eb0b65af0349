import { randomUUID } from "node:crypto";
import {
  ConversationPresence,
  ConversationStateService,
  type ConversationStateServiceGetResponse,
} from "../../gen/holdfast/v1/conversation_pb.js";
import type { Api } from "../client/api.ts";
import type { Patience } from "../client/patience.ts";
import type { Fate } from "./conversation-account.ts";
import { createComparison } from "./conversation-comparison.ts";
import { canonicalText, Unfit } from "./conversation-json.ts";
import { type Batch, batchesOf, type Expiry, expiryOf, isAfter } from "./conversation-requests.ts";
import type { Lifetime, Named, Sendable } from "./conversation-source.ts";
import { createStaging } from "./conversation-staging.ts";

export interface DeliveryOptions {
  readonly api: Api;
  readonly patience: Patience;
  /** Whether the source is alive now: what it still holds has not expired. */
  readonly isAlive: boolean;
  /** Whether the time that is left in the source is kept; else the collection's policy decides. */
  readonly keepsTtl: boolean;
  /** Whether what was changed in the source since is brought, too. */
  readonly updates: boolean;
  /** Nothing is written: what would become of a document is told. */
  readonly isRehearsal: boolean;
  /** Aborted when nobody wants to wait for what takes long. */
  readonly signal: AbortSignal;
}

export type Deliver = (sendable: Sendable) => Promise<Fate>;

/** "again": somebody changed the conversation between two calls. */
type Turn = Fate | "again";

const { method } = ConversationStateService;

const TURNS = 5;

/** Brings one document after the other to a server: each wholly, or not at all. */
export function createDelivery(options: DeliveryOptions): Deliver {
  const { api, patience, isAlive, updates, isRehearsal } = options;
  const staging = createStaging(options);
  const holdsFirst = createComparison(options);
  const termOf = ({ lifetime }: Sendable) => (options.keepsTtl ? expiryOf(lifetime) : undefined);

  async function attempt(sendable: Sendable): Promise<Turn> {
    const { collection, id, document } = sendable;
    const request = { collection, id, bypassHotCopy: true };
    const there = await patience.until(() => api.call(method.get, request));
    if (there.presence === ConversationPresence.LIVE) return meet(sendable, there);
    if (there.presence === ConversationPresence.DELETED) return "deleted there";
    if (there.presence === ConversationPresence.EXPIRED && !isAlive) return "expired there";
    const batches = batchesOf(document.messages);
    if (batches.length > 1) return isRehearsal ? "imported" : staging.bring(sendable, batches, termOf(sendable));
    return (await save(sendable, 0n, batches[0] ?? [], termOf(sendable))) ? "imported" : "again";
  }

  /** Whether it was still as expected, and is saved. */
  async function save(
    { collection, id, document }: Named & Pick<Sendable, "document">,
    expectedVersion: bigint,
    messages: Batch,
    expiry: Expiry | undefined,
  ): Promise<boolean> {
    if (isRehearsal) return true;
    const request = {
      ...{ collection, id, state: document.state, messages, expectedVersion, returnConflict: true },
      ...{ requestId: randomUUID(), ...(expiry && { expiry }) },
    };
    const { conflict } = await patience.until(() => api.call(method.save, request));
    return conflict === undefined;
  }

  async function meet(sendable: Sendable, there: ConversationStateServiceGetResponse): Promise<Turn> {
    const { messages, state: wanted, updated } = sendable.document;
    const { summary, state } = there.conversation ?? {};
    if (summary === undefined || state === undefined) throw new Error("Get answered without the conversation");
    const count = Number(summary.messageCount);
    const isPart = await holdsFirst(sendable, messages.slice(0, count), count);
    const isWhole = isPart && count === messages.length;
    if (isWhole && canonicalText(state) === canonicalText(wanted)) {
      if (!isRehearsal) await staging.clearUp(sendable, summary.origin);
      return "already there";
    }
    if (!isAfter(updated, summary.updateTime)) return "newer there";
    if (!isPart) return "apart there";
    if (!updates) return "older there";
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

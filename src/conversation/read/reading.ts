import type { CallContext } from "../../infra/call.ts";
import type { Clock } from "../../infra/clock.ts";
import {
  type CollectionPolicy,
  type ConversationKey,
  type Held,
  type PolicyFor,
  type Presence,
  presenceOf,
} from "../record/conversation.ts";
import type { ConversationFields } from "../record/fields.ts";
import { UnknownCollectionError } from "../record/unknown-collection.ts";
import type { Seen } from "./current.ts";
import type { Usages } from "./usage.ts";

/** Why a conversation is not there. Undefined: there never was one, or nothing is kept of it. */
export type Absence = Exclude<Presence, "live"> | undefined;

/** How a conversation looks to a reader: one that is not live is not shown. */
export type View =
  | { readonly presence: "live"; readonly held: Held }
  | { readonly presence: Absence; readonly held: undefined };

/** What all reads have in common. */
export interface Reading {
  readonly nowUs: number;
  /** Throws when anything was refused, or where the configuration admits no such collection. */
  policyOf(fields: ConversationFields, key: Pick<ConversationKey, "collection">): CollectionPolicy;
  /** As it is now, whatever is kept of it. */
  view(held: Held | undefined, policy: CollectionPolicy): View;
  /** Says where an answer came from, on the reply and in the counts. */
  note(call: CallContext, key: Pick<ConversationKey, "collection">, seen: Omit<Seen<unknown>, "what">): void;
}

export interface ReadingOptions {
  readonly policyFor: PolicyFor;
  readonly clock: Pick<Clock, "now">;
  readonly usages: Usages;
}

export function createReading({ policyFor, clock, usages }: ReadingOptions): Reading {
  const nowUs = () => clock.now() * 1000;
  return {
    get nowUs() {
      return nowUs();
    },
    policyOf(fields, { collection }) {
      fields.done();
      const policy = policyFor(collection);
      if (policy === undefined) throw new UnknownCollectionError(collection);
      return policy;
    },
    view(held, { tombstoneMs }) {
      const presence = presenceOf(held, nowUs(), tombstoneMs);
      if (presence !== "live") return { presence, held: undefined };
      return held === undefined ? { presence: undefined, held } : { presence, held };
    },
    note(call, { collection }, { layer, degraded }) {
      call.servedBy(layer);
      if (degraded) call.degraded();
      const usage = usages.of(collection);
      if (layer === "redis") usage.hotHits++;
      else usage.sqlHits++;
    },
  };
}

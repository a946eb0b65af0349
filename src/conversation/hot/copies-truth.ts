import type { ConversationKey, Held } from "../record/conversation.ts";
import type { Stamped } from "./copy-store.ts";
import type { Copy } from "./hot-copies.ts";

/** How much of the messages a document may hold: the last ones. */
export interface DocumentLimits {
  readonly messages: number;
  /** Of their bodies together. */
  readonly bytes: number;
}

/** A conversation with its last messages, as one version. */
export interface Whole extends Copy {
  /** Serialized, in their order. */
  readonly messages: readonly Uint8Array[];
}

/** What those who keep copies ask of the truth. Everything rejects with an UnavailableError when it cannot be asked. */
export interface CopiesTruth {
  /** Some of what was committed without a cover, and has not been healed; all of it when there are fewer than the limit. */
  unhealed(limit: number): Promise<readonly Stamped[]>;
  /** Without those that are not there. */
  stamps(keys: readonly ConversationKey[]): Promise<readonly Stamped[]>;
  /** These are healed, unless they were changed since. */
  settle(healed: readonly Stamped[]): Promise<void>;
  /** These have to be healed, by whoever comes to it first. */
  mark(keys: readonly ConversationKey[]): Promise<void>;
  /** Tells those who write without Redis that until then there may be copies. */
  announce(untilUs: number): Promise<void>;
  /** Undefined when it is not there, or was changed while it was read. */
  whole(key: ConversationKey, limits: DocumentLimits): Promise<Whole | undefined>;
}

/** Whether there is anything to read. */
export function isLive({ presence, expiresUs }: Held, nowUs: number): boolean {
  return presence === "live" && (expiresUs === undefined || expiresUs > nowUs);
}

/** Which conversation. */
export interface ConversationKey {
  readonly collection: string;
  readonly id: string;
}

export type Presence = "live" | "expired" | "deleted";

/** How long it lives. */
export interface Expiry {
  /** Undefined: for ever. */
  readonly ttlMs: number | undefined;
  /** Whether writes put the end off. */
  readonly sliding: boolean;
}

/** An expiry as a caller orders it; what is undefined is for the policy to say. */
export interface ExpiryOrder {
  readonly ttlMs: number | "never" | undefined;
  readonly sliding: boolean | undefined;
}

export interface Origin extends ConversationKey {
  readonly version: number;
}

/** What is known of a state without reading it. */
export interface StateFacts {
  readonly userId: string;
  readonly status: string;
  readonly complexityLevel: string;
  readonly confidenceScore: number | undefined;
}

/** A state that was checked: a serialized google.protobuf.Struct, and what it says of itself at the top level. */
export interface State extends StateFacts {
  readonly bytes: Uint8Array;
}

/** A message that was checked. */
export interface Message {
  /** Never empty: the server gave one if the caller did not. */
  readonly id: string;
  readonly role: string;
  /** Of what it says, apart from its id and its time: the same however its maps are ordered. */
  readonly contentHash: Uint8Array;
  /** A serialized ConversationMessage without its position. */
  readonly body: Uint8Array;
}

/** What the truth holds of a conversation besides its state and its messages. Times in microseconds since 1970. */
export interface Held extends ConversationKey, StateFacts, Expiry {
  /** Grows with everything that is written, `version` with the state and the messages only. */
  readonly stamp: number;
  readonly version: number;
  /** "live" says only that nobody has removed it: it may have expired, see `presenceOf`. */
  readonly presence: Presence;
  /** The stamp of its creation. Its messages belong to it; those of an earlier life of the same id do not. */
  readonly generation: number;
  /** The version that brought the state. */
  readonly stateVersion: number;
  /** The last version of this generation that took messages away: whoever lists them since before it has to begin again. 0: none. */
  readonly cutVersion: number;
  readonly messageCount: number;
  readonly stateBytes: number;
  readonly createdUs: number;
  readonly updatedUs: number;
  readonly expiresUs: number | undefined;
  readonly origin: Origin | undefined;
  /** Of a tombstone: how long it is kept. */
  readonly keptUntilUs: number | undefined;
}

/** How the conversations of a collection are kept. Every field is decided: the configuration fills in defaults. */
export interface CollectionPolicy extends Expiry {
  /** How many versions before the current one are kept. */
  readonly history: number;
  /** For how long it is remembered that one was deleted, or has expired. */
  readonly tombstoneMs: number;
}

/** The policy of a collection; undefined when the configuration admits only those it names, and this is not one. */
export type PolicyFor = (collection: string) => CollectionPolicy | undefined;

/** As a reader sees it at a time. Undefined: there never was one, or nothing is kept of it. */
export function presenceOf(held: Held | undefined, nowUs: number, tombstoneMs: number): Presence | undefined {
  if (held === undefined) return undefined;
  if (held.presence !== "live") return (held.keptUntilUs ?? 0) > nowUs ? held.presence : undefined;
  if (held.expiresUs === undefined || held.expiresUs > nowUs) return "live";
  return held.expiresUs + tombstoneMs * 1000 > nowUs ? "expired" : undefined;
}

/** One text for each conversation: no collection has a "/" in its name. */
export function textOf({ collection, id }: ConversationKey): string {
  return `${collection}/${id}`;
}

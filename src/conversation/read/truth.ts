import type { Contact } from "../../infra/contact.ts";
import type { Copy } from "../hot/hot-copies.ts";
import type { KeptVersion } from "../ledger/book.ts";
import type { ConversationKey, Held } from "../record/conversation.ts";

/** What the truth holds of one conversation: a tombstone has no state. */
export type Known = Copy | { readonly held: Held; readonly state: undefined };

/** An earlier version, with its state. */
export interface KnownVersion {
  readonly kept: KeptVersion;
  readonly state: Uint8Array;
}

/** Which messages: those of a conversation as they were under a version. */
export interface MessagesOf extends ConversationKey {
  readonly generation: number;
  readonly version: number;
}

/** A message as a page chooses it. */
export interface MessageHead {
  readonly position: number;
  readonly role: string;
  readonly bytes: number;
  /** A serialized ConversationMessage without its position. Undefined: it is long, or of another role than was asked for. */
  readonly body: Uint8Array | undefined;
}

/** What readers ask of SQL: each answer is of one moment. Throws UnavailableError while SQL is away. */
export interface Truth {
  readonly layer: "sqlite" | "postgres";
  held(key: ConversationKey): Promise<Held | undefined>;
  read(key: ConversationKey): Promise<Known | undefined>;
  /** Undefined: it is not kept. The current one is kept as such only where there is a history. */
  readVersion(held: Held, version: number): Promise<KnownVersion | undefined>;
  /** Versions below, the newest first, the current one included. */
  versions(held: Held, below: number, limit: number): Promise<readonly KeptVersion[]>;
  /** Those at the positions from `first` to `last`, in their order; without bodies where `roles` does not name theirs. */
  messages(of: MessagesOf, first: number, last: number, roles: readonly string[]): Promise<readonly MessageHead[]>;
  /** The bodies of some messages, by position. */
  bodies(of: MessagesOf, positions: readonly number[]): Promise<ReadonlyMap<number, Uint8Array>>;
  ping(): Promise<void>;
}

/** The same, while `contact` learns from each call whether it answers. */
export function withContact(truth: Truth, { ask }: Pick<Contact, "ask">): Truth {
  return {
    layer: truth.layer,
    held: (key) => ask(() => truth.held(key)),
    read: (key) => ask(() => truth.read(key)),
    readVersion: (held, version) => ask(() => truth.readVersion(held, version)),
    versions: (held, below, limit) => ask(() => truth.versions(held, below, limit)),
    messages: (of, first, last, roles) => ask(() => truth.messages(of, first, last, roles)),
    bodies: (of, positions) => ask(() => truth.bodies(of, positions)),
    ping: () => ask(() => truth.ping()),
  };
}

export function isCopy(known: Known): known is Copy {
  return known.state !== undefined;
}

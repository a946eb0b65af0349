import type { Span } from "./conversation-history.ts";

export type Act = "write" | "append" | "delete" | "restore" | "fork";

/** Something that was ordered of a conversation that lives, dies and lives again, and what became of it. */
export interface Deed {
  readonly name: string;
  /** Of a fork: the copy. */
  readonly conversation: string;
  readonly act: Act;
  /** The version it must follow; 0: there must be none. Undefined: whatever is there. */
  readonly expected: number | undefined;
  /** What a write writes. */
  readonly mark: string;
  /** The ids of what an append appends. */
  readonly messages: readonly string[];
  /** The version that is restored, or forked and of which conversation. */
  readonly earlier: { readonly conversation: string; readonly version: number } | undefined;
  readonly calledAt: number;
  /** Undefined: it was refused, or nobody knows. */
  readonly answer: { readonly at: number; readonly version: number } | undefined;
  /** Without an answer: whether it may have been carried out all the same. */
  readonly unsure: boolean;
}

export type Presence = "live" | "expired" | "deleted" | "never";

/** A conversation as somebody saw it. What is not there has no version. */
export interface Sight {
  readonly by: string;
  readonly conversation: string;
  readonly calledAt: number;
  readonly answeredAt: number;
  readonly presence: Presence;
  readonly version: number;
  readonly mark: string;
  readonly messageCount: number;
  /** It came from the truth, which is never behind. */
  readonly fromTruth: boolean;
}

export type Turn = "created" | "updated" | "appended" | "restored" | "deleted" | "expired";

/** A change as a watch told it. */
export interface Told {
  readonly conversation: string;
  readonly turn: Turn | "unknown";
  readonly version: number;
  readonly previousVersion: number;
  readonly messages: readonly string[];
}

/** A conversation in the end, with its messages. */
export interface Rest {
  readonly conversation: string;
  readonly presence: Presence;
  readonly version: number;
  readonly mark: string;
  readonly messages: readonly string[];
}

export interface LivesHistory {
  readonly deeds: readonly Deed[];
  readonly sights: readonly Sight[];
  /** What each watch told, from before the first conversation to the end. */
  readonly told: readonly { readonly by: string; readonly changes: readonly Told[] }[];
  readonly rests: readonly Rest[];
  /** When nothing was wrong with the system. */
  readonly healthy: readonly Span[];
  /** Which conversations may expire. */
  readonly brief: ReadonlySet<string>;
}

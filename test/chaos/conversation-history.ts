/** A write that was called, and what became of it. Times are those of one clock, in milliseconds. */
export interface Write {
  readonly name: string;
  readonly conversation: string;
  /** The ids of the messages to append; none: the state is written. */
  readonly messages: readonly string[];
  /** For the state: the version it must follow, and what is written. */
  readonly expected: number;
  readonly mark: string;
  readonly calledAt: number;
  /** Undefined: nobody knows whether it was committed. */
  readonly answer: WriteAnswer | undefined;
}

export interface WriteAnswer {
  readonly at: number;
  readonly version: number;
  /** Of its messages. */
  readonly positions: readonly number[];
  /** Whether it was there already, so that the version may be that of another write. */
  readonly duplicate: boolean;
}

/** A version of a conversation as somebody saw it. */
export interface Read {
  readonly by: string;
  readonly conversation: string;
  readonly calledAt: number;
  readonly answeredAt: number;
  readonly version: number;
  readonly mark: string;
  /** How often the state has been written, as the state says. */
  readonly writes: number;
  readonly messageCount: number;
  /** It came from the truth, which is never behind. Others may be while the system is not healthy. */
  readonly fromTruth: boolean;
}

/** A change as a watch tells it. */
export interface Commit {
  readonly conversation: string;
  readonly version: number;
  readonly previousVersion: number;
  /** The ids of the messages that it appended. */
  readonly messages: readonly string[];
}

export interface Listing {
  readonly by: string;
  readonly conversation: string;
  readonly messages: readonly { readonly id: string; readonly position: number }[];
}

export interface Span {
  readonly from: number;
  readonly to: number;
}

export interface History {
  readonly writes: readonly Write[];
  readonly reads: readonly Read[];
  /** What was committed, as watches tell from the creation of each conversation on, in the end. */
  readonly commits: readonly { readonly by: string; readonly changes: readonly Commit[] }[];
  /** What watches told all the while. */
  readonly told: readonly { readonly by: string; readonly changes: readonly Commit[] }[];
  /** The messages, in the end. */
  readonly listings: readonly Listing[];
  /** When nothing was wrong with the system. */
  readonly healthy: readonly Span[];
}

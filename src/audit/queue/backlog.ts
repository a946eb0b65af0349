import type { Sealed } from "../record/record.ts";
import type { Run } from "./run.ts";

/** An entry of the queue that waits for the archiver. */
export type Waiting =
  | {
      readonly kind: "run";
      readonly entry: string;
      readonly run: Pick<Run, "producer" | "first" | "last">;
      readonly records: readonly Sealed[];
      /** Those of the run that cannot be read. */
      readonly broken?: { readonly count: number; readonly cause: unknown };
    }
  /** Not put there by us: left alone. */
  | { readonly kind: "foreign"; readonly entry: string };

/** The queue as the archiver sees it. Rejects with UnavailableError while Redis is away. */
export interface Backlog {
  /** Makes sure that there is something to read from. To be called now and then: Redis may lose it. */
  open(): Promise<void>;
  /** What was given to someone who has not finished with it, maybe to us: the oldest of it, now ours. Empty: there is none. */
  claim(): Promise<readonly Waiting[]>;
  /** What nobody was given yet, in order, a batch at most. Waits a moment if there is none. */
  read(): Promise<readonly Waiting[]>;
  /**
   * They are archived, or not ours: they never come again. An entry with broken records is put aside. How
   * many records wait still.
   */
  finish(done: readonly Waiting[]): Promise<number>;
  close(): Promise<void>;
}

/** Who may archive: one at a time, as far as can be known. Two at once do no harm, only work for nothing. */
export interface Lease {
  /** How long it lasts without being held again. */
  readonly ttlMs: number;
  /** Takes or renews it. False: someone else has it. */
  hold(): Promise<boolean>;
  /** Gives it up, if it is held. */
  release(): Promise<void>;
}

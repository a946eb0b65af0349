/**
 * The generation of the copies that may be believed, as the truth has it. An instance may believe copies without asking for as long as
 * BELIEF_MS after it began to read it. So whoever cannot reach the copies ends the generation and waits that long: then nobody believes
 * them.
 */
export interface Head {
  /** Copies are believed while this is positive; and what time it is by the truth's clock. */
  read(): Promise<{ readonly generation: number; readonly nowMs: number }>;
  /** Begins a new generation if the last one has ended. */
  open(): Promise<void>;
  /** Ends the generation if there is one. Returns for how long somebody may still believe it. */
  end(): Promise<number>;
}

export const BELIEF_MS = 2_000;
/** Clocks that run apart by more than this in the time of a belief are broken. */
export const MARGIN_MS = 100;

/** Who may decide about locks. */
export type Mode = "sqlite" | "postgres" | "redis" | "redlock";

/** What SQL says of who decides: the one row that makes a change of authority safe. */
export interface Head {
  /** Empty: nobody has decided yet. */
  readonly mode: Mode | "";
  readonly epoch: number;
  /** The epoch in which this mode began: no smaller one may be granted in. */
  readonly sinceEpoch: number;
  /** For how long nothing may be granted yet, because leases of who decided before may last. */
  readonly quietMs: number;
  /** The longest lease that may have been granted outside of SQL since this mode began, but for those announced ahead. */
  readonly longestMs: number;
  /** For how long leases that were announced ahead may last. */
  readonly busyMs: number;
}

export interface Heads {
  /** What it says was so after this was asked: who is changing it is waited for. */
  read(): Promise<Head>;
  /** Makes `mode` decide from here on, in a new epoch, unless it does so already. Nothing is granted before all leases of before are over. */
  become(mode: Mode): Promise<Head>;
  /**
   * Must have been told before a longer lease than any before is granted outside of SQL, or none may. False: another mode
   * decides.
   */
  allowLeases(mode: Mode, longestMs: number): Promise<boolean>;
  /**
   * The other way to do so: leases outside of SQL may last for so long from now on. Whoever decides next waits for them, and not for
   * as long as a lease was that ended long ago. Undefined: another mode decides.
   */
  announce(mode: Mode, forMs: number): Promise<Head | undefined>;
  /**
   * A new epoch of the same mode, larger than `beyond` too: its authority may have forgotten how far it had counted, or know more
   * than SQL, which may be of a backup. Undefined: another mode decides.
   */
  nextEpoch(mode: Mode, beyond?: number): Promise<number | undefined>;
}

/** What instances tell each other of an authority that has a fallback in SQL. */
export interface FallbackHeads {
  /** This instance does not reach the authority. To be said again while it is so: who is not heard for long is taken as ended. */
  complain(): Promise<void>;
  withdraw(): Promise<void>;
  /** SQL decides, if `from` did. */
  takeOver(from: Mode): Promise<void>;
  /** `to` decides again, unless somebody complains or SQL has leases; those it may be told to wait for. */
  giveBack(to: Mode, evenIfHeld: boolean): Promise<void>;
}

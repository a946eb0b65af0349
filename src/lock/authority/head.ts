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
  /** The longest lease that may have been granted since this mode began. */
  readonly longestMs: number;
}

export interface Heads {
  read(): Promise<Head>;
  /** Makes `mode` decide from here on, in a new epoch, unless it does so already. */
  become(mode: Mode): Promise<Head>;
  /** Must have been told before a longer lease than any before is granted, or none may. False: another mode decides. */
  allowLeases(mode: Mode, longestMs: number): Promise<boolean>;
  /** A new epoch of the same mode: its authority may have forgotten how far it had counted. Undefined: another mode decides. */
  nextEpoch(mode: Mode): Promise<number | undefined>;
}

import type { Archived } from "./archive.ts";

/** A record of the archive that retention has not dropped. */
export type KeptRecord = Archived & { readonly leaf: Uint8Array };

/** Some leaves of the archive, one after the other. */
export interface LeafPage {
  readonly records: readonly KeptRecord[];
  /** The leaf after the last one looked at; where the page began, when there was none. */
  readonly next: number;
  /** How many of those looked at were dropped by retention. */
  readonly retired: number;
  /** Whether there were no more after these. */
  readonly end: boolean;
}

export interface PageLimits {
  readonly leaves: number;
  /** Of leaves, serialized. The first record is taken whatever its size. */
  readonly bytes: number;
}

/** Reads the archive in the order of its leaves. */
export interface Leaves {
  /** From this leaf on. */
  from(leafIndex: number, limits: PageLimits): Promise<LeafPage>;
}

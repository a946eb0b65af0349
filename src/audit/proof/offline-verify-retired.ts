import { announcedBy } from "../retention/announcement.ts";
import { addLeaf, createLeafSet, type LeafRange, showLeaves } from "../retention/leaf-ranges.ts";
import type { LeafRow } from "./tree-leaf.ts";

export interface AnnouncementStore {
  /** Records of retention after this sequence, in order, some of them; none: there are no more. */
  announcements(after: number): Promise<readonly { readonly sequence: number; readonly leaf: Uint8Array }[]>;
}

/** Whether what is gone is what retention says it dropped, which it says in the same transaction as it drops. */
export interface RetirementCheck {
  /** Reads what has been announced since the last time. To be called before the first leaf is looked at. */
  read(): Promise<void>;
  /** What is wrong with a leaf that was announced and is there; what is gone is noted. */
  faultOf(row: LeafRow): string | undefined;
  /** What is gone and was announced neither before nor meanwhile. */
  unannounced(): Promise<{ readonly what: string; readonly first: number } | undefined>;
}

const LISTED_RANGES = 50;

export function createRetirementCheck(store: AnnouncementStore): RetirementCheck {
  const announced = createLeafSet();
  const unexplained: { first: number; end: number }[] = [];
  let lastRead = 0;

  async function read(): Promise<void> {
    for (;;) {
      const records = await store.announcements(lastRead);
      for (const { sequence, leaf } of records) {
        announced.add(announcedBy(leaf));
        lastRead = sequence;
      }
      if (records.length === 0) return;
    }
  }

  return {
    read,
    faultOf({ leafIndex, leaf }) {
      const isAnnounced = announced.has(leafIndex);
      if (leaf !== null) return isAnnounced ? "retention says it dropped it, and it is there" : undefined;
      if (!isAnnounced) addLeaf(unexplained, leafIndex);
      return undefined;
    },
    async unannounced() {
      // A retention that is at work meanwhile may have dropped what was looked at afterwards.
      await read();
      const gone: { first: number; end: number }[] = [];
      let count = 0;
      for (const { first, end } of unexplained) {
        for (let leaf = first; leaf < end; leaf++) {
          if (announced.has(leaf)) continue;
          addLeaf(gone, leaf);
          count++;
        }
      }
      const [earliest] = gone;
      return earliest && { what: inWords(count, gone), first: earliest.first };
    },
  };
}

function inWords(count: number, gone: readonly LeafRange[]): string {
  const which = showLeaves(gone.slice(0, LISTED_RANGES));
  const rest = gone.length > LISTED_RANGES ? ", ..." : "";
  const what = count === 1 ? `the record of leaf ${which} is` : `${count} records are`;
  return `${what} gone that no record of retention announces${count === 1 ? "" : `: leaves ${which}${rest}`}`;
}

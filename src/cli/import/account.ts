import { createRefusals } from "./refusals.ts";
import type { SourceRow } from "./source.ts";

export interface RefusedRow {
  readonly row: SourceRow;
  readonly reason: string;
  readonly message: string;
}

/** What became of everything that was read. */
export interface Account {
  read: number;
  imported: number;
  alreadyThere: number;
  reviewed: number;
  alreadyReviewed: number;
  removed: number;
  readonly refused: number;
  /** Notes it, and writes it to the file of what was refused. */
  refuse(refusal: RefusedRow): void;
  /** One line, while it goes on. */
  progress(total: number | undefined): string;
  /** The whole, for the end. */
  lines(passedOver: number, isDryRun: boolean): string[];
  close(): void;
}

/** `rejects`: the file that gets one JSON line for each refusal. */
export function createAccount(rejects: string | undefined): Account {
  const refusals = createRefusals(rejects);
  return {
    read: 0,
    imported: 0,
    alreadyThere: 0,
    reviewed: 0,
    alreadyReviewed: 0,
    removed: 0,
    get refused() {
      return refusals.count;
    },
    refuse({ row, reason, message }) {
      refusals.add({ where: row.where, reason, message, details: { sequence: row.sequence, record: row.raw } });
    },
    progress(total) {
      const of = total === undefined ? "" : ` of ${total}`;
      return `read ${this.read}${of}, imported ${this.imported}, already there ${this.alreadyThere}, refused ${refusals.count}`;
    },
    lines(passedOver, isDryRun) {
      const counts: [string, number][] = [
        ["read", this.read],
        [isDryRun ? "would be sent" : "imported", isDryRun ? this.read - refusals.count : this.imported],
        ["already there", this.alreadyThere],
        ["refused", refusals.count],
        ["reviews carried out", this.reviewed],
        ["reviews already there", this.alreadyReviewed],
        ["the server's own, passed over", passedOver],
        ["taken out of the source", this.removed],
      ];
      // The first four are the account; of the others, what there is.
      const told = counts.filter(
        ([name, count], at) => (at < 4 && !(isDryRun && name === "already there")) || count > 0,
      );
      return [...told.map(([name, count]) => `${name}: ${count}`), ...refusals.lines()];
    },
    close: () => refusals.close(),
  };
}

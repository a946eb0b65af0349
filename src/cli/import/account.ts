import { closeSync, openSync, writeSync } from "node:fs";
import type { SourceRow } from "./source.ts";

export interface Refusal {
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
  refuse(refusal: Refusal): void;
  /** One line, while it goes on. */
  progress(total: number | undefined): string;
  /** The whole, for the end. */
  lines(passedOver: number, isDryRun: boolean): string[];
  close(): void;
}

const SHOWN = 10;

/** `rejects`: the file that gets one JSON line for each refusal. */
export function createAccount(rejects: string | undefined): Account {
  const file = rejects === undefined ? undefined : openSync(rejects, "w");
  const first: string[] = [];
  let refused = 0;
  return {
    read: 0,
    imported: 0,
    alreadyThere: 0,
    reviewed: 0,
    alreadyReviewed: 0,
    removed: 0,
    get refused() {
      return refused;
    },
    refuse({ row, reason, message }) {
      refused++;
      if (first.length < SHOWN) first.push(`${row.where}: ${reason}: ${message}`);
      if (file === undefined) return;
      const line = { where: row.where, sequence: row.sequence, reason, message, record: row.raw };
      writeSync(file, `${JSON.stringify(line, replaceBytes)}\n`);
    },
    progress(total) {
      const of = total === undefined ? "" : ` of ${total}`;
      return `read ${this.read}${of}, imported ${this.imported}, already there ${this.alreadyThere}, refused ${refused}`;
    },
    lines(passedOver, isDryRun) {
      const counts: [string, number][] = [
        ["read", this.read],
        [isDryRun ? "would be sent" : "imported", isDryRun ? this.read - refused : this.imported],
        ["already there", this.alreadyThere],
        ["refused", refused],
        ["reviews carried out", this.reviewed],
        ["reviews already there", this.alreadyReviewed],
        ["the server's own, passed over", passedOver],
        ["taken out of the source", this.removed],
      ];
      // The first four are the account; of the others, what there is.
      const told = counts.filter(
        ([name, count], at) => (at < 4 && !(isDryRun && name === "already there")) || count > 0,
      );
      const lines = told.map(([name, count]) => `${name}: ${count}`);
      if (refused > 0) {
        lines.push(`refused were${refused > first.length ? ` (the first ${first.length})` : ""}:`);
        lines.push(...first.map((line) => `  ${line}`));
        if (rejects !== undefined) lines.push(`all of them are in ${rejects}`);
        else if (refused > first.length) lines.push("--rejects FILE would list all of them");
      }
      return lines;
    },
    close() {
      if (file !== undefined) closeSync(file);
    },
  };
}

/** JSON knows neither bytes nor integers beyond 2^53. */
function replaceBytes(_: string, value: unknown): unknown {
  if (typeof value === "bigint") return String(value);
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  return value;
}

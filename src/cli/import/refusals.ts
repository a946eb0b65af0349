import { closeSync, openSync, writeSync } from "node:fs";

export interface Refusal {
  /** Where it stands in the source, for people. */
  readonly where: string;
  readonly reason: string;
  readonly message: string;
  /** What else the file of what was refused says of it. */
  readonly details: Readonly<Record<string, unknown>>;
}

/** What was not imported, and why. */
export interface Refusals {
  readonly count: number;
  /** Notes it, and writes it to the file. */
  add(refusal: Refusal): void;
  /** For the end of the account. */
  lines(): string[];
  close(): void;
}

const SHOWN = 10;

/** `path`: of the file that gets one JSON line for each. */
export function createRefusals(path: string | undefined): Refusals {
  const file = path === undefined ? undefined : openSync(path, "w");
  const first: string[] = [];
  let count = 0;
  return {
    get count() {
      return count;
    },
    add({ where, reason, message, details }) {
      count++;
      if (first.length < SHOWN) first.push(`${where}: ${reason}: ${message}`);
      if (file === undefined) return;
      writeSync(file, `${JSON.stringify({ where, reason, message, ...details }, replaceBytes)}\n`);
    },
    lines() {
      if (count === 0) return [];
      const lines = [`refused were${count > first.length ? ` (the first ${first.length})` : ""}:`];
      lines.push(...first.map((line) => `  ${line}`));
      if (path !== undefined) lines.push(`all of them are in ${path}`);
      else if (count > first.length) lines.push("--rejects FILE would list all of them");
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

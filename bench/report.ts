import { mkdirSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";

/** One row of the table: a figure, what it must reach, and how it came about. */
export interface Row {
  readonly name: string;
  readonly figure: string;
  readonly target: string;
  readonly reached: boolean;
  readonly notes: string;
  readonly details: unknown;
}

const HEADINGS = ["case", "figure", "must reach", "", "notes"];

export function table(rows: readonly Row[]): string {
  const cells = [
    HEADINGS,
    ...rows.map(({ name, figure, target, reached, notes }) => [name, figure, target, reached ? "yes" : "NO", notes]),
  ];
  const widths = HEADINGS.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) => `| ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |`;
  const [head = [], ...body] = cells;
  return [line(head), `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`, ...body.map(line)].join("\n");
}

/** Writes everything that was measured; returns where. */
export function writeReport(rows: readonly Row[]): string {
  const directory = join(import.meta.dirname, "results");
  mkdirSync(directory, { recursive: true });
  const path = join(directory, "latest.json");
  const machine = { cpus: cpus().length, model: cpus()[0]?.model ?? "", node: process.version };
  writeFileSync(path, `${JSON.stringify({ time: new Date().toISOString(), machine, rows }, null, 2)}\n`);
  return path;
}

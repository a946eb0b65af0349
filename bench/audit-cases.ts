import { BATCH_RECORDS } from "./audit-batch.ts";
import { median } from "./ratio.ts";
import type { Row } from "./report.ts";

/** What the cases of the audit log share. */
export interface AuditCases {
  readonly rounds: number;
  readonly sliceMs: number;
  /** Scales what is archived and listed; 1,000,000 for the figures that count. */
  readonly items: number;
  wanted(name: string): boolean;
  add(row: Row): void;
}

/** A round of the baseline and of ours, one right after the other: records a second, and processor time of the process a record. */
export interface Round {
  readonly baseline: { readonly rate: number; readonly cpuMicros: number };
  readonly ours: { readonly rate: number; readonly cpuMicros: number };
  /** Batches of ours that were kept less safely than they should be: they are no part of what was to be measured. */
  readonly degraded: number;
  readonly details: unknown;
}

/** A case whose figure is the median of what the rounds compare. */
export function ratioRow(name: string, target: number, rounds: readonly Round[], of: string): Row {
  const ratio = median(rounds.map(({ ours, baseline }) => ours.rate / baseline.rate));
  const cpu = median(rounds.map(({ ours, baseline }) => baseline.cpuMicros / ours.cpuMicros));
  const degraded = rounds.reduce((sum, round) => sum + round.degraded, 0);
  return {
    name,
    figure: `${ratio.toFixed(2)} x`,
    target: `${target} x`,
    reached: ratio >= target && degraded === 0,
    notes: `of ${of}; ${cpu.toFixed(2)} x by processor time a record${degraded > 0 ? `; ${degraded} batches were degraded` : ""}`,
    details: { ratio, cpu, rounds },
  };
}

/** What a row's name says, on the way to it. */
export function begin(name: string): void {
  process.stderr.write(`${name} ...\n`);
}

export function wholeBatches(records: number): number {
  return Math.ceil(records / BATCH_RECORDS) * BATCH_RECORDS;
}

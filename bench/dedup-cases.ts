import { type ClaimCall, compare } from "./ratio.ts";
import type { Row } from "./report.ts";
import { startBare, startHoldfast } from "./sides.ts";

const CLAIM = "dedup: Claim embedded, each the first";
const CLAIM_TARGET = 0.4;

export interface DedupCases {
  readonly rounds: number;
  readonly sliceMs: number;
  wanted(name: string): boolean;
  add(row: Row): void;
}

/** Deduplication: a Claim that is committed to SQLite beside a handler that keeps nothing. */
export async function measureDedup({ rounds, sliceMs, wanted, add }: DedupCases): Promise<void> {
  if (!wanted(CLAIM)) return;
  process.stderr.write(`${CLAIM} ...\n`);
  await using bare = await startBare();
  await using side = await startHoldfast({});
  const call: ClaimCall = { path: "Claim" };
  const { rate, cpu, rounds: done } = await compare(bare, side, call, { rounds, sliceMs });
  add({
    name: CLAIM,
    figure: `${rate.toFixed(2)} x`,
    target: `${CLAIM_TARGET} x`,
    reached: rate >= CLAIM_TARGET,
    notes: `of the bare handler; ${cpu.toFixed(2)} x by processor time a call`,
    details: { rate, cpu, rounds: done },
  });
}

import { join } from "node:path";
import { startChild } from "../test/support/child.ts";
import type { LoadResult } from "./h2-load.ts";
import { cpuMs, OTHER_CORE, pinned, type Side } from "./sides.ts";

/** One kind of call, for both sides. */
export interface Call {
  readonly path: "Get" | "GetMany" | "Set";
  readonly namespace: string;
  readonly connections?: number;
  readonly streams?: number;
}

export interface Slice extends LoadResult {
  readonly perSecond: number;
  /** Processor time of the server for one call, in microseconds. */
  readonly cpuMicros: number;
}

/** Runs a slice of load from a process of its own. */
export async function slice(side: Side, call: Call, durationMs: number): Promise<Slice> {
  const before = cpuMs(side.pid) ?? Number.NaN;
  const options = { port: side.port, connections: 4, streams: 50, ...call, durationMs };
  const [command = "", ...args] = pinned(OTHER_CORE, [
    process.execPath,
    join(import.meta.dirname, "load-process.ts"),
    JSON.stringify(options),
  ]);
  const child = await startChild({ command, args, isReady: (line) => line.startsWith("{") });
  const cpu = (cpuMs(side.pid) ?? Number.NaN) - before;
  const result = JSON.parse(/^\{.*\}$/m.exec(child.output())?.[0] ?? "{}") as LoadResult;
  await child.stop("SIGTERM");
  if (result.failed > 0) throw new Error(`${result.failed} of ${result.calls} calls to ${side.name} failed`);
  return { ...result, perSecond: result.calls / result.seconds, cpuMicros: (cpu * 1000) / result.calls };
}

export interface Comparison {
  /** Median over the rounds of ours / baseline: calls a second, one server core each. */
  readonly rate: number;
  /** Median over the rounds of baseline / ours: processor time a call. Hardly moved by what else the machine is doing. */
  readonly cpu: number;
  readonly rounds: readonly { readonly baseline: Slice; readonly ours: Slice }[];
}

/** Alternates short slices between the two sides, so that what the machine is doing meanwhile meets both alike. */
export async function compare(
  baseline: Side,
  ours: Side,
  call: Call,
  { rounds, sliceMs }: { readonly rounds: number; readonly sliceMs: number },
): Promise<Comparison> {
  await slice(baseline, call, sliceMs / 2);
  await slice(ours, call, sliceMs / 2);
  const done: { baseline: Slice; ours: Slice }[] = [];
  for (let i = 0; i < rounds; i++) {
    done.push({ baseline: await slice(baseline, call, sliceMs), ours: await slice(ours, call, sliceMs) });
  }
  return {
    rate: median(done.map((round) => round.ours.perSecond / round.baseline.perSecond)),
    cpu: median(done.map((round) => round.baseline.cpuMicros / round.ours.cpuMicros)),
    rounds: done,
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

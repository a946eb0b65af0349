import type { LoadResult } from "./h2-load.ts";
import { cpuMs, OTHER_CORE, runOn, type Side } from "./sides.ts";

interface Concurrency {
  readonly connections?: number;
  readonly streams?: number;
}

export interface CacheCall extends Concurrency {
  readonly path: "Get" | "GetMany" | "Set";
  readonly namespace: string;
}

/** Each connection is a producer whose sequences rise from call to call. */
export interface AppendCall extends Concurrency {
  readonly path: "Append";
}

/** A page of 100 of each of these actors in turn. */
export interface ListCall extends Concurrency {
  readonly path: "List";
  readonly actors: readonly string[];
}

/** A state of 4 KB, to many conversations in turn. */
export interface SaveCall extends Concurrency {
  readonly path: "Save";
}

/** Those conversations, one after the other. */
export interface GetConversationCall extends Concurrency {
  readonly path: "GetConversation";
}

/** A message to each of these conversations in turn. */
export interface AppendMessagesCall extends Concurrency {
  readonly path: "AppendMessages";
  readonly ids: readonly string[];
}

/** One unit of one limit, of many clients in turn. */
export interface CheckCall extends Concurrency {
  readonly path: "Check";
}

/** Each claims a thing that nobody claimed before. */
export interface ClaimCall extends Concurrency {
  readonly path: "Claim";
}

/** One kind of call, for both sides. */
export type Call =
  | CacheCall
  | AppendCall
  | ListCall
  | SaveCall
  | GetConversationCall
  | AppendMessagesCall
  | CheckCall
  | ClaimCall;

export interface Slice extends LoadResult {
  readonly perSecond: number;
  /** Processor time of the server for one call, in microseconds. */
  readonly cpuMicros: number;
}

/** Runs a slice of load from a process of its own. */
export async function slice(side: Side, call: Call, durationMs: number): Promise<Slice> {
  const before = cpuMs(side.pid) ?? Number.NaN;
  const options = { port: side.port, connections: 4, streams: 50, ...call, durationMs };
  const result = await runOn<LoadResult>(OTHER_CORE, "load-process.ts", options);
  const cpu = (cpuMs(side.pid) ?? Number.NaN) - before;
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

const WARM_SLICES = 1.5;

/** Alternates short slices between the two sides, so that what the machine is doing meanwhile meets both alike. */
export async function compare(
  baseline: Side,
  ours: Side,
  call: Call,
  { rounds, sliceMs }: { readonly rounds: number; readonly sliceMs: number },
): Promise<Comparison> {
  // What is measured are servers that have run for a while: it takes seconds of load until all that a call needs is compiled.
  await slice(baseline, call, WARM_SLICES * sliceMs);
  await slice(ours, call, WARM_SLICES * sliceMs);
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

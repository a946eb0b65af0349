import type { IngestOrder, IngestResult } from "./audit-ingest-process.ts";
import { cpuMs, OTHER_CORE, runOn, type Side } from "./sides.ts";

/** 1,000 records of each of 4 producers may be unacknowledged; of the baselines as many. */
export const STREAMS = 4;
export const IN_FLIGHT = 10;

/** Streams records to a server from a process of its own. */
export async function ingest(side: Side, order: Omit<Partial<IngestOrder>, "port">): Promise<IngestResult> {
  const all: IngestOrder = { port: side.port, streams: STREAMS, inFlight: IN_FLIGHT, ...order };
  const result = await runOn<IngestResult>(OTHER_CORE, "audit-ingest-process.ts", all);
  return result;
}

/** Begins to count the processor time of a server; what is returned tells it, in milliseconds. */
export function cpuOf(side: Side): () => number {
  const before = cpuMs(side.pid) ?? Number.NaN;
  return () => (cpuMs(side.pid) ?? Number.NaN) - before;
}

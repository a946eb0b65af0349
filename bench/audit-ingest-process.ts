import { BATCH_RECORDS } from "./audit-batch.ts";
import { type IngestStream, openIngest, type StreamResult } from "./audit-ingest-stream.ts";
import { setClock } from "./audit-records.ts";

/** `node audit-ingest-process.ts '{"port":...}'`: streams records from several producers, one stream and one connection each. */
export interface IngestOrder {
  readonly port: number;
  readonly streams: number;
  readonly inFlight: number;
  /** For so long, */
  readonly durationMs?: number;
  /** or so many records in all. */
  readonly records?: number;
}

export interface IngestResult {
  readonly records: number;
  /** From the first batch sent to the last ack. */
  readonly seconds: number;
  /** When the first batch was sent, since 1970. */
  readonly firstSentMs: number;
  readonly p50: number;
  readonly p99: number;
  readonly degraded: number;
  readonly leastDurability: number;
  readonly mostUnacked: number;
}

async function ingest({ port, streams, inFlight, durationMs, records }: IngestOrder): Promise<IngestResult> {
  // As services that have started anew and under a new name: they need not know what earlier ones have sent.
  const name = `bench-${Date.now().toString(36)}`;
  let left = records === undefined ? Number.POSITIVE_INFINITY : Math.ceil(records / BATCH_RECORDS);
  let until = Number.POSITIVE_INFINITY;
  const more = () => performance.now() < until && left-- > 0;
  setClock(Date.now());
  const clock = setInterval(() => setClock(Date.now()), 100);
  const open = await Promise.all(
    Array.from({ length: streams }, (_, i) => openIngest({ port, producer: `${name}-${i}`, inFlight, more })),
  );
  const firstSentMs = Date.now();
  const begun = performance.now();
  if (durationMs !== undefined) until = begun + durationMs;
  const results = await Promise.all(open.map((stream: IngestStream) => stream.run()));
  const seconds = (performance.now() - begun) / 1000;
  clearInterval(clock);
  return { ...summary(results), seconds, firstSentMs };
}

function summary(results: readonly StreamResult[]) {
  const sorted = Float64Array.from(results.flatMap(({ latencies }) => latencies)).sort();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  const sum = (of: (result: StreamResult) => number) => results.reduce((total, result) => total + of(result), 0);
  return {
    records: sum(({ records }) => records),
    p50: at(0.5),
    p99: at(0.99),
    degraded: sum(({ degraded }) => degraded),
    leastDurability: Math.min(...results.map((one) => one.leastDurability)),
    mostUnacked: Math.max(...results.map((one) => one.mostUnacked)),
  };
}

const result = await ingest(JSON.parse(process.argv[2] ?? "{}") as IngestOrder);
process.stdout.write(`${JSON.stringify(result)}\n`);

import { Redis } from "ioredis";
import { BATCH_RECORDS } from "./audit-batch.ts";
import { FIRST_SEQUENCE, sealedAt } from "./audit-records.ts";

/**
 * `node audit-xadd-process.ts '{"url":...}'`: the baseline of the queue. ioredis pipelines an XADD of each record, sealed as
 * the server seals it, and does nothing else: no journal, no identities, no acks, nothing archived.
 */
export interface XaddOrder {
  readonly url: string;
  readonly pipelines: number;
  readonly durationMs: number;
}

export interface XaddResult {
  readonly records: number;
  readonly seconds: number;
  /** Processor time of this process. */
  readonly cpuMs: number;
}

const STREAM = "bench:xadd";
/** Until the code is compiled, as that of the server is. */
const WARM_UP_MS = 500;

async function xadd({ url, pipelines, durationMs }: XaddOrder): Promise<XaddResult> {
  const redis = new Redis(url, { lazyConnect: true });
  await redis.connect();
  const leaves = Array.from({ length: pipelines * BATCH_RECORDS }, (_, number) =>
    Buffer.from(sealedAt("bench-xadd-0", number).leaf),
  );
  let records = 0;

  async function keepOneInFlight(first: number, until: number): Promise<void> {
    for (let sequence = FIRST_SEQUENCE; performance.now() < until; ) {
      const pipeline = redis.pipeline();
      for (let at = 0; at < BATCH_RECORDS; at++, sequence++) {
        pipeline.xadd(STREAM, "*", "producer", "bench-xadd-0", "sequence", sequence, "leaf", leaves[first + at] ?? "");
      }
      for (const [error] of (await pipeline.exec()) ?? []) if (error) throw error;
      records += BATCH_RECORDS;
    }
  }

  async function run(ms: number): Promise<number> {
    const begun = performance.now();
    await Promise.all(Array.from({ length: pipelines }, (_, i) => keepOneInFlight(i * BATCH_RECORDS, begun + ms)));
    return (performance.now() - begun) / 1000;
  }

  await run(WARM_UP_MS);
  records = 0;
  const before = process.cpuUsage();
  const seconds = await run(durationMs);
  const { user, system } = process.cpuUsage(before);
  await redis.unlink(STREAM);
  redis.disconnect();
  return { records, seconds, cpuMs: (user + system) / 1000 };
}

const result = await xadd(JSON.parse(process.argv[2] ?? "{}") as XaddOrder);
process.stdout.write(`${JSON.stringify(result)}\n`);

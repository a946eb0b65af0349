import { setTimeout as delay } from "node:timers/promises";
import { CacheOutcome, CacheService, SetOutcome } from "../../src/gen/holdfast/v1/cache_pb.js";
import { createCacheClient, textOf } from "./cache-client.ts";
import { type LoadContext, runLoad } from "./load-child.ts";

/** Callers of one cold key: each asks with a lease, and whoever is given it computes the value. */
export interface FillJob {
  /** The callers are spread over these. */
  readonly addresses: readonly string[];
  readonly namespace: string;
  readonly key: string;
  readonly callers: number;
  readonly leaseTtlMs: number;
  readonly computeMs: number;
  /** Never answer a lease: stay in the middle of the computation, to be killed there. */
  readonly stuck: boolean;
}

export interface FillReport {
  /** Leases that were given to a caller of this process, and so computations it began. */
  readonly computed: number;
  readonly stored: number;
  readonly values: readonly string[];
  readonly misses: number;
  readonly failures: readonly string[];
}

export function isFillReport(report: unknown): report is FillReport {
  return typeof report === "object" && report !== null && "computed" in report && "values" in report;
}

async function work(job: FillJob, context: LoadContext): Promise<FillReport> {
  const clients = job.addresses.map((address) => createCacheClient(address));
  const values: string[] = [];
  const failures: string[] = [];
  let computed = 0;
  let stored = 0;
  let misses = 0;

  async function ask(caller: number): Promise<void> {
    const client = clients[caller % clients.length];
    if (client === undefined) return;
    const { namespace, key } = job;
    const leaseTtl = { seconds: BigInt(Math.floor(job.leaseTtlMs / 1000)), nanos: (job.leaseTtlMs % 1000) * 1_000_000 };
    const { reply } = await client.call(CacheService.method.get, { namespace, key, leaseTtl });
    if (reply.lease !== undefined) {
      computed++;
      context.tell("leased");
      if (job.stuck) return void (await new Promise(() => undefined));
      await delay(job.computeMs);
      const value = `computed by ${process.pid}`;
      const answer = await client.put(namespace, key, value, { leaseToken: reply.lease.token });
      if (answer.reply.outcome === SetOutcome.STORED) stored++;
      values.push(value);
    } else if (reply.outcome === CacheOutcome.MISS) {
      misses++;
    } else {
      values.push(textOf(reply) ?? "");
    }
  }

  // Connected first, so that all ask at about the same time.
  await Promise.all(clients.map((client) => client.call(CacheService.method.getStats, { namespace: job.namespace })));
  context.tell("ready");
  while (!context.stopping) await delay(5);
  const asking = Array.from({ length: job.callers }, (_, caller) =>
    ask(caller).catch((error: unknown) => {
      failures.push(String(error));
    }),
  );
  await Promise.all(asking);
  return { computed, stored, values, misses, failures };
}

if (import.meta.main) await runLoad((job, context) => work(job as FillJob, context));

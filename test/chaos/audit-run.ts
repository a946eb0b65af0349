import { setTimeout as delay } from "node:timers/promises";
import { AuditService, AuditDurability as Durability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { openArchive } from "../support/audit-archive.ts";
import { type Account, checkArchive, type SignedRoot } from "../support/audit-checker.ts";
import { countMissing, createSequenceSet } from "../support/audit-claims.ts";
import { createAuditClient } from "../support/audit-client.ts";
import { type FaultKind, type FaultTimes, lanes, planFaults } from "../support/audit-faults.ts";
import { type CallerJob, type CallerReport, isCallerReport } from "../support/load-audit-caller.ts";
import { type ConsumerJob, type ConsumerReport, isConsumerReport } from "../support/load-audit-consumer.ts";
import { isProducerReport, type ProducerJob, type ProducerReport } from "../support/load-audit-producer.ts";
import { isReviewerReport, type ReviewerJob, type ReviewerReport } from "../support/load-audit-reviewer.ts";
import { type LoadProcess, startLoad } from "../support/load-process.ts";
import { residentMiB } from "../support/resident-memory.ts";
import { until } from "../support/until.ts";
import { type AuditServers, startAuditServers } from "./audit-servers.ts";
import { createWitness, type ProofAccount, proofsOf } from "./audit-witness.ts";

export interface ChaosOptions {
  readonly seed: number;
  /** How long faults go on. They go on longer until each kind has come once. */
  readonly durationMs: number;
  /** Which faults, lane by lane. Default: all. */
  readonly faults?: readonly (readonly FaultKind[])[];
  readonly times?: FaultTimes;
  readonly producers?: number;
  readonly recordsPerSecond?: number;
  /** Where the server's code is. Default: here. */
  readonly root?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** How long to wait, after the last fault, until everything is acknowledged, and then until it is archived. */
  readonly patienceMs?: number;
  readonly log?: (line: string) => void;
}

/** What happened in a run, and what was found in the end. */
export interface ChaosReport {
  readonly account: Account;
  readonly proofs: ProofAccount;
  readonly faults: Readonly<Partial<Record<FaultKind, number>>>;
  readonly producers: readonly ProducerReport[];
  readonly callers: readonly CallerReport[];
  readonly reviewer: ReviewerReport;
  readonly consumers: readonly ConsumerReport[];
  /** Acked records of producers that no consumer was given. */
  readonly undelivered: number;
  /** The most memory that an instance held. */
  readonly mostMiB: number;
  /** Why the archive was read before everything acknowledged seemed to be in it; undefined when it was not. */
  readonly unsettled: string | undefined;
}

const TIMES: FaultTimes = { calmMs: [500, 3_000], holdMs: [300, 4_000] };
/** One of the producers wants more than the default. */
const demands = [Durability.UNSPECIFIED, Durability.UNSPECIFIED, Durability.QUEUED, Durability.ARCHIVED];

/** Producers and callers against two instances, while what is behind them and they themselves fail at random; then the account. */
export async function runAuditChaos(options: ChaosOptions): Promise<ChaosReport> {
  const { seed, log = () => undefined, patienceMs = 120_000 } = options;
  await using parts = new AsyncDisposableStack();
  const servers = parts.use(await startAuditServers({ ...options, log }));
  const loads = await startLoads(servers, options, parts);
  const witness = parts.use(createWitness(servers.instances, seed));
  const memory = parts.use(watchMemory(servers));
  const faults = await sufferAll(servers, options, log);
  log("the faults are over; waiting until everything is acknowledged");
  const [producers, callers, reviewer] = await Promise.all([
    Promise.all(loads.producers.map((load) => load.stop())),
    Promise.all(loads.callers.map((load) => load.stop())),
    loads.reviewer.stop(),
  ]);
  log("waiting until everything acknowledged is archived");
  let unsettled = await settled(servers, producers, patienceMs);
  // What was left behind anywhere is found by the next start, and must not be archived a second time.
  await Promise.all(servers.instances.map((instance) => instance.restart()));
  unsettled ??= await settled(servers, producers, patienceMs);
  unsettled ??= await consumed(servers, patienceMs);
  const consumers = await Promise.all(loads.consumers.map((load) => load.stop()));
  const undelivered = countUndelivered(producers, consumers);
  log("comparing the archive with what was said");
  await witness.stop();
  const { account, proofs } = await audit(servers, { producers, callers, reviewer }, witness.roots);
  return {
    account,
    proofs,
    faults,
    producers,
    callers,
    reviewer,
    consumers,
    undelivered,
    mostMiB: memory.mostMiB,
    unsettled,
  };
}

interface Loads {
  readonly producers: readonly LoadProcess<ProducerReport>[];
  readonly callers: readonly LoadProcess<CallerReport>[];
  readonly reviewer: LoadProcess<ReviewerReport>;
  readonly consumers: readonly LoadProcess<ConsumerReport>[];
}

const GROUP = "chaos";

async function startLoads(
  { instances }: AuditServers,
  { seed, producers = 4, recordsPerSecond = 300, patienceMs = 60_000 }: ChaosOptions,
  parts: AsyncDisposableStack,
): Promise<Loads> {
  const addresses = instances.map(({ grpcAddress }) => grpcAddress);
  const producerJobs = Array.from({ length: producers }, (_, at): ProducerJob => {
    const minDurability = demands[at % demands.length] ?? Durability.UNSPECIFIED;
    const own = { producer: `chaos:p${at + 1}`, minDurability, seed: seed + at };
    return { ...own, addresses, recordsPerSecond, patienceMs, ackTimeoutMs: 5_000 };
  });
  const callerJob: CallerJob = { name: `c${seed}`, addresses, callers: 4, pauseMs: 100, seed, patienceMs };
  const reviewerJob: ReviewerJob = { addresses, pauseMs: 200, seed, patienceMs };
  const consumerJobs = [1, 2].map(
    (at): ConsumerJob => ({ group: GROUP, consumer: `consumer${at}`, addresses, seed: seed + at }),
  );
  const start = async <T>(script: `load-${string}.ts`, job: unknown, read: (report: unknown) => report is T) =>
    parts.use(await startLoad(script, job, read));
  return {
    producers: await Promise.all(producerJobs.map((job) => start("load-audit-producer.ts", job, isProducerReport))),
    callers: [await start("load-audit-caller.ts", callerJob, isCallerReport)],
    consumers: await Promise.all(consumerJobs.map((job) => start("load-audit-consumer.ts", job, isConsumerReport))),
    reviewer: await start("load-audit-reviewer.ts", reviewerJob, isReviewerReport),
  };
}

async function sufferAll(
  servers: AuditServers,
  { seed, durationMs, faults = Object.values(lanes), times = TIMES }: ChaosOptions,
  log: (line: string) => void,
): Promise<Partial<Record<FaultKind, number>>> {
  const counts: Partial<Record<FaultKind, number>> = {};
  const start = performance.now();
  const inLane = async (kinds: readonly FaultKind[], lane: number) => {
    let done = 0;
    for (const fault of planFaults(kinds, times, seed + 1_000 * lane)) {
      if (performance.now() - start > durationMs && done >= kinds.length) return;
      await delay(fault.afterMs);
      log(`${((performance.now() - start) / 1000).toFixed(1)} s: ${fault.kind}, ${fault.holdMs} ms`);
      await servers.suffer(fault);
      counts[fault.kind] = (counts[fault.kind] ?? 0) + 1;
      done++;
    }
  };
  await Promise.all([delay(durationMs), ...faults.filter(({ length }) => length > 0).map(inLane)]);
  return counts;
}

/** Waits until as much is archived as was acknowledged, nothing waits in the queue, and both instances say so. */
async function settled(
  servers: AuditServers,
  producers: readonly ProducerReport[],
  timeoutMs: number,
): Promise<string | undefined> {
  await using archive = await openArchive(servers.env);
  const expected = producers.map(({ producer, acked }) => ({ producer, acked: createSequenceSet(acked).size }));
  try {
    await until(
      async () => {
        const counts = await archive.counts();
        return expected.every(({ producer, acked }) => (counts.get(producer) ?? 0) >= acked);
      },
      { what: "everything acknowledged to be archived", timeoutMs, intervalMs: 200 },
    );
    await until(async () => (await servers.askRedis((redis) => redis.xlen("audit_queue:stream"))) === 0, {
      what: "the queue to be empty",
      timeoutMs,
      intervalMs: 200,
    });
    for (const { grpcAddress } of servers.instances) {
      using client = createAuditClient(grpcAddress);
      // Reads wait for whatever was acknowledged before them.
      const read = () => client.call(AuditService.method.list, { pageSize: 1 });
      await until(read, { what: `${grpcAddress} to answer a read`, timeoutMs });
    }
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** Waits until the consumers have dealt with everything. */
async function consumed({ instances }: AuditServers, timeoutMs: number): Promise<string | undefined> {
  using client = createAuditClient(instances[0].grpcAddress);
  let last = "";
  const dealtWith = async () => {
    const { group } = (await client.call(AuditService.method.getGroup, { group: GROUP })).reply;
    last = `${group?.lag} not delivered, ${group?.pending} not settled`;
    return group !== undefined && group.lag + group.pending === 0n;
  };
  try {
    await until(dealtWith, { what: "the consumers", timeoutMs, intervalMs: 200 });
    return undefined;
  } catch (error) {
    return `${error instanceof Error ? error.message : String(error)}; ${last}`;
  }
}

function countUndelivered(producers: readonly ProducerReport[], consumers: readonly ConsumerReport[]): number {
  const missing = producers.map(({ producer, acked }) =>
    countMissing(
      acked,
      consumers.flatMap(({ seen }) => seen.get(producer) ?? []),
    ),
  );
  return missing.reduce((sum, one) => sum + one, 0);
}

async function audit(
  { env, instances }: AuditServers,
  { producers, callers, reviewer }: Pick<ChaosReport, "producers" | "callers" | "reviewer">,
  witnessed: readonly SignedRoot[],
): Promise<Pick<ChaosReport, "account" | "proofs">> {
  await using archive = await openArchive(env);
  const proofs = await proofsOf(instances, archive, witnessed);
  const claims = {
    producers,
    requests: callers.flatMap(({ requests }) => requests),
    reviews: reviewer.reviews,
    problems: [...callers, reviewer].flatMap(({ problems }) => problems),
  };
  const roots = [...witnessed, ...proofs.roots, await archive.head()];
  const account = await checkArchive(claims, {
    leaves: archive.leaves(),
    roots,
    conflicts: await archive.conflicts(),
  });
  return { account, proofs };
}

/** The most memory that an instance held, looked at once a second. */
function watchMemory({ instances }: AuditServers): Disposable & { readonly mostMiB: number } {
  let mostMiB = 0;
  const timer = setInterval(() => {
    for (const { pid } of instances) {
      try {
        mostMiB = Math.max(mostMiB, residentMiB(pid));
      } catch {
        // It was killed a moment ago.
      }
    }
  }, 1_000);
  return {
    get mostMiB() {
      return mostMiB;
    },
    [Symbol.dispose]: () => clearInterval(timer),
  };
}

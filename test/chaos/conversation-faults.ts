import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { ConversationStateService } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { type FaultKind, type PlannedFault, planFaults } from "../support/audit-faults.ts";
import { createConversationClient } from "../support/conversation-client.ts";
import { createRandom } from "../support/load-child.ts";
import { until } from "../support/until.ts";
import type { AuditServers } from "./audit-servers.ts";
import type { Span } from "./conversation-history.ts";
import { metric } from "./outage.ts";

const TIMES = { calmMs: [200, 1_200], holdMs: [200, 1_800] } as const;
const { method } = ConversationStateService;

/** Up to the first call that was marked as degraded: the server has said by itself that not all was well. */
export function cutShort({ from, to }: Span, degraded: readonly number[]): Span {
  const first = degraded.filter((at) => from <= at && at <= to);
  return { from, to: Math.min(to, ...first) };
}

export interface FaultOptions {
  readonly seed: number;
  /** How long faults go on. They go on longer until each kind has come once. */
  readonly durationMs: number;
  readonly kinds: readonly FaultKind[];
  readonly log?: (line: string) => void;
}

/** What is called while faults go on. */
export interface Disturbed {
  /** Resolves when all calls have ended that are under way now. */
  underWay(): Promise<void>;
}

export type FaultCounts = Readonly<Partial<Record<FaultKind, number>>>;

/** These faults one after the other, and during some of them an instance is killed as well. */
export async function sufferAll(
  servers: AuditServers,
  load: Disturbed,
  { seed, durationMs, kinds, log = () => undefined }: FaultOptions,
): Promise<{ faults: FaultCounts; healthy: Span[] }> {
  const faults: Partial<Record<FaultKind, number>> = {};
  const healthy: Span[] = [];
  const random = createRandom(seed);
  const behind = planFaults(kinds, TIMES, seed + 1);
  const ofInstances = planFaults(["an instance killed"], TIMES, seed + 2);
  const wanted = [...kinds, "an instance killed"] as const;
  const start = performance.now();
  const suffer = async (fault: PlannedFault) => {
    log(`${((performance.now() - start) / 1000).toFixed(1)} s: ${fault.kind}, ${fault.holdMs} ms`);
    await servers.suffer(fault);
    faults[fault.kind] = (faults[fault.kind] ?? 0) + 1;
  };
  await wellAgain(servers, load);
  for (;;) {
    const from = performance.now();
    const isOver = from - start > durationMs && wanted.every((kind) => faults[kind]);
    const isBoth = random(2) === 0;
    const fault = behind.next().value;
    await delay(fault.afterMs);
    healthy.push({ from, to: performance.now() });
    if (isOver) return { faults, healthy };
    const instance = ofInstances.next().value;
    const laterMs = random(fault.holdMs);
    await Promise.all([suffer(fault), isBoth && delay(laterMs).then(() => suffer(instance))]);
    await wellAgain(servers, load);
  }
}

/** Until both instances believe hot copies again, and nothing that was written without Redis is left to be healed. */
async function wellAgain({ instances, env }: AuditServers, load: Disturbed): Promise<void> {
  const sql = new pg.Client({ connectionString: env.DATABASE_URL });
  await sql.connect();
  try {
    await Promise.all(instances.map(believes));
    // What began before may still be committed without a cover.
    await load.underWay();
    const healed = async () =>
      (await sql.query("SELECT 1 FROM conversation WHERE unhealed <> 0 LIMIT 1")).rowCount === 0;
    await until(healed, { what: "everything to be healed" });
    await Promise.all(instances.map(believes));
  } finally {
    await sql.end();
  }
}

async function believes(instance: AuditServers["instances"][number]): Promise<void> {
  const { grpcAddress, httpUrl } = instance;
  using client = createConversationClient(grpcAddress);
  const isHot = async () => {
    if ((await metric(httpUrl, 'holdfast_redis_breaker_state{state="closed"}')) !== 1) return false;
    const written = await client.call(method.save, { id: "probe", state: {} });
    if (written.degraded) return false;
    const { servedBy, degraded } = await client.get("probe");
    return servedBy === "redis" && !degraded;
  };
  await until(isHot, { what: `${grpcAddress} to serve hot copies`, timeoutMs: 60_000 }).catch((cause: unknown) => {
    throw new Error(`${String(cause)}; the last that it said:\n${instance.output().slice(-4_000)}`, { cause });
  });
}

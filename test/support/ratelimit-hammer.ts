import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { RateLimitBasis, RateLimitService } from "../../src/gen/holdfast/v1/rate_limit_pb.js";
import { limit, type RateLimitClient } from "./ratelimit-client.ts";

/** The rules that are hammered; `RULES` has them as the server reads them. */
export const LIMIT = 20;
export const BURST = 10;
export const SLOTS = 3;
const PERIOD_US = 500_000;
export const RULES = `
ratelimit:
  rules:
    fixed: { algorithm: fixed_window, limit: ${LIMIT}, period: 500ms }
    sliding: { algorithm: sliding_window, limit: ${LIMIT}, period: 500ms }
    bucket: { algorithm: token_bucket, limit: ${LIMIT}, period: 500ms, burst: ${BURST} }
    jobs: { algorithm: concurrency, limit: ${SLOTS} }
    whole: { algorithm: sliding_window, limit: ${LIMIT}, period: 366d }
    open: { algorithm: fixed_window, limit: 1, period: 366d, fallback: open }
    closed: { algorithm: fixed_window, limit: 1000000, period: 366d, fallback: closed }
`;
const COUNTING = ["fixed", "sliding", "bucket"] as const;
type Counting = (typeof COUNTING)[number];

/** Something that was let through. */
interface Pass {
  readonly rule: Counting;
  /** By the counters' clock, in microseconds. */
  readonly at: number;
  readonly units: number;
  /** Which counter let it through: the shared one, or that of an instance. */
  readonly counter: string;
}

export interface Account {
  readonly passes: readonly Pass[];
  readonly denied: number;
  /** The most slots that were held at once of those that the shared counter gave. */
  readonly mostHeld: number;
}

/** Calls all instances at once, each by several callers, until it is told to stop. */
export function startHammer(clients: readonly RateLimitClient[], key: string): { stop(): Promise<Account> } {
  const passes: Pass[] = [];
  let denied = 0;
  let held = 0;
  let mostHeld = 0;
  let stopping = false;

  async function charge(client: RateLimitClient, instance: number, rule: Counting, units: number): Promise<void> {
    const { reply, degraded } = await client.check(rule, key, { descriptors: [limit(rule, key, units)] });
    const basis = reply.statuses[0]?.basis;
    if (degraded !== reply.degraded || degraded !== (basis !== RateLimitBasis.SHARED)) {
      throw new Error(`an answer by ${basis} says degraded: ${reply.degraded}, its metadata: ${degraded}`);
    }
    const counter = degraded ? `instance ${instance}` : "shared";
    if (reply.allowed) passes.push({ rule, at: microseconds(reply.chargeTime), units, counter });
    else denied++;
  }

  async function holdSlot(client: RateLimitClient): Promise<void> {
    const { reply, degraded } = await client.call(RateLimitService.method.acquireConcurrency, {
      descriptors: [limit("jobs", key)],
    });
    if (reply.lease === undefined) return;
    if (!degraded) mostHeld = Math.max(mostHeld, ++held);
    await new Promise((resolve) => setImmediate(resolve));
    // Before it is given back: what is on its way back may be taken by another already.
    if (!degraded) held--;
    await client.call(RateLimitService.method.returnConcurrency, { leaseId: reply.lease.id }).catch(ifNotGivenBack);
  }

  const callers = clients.flatMap((client, instance) => [
    ...COUNTING.flatMap((rule) =>
      [1, 2, 1].map(async (units) => {
        while (!stopping) await charge(client, instance, rule, units);
      }),
    ),
    ...[1, 2, 3].map(async () => {
      while (!stopping) await holdSlot(client);
    }),
  ]);
  const done = Promise.all(callers);
  // What goes wrong is told when it is stopped.
  done.catch(() => {});
  return {
    async stop() {
      stopping = true;
      await done;
      return { passes, denied, mostHeld };
    },
  };
}

/** Without Redis the lease runs out by itself. */
function ifNotGivenBack(error: unknown): void {
  if (!(error instanceof Error && error.message.includes("REDIS_UNAVAILABLE"))) throw error;
}

/** What was let through although it must not have been. */
export function violations({ passes, mostHeld }: Account, instances: number): string[] {
  const found: string[] = [];
  if (mostHeld > SLOTS) found.push(`${mostHeld} slots were held at once`);
  for (const [group, own] of Map.groupBy(passes, ({ rule, counter }) => `${rule}, ${counter}`)) {
    const share = group.endsWith("shared") ? 1 : instances;
    if (group.startsWith("bucket")) found.push(...tooMuchFromBucket(own, share).map((what) => `${group}: ${what}`));
    for (const [window, within] of Map.groupBy(own, ({ at }) => Math.floor(at / PERIOD_US))) {
      const units = sum(within);
      const most = Math.floor(LIMIT / share) + (group.startsWith("bucket") ? Math.floor(BURST / share) : 0);
      if (units > most) found.push(`${group}: ${units} in window ${window}`);
    }
  }
  return found;
}

/** From any pass on, in any stretch: no more than a full bucket and what flowed into it. */
function tooMuchFromBucket(passes: readonly Pass[], share: number): string[] {
  const sorted = passes.toSorted((a, b) => a.at - b.at);
  const rate = Math.floor(LIMIT / share) / PERIOD_US;
  const burst = Math.floor(BURST / share);
  let used = 0;
  let since = 0;
  for (const { at, units } of sorted) {
    used = Math.max(0, used - (at - since) * rate) + units;
    since = at;
    if (used > burst + 0.001) return [`${used} of ${burst} at ${at}`];
  }
  return [];
}

const sum = (passes: readonly Pass[]) => passes.reduce((total, { units }) => total + units, 0);

function microseconds(time: Timestamp | undefined): number {
  return time === undefined ? Number.NaN : Number(time.seconds) * 1_000_000 + Math.round(time.nanos / 1_000);
}

import { expect, it } from "vitest";
import { AuditDurability as Durability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createAuditClient } from "../support/audit-client.ts";
import { accountOf, claimsOf, createRecorder, type Recorder } from "../support/audit-recorder.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { isProducerReport, type ProducerJob } from "../support/load-audit-producer.ts";
import { startLoad } from "../support/load-process.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

/*
 * Promises: an instance that archives the queue and is frozen loses the lead to another one; when it wakes up, in the middle of what
 * it was doing and sure that it leads, nothing is archived twice and nothing is lost.
 */

const TURNS = 3;

/** When this instance last took the lead, as its log says; undefined: never. */
function tookLeadAt({ output }: HoldfastProcess): number | undefined {
  const line = output()
    .split("\n")
    .findLast((one) => one.includes("this instance archives the audit queue"));
  const [, time] = /"time":"([^"]+)"/.exec(line ?? "") ?? [];
  return time === undefined ? undefined : Date.parse(time);
}

/** Appends some, and waits until the archive has them. Returns how they were acknowledged. */
async function archivedThrough({ grpcAddress }: HoldfastProcess, recorder: Recorder): Promise<Durability[]> {
  using client = createAuditClient(grpcAddress);
  const acks = await recorder.append(client, 50);
  const id = acks.at(-1)?.id ?? "";
  const archived = async () => (await client.get(id))?.durability === Durability.ARCHIVED;
  await until(archived, { what: "what was acknowledged to be archived" });
  return [...new Set(acks.map(({ durability }) => durability))];
}

it("a leader that was frozen while another one took over wakes up and doubles nothing", async () => {
  await using parts = new AsyncDisposableStack();
  const redis = parts.use(await startRedis());
  const env = { REDIS_URL: redis.url, DATABASE_URL: await freshDatabase(), AUDIT_RECOVERY_INTERVAL: "2s" };
  const instances = [parts.use(await startHoldfast(env)), parts.use(await startHoldfast(env))] as const;
  const producers = await Promise.all(
    instances.map(async ({ grpcAddress }, at) => {
      const named = { producer: `leaders:p${at}`, addresses: [grpcAddress], minDurability: Durability.UNSPECIFIED };
      const pace = { recordsPerSecond: 500, seed: 2 * at, patienceMs: 60_000, ackTimeoutMs: 120_000 };
      const job: ProducerJob = { ...named, ...pace };
      return parts.use(await startLoad("load-audit-producer.ts", job, isProducerReport));
    }),
  );
  const recorder = createRecorder("leaders:witness");
  for (let turn = 0; turn < TURNS; turn++) {
    await until(() => instances.some((one) => tookLeadAt(one) !== undefined), { what: "one of them to lead" });
    const [leader, other] = instances.toSorted((a, b) => (tookLeadAt(b) ?? 0) - (tookLeadAt(a) ?? 0));
    if (leader === undefined || other === undefined) throw new Error("nobody leads");
    leader.pause();
    const before = tookLeadAt(other);
    await until(() => tookLeadAt(other) !== before, { what: "the other one to take the lead" });
    // By way of the queue, which nobody else works off.
    expect(await archivedThrough(other, recorder)).toEqual([Durability.QUEUED]);
    leader.resume();
    await archivedThrough(leader, recorder);
  }
  const reports = await Promise.all(producers.map((producer) => producer.stop()));
  const claims = claimsOf([...recorder.claims.producers, ...reports]);
  const account = await accountOf(instances[0].env, claims);
  console.log(`${account.acked} acked, ${account.archived} archived, ${JSON.stringify(account.faults)}`);
  expect(account).toMatchObject({ faults: {}, examples: [] });
  expect(account.acked).toBeGreaterThan(1_000);
});

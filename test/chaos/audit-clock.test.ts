import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import { AuditDurability as Durability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { type AuditClient, createAuditClient, unnamed } from "../support/audit-client.ts";
import { requestEntryOf } from "../support/audit-entries.ts";
import { accountOf, createRecorder } from "../support/audit-recorder.ts";
import { isSigned } from "../support/audit-tree.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startRedis } from "../support/redis-server.ts";
import { skewedClock } from "../support/skewed-clock.ts";
import { until } from "../support/until.ts";

/*
 * Promises: a clock that is set back or ahead changes what time is written into records, and nothing else: each is kept once, found,
 * and archived as soon as before.
 */

const HOUR_MS = 3_600_000;

/** Until the server's clock is about this far from ours, as it writes into records. */
async function follows(client: AuditClient, probe: string, skewMs: number): Promise<void> {
  let sequence = 0;
  const followed = async () => {
    await client.append([{ sequence: BigInt(++sequence), entry: { actor: "a", action: "probe" } }], {
      producer: probe,
    });
    const { acceptTime } = (await client.get(`${probe}/${sequence}`)) ?? {};
    return Math.abs(Number(acceptTime?.seconds) * 1_000 - Date.now() - skewMs) < HOUR_MS / 2;
  };
  await until(followed, { what: `the clock to be ${skewMs} ms off` });
}

it.each(["embedded", "cluster"] as const)(
  "keeps, finds and archives every record once while its clock is set back and ahead (%s)",
  async (topology) => {
    await using parts = new AsyncDisposableStack();
    const clock = parts.use(skewedClock());
    const redis = topology === "cluster" ? parts.use(await startRedis()) : undefined;
    const shared = redis === undefined ? {} : { REDIS_URL: redis.url, DATABASE_URL: await freshDatabase() };
    const server = parts.use(await startHoldfast({ ...shared, ...clock.env, AUDIT_RECOVERY_INTERVAL: "1s" }));
    const client = parts.use(createAuditClient(server.grpcAddress));
    const recorder = createRecorder("steady");
    const named: string[] = [];
    const requestId = "over-all-times";
    for (const [turn, skewMs] of [0, -2 * HOUR_MS, 2 * HOUR_MS, -50 * HOUR_MS, 0].entries()) {
      clock.set(skewMs);
      await follows(client, `probe${turn}`, skewMs);
      for (let appends = 0; appends < 5; appends++) {
        await recorder.append(client, 100);
        await delay(10);
      }
      // A producer that starts anew sends what it had sent by another clock.
      const repeated = await recorder.repeat(client, [1, 2, 3]);
      expect(repeated.map(({ duplicate }) => duplicate)).toEqual([true, true, true]);
      // An answer is remembered for ten minutes; the records have the same names for ever.
      const acks = await client.append(unnamed(requestEntryOf(requestId, 0)), { requestId });
      named.push(acks[0]?.id ?? "");
      // A read waits until all that was acknowledged is archived: the archiver goes on by whatever clock.
      expect(await client.get(`steady/${recorder.acked}`)).toBeDefined();
      const archived = await client.list({ producers: ["steady"] });
      expect(archived.length).toBe(recorder.acked);
      expect(archived.every(({ durability }) => durability === Durability.ARCHIVED)).toBe(true);
      expect(isSigned(await client.checkpoint())).toBe(true);
    }
    expect(new Set(named).size).toBe(1);
    const requests = [{ requestId, records: 1, ids: [named[0] ?? ""] }];
    const account = await accountOf(server.env, { ...recorder.claims, requests });
    // The probes are nobody's, as far as the checker knows.
    const { stranger = 0, ...faults } = account.faults;
    expect(faults).toEqual({});
    expect(account.examples.filter((example) => !example.includes("probe"))).toEqual([]);
    expect(stranger).toBe(account.leaves - account.archived);
    expect((await client.range()).valid).toBe(true);
  },
);

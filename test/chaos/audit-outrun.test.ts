import { setTimeout as delay } from "node:timers/promises";
import { expect, it } from "vitest";
import type { AuditIngestAck } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createSequenceSet } from "../support/audit-claims.ts";
import { createAuditClient } from "../support/audit-client.ts";
import { accountOf, claimsOf, range, recordsOf } from "../support/audit-recorder.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startRedis } from "../support/redis-server.ts";
import { residentMiB } from "../support/resident-memory.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";

/*
 * Promises: a producer that sends faster than Redis and the archive take, and does not care for its window, is slowed down: nothing
 * is dropped or refused, and the server does not take in what it cannot get rid of. What memory that costs is told here, and held
 * to its bound by `make bench`.
 */

const BATCHES = 150;
const BATCH = 1_000;
/** The window, and what the transport holds on its way in both processes. */
const MOST_UNACKED = 100_000;

it("a producer that outruns what is behind the server is held back, and all it sent is kept", async () => {
  await using parts = new AsyncDisposableStack();
  const redis = parts.use(await startRedis());
  const proxy = parts.use(await startTcpProxy(redis.port));
  const env = { REDIS_URL: `redis://127.0.0.1:${proxy.port}`, DATABASE_URL: await freshDatabase() };
  const server = parts.use(await startHoldfast({ ...env, AUDIT_RECOVERY_INTERVAL: "2s" }));
  const client = parts.use(createAuditClient(server.grpcAddress));
  let mostMiB = 0;
  const watch = setInterval(() => {
    mostMiB = Math.max(mostMiB, residentMiB(server.pid));
  }, 100);
  parts.defer(() => clearInterval(watch));
  const acks: AuditIngestAck[] = [];
  const stream = parts.use(await client.ingest("fast", { onAck: (ack) => void acks.push(ack) }));

  let sent = 0;
  let heldBack = 0;
  let mostUnacked = 0;
  while (sent < BATCHES) {
    if (stream.isHeldBack) {
      heldBack++;
      await delay(5);
    } else {
      stream.send(recordsOf("fast", range(sent * BATCH + 1, (sent + 1) * BATCH)));
      sent++;
      mostUnacked = Math.max(mostUnacked, (sent - acks.length) * BATCH);
      // Redis answers nothing for a while, now and then.
      if (sent % 50 === 0) {
        proxy.freeze();
        setTimeout(() => proxy.thaw(), 2_000);
      }
      await delay(0);
    }
  }
  await until(() => acks.length === BATCHES, { what: "the last ack", timeoutMs: 90_000 });
  clearInterval(watch);
  // It was not for want of the server.
  expect(server.exited()).toBeUndefined();
  stream.finish();
  expect(await stream.ended).toBeUndefined();
  expect(acks.flatMap(({ refusals }) => refusals)).toEqual([]);
  expect(acks.map(({ batch }) => Number(batch))).toEqual(range(1, BATCHES));
  const all = createSequenceSet();
  for (const sequence of range(1, BATCHES * BATCH)) all.add(sequence);
  const claims = claimsOf([{ producer: "fast", sent: all.bits, acked: all.bits, problems: [] }]);
  const account = await accountOf(server.env, claims);
  expect(account).toMatchObject({ faults: {}, archived: BATCHES * BATCH });
  console.log(
    `at most ${mostUnacked} records unacked, held back ${heldBack} times, at most ${Math.round(mostMiB)} MiB`,
  );
  // It did outrun the server, which did not read it all.
  expect(heldBack).toBeGreaterThan(0);
  expect(mostUnacked).toBeGreaterThan(stream.opened.windowRecords);
  expect(mostUnacked).toBeLessThan(MOST_UNACKED);
});

import { expect, it } from "vitest";
import { AuditService, AuditStart } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createAuditClient } from "../support/audit-client.ts";
import { createRecorder } from "../support/audit-recorder.ts";
import { freshDatabase } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

/*
 * Promises: a consumer that never acks holds up nobody but itself: it is given no more than it asked for, the log goes on, what it
 * held goes to another one, and in the end becomes dead letters, which can be delivered again. No record is dropped for its sake.
 */

const RECORDS = 5_000;
const IN_FLIGHT = 200;
const { method } = AuditService;

it.each(["embedded", "cluster"] as const)("a consumer that never acks harms nobody (%s)", async (topology) => {
  await using parts = new AsyncDisposableStack();
  const redis = topology === "cluster" ? parts.use(await startRedis()) : undefined;
  const shared = redis === undefined ? {} : { REDIS_URL: redis.url, DATABASE_URL: await freshDatabase() };
  const server = parts.use(await startHoldfast(shared));
  const client = parts.use(createAuditClient(server.grpcAddress));
  const idleClient = parts.use(createAuditClient(server.grpcAddress));
  const group = "slow";
  const open = {
    group,
    start: AuditStart.OLDEST,
    maxInFlight: IN_FLIGHT,
    maxDeliveries: 2,
    ackTimeout: { seconds: 2n },
  };
  const idle = parts.use(await idleClient.subscribe({ ...open, consumer: "idle" }));
  const recorder = createRecorder("busy");
  for (let sent = 0; sent < RECORDS; sent += 500) await recorder.append(client, 500);
  // It holds as many as it asked for, and is given others only as those are taken from it.
  await until(() => idle.deliveries.length >= IN_FLIGHT, { what: "the idle consumer's first deliveries" });
  const held: number[] = [];
  const groupNow = async () => {
    const { group: now } = (await client.call(method.getGroup, { group })).reply;
    if (now === undefined) throw new Error("a reply without a group");
    held.push(...now.consumers.filter(({ name }) => name === "idle").map(({ pending }) => Number(pending)));
    return now;
  };
  // Alone in its group, what it never acks becomes dead letters; nothing is lost of them.
  await until(async () => (await groupNow()).deadLetters >= IN_FLIGHT, { what: "dead letters", timeoutMs: 60_000 });
  const seen = new Map<string, number>();
  for (const { record } of idle.deliveries) seen.set(record?.id ?? "", (seen.get(record?.id ?? "") ?? 0) + 1);
  expect(Math.max(...seen.values())).toBeLessThanOrEqual(2);
  expect(Math.max(...held)).toBeLessThanOrEqual(IN_FLIGHT);
  idle.cancel();

  // Somebody who works is given all the rest, and then the dead letters.
  const worker = parts.use(await client.subscribe({ ...open, consumer: "worker", maxInFlight: 1_000 }));
  const done = new Set<string>();
  let acked = 0;
  const settle = () => {
    const fresh = worker.deliveries.slice(acked);
    acked += fresh.length;
    for (let at = 0; at < fresh.length; at += 1_000) {
      worker.ack(...fresh.slice(at, at + 1_000).map(({ deliveryId }) => deliveryId));
    }
    for (const { record } of fresh) done.add(record?.id ?? "");
  };
  const drained = async () => {
    settle();
    const { lag, pending } = await groupNow();
    return lag === 0n && pending === 0n;
  };
  await until(drained, { what: "the worker to have dealt with all that is alive", timeoutMs: 60_000 });
  const { deadLetters } = await groupNow();
  expect(done.size + Number(deadLetters)).toBe(RECORDS);
  const { reply } = await client.call(method.requeueDeadLetters, { group, all: true });
  expect(reply.requeued).toBe(deadLetters);
  await until(async () => (await drained()) && done.size === RECORDS, { what: "the dead letters to be dealt with" });
  expect((await groupNow()).deadLetters).toBe(0n);
  expect((await client.list({ producers: ["busy"] })).length).toBe(RECORDS);
});

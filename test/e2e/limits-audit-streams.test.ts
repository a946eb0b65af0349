import { afterEach, beforeEach, expect, it } from "vitest";
import { AuditSequenceState, AuditService } from "../../src/gen/holdfast/v1/audit_pb.js";
import { type AppendInit, type AuditClient, createAuditClient } from "../support/audit-client.ts";
import { complaints, gauge } from "../support/bad-caller.ts";
import { openDeafProducer } from "../support/bad-producers.ts";
import { many } from "../support/bad-value.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { residentMiB } from "../support/resident-memory.ts";
import { atScale } from "../support/scale.ts";
import { until } from "../support/until.ts";

const { method } = AuditService;

const BATCH_BYTES = 4 * 1024 * 1024;
/** What a producer that does not read may cost: some batches of 4 MiB, and what is on its way. */
const MOST_DEAF_MIB = 25;

const MANY = atScale(1_000, 300);

let server: HoldfastProcess;
let audit: AuditClient;
beforeEach(async () => {
  server = await startHoldfast();
  audit = createAuditClient(server.grpcAddress);
});
afterEach(async () => {
  audit[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
  expect(server.exited()).toBe("exit code 0");
  expect(complaints(server.output())).toEqual([]);
});

const port = () => Number(server.grpcAddress.split(":")[1]);
const records = (count: number, from = 1, text = "x"): AppendInit[] =>
  many(count, (i) => ({
    sequence: BigInt(from + i),
    entry: { actor: "a", action: "b", attributes: { text } },
  }));

/** What is held of a producer, as ranges of sequences. */
async function heldOf(producer: string): Promise<string[]> {
  const { reply } = await audit.call(method.reconcile, { producer });
  expect(reply.nextPageToken).toBe("");
  return reply.ranges.map(
    ({ firstSequence, lastSequence, state }) => `${firstSequence} to ${lastSequence} ${AuditSequenceState[state]}`,
  );
}

const untilNoCall = () =>
  until(async () => (await gauge(server.httpUrl, "holdfast_calls_waiting")) === 0, { what: "no call under way" });

it("keeps each record once when two streams of one producer send the same, and more than each other", async () => {
  const streams = await Promise.all([audit.ingest("twice"), audit.ingest("twice")]);
  for (let batch = 0; batch < 40; batch++) {
    // The one is half a batch behind the other.
    for (const [at, stream] of streams.entries()) stream.send(records(100, 1 + batch * 100 + at * 50));
  }
  for (const stream of streams) stream.finish();
  expect(await Promise.all(streams.map(({ ended }) => ended))).toEqual([undefined, undefined]);
  const acks = streams.flatMap((stream) => stream.acks);
  expect(acks).toHaveLength(80);
  const sum = (of: "appended" | "duplicates") => acks.reduce((total, ack) => total + ack[of], 0);
  expect({ appended: sum("appended"), duplicates: sum("duplicates") }).toEqual({ appended: 4_050, duplicates: 3_950 });
  expect(acks.flatMap(({ refusals }) => refusals)).toEqual([]);
  expect(await heldOf("twice")).toEqual(["1 to 4050 ARCHIVED"]);
  expect(await audit.list({ producers: ["twice"] })).toHaveLength(4_050);
});

it("holds 500 streams that are opened and never used, serves others, and ends them when it stops", async () => {
  const idle = await Promise.all(many(500, (i) => audit.ingest(`idle-${i}`)));
  expect(await audit.append(records(10), { producer: "other" })).toHaveLength(10);
  await server.stop();
  for (const why of await Promise.all(idle.map(({ ended }) => ended))) {
    expect(why).toMatchObject({ code: "UNAVAILABLE", reason: "SERVER_DRAINING", hasRetryInfo: true });
  }
});

it("holds little for producers that send and never read, however much they send, and serves the others", async () => {
  const DEAF = 12;
  const BATCHES = 40;
  // 4 MiB a batch.
  const large = records(16, 1, "x".repeat(255 * 1024));
  await audit.append(records(1), { producer: "other" });
  const atRest = residentMiB(server.pid);
  let appended = 1;
  const held: number[] = [];
  using all = new DisposableStack();
  for (let n = 0; n < DEAF; n++) {
    const deaf = all.use(await openDeafProducer(port(), `deaf-${n}`, large));
    for (let batch = 0; batch < BATCHES; batch++) deaf.send();
    await until(async () => (await heldOf(`deaf-${n}`)).length > 0, { what: "its first batch to be kept" });
    // Until it takes no more of it, though it has had time for much else.
    for (let quiet = 0, taken = 0; quiet < 10; quiet = deaf.taken === taken ? quiet + 1 : 0) {
      ({ taken } = deaf);
      await audit.append(records(1, appended + 1), { producer: "other" });
      appended++;
    }
    expect(deaf.taken).toBeLessThan(8 * BATCH_BYTES);
    held.push(residentMiB(server.pid));
  }
  expect(Math.max(...held) - atRest, `at rest ${atRest}, then ${held.join(", ")} MiB`).toBeLessThan(
    DEAF * MOST_DEAF_MIB,
  );
  expect(await heldOf("other")).toEqual([`1 to ${appended} ARCHIVED`]);
  all.dispose();
  await untilNoCall();
});

it("keeps nothing of a batch in whose midst its producer vanished, and all before it", async () => {
  for (const part of [1, 4, 5, 6, 100, 5_000]) {
    const producer = `gone-${part}`;
    using gone = await openDeafProducer(port(), producer, records(100));
    gone.send();
    await until(async () => (await heldOf(producer)).length > 0, { what: "the first batch" });
    gone.sendPart(part);
    gone[Symbol.dispose]();
    await untilNoCall();
    expect(await heldOf(producer)).toEqual(["1 to 100 ARCHIVED"]);
    const again = await audit.ingest(producer);
    expect(again.opened.lastSequence).toBe(100n);
    again.send(records(200));
    again.finish();
    expect(await again.ended).toBeUndefined();
    expect(again.acks).toMatchObject([{ appended: 100, duplicates: 100 }]);
  }
});

it(`holds ${MANY} Tails and ${MANY} Subscribes, each of which hears of a record, and forgets them when they go`, {
  timeout: 240_000,
}, async () => {
  await audit.append(records(1), { producer: "first" });
  const atRest = residentMiB(server.pid);
  const tails = await Promise.all(many(MANY, () => audit.tail()));
  const groups = await Promise.all(many(MANY, (i) => audit.subscribe({ group: `g${i % 100}`, consumer: `c${i}` })));
  expect(await gauge(server.httpUrl, "holdfast_calls_waiting")).toBe(2 * MANY);
  const opened = residentMiB(server.pid);
  for (let from = 2; from < 22; from++) await audit.append(records(1, from), { producer: "first" });
  await until(() => tails.every(({ records: seen }) => seen.length === 20), {
    what: "every Tail to have heard of every record",
    timeoutMs: 60_000,
  });
  const delivered = () => groups.reduce((sum, { deliveries }) => sum + deliveries.length, 0);
  await until(() => delivered() === 100 * 20, { what: "every group to be given every record", timeoutMs: 60_000 });
  for (const stream of groups) {
    const ids = stream.deliveries.map(({ deliveryId }) => deliveryId);
    if (ids.length > 0) stream.ack(...ids);
  }
  const busy = residentMiB(server.pid);
  expect(busy, `at rest ${atRest}, opened ${opened}, busy ${busy} MiB`).toBeLessThan(atRest + 400);
  for (const stream of [...tails, ...groups]) stream.cancel();
  await untilNoCall();
  expect(await audit.append(records(1, 100), { producer: "first" })).toHaveLength(1);
});

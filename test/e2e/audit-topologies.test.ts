import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  AuditDecision,
  AuditDurability,
  AuditExportFormat,
  AuditLookup,
  AuditSequenceState,
  AuditService,
  type AuditServiceExportResponse,
  AuditStart,
  AuditStatus,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { type AuditClient, CallFailed, createAuditClient, unnamed } from "../support/audit-client.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
import { until } from "../support/until.ts";

interface Topology {
  readonly env: () => Promise<Readonly<Record<string, string>>>;
  /** How far a record has got when it is acknowledged. */
  readonly durability: AuditDurability;
}

const { ARCHIVED, QUEUED } = AuditDurability;
const topologies: readonly [string, Topology][] = [
  ["embedded", { env: async () => ({}), durability: ARCHIVED }],
  ["single", { env: async () => ({ REDIS_URL: await freshRedis() }), durability: QUEUED }],
  [
    "cluster",
    {
      env: async () => ({ REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() }),
      durability: QUEUED,
    },
  ],
  [
    "cluster over a Redis Cluster",
    {
      env: async () => ({ REDIS_URL: await redisClusterUrl(), DATABASE_URL: await freshDatabase() }),
      durability: QUEUED,
    },
  ],
  ["sql-only", { env: async () => ({ DATABASE_URL: await freshDatabase() }), durability: ARCHIVED }],
];

let startedCluster: ReturnType<typeof startRedisCluster> | undefined;
async function redisClusterUrl(): Promise<string> {
  startedCluster ??= startRedisCluster();
  const { urls } = await startedCluster;
  return String(urls[0]).replace("redis:", "redis-cluster:");
}
afterAll(async () => {
  const cluster = await startedCluster;
  await cluster?.stop();
});

const entry = (actor: string, more: object = {}) => ({ actor, action: "memory.update", ...more });
const failure = async (work: Promise<unknown>): Promise<CallFailed> => {
  const thrown = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(thrown instanceof CallFailed)) throw new Error(`expected a failed call, got ${String(thrown)}`);
  return thrown;
};

describe.each(topologies)("the audit log, %s", (_, { env, durability }) => {
  let server: HoldfastProcess;
  let audit: AuditClient;
  const { method } = AuditService;

  beforeAll(async () => {
    server = await startHoldfast(await env());
    audit = createAuditClient(server.grpcAddress);
    // What a test appends is to be held as safely as the topology can from the first call on.
    await until(async () => (await audit.append(unnamed(entry("warm"))))[0]?.durability === durability, {
      what: "every tier to answer",
    });
  });
  afterAll(async () => {
    audit[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  it("holds a record once, however often it is sent, and refuses another under its identity", async () => {
    const records = [{ sequence: 1n, entry: entry("once", { attributes: { a: 1, b: { c: [true, null, "x"] } } }) }];
    const [first] = await audit.append(records, { producer: "once" });
    expect(first).toMatchObject({ id: "once/1", durability, duplicate: false });
    const [again] = await audit.append(records, { producer: "once" });
    expect(again).toMatchObject({ id: "once/1", duplicate: true });
    const other = [{ sequence: 1n, entry: entry("another") }];
    expect(await failure(audit.append(other, { producer: "once" }))).toMatchObject({
      code: "ALREADY_EXISTS",
      reason: "IDENTITY_REUSED",
    });
    expect((await audit.list({ producers: ["once"] })).map((record) => record.entry?.actor)).toEqual(["once"]);
  });

  it("names the records of callers who do not, and knows their retries by request_id", async () => {
    const [one] = await audit.append(unnamed(entry("unnamed")));
    const [two] = await audit.append(unnamed(entry("unnamed")));
    expect(one?.id).toMatch(/^@/);
    expect(two?.id).not.toBe(one?.id);
    const [asked] = await audit.append(unnamed(entry("unnamed")), { requestId: "r-1" });
    const [retried] = await audit.append(unnamed(entry("unnamed")), { requestId: "r-1" });
    expect(retried?.id).toBe(asked?.id);
    expect(await audit.list({ actors: ["unnamed"] })).toHaveLength(3);
  });

  it("takes a sequence that comes late, once", async () => {
    await audit.append([{ sequence: 10n, entry: entry("late") }], { producer: "late" });
    expect(await audit.append([{ sequence: 5n, entry: entry("late") }], { producer: "late" })).toMatchObject([
      { id: "late/5", duplicate: false },
    ]);
    expect(await audit.append([{ sequence: 5n, entry: entry("late") }], { producer: "late" })).toMatchObject([
      { id: "late/5", duplicate: true },
    ]);
    expect((await audit.list({ producers: ["late"] })).map(({ id }) => id).toSorted()).toEqual(["late/10", "late/5"]);
  });

  it("reaches the durability that is asked for", async () => {
    const [ack] = await audit.append(unnamed(entry("safe")), { minDurability: ARCHIVED });
    expect(ack?.durability).toBe(ARCHIVED);
  });

  it("acknowledges the batches of a stream in order, refuses bad records by themselves, and knows where it was", async () => {
    const stream = await audit.ingest("stream");
    for (let batch = 0; batch < 20; batch++) {
      const records = Array.from({ length: 50 }, (_item, at) => ({
        sequence: BigInt(batch * 50 + at + 1),
        entry: entry(at === 7 ? "" : "streamer"),
      }));
      stream.send(records);
    }
    stream.finish();
    expect(await stream.ended).toBeUndefined();
    expect(stream.acks.map(({ batch }) => batch)).toEqual(Array.from({ length: 20 }, (_item, at) => BigInt(at + 1)));
    for (const ack of stream.acks) {
      expect(ack).toMatchObject({ durability, appended: 49, duplicates: 0, degraded: false });
      expect(ack.refusals).toMatchObject([{ index: 7, error: { reason: "FIELD_INVALID", field: "entry.actor" } }]);
    }
    expect(await audit.list({ producers: ["stream"] })).toHaveLength(20 * 49);
    const again = await audit.ingest("stream");
    expect(again.opened.lastSequence).toBe(1000n);
    again.send([{ sequence: 1n, entry: entry("streamer") }]);
    again.finish();
    expect(await again.ended).toBeUndefined();
    expect(again.acks).toMatchObject([{ batch: 1n, appended: 0, duplicates: 1 }]);
    const { reply } = await audit.call(method.reconcile, { producer: "stream", lastSequence: 10n });
    expect(reply.ranges.map(({ firstSequence, lastSequence, state }) => [firstSequence, lastSequence, state])).toEqual([
      [1n, 7n, AuditSequenceState.ARCHIVED],
      [8n, 8n, AuditSequenceState.MISSING],
      [9n, 10n, AuditSequenceState.ARCHIVED],
    ]);
  });

  it("finds a record by every read as soon as it is acknowledged", async () => {
    for (let i = 0; i < 20; i++) {
      const resource = { type: "thing", id: `fresh-${i}` };
      const [ack] = await audit.append(unnamed(entry("fresh", { resource, status: AuditStatus.PENDING })));
      const id = ack?.id ?? "";
      expect(await audit.get(id)).toMatchObject({ id });
      expect(await audit.list({ resourceType: "thing", resourceId: resource.id })).toMatchObject([{ id }]);
      const target = { case: "subject", value: { resource } } as const;
      expect((await audit.call(method.isApproved, { target })).reply).toMatchObject({ recordId: id, approved: false });
    }
  });

  it("reviews a record once, keeps who and why, and each decision is a record", async () => {
    const resource = { type: "memory", id: "reviewed" };
    const [ack] = await audit.append(unnamed(entry("writer", { resource, status: AuditStatus.PENDING })));
    const id = ack?.id ?? "";
    const reviewers = Array.from({ length: 8 }, (_item, at) => `reviewer-${at}`);
    const answers = await Promise.all(
      reviewers.map((reviewer) => audit.review({ id, decision: AuditDecision.APPROVE, reviewer, comment: reviewer })),
    );
    const applied = answers.filter((answer) => answer.applied);
    expect(applied).toHaveLength(1);
    const { reviewer, comment } = applied[0]?.record?.review ?? {};
    expect(comment).toBe(reviewer);
    const target = { case: "subject", value: { resource } } as const;
    expect((await audit.call(method.isApproved, { target })).reply).toMatchObject({ approved: true, recordId: id });
    const [decision, ...more] = await audit.list({ resourceType: "audit_record", resourceId: id });
    expect(more).toEqual([]);
    expect(decision?.entry).toMatchObject({ actor: reviewer, action: "audit.review.approve" });
    const waiting = await audit.call(method.listPending, { filter: { resourceType: "memory" } });
    expect(waiting.reply.records).toEqual([]);
  });

  it("gives each record to one consumer of a group, and again to another when it is given back", async () => {
    await audit.append(unnamed(entry("for-groups"), entry("for-groups"), entry("for-groups")));
    const open = { group: "g", start: AuditStart.OLDEST, filter: { actors: ["for-groups"] } };
    const one = await audit.subscribe({ ...open, consumer: "one", maxInFlight: 1 });
    await until(() => one.deliveries.length === 1, { what: "a delivery" });
    const two = await audit.subscribe({ ...open, consumer: "two" });
    await until(() => two.deliveries.length === 2, { what: "the others" });
    one.send({ case: "nack", value: { deliveryIds: one.deliveries.map(({ deliveryId }) => deliveryId) } });
    two.ack(...two.deliveries.map(({ deliveryId }) => deliveryId));
    await until(() => one.deliveries.length + two.deliveries.length === 4, { what: "the one that was given back" });
    const last = [one, two].find(({ deliveries }) => deliveries.some(({ attempt }) => attempt === 2));
    last?.ack(...last.deliveries.map(({ deliveryId }) => deliveryId));
    await until(
      async () => {
        const { group } = (await audit.call(method.getGroup, { group: "g" })).reply;
        return group?.pending === 0n && group.lag === 0n && group.deadLetters === 0n;
      },
      { what: "nothing to be left" },
    );
    one.cancel();
    two.cancel();
  });

  it("tails what is appended from now on, and goes on from where it was", async () => {
    const tail = await audit.tail({ filter: { actors: ["tailed"] } });
    await audit.append(unnamed(entry("tailed"), entry("other")));
    await until(() => tail.records.length === 1, { what: "the record" });
    const token = tail.events.flatMap(({ event }) => (event.case === "records" ? event.value.resumeToken : [])).at(-1);
    tail.cancel();
    await audit.append(unnamed(entry("tailed")));
    const resumed = await audit.tail({ filter: { actors: ["tailed"] }, resumeToken: token ?? "" });
    await until(() => resumed.records.length === 1, { what: "the one appended meanwhile" });
    resumed.cancel();
  });

  it("exports every record that matches, once", async () => {
    await audit.append(
      Array.from({ length: 250 }, (_item, at) => ({ entry: entry("exported", { attributes: { at } }) })),
    );
    const chunks: AuditServiceExportResponse[] = [];
    const filter = { actors: ["exported"] };
    const following = audit.follow(method.export, { filter, format: AuditExportFormat.NDJSON }, (chunk) => {
      chunks.push(chunk);
    });
    expect(await following.ended).toBeUndefined();
    expect(chunks.at(-1)?.last).toBe(true);
    const lines = Buffer.concat(chunks.map(({ data }) => data))
      .toString()
      .trimEnd()
      .split("\n");
    const places = lines.map(
      (line) => (JSON.parse(line) as { entry: { attributes: { at: number } } }).entry.attributes.at,
    );
    expect(places.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 250 }, (_item, at) => at));
  });

  it("proves what it holds, and that it only grew", async () => {
    const before = await audit.checkpoint();
    const [ack] = await audit.append(unnamed(entry("proved")));
    expect(await until(() => audit.inclusion(ack?.id ?? ""), { what: "its place" })).toMatchObject({ valid: true });
    expect(await audit.consistency(before.treeSize)).toMatchObject({ valid: true });
    expect(await audit.range()).toMatchObject({ valid: true });
  });

  it("holds all of it after it was killed in the middle", async () => {
    const stream = await audit.ingest("killed");
    const next = { sequence: 0n };
    const send = () => {
      const records = Array.from({ length: 20 }, () => ({ sequence: ++next.sequence, entry: entry("killed") }));
      stream.send(records);
    };
    for (let i = 0; i < 50; i++) send();
    await until(() => stream.acks.length >= 10, { what: "some acks" });
    await server.kill();
    await stream.ended;
    const acked = stream.acks.length * 20;
    await server.restart();
    const held = await until(() => audit.list({ producers: ["killed"] }), { what: "the server to answer again" });
    const sequences = held.map(({ sequence }) => Number(sequence)).toSorted((a, b) => a - b);
    expect(sequences.length).toBe(new Set(sequences).size);
    expect(sequences.slice(0, acked)).toEqual(Array.from({ length: acked }, (_item, at) => at + 1));
    expect((await audit.call(method.get, { id: "killed/1" })).reply.lookup).toBe(AuditLookup.FOUND);
    expect(await audit.range(0n, 100_000)).toMatchObject({ valid: true });
  });
});

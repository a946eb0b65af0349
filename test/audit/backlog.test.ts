import { describe, expect, it, onTestFinished } from "vitest";
import type { Backlog } from "../../src/audit/queue/backlog.ts";
import { createRedisBacklog } from "../../src/audit/queue/redis-backlog.ts";
import { open } from "../infra/redis-clients.ts";
import { freshRedis } from "../support/fresh.ts";
import { openGrowth, openQueue, recordOf, recordsOf, STREAM, seedsFor } from "./queue-parts.ts";

async function fresh({ maxLength, mostRecords }: { maxLength?: number; mostRecords?: number } = {}) {
  const redis = open(await freshRedis(), { commandTimeoutMs: 10_000 });
  const queue = openQueue(redis, openGrowth(), maxLength);
  const most = mostRecords === undefined ? {} : { mostRecords };
  const backlog = createRedisBacklog({ redis, streamKey: STREAM, consumer: "one", blockMs: 50, ...most });
  onTestFinished(() => backlog.close());
  await backlog.open();
  return { redis, queue, backlog };
}

type World = Awaited<ReturnType<typeof fresh>>;

/** In batches of 400, as large as a run may become. */
async function fill({ queue }: World, producer: string, last: number): Promise<void> {
  for (let first = 1; first <= last; first += 400) {
    await queue.append({ records: recordsOf(producer, first, first + 399), seeds: seedsFor(producer) });
  }
}

async function addForeign({ redis }: World, count: number): Promise<void> {
  const lua = "for at = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'event', at) end";
  await redis.command("eval", lua, 1, STREAM, count);
}

const recordsIn = (batch: Awaited<ReturnType<Backlog["read"]>>) =>
  batch.reduce((sum, one) => sum + (one.kind === "run" ? one.records.length : 0), 0);

describe("reading", () => {
  it("takes about as many records as it was told, however many are in an entry", async () => {
    const world = await fresh();
    await fill(world, "p", 40_000);
    expect(recordsIn(await world.backlog.read())).toBeLessThanOrEqual(4_000);
    expect(recordsIn(await world.backlog.read())).toBeLessThanOrEqual(4_000);
  });

  it("takes no more of large entries because those before them were small", async () => {
    const world = await fresh();
    for (let sequence = 1; sequence <= 5; sequence++) {
      await world.queue.append({ records: [recordOf("q", sequence)], seeds: seedsFor("q") });
    }
    await world.backlog.finish(await world.backlog.read());
    await fill(world, "p", 40_000);
    expect(recordsIn(await world.backlog.read())).toBeLessThan(8_000);
  });

  it("claims no more at a time than it would read", async () => {
    const world = await fresh();
    await fill(world, "p", 20_000);
    for (let left = 20_000; left > 0; ) left -= recordsIn(await world.backlog.read());
    const next = createRedisBacklog({ redis: world.redis, streamKey: STREAM, consumer: "two", blockMs: 50 });
    onTestFinished(() => next.close());
    expect(recordsIn(await next.claim())).toBeLessThanOrEqual(4_000);
  });
});

describe("finishing", () => {
  it("acknowledges thousands of entries that are not ours in one call", async () => {
    const world = await fresh({ mostRecords: 8_000 });
    await addForeign(world, 9_000);
    const batch = await world.backlog.read();
    expect(batch.length).toBeGreaterThan(7_500);
    await world.backlog.finish(batch);
    expect(await world.queue.condition()).toMatchObject({ foreign: batch.length });
  });

  it("counts records of an entry that is put aside as gone", async () => {
    const world = await fresh();
    const nonsense = { ...recordOf("p", 2), leaf: Buffer.from("nonsense") };
    await world.queue.append({ records: [recordOf("p", 1), nonsense, recordOf("p", 3)], seeds: seedsFor("p") });
    await world.queue.append({ records: recordsOf("p", 4, 5) });
    const batch = await world.backlog.read();
    await world.backlog.finish(batch.slice(0, 1));
    expect(await world.queue.condition()).toMatchObject({ unarchived: 2, quarantined: 1 });
    expect(await world.backlog.finish(batch.slice(1))).toBe(0);
  });

  it("does not believe an entry that says it has more records than bytes", async () => {
    const world = await fresh();
    await world.queue.append({ records: recordsOf("p", 1, 3), seeds: seedsFor("p") });
    await world.redis.command("xadd", STREAM, "*", "producer", "p", "first", 4, "last", "1e999", "leaves", "no leaves");
    const [, entry] = await world.backlog.read();
    expect(entry).toMatchObject({ kind: "run", broken: { count: 2 } });
  });

  it("says that none waits when all that is left is not ours, whatever was counted", async () => {
    const world = await fresh();
    await addForeign(world, 1);
    await world.queue.append({ records: recordsOf("p", 1, 100), seeds: seedsFor("p") });
    await world.queue.append({ records: recordsOf("p", 101, 200) });
    const batch = await world.backlog.read();
    // Deleted behind our back, and so never seen to go.
    await world.redis.command("xdel", STREAM, batch[1]?.entry ?? "");
    expect(await world.backlog.finish(batch)).toBe(0);
    expect(await world.queue.condition()).toMatchObject({ unarchived: 0, foreign: 1 });
  });

  it("still counts what waits when entries that are not ours were deleted behind our back", async () => {
    const world = await fresh({ maxLength: 250 });
    await addForeign(world, 3);
    const batch = await world.backlog.read();
    await world.backlog.finish(batch);
    await world.queue.append({ records: recordsOf("p", 1, 1), seeds: seedsFor("p") });
    await world.redis.command("xdel", STREAM, ...batch.map(({ entry }) => entry));
    await world.queue.append({ records: recordsOf("p", 2, 100) });
    await world.queue.append({ records: recordsOf("p", 101, 200) });
    expect(await world.queue.condition()).toMatchObject({ unarchived: 200 });
    const refused = world.queue.append({ records: recordsOf("p", 201, 300) });
    await expect(refused).rejects.toMatchObject({ reason: "AUDIT_QUEUE_FULL" });
  });
});

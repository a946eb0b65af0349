import { describe, expect, it, onTestFinished } from "vitest";
import { createRedisBacklog } from "../../src/audit/queue/redis-backlog.ts";
import { GROUP } from "../../src/audit/queue/redis-queue-keys.ts";
import { open } from "../infra/redis-clients.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import {
  ACCEPT_US,
  fieldsOf,
  freshQueue,
  inStream,
  openGrowth,
  openQueue,
  PRODUCERS,
  QUARANTINE,
  recordOf,
  recordsOf,
  STREAM,
  seedsFor,
  tailOf,
  withThree,
} from "./queue-parts.ts";

/** The same, each in an entry of its own. */
async function withThreeEntries() {
  const { redis, queue } = await freshQueue();
  for (const record of recordsOf("p", 1, 3)) await queue.append({ records: [record], seeds: seedsFor("p") });
  return { redis, queue };
}

describe("a loss", () => {
  const losses: readonly [string, readonly string[]][] = [
    ["the stream", [STREAM]],
    ["the hash of producers", [PRODUCERS]],
    ["everything", [STREAM, PRODUCERS, tailOf("p"), tailOf("q")]],
  ];
  const forever = new AbortController().signal;

  it.each(losses)("of %s is told, once, by whatever is asked next", async (_, keys) => {
    for (const ask of ["append", "drained", "condition"] as const) {
      const { redis } = await withThree();
      let losses = 0;
      const queue = openQueue(redis, openGrowth(), 100, () => {
        losses += 1;
      });
      // The archiver is there, and makes the stream and its group again.
      const backlog = createRedisBacklog({ redis, streamKey: STREAM, consumer: "one" });
      onTestFinished(() => backlog.close());
      await backlog.open();
      await queue.append({ records: [recordOf("p", 10)], settled: true });
      expect(losses).toBe(0);
      await redis.command("del", ...keys);
      await backlog.open();
      if (ask === "append") await queue.append({ records: [recordOf("p", 11)], settled: true });
      else if (ask === "condition") await queue.condition();
      else await Promise.race([queue.drained(forever), until(() => losses === 1, { what: "the loss to be seen" })]);
      expect(losses, ask).toBe(1);
      await queue.append({ records: [recordOf("p", 12)], settled: true });
      await queue.condition();
      expect(losses, ask).toBe(1);
    }
  });

  it("is not told of a stream that was emptied by archiving", async () => {
    const { redis } = await freshQueue();
    let losses = 0;
    const queue = openQueue(redis, openGrowth(), 100, () => {
      losses += 1;
    });
    for (let sequence = 1; sequence < 5; sequence++) {
      await queue.append({ records: [recordOf("p", sequence)], settled: true });
      const [entry] = (await redis.command("xrange", STREAM, "-", "+")) as [string, unknown][];
      await redis.command("xdel", STREAM, String(entry?.[0]));
      await queue.drained(forever);
      await queue.condition();
    }
    expect(losses).toBe(0);
  });
});

describe("waiting until all is archived", () => {
  const forever = new AbortController().signal;

  /** As the archiver does when it is done with the first entries. */
  async function remove(redis: ReturnType<typeof open>, count: number): Promise<void> {
    const entries = await redis.command("xrange", STREAM, "-", "+", "COUNT", count);
    if (Array.isArray(entries)) await redis.command("xdel", STREAM, ...entries.map(([id]) => String(id)));
  }

  it("does not wait when nothing waits", async () => {
    const { redis, queue } = await withThreeEntries();
    await remove(redis, 3);
    await queue.drained(forever);
  });

  it("waits for what was there at the time of the call, and for no more", async () => {
    const { redis, queue } = await withThreeEntries();
    const ended: string[] = [];
    const early = queue.drained(forever).then(() => ended.push("early"));
    // In order on one connection: the first has looked when this is answered.
    await new Promise(setImmediate);
    await queue.append({ records: recordsOf("p", 4, 6) });
    const late = queue.drained(forever).then(() => ended.push("late"));
    await remove(redis, 2);
    await queue.condition();
    expect(ended).toEqual([]);
    expect(queue.traffic).toEqual({ appended: 6, awaited: true });
    await remove(redis, 1);
    await early;
    expect(ended).toEqual(["early"]);
    await remove(redis, 1);
    await late;
    expect(queue.traffic.awaited).toBe(false);
  });

  it("ends when the stream is lost: what was in it is not there any more", async () => {
    const { redis, queue } = await withThree();
    const drained = queue.drained(forever);
    await new Promise(setImmediate);
    await redis.command("flushdb");
    // Within a millisecond, Redis could give out the same ids again.
    await redis.command("xadd", STREAM, "9999999999999-0", ...fieldsOf(recordOf("p", 9)));
    await drained;
    expect(await inStream(redis)).toEqual(["p/9"]);
  });

  it("does not wait for entries of others that were looked at", async () => {
    const { redis, queue } = await freshQueue();
    await redis.command("xadd", STREAM, "*", "event", "of someone else");
    for (const record of recordsOf("p", 1, 2)) await queue.append({ records: [record], seeds: seedsFor("p") });
    await redis.command("xgroup", "create", STREAM, GROUP, "0");
    await redis.command("xreadgroup", "GROUP", GROUP, "c", "COUNT", 2, "STREAMS", STREAM, ">");
    const [foreign, first] = (await redis.command("xrange", STREAM, "-", "+")) as [string][];
    await redis.command("xack", STREAM, GROUP, String(foreign?.[0]));
    await redis.command("hset", PRODUCERS, "/foreign", 1);
    expect(await queue.condition()).toMatchObject({ unarchived: 2, foreign: 1, oldestAcceptUs: ACCEPT_US + 1 });
    await redis.command("xack", STREAM, GROUP, String(first?.[0]));
    await redis.command("xdel", STREAM, String(first?.[0]));
    // The other one was not even delivered.
    const hasty = queue.drained(AbortSignal.timeout(200));
    await expect(hasty).rejects.toThrow();
    await redis.command("xreadgroup", "GROUP", GROUP, "c", "COUNT", 2, "STREAMS", STREAM, ">");
    await expect(queue.drained(AbortSignal.timeout(200))).rejects.toThrow();
    const [, second] = (await redis.command("xrange", STREAM, "-", "+")) as [string][];
    await redis.command("xack", STREAM, GROUP, String(second?.[0]));
    await redis.command("xdel", STREAM, String(second?.[0]));
    await queue.drained(forever);
    expect(await redis.command("xlen", QUARANTINE)).toBe(0);
  });

  it("gives up when the caller does, and when Redis is away", async () => {
    await using server = await startRedis();
    const redis = open(server.url);
    const queue = openQueue(redis);
    await queue.append({ records: [recordOf("p", 1)], seeds: seedsFor("p") });
    const caller = new AbortController();
    const abandoned = queue.drained(caller.signal);
    caller.abort(new Error("the caller hung up"));
    await expect(abandoned).rejects.toThrow("the caller hung up");
    const waiting = queue.drained(forever);
    waiting.catch(() => {});
    await queue.condition();
    server.pause();
    await expect(waiting).rejects.toMatchObject({ kind: "unavailable" });
    server.resume();
  });
});

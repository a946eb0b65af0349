import { describe, expect, it } from "vitest";
import { createRedisQueue } from "../../src/audit/queue/redis-queue.ts";
import { idOf } from "../../src/audit/record/record.ts";
import { open } from "../infra/redis-clients.ts";
import { startRedisCluster } from "../support/redis-cluster.ts";
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
  recordOf,
  recordsOf,
  STREAM,
  seedsFor,
  tailOf,
  withThree,
} from "./queue-parts.ts";

describe("appending", () => {
  it("queues what rises, in order", async () => {
    const { redis, queue } = await freshQueue();
    const records = [recordOf("a", 1), recordOf("b", 7), recordOf("a", 2), recordOf("b", 9)];
    const seeds = new Map(Object.entries({ a: 0, b: 6 }));
    expect(await queue.append({ records, seeds })).toEqual(["queued", "queued", "queued", "queued"]);
    expect(await inStream(redis)).toEqual(["a/1", "b/7", "a/2", "b/9"]);
    expect(await queue.append({ records: [recordOf("a", 3)] })).toEqual(["queued"]);
  });

  it("says of what waits already that it is held", async () => {
    const { redis, queue } = await withThree();
    expect(await queue.append({ records: recordsOf("p", 2, 4) })).toEqual(["held", "held", "queued"]);
    expect(await queue.append({ records: recordsOf("p", 1, 4), settled: true })).toEqual(Array(4).fill("held"));
    expect(await inStream(redis)).toEqual(["p/1", "p/2", "p/3", "p/4"]);
  });

  it("queues one of two records with one identity in a call", async () => {
    const { redis, queue } = await withThree();
    const twice = [recordOf("p", 4), recordOf("p", 4), recordOf("q", 1), recordOf("q", 1)];
    expect(await queue.append({ records: twice, settled: true })).toEqual(["queued", "held", "queued", "held"]);
    expect(await inStream(redis)).toEqual(["p/1", "p/2", "p/3", "p/4", "q/1"]);
  });

  it("queues of a row of records those that do not wait, with the bytes of each", async () => {
    const { redis, queue } = await freshQueue();
    const at = (...sequences: number[]) => sequences.map((sequence) => recordOf("p", sequence));
    expect(await queue.append({ records: at(3, 4, 8), settled: true })).toEqual(Array(3).fill("queued"));
    const outcomes = await queue.append({ records: recordsOf("p", 1, 10), settled: true });
    expect(outcomes.join(" ")).toBe("queued queued held held queued queued queued held queued queued");
    expect((await inStream(redis)).join(" ")).toBe("p/3 p/4 p/8 p/1 p/2 p/5 p/6 p/7 p/9 p/10");
    const wanted = at(7, 1, 10, 2, 3, 9, 4, 8, 6, 5);
    expect(await queue.find(wanted)).toEqual(wanted.map(({ leaf }) => Buffer.from(leaf)));
    expect(await queue.sequences("p")).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(await queue.condition()).toMatchObject({ unarchived: 10 });
  });

  it("puts a batch into few entries, and a large record into one of its own", async () => {
    const { redis, queue } = await freshQueue();
    const large = { ...recordOf("p", 101), leaf: Buffer.alloc(256 * 1024, 1) };
    const records = [...recordsOf("p", 1, 100), large, ...recordsOf("p", 102, 200)];
    await queue.append({ records, seeds: seedsFor("p") });
    expect(await redis.command("xlen", STREAM)).toBe(3);
    expect(await queue.find(records)).toEqual(records.map(({ leaf }) => Buffer.from(leaf)));
  });

  it("calls what is not above the largest late, until the archive was asked", async () => {
    const { redis, queue } = await freshQueue();
    const seeds = new Map([["p", 10]]);
    expect(await queue.append({ records: [recordOf("p", 12), recordOf("p", 9), recordOf("p", 13)], seeds })).toEqual([
      "queued",
      "late",
      "queued",
    ]);
    expect(await queue.append({ records: [recordOf("p", 9)], settled: true })).toEqual(["queued"]);
    expect(await inStream(redis)).toEqual(["p/12", "p/13", "p/9"]);
    expect(await queue.lastSequence("p")).toBe(13);
  });

  it("queues nothing of a stranger, and everything of the others", async () => {
    const { redis, queue } = await withThree();
    const records = [recordOf("s", 1), recordOf("p", 4), recordOf("s", 2), recordOf("p", 5)];
    expect(await queue.append({ records })).toEqual(["stranger", "queued", "stranger", "queued"]);
    expect(await inStream(redis)).toEqual(["p/1", "p/2", "p/3", "p/4", "p/5"]);
    expect(await queue.lastSequence("s")).toBeUndefined();
  });

  it("never lets a seed lower what it knows", async () => {
    const { queue } = await withThree();
    expect(await queue.append({ records: [recordOf("p", 2)], seeds: new Map([["p", 1]]) })).toEqual(["held"]);
    expect(await queue.lastSequence("p")).toBe(3);
    expect(await queue.append({ records: [recordOf("p", 5)], seeds: new Map([["p", 8]]) })).toEqual(["late"]);
    expect(await queue.lastSequence("p")).toBe(8);
  });

  it("does not learn a producer's largest sequence from a record that nobody compared with the archive", async () => {
    const { queue } = await freshQueue();
    expect(await queue.append({ records: [recordOf("p", 5)], settled: true })).toEqual(["queued"]);
    expect(await queue.lastSequence("p")).toBeUndefined();
    expect(await queue.append({ records: [recordOf("p", 6)] })).toEqual(["stranger"]);
  });

  it("keeps no mark of producers that are requests", async () => {
    const { redis, queue } = await freshQueue();
    const records = [recordOf("@r.abc", 1), recordOf("@r.abc", 2)];
    expect(await queue.append({ records })).toEqual(["late", "late"]);
    expect(await queue.append({ records, settled: true })).toEqual(["queued", "queued"]);
    expect(await queue.append({ records })).toEqual(["held", "held"]);
    expect(await redis.command("hexists", PRODUCERS, "@r.abc")).toBe(0);
    expect(await queue.sequences("@r.abc")).toEqual([1, 2]);
  });

  it("tells sequences apart up to 2^53 - 1", async () => {
    const { queue } = await freshQueue();
    const last = Number.MAX_SAFE_INTEGER;
    const records = [recordOf("p", last - 1), recordOf("p", last)];
    expect(await queue.append({ records, seeds: new Map([["p", last - 2]]) })).toEqual(["queued", "queued"]);
    expect(await queue.lastSequence("p")).toBe(last);
    expect(await queue.append({ records: [recordOf("p", last - 2)] })).toEqual(["late"]);
    expect(await queue.sequences("p")).toEqual([last - 1, last]);
  });

  it("takes a thousand producers in one call", async () => {
    const { queue } = await freshQueue();
    const names = Array.from({ length: 1_000 }, (_, at) => `p${at}`);
    const records = names.map((name) => recordOf(name, 1));
    expect(await queue.append({ records })).toEqual(names.map(() => "stranger"));
    expect(await queue.append({ records, seeds: seedsFor(...names) })).toEqual(names.map(() => "queued"));
    expect(await queue.find(records)).toEqual(records.map(({ leaf }) => Buffer.from(leaf)));
  });

  it("is refused as a whole when there is no room", async () => {
    const { redis, queue } = await freshQueue(3);
    const seeds = seedsFor("p");
    const refused = queue.append({ records: recordsOf("p", 1, 4), seeds });
    await expect(refused).rejects.toMatchObject({ kind: "unavailable", reason: "AUDIT_QUEUE_FULL" });
    expect(await inStream(redis)).toEqual([]);
    expect(await queue.append({ records: recordsOf("p", 1, 3), seeds })).toEqual(["queued", "queued", "queued"]);
    await expect(queue.append({ records: [recordOf("p", 4)] })).rejects.toMatchObject({ reason: "AUDIT_QUEUE_FULL" });
    expect(await queue.append({ records: recordsOf("p", 1, 3) })).toEqual(["held", "held", "held"]);
  });

  it("is refused as full while Redis has no memory left, and queues nothing", async () => {
    await using server = await startRedis();
    const redis = open(server.url);
    const queue = openQueue(redis);
    await queue.append({ records: [recordOf("p", 1)], seeds: seedsFor("p") });
    await redis.command("config", "set", "maxmemory", "1");
    const refused = queue.append({ records: recordsOf("p", 2, 3) });
    await expect(refused).rejects.toMatchObject({ kind: "unavailable", reason: "AUDIT_QUEUE_FULL" });
    await redis.command("config", "set", "maxmemory", "0");
    expect(await inStream(redis)).toEqual(["p/1"]);
    expect(await queue.append({ records: recordsOf("p", 2, 3) })).toEqual(["queued", "queued"]);
  });

  it("says that it is unavailable when the key of the stream is something else", async () => {
    const { redis, queue } = await freshQueue();
    await redis.command("set", STREAM, "not a stream");
    const refused = queue.append({ records: [recordOf("p", 1)], seeds: seedsFor("p") });
    await expect(refused).rejects.toMatchObject({ kind: "unavailable", reason: "AUDIT_QUEUE_UNUSABLE" });
  });
});

describe("looking into the queue", () => {
  it("finds what waits, byte by byte, and the sequences of a producer", async () => {
    const { queue } = await withThree();
    await queue.append({ records: [recordOf("q", 5)], seeds: seedsFor("q") });
    const wanted = [recordOf("p", 3), recordOf("q", 5), recordOf("p", 9), recordOf("x", 1), recordOf("p", 1)];
    const found = await queue.find(wanted);
    expect(found.map((leaf) => leaf !== undefined)).toEqual([true, true, false, false, true]);
    expect(Buffer.from(found[1] ?? []).equals(recordOf("q", 5).leaf)).toBe(true);
    expect(await queue.sequences("p")).toEqual([1, 2, 3]);
    expect(await queue.sequences("x")).toEqual([]);
  });

  it("lists the sequences of a producer with thousands that wait", async () => {
    const { queue } = await freshQueue();
    for (let first = 1; first <= 3_000; first += 500) {
      await queue.append({ records: recordsOf("p", first, first + 499), seeds: seedsFor("p") });
    }
    expect(await queue.sequences("p")).toEqual(Array.from({ length: 3_000 }, (_, at) => at + 1));
  });

  it("tells how much waits and since when", async () => {
    const { queue } = await freshQueue();
    expect(await queue.condition()).toEqual({
      unarchived: 0,
      bytes: 0,
      oldestAcceptUs: undefined,
      foreign: 0,
      quarantined: 0,
    });
    await queue.append({ records: recordsOf("p", 4, 8), seeds: seedsFor("p") });
    const condition = await queue.condition();
    expect(condition).toMatchObject({ unarchived: 5, oldestAcceptUs: ACCEPT_US + 4 });
    expect(condition.bytes).toBeGreaterThan(5 * recordOf("p", 4).leaf.length);
  });
});

describe("when Redis loses something", () => {
  it("queues again what it lost with the stream", async () => {
    const { redis, queue } = await withThree();
    await redis.command("del", STREAM);
    expect(await queue.sequences("p")).toEqual([]);
    expect(await queue.find([recordOf("p", 2)])).toEqual([undefined]);
    expect(await queue.append({ records: recordsOf("p", 1, 3) })).toEqual(["late", "late", "late"]);
    expect(await queue.append({ records: recordsOf("p", 1, 3), settled: true })).toEqual(Array(3).fill("queued"));
    expect(await inStream(redis)).toEqual(["p/1", "p/2", "p/3"]);
    expect(await queue.sequences("p")).toEqual([1, 2, 3]);
  });

  it("queues again what was lost with a stream that others have begun anew", async () => {
    const { redis, queue } = await withThree();
    await redis.command("del", STREAM);
    await redis.command("xadd", STREAM, "*", "event", "of someone else");
    expect(await queue.sequences("p")).toEqual([]);
    expect(await queue.find([recordOf("p", 2)])).toEqual([undefined]);
    expect(await queue.append({ records: recordsOf("p", 1, 3), settled: true })).toEqual(Array(3).fill("queued"));
    expect(await inStream(redis)).toEqual(["foreign", "p/1", "p/2", "p/3"]);
  });

  it("is not taken in by another record under the id of one that was lost", async () => {
    const { redis, queue } = await withThree();
    const [[id] = [""]] = (await redis.command("xrange", STREAM, "-", "+")) as [string][];
    await redis.command("del", STREAM);
    await redis.command("xadd", STREAM, id, ...fieldsOf(...recordsOf("other", 1, 3)));
    expect(await queue.find([recordOf("p", 2)])).toEqual([undefined]);
    expect(await queue.append({ records: [recordOf("p", 2)], settled: true })).toEqual(["queued"]);
  });

  it("asks for the largest sequences again when their hash is gone, and still finds what waits", async () => {
    const { redis, queue } = await withThree();
    await redis.command("del", PRODUCERS);
    expect(await queue.lastSequence("p")).toBeUndefined();
    expect(await queue.append({ records: [recordOf("p", 4)] })).toEqual(["stranger"]);
    expect(await queue.sequences("p")).toEqual([1, 2, 3]);
    // The archive holds none of them yet; those that wait count as well.
    expect(await queue.append({ records: recordsOf("p", 3, 4), seeds: seedsFor("p") })).toEqual(["held", "queued"]);
    expect(await queue.lastSequence("p")).toBe(4);
    expect(await queue.sequences("p")).toEqual([1, 2, 3, 4]);
  });

  it("finds what waits when a tail is gone, also when the tail has begun anew", async () => {
    const { redis, queue } = await withThree();
    await redis.command("del", tailOf("p"));
    expect(await queue.sequences("p")).toEqual([1, 2, 3]);
    expect((await queue.find([recordOf("p", 2)]))[0]?.length).toBe(recordOf("p", 2).leaf.length);
    expect(await queue.append({ records: [recordOf("p", 4)] })).toEqual(["queued"]);
    expect(await queue.sequences("p")).toEqual([1, 2, 3, 4]);
    expect((await queue.find([recordOf("p", 2)]))[0]?.length).toBe(recordOf("p", 2).leaf.length);
    expect(await queue.append({ records: [recordOf("p", 3)] })).toEqual(["late"]);
  });

  it("finds what waits when nothing but the stream is left", async () => {
    const { redis, queue } = await withThree();
    await redis.command("del", tailOf("p"), PRODUCERS);
    expect(await queue.append({ records: [recordOf("p", 4)], seeds: seedsFor("p") })).toEqual(["queued"]);
    expect(await queue.sequences("p")).toEqual([1, 2, 3, 4]);
    expect(await queue.sequences("q")).toEqual([]);
  });

  it("begins anew after FLUSHALL and after a restart without data", async () => {
    await using server = await startRedis();
    const redis = open(server.url);
    const queue = openQueue(redis);
    const records = recordsOf("p", 1, 3);
    const lose = [
      () => redis.command("flushall"),
      async () => {
        await server.kill();
        await server.restart();
        await until(() => redis.ping(), { what: "Redis to be reached again" });
      },
    ];
    await queue.append({ records, seeds: seedsFor("p") });
    for (const loss of lose) {
      await loss();
      expect(await queue.sequences("p")).toEqual([]);
      expect(await queue.append({ records })).toEqual(["stranger", "stranger", "stranger"]);
      expect(await queue.append({ records, seeds: seedsFor("p") })).toEqual(["queued", "queued", "queued"]);
    }
  });

  it("never says held of what is not in the stream, whatever is lost when", async () => {
    const { redis, queue } = await freshQueue();
    let random = 7;
    const draw = (below: number) => {
      random = (random * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((random / 2_147_483_648) * below);
    };
    const producers = ["a", "b", "@r.c"];
    for (let round = 0; round < 400; round++) {
      const lost = [STREAM, PRODUCERS, ...producers.map(tailOf)].filter(() => draw(12) === 0);
      if (lost.length > 0) await redis.command("del", ...lost);
      const records = Array.from({ length: 1 + draw(4) }, () => {
        const first = 1 + draw(12);
        return recordsOf(producers[draw(producers.length)] ?? "a", first, first + draw(4));
      }).flat();
      const before = new Set(await inStream(redis));
      const settled = draw(2) === 0;
      const outcomes = await queue.append({ records, settled, ...(draw(2) === 0 && { seeds: seedsFor("a", "b") }) });
      const after = new Set(await inStream(redis));
      for (const [at, record] of records.entries()) {
        const known = outcomes[at] === "held" || outcomes[at] === "queued" || before.has(idOf(record));
        expect(after.has(idOf(record)), `${idOf(record)} ${outcomes[at]} in round ${round}`).toBe(
          known || outcomes.some((outcome, i) => outcome === "queued" && idOf(records[i] ?? record) === idOf(record)),
        );
      }
      for (const producer of producers) {
        const there = [...after].filter((id) => id.startsWith(`${producer}/`)).map((id) => Number(id.split("/")[1]));
        expect(await queue.sequences(producer), `${producer} in round ${round}`).toEqual(there.sort((x, y) => x - y));
        const ids = Array.from({ length: 12 }, (_, sequence) => ({ producer, sequence: sequence + 1 }));
        const found = await queue.find(ids);
        expect(ids.filter((_, at) => found[at] !== undefined).map(idOf)).toEqual(
          ids.map(idOf).filter((id) => after.has(id)),
        );
      }
    }
  });
});

it("works on a cluster, all keys in one slot", async () => {
  await using cluster = await startRedisCluster();
  const nodes = cluster.nodes.map(({ port }) => ({ host: "127.0.0.1", port }));
  const redis = open(cluster.urls[0] ?? "", { mode: "cluster", nodes, commandTimeoutMs: 10_000 });
  const growth = openGrowth();
  for (const streamKey of [STREAM, "{tenant}:audit"]) {
    const queue = createRedisQueue({ redis, streamKey, maxLength: 1_000, growth, onLost: () => {} });
    const records = [...recordsOf("a", 1, 50), ...recordsOf("b", 1, 50)];
    expect(await queue.append({ records, seeds: seedsFor("a", "b") })).toEqual(records.map(() => "queued"));
    expect(await queue.append({ records })).toEqual(records.map(() => "held"));
    expect(await queue.find(records)).toEqual(records.map(({ leaf }) => Buffer.from(leaf)));
    expect(await queue.sequences("b")).toHaveLength(50);
    expect(await queue.condition()).toMatchObject({ unarchived: 100 });
  }
});

it("refuses a key for the stream that would put its keys into two slots of a cluster", async () => {
  const { redis } = await freshQueue();
  for (const streamKey of ["", "a}b", "{}audit"]) {
    expect(() => createRedisQueue({ redis, streamKey, maxLength: 1, growth: openGrowth(), onLost: () => {} })).toThrow(
      RangeError,
    );
  }
});

import { describe, expect, it, onTestFinished } from "vitest";
import type { Waiting } from "../../src/audit/queue/backlog.ts";
import { createRedisBacklog } from "../../src/audit/queue/redis-backlog.ts";
import { idOf } from "../../src/audit/record/record.ts";
import { open } from "../infra/redis-clients.ts";
import { freshRedis } from "../support/fresh.ts";
import { inStream, openGrowth, openQueue, PRODUCERS, recordOf, recordsOf, STREAM, tailOf } from "./queue-parts.ts";

const NAMES = ["a", "b", "@r.c"];
const LAST = 40;

/** The same numbers each time. */
function drawing(seed: number) {
  let random = seed;
  return (below: number) => {
    random = (random * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((random / 2_147_483_648) * below);
  };
}

/** Two archivers that both believe to lead, a producer, and an archive that is a set. */
async function world() {
  const redis = open(await freshRedis(), { commandTimeoutMs: 10_000 });
  const queue = openQueue(redis, openGrowth());
  const backlogs = ["one", "two"].map((consumer) =>
    createRedisBacklog({ redis, streamKey: STREAM, consumer, blockMs: 1, mostRecords: 30 }),
  );
  onTestFinished(async () => void (await Promise.all(backlogs.map((backlog) => backlog.close()))));
  const archive = new Set<string>();
  const taken: Waiting[][] = [];

  async function take(draw: (below: number) => number): Promise<void> {
    const backlog = backlogs[draw(2)];
    if (backlog === undefined) return;
    await backlog.open();
    taken.push([...(draw(3) === 0 ? await backlog.claim() : await backlog.read())]);
  }

  async function finish(draw: (below: number) => number): Promise<void> {
    const at = draw(taken.length);
    const batch = taken[at];
    if (batch === undefined) return;
    if (draw(4) !== 0) taken.splice(at, 1);
    for (const one of batch) if (one.kind === "run") for (const record of one.records) archive.add(idOf(record));
    await backlogs[draw(2)]?.finish(draw(5) === 0 ? batch.slice(draw(batch.length)) : batch);
  }

  /** One of them takes and finishes all that is there, as a leader does that nobody disturbs. */
  async function drain(): Promise<void> {
    const [backlog] = backlogs;
    // What is left is read again, and its foreign entries are counted, when their number was lost.
    for (let turn = 0; turn < 3; turn++) {
      await backlog?.open();
      for (const next of [backlog?.claim, backlog?.read]) {
        for (let batch = await next?.(); batch !== undefined && batch.length > 0; batch = await next?.()) {
          await backlog?.finish(batch);
        }
      }
    }
  }

  /** What the archive says is the largest sequence of each. */
  function seeds(): ReadonlyMap<string, number> {
    const largest = new Map(NAMES.map((name) => [name, 0]));
    for (const id of archive) {
      const [name = "", sequence = ""] = id.split("/");
      largest.set(name, Math.max(largest.get(name) ?? 0, Number(sequence)));
    }
    return largest;
  }

  return { redis, queue, archive, take, finish, drain, seeds };
}

type World = Awaited<ReturnType<typeof world>>;

/** What the queue says of itself is what is in the stream. */
async function checkIndex({ redis, queue }: World, when: string): Promise<readonly string[]> {
  const there = (await inStream(redis)).filter((id) => id !== "foreign");
  const present = new Set(there);
  for (const producer of NAMES) {
    const wanted = Array.from({ length: LAST }, (_, at) => recordOf(producer, at + 1));
    const held = wanted.filter((record) => present.has(idOf(record)));
    expect(await queue.sequences(producer), `${producer} ${when}`).toEqual(held.map(({ sequence }) => sequence));
    const found = await queue.find(wanted);
    expect(found, `${producer} ${when}`).toEqual(
      wanted.map((record) => (present.has(idOf(record)) ? Buffer.from(record.leaf) : undefined)),
    );
  }
  return there;
}

async function append({ queue, archive, seeds, redis }: World, draw: (below: number) => number, when: string) {
  const records = Array.from({ length: 1 + draw(3) }, () => {
    const first = 1 + draw(LAST - 8);
    return recordsOf(NAMES[draw(NAMES.length)] ?? "a", first, first + draw(8));
  }).flat();
  const before = new Set(await inStream(redis));
  const settled = draw(2) === 0;
  // Whoever settles has asked the archive.
  const asked = settled ? records.filter((record) => !archive.has(idOf(record))) : records;
  const outcomes = await queue.append({ records: asked, settled, ...(draw(2) === 0 && { seeds: seeds() }) });
  const after = new Set(await inStream(redis));
  for (const [at, record] of asked.entries()) {
    const what = `${idOf(record)} is ${outcomes[at]} ${when}`;
    if (outcomes[at] === "queued" || outcomes[at] === "held") expect(after.has(idOf(record)), what).toBe(true);
  }
  return { asked, outcomes, before };
}

describe("the queue, with two who archive at once", () => {
  it.each([1, 2, 3])("holds each record once, and counts them, while Redis loses nothing (%i)", async (seed) => {
    const draw = drawing(seed);
    const it = await world();
    for (let round = 0; round < 250; round++) {
      const when = `in round ${round}`;
      const step = draw(10);
      if (step < 4) {
        const { asked, outcomes, before } = await append(it, draw, when);
        for (const [at, record] of asked.entries()) {
          if (outcomes[at] !== "queued") continue;
          const id = idOf(record);
          expect(before.has(id) || it.archive.has(id), `${id} is queued again ${when}`).toBe(false);
        }
      } else if (step < 7) await it.take(draw);
      else if (step < 9) await it.finish(draw);
      else if (draw(4) === 0) await it.redis.command("xadd", STREAM, "*", "event", String(round));
      const there = await checkIndex(it, when);
      expect(new Set(there).size, `doubles ${when}`).toBe(there.length);
      const records = await it.redis.command("hget", PRODUCERS, "/records");
      if (there.length > 0) expect(Number(records), `counted ${when}`).toBe(there.length);
      const { unarchived, foreign } = await it.queue.condition();
      // Entries that nobody has looked at may be ours.
      const unseen = (await inStream(it.redis)).filter((id) => id === "foreign").length - foreign;
      expect(unarchived, `waiting ${when}`).toBeGreaterThanOrEqual(there.length);
      expect(unarchived, `waiting ${when}`).toBeLessThanOrEqual(there.length + unseen);
    }
  });

  it.each([4, 5, 6])("knows what waits, and says held of nothing else, whatever Redis loses (%i)", async (seed) => {
    const draw = drawing(seed);
    const it = await world();
    for (let round = 0; round < 250; round++) {
      const when = `in round ${round}`;
      const lost = [STREAM, PRODUCERS, ...NAMES.map(tailOf)].filter(() => draw(25) === 0);
      if (lost.length > 0) await it.redis.command("del", ...lost);
      const step = draw(10);
      if (step < 5) await append(it, draw, when);
      else if (step < 7) await it.take(draw);
      else if (step < 9) await it.finish(draw);
      else await it.redis.command("xadd", STREAM, "*", "event", String(round));
      await checkIndex(it, when);
    }
    await it.drain();
    expect((await inStream(it.redis)).filter((id) => id !== "foreign")).toEqual([]);
    await it.queue.drained(AbortSignal.timeout(5_000));
    expect(await it.queue.condition()).toMatchObject({ unarchived: 0 });
    await it.queue.append({ records: recordsOf("z", 1, 7), settled: true });
    expect(await it.queue.condition()).toMatchObject({ unarchived: 7 });
  });
});

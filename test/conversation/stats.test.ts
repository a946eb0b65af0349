import type { MessageShape } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import type { ConversationCollectionStatsSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { testCall } from "../audit/calls.ts";
import { KINDS } from "./ledgers.ts";
import { costlySteps, recordPlans } from "./plans.ts";
import { chosenCopies, failureOf, openReads, readsOf } from "./reads.ts";

/** What is counted for ten seconds is over after this. */
const PAST_CACHE_MS = 10_000;

/** Numbers, and what a test does not look at left out. */
function shown(stats: MessageShape<typeof ConversationCollectionStatsSchema> | undefined) {
  if (stats === undefined) return undefined;
  const { live, expired, tombstones, messages, statuses, collection } = stats;
  return {
    ...{ collection, live: Number(live), expired: Number(expired), tombstones: Number(tombstones) },
    messages: Number(messages),
    statuses: statuses.map(({ status, conversations }) => `${status}=${conversations}`),
  };
}

describe.each(KINDS)("GetStats over %s", (kind) => {
  it("counts what is there, what has expired and what is remembered of the rest", async () => {
    await using all = await openReads(kind);
    const { writes, reads, clock } = all;
    const message = { role: "user", content: "x" };
    for (let n = 0; n < 6; n++) {
      const status = n < 3 ? "busy" : n === 3 ? "" : "idle";
      await writes.save({ id: `c${n}`, state: { status }, messages: [message, message], expiry: { ttl: `${n + 1}s` } });
    }
    const updatedMs = clock.now();
    await writes.save({ id: "gone", state: {} });
    await writes.delete({ id: "gone" });
    await writes.save({ collection: "other", id: "o", state: { status: "busy" }, expiry: { ttl: "2s" } });
    const first = await reads.getStats({});
    expect(first.instanceId).toBe("i1");
    expect(first.collections.map(shown)).toEqual([
      {
        ...{ collection: "conversation", live: 6, expired: 0, tombstones: 1, messages: 12 },
        statuses: ["busy=3", "idle=2", "=1"],
      },
      { collection: "other", live: 1, expired: 0, tombstones: 0, messages: 0, statuses: ["busy=1"] },
    ]);
    const [stats] = first.collections;
    expect(stats?.countTime && timestampMs(stats.countTime)).toBe(clock.now());
    expect(stats?.lastUpdateTime && timestampMs(stats.lastUpdateTime)).toBe(updatedMs);
    expect(Number(stats?.stateBytes)).toBeGreaterThan(0);

    // Nothing was removed: that they have expired is seen all the same.
    clock.move(2500);
    expect((await reads.getStats({})).collections[0]?.countTime).toEqual(stats?.countTime);
    clock.move(PAST_CACHE_MS - 8000);
    await writes.save({ id: "young", state: { status: "idle" } });
    clock.move(500);
    const again = await reads.getStats({ collection: "conversation" });
    expect(again.collections.map(shown)).toEqual([shown(stats)]);
    clock.move(PAST_CACHE_MS);
    const later = await reads.getStats({});
    expect(later.collections.map(shown)).toEqual([
      { collection: "conversation", live: 1, expired: 6, tombstones: 1, messages: 0, statuses: ["idle=1"] },
      { collection: "other", live: 0, expired: 1, tombstones: 0, messages: 0, statuses: [] },
    ]);
    expect(later.collections[1]?.lastUpdateTime).toBeUndefined();
    expect(reads.said).toEqual({ servedBy: kind, degraded: false });
  });

  it("tells of the collections that the caller may use, or of the one that is named", async () => {
    await using all = await openReads(kind);
    const { writes, reads } = all;
    for (const collection of ["b", "a", "c"]) await writes.save({ collection, id: "x", state: {} });
    const call = testCall();
    const limited = { ...call, caller: { ...call.caller, mayUse: (name: string) => name !== "b" } };
    expect((await reads.getStats({}, limited)).collections.map(({ collection }) => collection)).toEqual(["a", "c"]);
    expect((await reads.getStats({ collection: "c" })).collections.map(({ collection }) => collection)).toEqual(["c"]);
    expect((await reads.getStats({ collection: "" })).collections.map(shown)).toEqual([
      { collection: "conversation", live: 0, expired: 0, tombstones: 0, messages: 0, statuses: [] },
    ]);
    expect((await failureOf(reads.getStats({ collection: "a b" }))).violations).toMatchObject([
      { field: "collection" },
    ]);
  });

  it("names the 100 most frequent statuses, however many there are", async () => {
    await using all = await openReads(kind);
    const { writes, reads } = all;
    await writes.database.write(
      `INSERT INTO conversation_count (collection, presence, status, conversations, messages, state_bytes)
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 3500)
        SELECT 'conversation', 1, 's' || CAST(n AS TEXT), n, 2, 3 FROM n`,
    );
    const [stats] = (await reads.getStats({})).collections;
    expect(stats).toMatchObject({ live: BigInt((3500 * 3501) / 2), messages: 7000n, stateBytes: 10_500n });
    const wanted = Array.from({ length: 100 }, (_, at) => ({
      status: `s${3500 - at}`,
      conversations: BigInt(3500 - at),
    }));
    expect(stats?.statuses).toMatchObject(wanted);
  });

  it("counts many that have expired, part by part", async () => {
    await using all = await openReads(kind);
    const { writes, reads, clock } = all;
    const count = 2500;
    await writes.database.write(
      `INSERT INTO conversation (collection, id, stamp, version, presence, generation, state_version, cut_version, user_id,
          status, complexity_level, message_count, state_bytes, created_us, updated_us, expires_us, sliding, unhealed)
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ${count})
        SELECT 'conversation', 'c' || CAST(n AS TEXT), n, n, 1, n, n, 0, '', 's', '', 1, 1, n, n, 1000 + n / 7, 0, 0 FROM n`,
    );
    await writes.database.write(
      `INSERT INTO conversation_count (collection, presence, status, conversations, messages, state_bytes)
        VALUES ('conversation', 1, 's', ${count}, ${count}, ${count})`,
    );
    await writes.save({ id: "live", state: { status: "s" }, messages: [{ role: "user", content: "x" }] });
    const [stats] = (await reads.getStats({})).collections;
    expect(shown(stats)).toEqual({
      ...{ collection: "conversation", live: 1, expired: count, tombstones: 0, messages: 1, statuses: ["s=1"] },
    });
    expect(stats?.lastUpdateTime && timestampMs(stats.lastUpdateTime)).toBe(clock.now());
  });

  it("looks many collections up together, by index, and again only when that is out of date", async () => {
    await using all = await openReads(kind);
    const { writes, clock } = all;
    const names = Array.from({ length: 230 }, (_, at) => `c${String(at).padStart(3, "0")}`);
    await Promise.all(names.map((collection) => writes.save({ collection, id: "x", state: {} })));
    const updatedMs = clock.now();
    clock.move(1000);
    await writes.save({ collection: "c007", id: "y", state: {} });
    // Those that were updated last have expired, more than are looked at first.
    for (let n = 0; n < 70; n++) {
      await writes.save({ collection: "c100", id: `e${n}`, state: {}, expiry: { ttl: "1s" } });
    }
    clock.move(1001);
    const planned = recordPlans(writes.database);
    const reads = readsOf({ database: planned.database, clock });
    const updates = async () =>
      (await reads.getStats({})).collections.map(({ lastUpdateTime }) => lastUpdateTime && timestampMs(lastUpdateTime));
    const first = await updates();
    expect(first).toEqual(names.map((name) => (name === "c007" ? updatedMs + 1000 : updatedMs)));
    expect(planned.asked.length).toBeLessThan(20);
    expect(costlySteps(planned, { maySort: true })).toEqual([]);
    const asked = planned.asked.length;
    expect(await updates()).toEqual(first);
    expect(planned.asked.length).toBe(asked);
    clock.move(PAST_CACHE_MS);
    await writes.save({ collection: "c008", id: "z", state: {} });
    expect((await updates())[8]).toBe(clock.now());
    expect(planned.asked.length).toBeGreaterThan(asked);
  });

  it("counts what this instance read from copies and from SQL, and what it refused", async () => {
    const copies = chosenCopies();
    await using all = await openReads(kind, copies);
    const { writes, reads } = all;
    await writes.save({ id: "c", state: {} });
    for (let n = 0; n < 4; n++) await reads.get({ id: "c" });
    reads.usages.of("conversation").conflicts++;
    expect((await reads.getStats({})).collections).toMatchObject([{ hotHits: 3n, sqlHits: 1n, conflicts: 1n }]);
  });
});

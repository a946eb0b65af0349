import { describe, expect, it } from "vitest";
import { AuditSequenceState, AuditService, AuditDurability as Durability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createAuditClient } from "../support/audit-client.ts";
import { entryOf } from "../support/audit-entries.ts";
import { accountOf, createRecorder, range, recordsOf } from "../support/audit-recorder.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { until } from "../support/until.ts";

/*
 * Promises: a producer that comes back with sequences it has used is told which records are held already, and nothing that is held is
 * ever changed; one that vanishes in the middle of a stream has done no harm, and is told what arrived.
 */

type Topology = "embedded" | "single" | "cluster" | "sql-only";

async function start(topology: Topology): Promise<HoldfastProcess> {
  const redis = topology === "single" || topology === "cluster" ? { REDIS_URL: await freshRedis() } : {};
  const sql = topology === "cluster" || topology === "sql-only" ? { DATABASE_URL: await freshDatabase() } : {};
  return startHoldfast({ ...redis, ...sql, AUDIT_RECOVERY_INTERVAL: "1s" });
}

describe.each<Topology>(["embedded", "single", "cluster", "sql-only"])("in the %s topology", (topology) => {
  it("a producer that starts anew with its old sequences is acked, told of duplicates, and changes nothing", async () => {
    await using server = await start(topology);
    using client = createAuditClient(server.grpcAddress);
    const first = await client.ingest("again");
    first.send(recordsOf("again", range(1, 500)));
    await until(() => first.acks.length === 1, { what: "the first ack" });
    expect(first.acks[0]).toMatchObject({ appended: 500, duplicates: 0, refusals: [] });
    first.finish();
    expect(await first.ended).toBeUndefined();

    const second = await client.ingest("again");
    expect(second.opened.lastSequence).toBe(500n);
    second.send(recordsOf("again", range(1, 500)));
    second.send(recordsOf("again", range(400, 600)));
    await until(() => second.acks.length === 2, { what: "the second producer's acks" });
    expect(second.acks).toMatchObject([
      { batch: 1n, appended: 0, duplicates: 500, refusals: [] },
      { batch: 2n, appended: 100, duplicates: 101, refusals: [] },
    ]);
    second.finish();
    expect(await second.ended).toBeUndefined();
    const recorder = createRecorder("again");
    await recorder.append(client, 600);
    expect(await accountOf(server.env, recorder.claims)).toMatchObject({ faults: {}, archived: 600, leaves: 600 });
  });

  it("one that reuses a sequence for something else is refused that record alone, in flight and when archived", async () => {
    await using server = await start(topology);
    using client = createAuditClient(server.grpcAddress);
    const recorder = createRecorder("other");
    await recorder.append(client, 3);
    const entry = { ...entryOf("other", 2), actor: "somebody else" };
    const another = [...recordsOf("other", [1]), { sequence: 2n, entry }, ...recordsOf("other", [3])];
    const reused = { code: "ALREADY_EXISTS", reason: "IDENTITY_REUSED" };
    for (const when of ["at once", "when it is archived"]) {
      await expect(client.append(another, { producer: "other" }), when).rejects.toMatchObject(reused);
      const stream = await client.ingest("other");
      stream.send(another);
      await until(() => stream.acks.length === 1, { what: "the ack" });
      const refusals = [{ index: 1, sequence: 2n, error: reused }];
      expect(stream.acks[0], when).toMatchObject({ appended: 0, duplicates: 2, refusals });
      stream.finish();
      expect(await stream.ended).toBeUndefined();
      const record = async () => await client.get("other/2");
      await until(async () => (await record())?.durability === Durability.ARCHIVED, { what: "the archive" });
      expect((await record())?.entry?.actor).toBe(entryOf("other", 2).actor);
    }
    expect(await accountOf(server.env, recorder.claims)).toMatchObject({ faults: {}, leaves: 3 });
  });

  it("one that vanishes in the middle of a stream is told what arrived, and sends the rest", async () => {
    await using server = await start(topology);
    using client = createAuditClient(server.grpcAddress);
    for (let turn = 0; turn < 5; turn++) {
      const stream = await client.ingest("vanishing");
      for (const at of range(0, 9))
        stream.send(recordsOf("vanishing", range(turn * 1_000 + at * 100 + 1, turn * 1_000 + at * 100 + 100)));
      await until(() => stream.acks.length > 0, { what: "an ack", intervalMs: 1 });
      stream.cancel();
      expect(await stream.ended).toMatchObject({ code: "CANCELLED" });
    }
    // What arrived without an ack may still be on its way; what is missing is sent again, whatever became of it.
    const asked = { producer: "vanishing", lastSequence: 5_000n };
    const { reply } = await client.call(AuditService.method.reconcile, asked);
    const missing = reply.ranges
      .filter(({ state }) => state === AuditSequenceState.MISSING)
      .flatMap(({ firstSequence, lastSequence }) => range(Number(firstSequence), Number(lastSequence)));
    expect(missing.length).toBeLessThan(5_000);
    for (let at = 0; at < missing.length; at += 1_000) {
      await client.append(recordsOf("vanishing", missing.slice(at, at + 1_000)), { producer: "vanishing" });
    }
    const recorder = createRecorder("vanishing");
    for (const _ of range(1, 5)) await recorder.append(client, 1_000);
    expect(await accountOf(server.env, recorder.claims)).toMatchObject({ faults: {}, archived: 5_000 });
  });
});

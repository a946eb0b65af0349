import { describe, expect, it } from "vitest";
import { AuditDurability as Durability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { CallFailed, createAuditClient } from "../support/audit-client.ts";
import { accountOf, createRecorder, type Recorder } from "../support/audit-recorder.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startPostgres } from "../support/postgres-server.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { mayMount, mountSmallDisk } from "../support/small-disk.ts";
import { until } from "../support/until.ts";

/*
 * Promises: when the disk is full, an append that cannot be kept fails with UNAVAILABLE, at once and saying so; nothing acknowledged
 * is lost by it; and when there is room again, appends are taken again, without a restart.
 */

type Client = ReturnType<typeof createAuditClient>;

/** Appends until it fails, and says how. */
async function fill(client: Client, recorder: Recorder): Promise<CallFailed> {
  for (let appends = 0; appends < 2_000; appends++) {
    try {
      await recorder.append(client, 200);
    } catch (error) {
      if (error instanceof CallFailed) return error;
      throw error;
    }
  }
  throw new Error("the disk never filled up");
}

/** Sends what was not acknowledged until it is. */
async function sendRest(client: Client, recorder: Recorder): Promise<void> {
  const acknowledged = async () => {
    await recorder.repeat(client, recorder.unacked.slice(0, 1_000));
    return recorder.unacked.length === 0;
  };
  await until(acknowledged, { what: "appends to be taken again" });
}

describe.skipIf(!mayMount())("with a full disk (a tmpfs, which root may mount)", () => {
  it("the journal alone refuses what it cannot keep, and goes on when there is room", async () => {
    using disk = mountSmallDisk(6);
    await using postgres = await startPostgres();
    const env = { DATABASE_URL: await postgres.createDatabase(), AUDIT_BACKUP_PATH: `${disk.path}/journal` };
    await using server = await startHoldfast({ ...env, AUDIT_RECOVERY_INTERVAL: "1s" });
    using client = createAuditClient(server.grpcAddress);
    const recorder = createRecorder("full");
    await recorder.append(client, 10);
    await postgres.kill();
    const first = await recorder.append(client, 10);
    expect(new Set(first.map(({ durability }) => durability))).toEqual(new Set([Durability.JOURNALED]));
    const failure = await fill(client, recorder);
    expect(failure).toMatchObject({ code: "UNAVAILABLE", reason: "JOURNAL_UNAVAILABLE" });
    const kept = recorder.acked;
    expect(kept).toBeGreaterThan(1_000);
    // Still so, and the same for a single record.
    await expect(recorder.append(client, 1_000)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(server.exited()).toBeUndefined();

    disk.resize(64);
    await sendRest(client, recorder);
    expect(recorder.acked).toBeGreaterThan(kept);
    await postgres.restart();
    expect(await accountOf(server.env, recorder.claims)).toMatchObject({ faults: {}, acked: recorder.acked });
  });

  it("what filled the journal survives a kill, and is archived once", async () => {
    using disk = mountSmallDisk(6);
    await using postgres = await startPostgres();
    const env = { DATABASE_URL: await postgres.createDatabase(), AUDIT_BACKUP_PATH: `${disk.path}/journal` };
    await using server = await startHoldfast({ ...env, AUDIT_RECOVERY_INTERVAL: "1s" });
    using client = createAuditClient(server.grpcAddress);
    const recorder = createRecorder("full");
    await postgres.kill();
    await fill(client, recorder);
    await server.kill();
    await postgres.restart();
    await server.restart();
    // Still full: replaying must not need room.
    expect(await accountOf(server.env, recorder.claims)).toMatchObject({ faults: {}, acked: recorder.acked });
    await sendRest(client, recorder);
    expect(await accountOf(server.env, recorder.claims)).toMatchObject({ faults: {}, acked: recorder.acked });
  });

  it("SQLite refuses what it cannot keep, and goes on when there is room", async () => {
    using disk = mountSmallDisk(12);
    await using server = await startHoldfast({ HOLDFAST_DATA_DIR: `${disk.path}/data` });
    using client = createAuditClient(server.grpcAddress);
    const recorder = createRecorder("full");
    const failure = await fill(client, recorder);
    expect(failure.code).toBe("UNAVAILABLE");
    const kept = recorder.acked;
    expect(kept).toBeGreaterThan(1_000);
    disk.resize(128);
    await sendRest(client, recorder);
    expect(recorder.acked).toBeGreaterThan(kept);
    expect(await accountOf(server.env, recorder.claims)).toMatchObject({ faults: {}, acked: recorder.acked });
    expect((await client.range()).valid).toBe(true);
  });

  it("the journal on another disk takes what SQLite cannot, and gives it back when there is room", async () => {
    using disk = mountSmallDisk(12);
    using elsewhere = scratchDirectory("journal");
    const env = { HOLDFAST_DATA_DIR: `${disk.path}/data`, AUDIT_BACKUP_PATH: elsewhere.path };
    await using server = await startHoldfast({ ...env, AUDIT_RECOVERY_INTERVAL: "1s" });
    using client = createAuditClient(server.grpcAddress);
    const recorder = createRecorder("full");
    const journaled = async () => {
      const acks = await recorder.append(client, 200);
      return acks.some(({ durability }) => durability === Durability.JOURNALED);
    };
    await until(journaled, { what: "SQLite to be full", timeoutMs: 60_000, intervalMs: 0 });
    for (let appends = 0; appends < 20; appends++) await recorder.append(client, 200);
    expect(recorder.unacked).toEqual([]);
    disk.resize(128);
    expect(await accountOf(server.env, recorder.claims)).toMatchObject({ faults: {}, acked: recorder.acked });
  });
});

import { describe, expect, it } from "vitest";
import type { Archive } from "../../src/audit/archive/archive.ts";
import type { Intake } from "../../src/audit/intake/intake.ts";
import type { Journal } from "../../src/audit/journal/journal.ts";
import { createRecovery } from "../../src/audit/journal/recovery.ts";
import { AuditDurability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { systemClock } from "../../src/infra/clock.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { type IntakeParts, openIntake, p } from "./intake-parts.ts";

const { UNSPECIFIED, QUEUED } = AuditDurability;

/** As when Redis was seen to have lost what was queued. */
async function replay(journal: Journal, archive: Archive, { deliver }: Intake): Promise<void> {
  const recovery = createRecovery({
    journal,
    archive,
    deliver,
    intervalMs: 3_600_000,
    clock: systemClock,
    log: createLog({ level: "silent" }),
  });
  recovery.suspectLoss();
  await recovery.settled(new AbortController().signal);
  await recovery.close();
}

describe("what is replayed", () => {
  const tiers = async (parts: IntakeParts) => {
    const { queue, archive } = await parts.where();
    return { queue, archive };
  };

  it("goes to the archive, and what differs there is put aside", async () => {
    const parts = await openIntake();
    await parts.archive.append([p(1)], "refuse");
    await parts.intake.deliver([p(1, "eve"), p(2), p(1)]);
    expect(await tiers(parts)).toEqual({ queue: [], archive: ["p/1", "p/2"] });
    expect(await parts.conflicts()).toEqual(["p/1"]);
  });

  it("loses no acknowledged record without a trace to one that was refused, when Redis forgets the first", async () => {
    const first = await openIntake();
    expect(await first.intake.keep([p(1)], UNSPECIFIED)).toMatchObject({ durability: QUEUED });
    // Another instance journals what it then refuses, and is the first to send again what Redis has forgotten.
    const { intake, journal } = await first.beside();
    const refused = await intake.keep([p(1, "eve")], UNSPECIFIED);
    expect(refused.exceptions).toEqual(new Map([[0, { outcome: "differs", durability: QUEUED }]]));
    await first.redis.command("flushdb");
    await replay(journal, first.archive, intake);
    expect((await first.archive.find([p(1)]))[0]?.leaf).toBeDefined();
    await replay(first.journal, first.archive, first.intake);
    expect(await first.conflicts()).toEqual(["p/1"]);
  });

  it("goes to the queue while the archive is away, once, whatever its sequence", async () => {
    const parts = await openIntake();
    await parts.lose("sql");
    await parts.intake.deliver([p(5), p(2), p(5)]);
    await parts.intake.deliver([p(2), p(3)]);
    expect(await tiers(parts)).toEqual({ queue: ["p/5", "p/2", "p/3"], archive: [] });
  });

  it.each([
    { what: "both are away", options: {}, away: ["redis", "sql"] as const },
    { what: "SQL is, and there is no Redis", options: { withRedis: false }, away: ["sql"] as const },
  ])("is refused when $what", async ({ options, away }) => {
    const parts = await openIntake(options);
    await parts.lose(...away);
    await expect(parts.intake.deliver([p(1)])).rejects.toThrow(UnavailableError);
    expect(await tiers(parts)).toEqual({ queue: [], archive: [] });
  });
});

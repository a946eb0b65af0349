import { describe, expect, it, onTestFinished } from "vitest";
import { createBarrier, type SettledOptions, type Unsettled } from "../../src/audit/intake/settled.ts";
import { createRecovery } from "../../src/audit/journal/recovery.ts";
import { createArchiver } from "../../src/audit/queue/archiver.ts";
import { createRedisBacklog } from "../../src/audit/queue/redis-backlog.ts";
import { createRedisLease } from "../../src/audit/queue/redis-lease.ts";
import { AuditDurability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { systemClock } from "../../src/infra/clock.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { movedClock } from "../support/moved-clock.ts";
import { until } from "../support/until.ts";
import { sealed } from "./archives.ts";
import { type IntakeOptions, type IntakeParts, openIntake } from "./intake-parts.ts";
import { STREAM } from "./queue-parts.ts";

const never = new AbortController().signal;
const { UNSPECIFIED } = AuditDurability;
const p = (sequence: number) => sealed({ producer: "p", sequence });
const log = createLog({ level: "silent" });

/** A journal in which nothing waits, unless a test says so. */
class TestRecovery implements Unsettled {
  suspected = 0;
  asked = 0;
  onSettled: (signal: AbortSignal) => Promise<void> = async () => {};

  settled(signal: AbortSignal): Promise<void> {
    this.asked++;
    return this.onSettled(signal);
  }

  suspectLoss(): void {
    this.suspected++;
  }
}

async function setup(options: Partial<SettledOptions> = {}, tiers: IntakeOptions = {}) {
  const parts = await openIntake(tiers);
  const recovery = new TestRecovery();
  const clock = movedClock();
  const barrier = createBarrier({
    ...{ recovery, clock, queue: parts.queue, alone: false, askArchive: () => parts.archive.size() },
    ...options,
  });
  return { ...parts, recovery, clock, barrier, settled: barrier.settled };
}

/** Brings what is queued into the archive, from now on. */
function archiving({ redis, archive }: Pick<IntakeParts, "redis" | "archive">): void {
  const archiver = createArchiver({
    backlog: createRedisBacklog({ redis, streamKey: STREAM, consumer: "one", blockMs: 50 }),
    lease: createRedisLease({ redis, streamKey: STREAM, holder: "one" }),
    ...{ archive, clock: systemClock, log },
  });
  onTestFinished(() => archiver.close());
}

/** A call, and whether it has been answered. */
function asked<T>(answer: Promise<T>) {
  const one: { answer: Promise<T>; isOver: boolean } = { answer, isOver: false };
  answer.then(
    () => {
      one.isOver = true;
    },
    () => {
      one.isOver = true;
    },
  );
  return one;
}

describe("a read that wants to find what was acknowledged before", () => {
  it("waits for nothing where nothing is on its way", async () => {
    const { settled, recovery } = await setup();
    expect(await settled(never)).toEqual({ degraded: false });
    expect(recovery.suspected).toBe(0);
  });

  it("waits until what was queued is in the archive", async () => {
    const parts = await setup();
    await parts.intake.keep([p(1), p(2)], UNSPECIFIED);
    const read = asked(parts.settled(never));
    // It has looked, and looks again.
    await parts.queue.condition();
    await parts.queue.condition();
    expect(read.isOver).toBe(false);
    archiving(parts);
    expect(await read.answer).toEqual({ degraded: false });
    expect(await parts.where()).toMatchObject({ archive: ["p/1", "p/2"] });
  });

  it("does not wait for what comes after it", async () => {
    const parts = await setup();
    await parts.intake.keep([p(1)], UNSPECIFIED);
    const [reply] = (await parts.where()).queue;
    expect(reply).toBe("p/1");
    const read = parts.settled(never);
    await parts.queue.condition();
    const entries = await parts.redis.command("xrange", STREAM, "-", "+");
    await parts.intake.keep([p(2)], UNSPECIFIED);
    // Only the first is archived and taken out.
    await parts.archive.append([p(1)], "keep");
    const id = Array.isArray(entries) ? String(entries[0]?.[0]) : "";
    await parts.redis.command("xdel", STREAM, id);
    expect(await read).toEqual({ degraded: false });
    expect((await parts.where()).queue).toEqual(["p/2"]);
  });

  it("waits for what is in this instance's journal alone, before and after it looked into the queue", async () => {
    const { settled, recovery } = await setup();
    const steps: (() => void)[] = [];
    recovery.onSettled = () => new Promise<void>((resolve) => void steps.push(resolve));
    const read = asked(settled(never));
    await until(() => steps.length === 1, { what: "the first look" });
    steps[0]?.();
    await until(() => steps.length === 2, { what: "the second look" });
    expect(read.isOver).toBe(false);
    steps[1]?.();
    expect(await read.answer).toEqual({ degraded: false });
  });

  it("waits for the journal only, where there is no Redis", async () => {
    const { settled, recovery } = await setup({ queue: undefined });
    expect(await settled(never)).toEqual({ degraded: false });
    expect(recovery.asked).toBe(1);
    const failure = new UnavailableError("SQL_UNAVAILABLE", "away");
    recovery.onSettled = () => Promise.reject(failure);
    await expect(settled(never)).rejects.toBe(failure);
  });

  it("is told at once that the archive cannot be asked, and waits for nothing", async () => {
    const { settled, lose, recovery } = await setup();
    await lose("sql");
    await expect(settled(never)).rejects.toMatchObject({ reason: "SQL_UNAVAILABLE" });
    expect(recovery.asked).toBe(0);
  });
});

describe("a read while Redis is away", () => {
  it("has what this instance journaled sent again, and says that others' records may be missing", async () => {
    const { settled, lose, recovery } = await setup();
    await lose("redis");
    expect(await settled(never)).toEqual({ degraded: true });
    expect(recovery.suspected).toBe(1);
    expect(recovery.asked).toBe(2);
  });

  it("is complete where there are no others", async () => {
    const { settled, lose } = await setup({ alone: true });
    await lose("redis");
    expect(await settled(never)).toEqual({ degraded: false });
  });

  it("fails when what was journaled cannot be brought to the archive either", async () => {
    const { settled, lose, recovery } = await setup();
    await lose("redis");
    const failure = new UnavailableError("SQL_UNAVAILABLE", "away");
    recovery.onSettled = () => (recovery.suspected === 0 ? Promise.resolve() : Promise.reject(failure));
    await expect(settled(never)).rejects.toBe(failure);
  });

  it("finds what this instance had queued, in its journal", async () => {
    const parts = await openIntake();
    const { archive, journal, intake, queue } = parts;
    const recovery = createRecovery({
      ...{ journal, archive, clock: systemClock, log, intervalMs: 600_000, tickMs: 10 },
      deliver: (records) => intake.deliver(records),
    });
    onTestFinished(() => recovery.close());
    const { settled } = createBarrier({
      ...{ recovery, queue, alone: false, clock: systemClock, askArchive: () => archive.size() },
    });
    await recovery.settled(never);
    await intake.keep([p(1), p(2)], UNSPECIFIED);
    await parts.lose("redis");
    expect(await settled(never)).toEqual({ degraded: true });
    expect(await parts.where()).toMatchObject({ queue: ["p/1", "p/2"], archive: ["p/1", "p/2"] });
  });
});

describe("a read after Redis was seen to have lost what was queued", () => {
  it("is marked until the others must have noticed", async () => {
    const { settled, barrier, recovery, clock } = await setup();
    barrier.suspectLoss();
    expect(recovery.suspected).toBe(1);
    expect(await settled(never)).toEqual({ degraded: true });
    clock.move(60_000);
    expect(await settled(never)).toEqual({ degraded: false });
  });

  it("is not, where there are no others", async () => {
    const { settled, barrier } = await setup({ alone: true });
    barrier.suspectLoss();
    expect(await settled(never)).toEqual({ degraded: false });
  });
});

describe("a read that waits for long", () => {
  it("is told that the archive is behind, when the queue is not emptied", async () => {
    const { settled, intake, recovery } = await setup({ patienceMs: 50 });
    await intake.keep([p(1)], UNSPECIFIED);
    await expect(settled(never)).rejects.toMatchObject({ kind: "unavailable", reason: "ARCHIVE_BEHIND" });
    // Redis answers: nothing is lost.
    expect(recovery.suspected).toBe(0);
  });

  it("is told so as well when its own journal is not", async () => {
    const { settled, recovery } = await setup({ patienceMs: 50 });
    recovery.onSettled = (signal) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    await expect(settled(never)).rejects.toMatchObject({ reason: "ARCHIVE_BEHIND" });
  });

  it("ends for the reason of its caller who gives up", async () => {
    const { settled, intake, recovery } = await setup();
    await intake.keep([p(1)], UNSPECIFIED);
    const abort = new AbortController();
    const read = asked(settled(abort.signal));
    await until(() => recovery.asked === 1, { what: "the read to begin" });
    const reason = new Error("gone");
    abort.abort(reason);
    await expect(read.answer).rejects.toBe(reason);
    expect(recovery.suspected).toBe(0);
  });
});

import { describe, expect, it } from "vitest";
import type { Archive } from "../../src/audit/archive/archive.ts";
import type { Durability } from "../../src/audit/intake/doubts.ts";
import type { Intake } from "../../src/audit/intake/intake.ts";
import type { Journal } from "../../src/audit/journal/journal.ts";
import { createRecovery } from "../../src/audit/journal/recovery.ts";
import { idOf, type Sealed } from "../../src/audit/record/record.ts";
import { AuditDurability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { systemClock } from "../../src/infra/clock.ts";
import { Failure, UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { sealed } from "./archives.ts";
import { type IntakeOptions, type IntakeParts, openIntake, type Tier, type Whereabouts } from "./intake-parts.ts";
import { recordOf, recordsOf, seedsFor } from "./queue-parts.ts";

const { UNSPECIFIED, JOURNALED, QUEUED, ARCHIVED } = AuditDurability;
const named = { UNSPECIFIED, JOURNALED, QUEUED, ARCHIVED };
type Minimum = keyof typeof named;

const p = (sequence: number, actor = "user:1") => sealed({ producer: "p", sequence }, { actor });

/** What a call for two records ends with, and which tiers hold them then. */
interface Ending {
  readonly minimum: readonly Minimum[];
  readonly answer:
    | { readonly durability: Durability; readonly degraded: boolean; readonly servedBy: string }
    | { readonly reason: string };
  readonly heldBy: readonly (keyof Whereabouts)[];
  /** Whether recovery is told that they are in the journal alone. */
  readonly local?: true;
}

interface Row {
  readonly away: readonly Tier[];
  readonly options?: IntakeOptions;
  readonly what: string;
  readonly endings: readonly Ending[];
}

const kept = (durability: Durability, servedBy: string, degraded = false) => ({ durability, degraded, servedBy });
const straight: Ending["answer"] = kept(ARCHIVED, "sqlite");
const fallback: Ending["answer"] = kept(ARCHIVED, "sqlite", true);
const alone: Ending["answer"] = kept(JOURNALED, "journal", true);
const notReached = { reason: "DURABILITY_NOT_REACHED" };
const withoutRedis = { withRedis: false };
const usual = ["UNSPECIFIED", "JOURNALED", "QUEUED"] as const;
const least = ["UNSPECIFIED", "JOURNALED"] as const;
const every = ["UNSPECIFIED", "JOURNALED", "QUEUED", "ARCHIVED"] as const;

/** The table "What happens when something fails" of docs/audit.md, and what it leaves out. */
const table: readonly Row[] = [
  {
    ...{ what: "nothing, without Redis", away: [], options: withoutRedis },
    endings: [{ minimum: every, answer: straight, heldBy: ["archive"] }],
  },
  {
    ...{ what: "nothing, with Redis", away: [] },
    endings: [
      { minimum: usual, answer: kept(QUEUED, "redis"), heldBy: ["journal", "queue"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    ...{ what: "Redis", away: ["redis"] },
    endings: [
      { minimum: usual, answer: fallback, heldBy: ["journal", "archive"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    ...{ what: "room in Redis", away: [], options: { maxLength: 2 } },
    endings: [
      { minimum: usual, answer: fallback, heldBy: ["journal", "archive"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    ...{ what: "SQL, with Redis", away: ["sql"] },
    endings: [
      { minimum: usual, answer: kept(QUEUED, "redis"), heldBy: ["journal", "queue"] },
      { minimum: ["ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "Redis and SQL", away: ["redis", "sql"] },
    endings: [
      { minimum: least, answer: alone, heldBy: ["journal"], local: true },
      // They may be archived later; but nobody was told that they are kept.
      { minimum: ["QUEUED"], answer: notReached, heldBy: ["journal"] },
      { minimum: ["ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "SQL, without Redis", away: ["sql"], options: withoutRedis },
    endings: [
      { minimum: least, answer: alone, heldBy: ["journal"], local: true },
      { minimum: ["QUEUED", "ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "the journal's disk", away: ["journal"] },
    endings: [
      { minimum: usual, answer: fallback, heldBy: ["queue", "archive"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    ...{ what: "room in the journal", away: [], options: { journalBytes: 50 } },
    endings: [
      { minimum: usual, answer: fallback, heldBy: ["queue", "archive"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    ...{ what: "the journal's disk, without Redis", away: ["journal"], options: withoutRedis },
    endings: [{ minimum: every, answer: straight, heldBy: ["archive"] }],
  },
  {
    ...{ what: "the journal's disk and Redis", away: ["journal", "redis"] },
    endings: [
      { minimum: usual, answer: fallback, heldBy: ["archive"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    // Redis alone is not enough to acknowledge anything, but it may have taken it.
    ...{ what: "the journal's disk and SQL", away: ["journal", "sql"] },
    endings: [
      { minimum: least, answer: { reason: "JOURNAL_UNAVAILABLE" }, heldBy: ["queue"] },
      { minimum: ["QUEUED"], answer: notReached, heldBy: ["queue"] },
      { minimum: ["ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "the journal's disk, Redis and SQL", away: ["journal", "redis", "sql"] },
    endings: [
      { minimum: least, answer: { reason: "JOURNAL_UNAVAILABLE" }, heldBy: [] },
      { minimum: ["QUEUED", "ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "the journal's disk and SQL, without Redis", away: ["journal", "sql"], options: withoutRedis },
    endings: [
      { minimum: least, answer: { reason: "JOURNAL_UNAVAILABLE" }, heldBy: [] },
      { minimum: ["QUEUED", "ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "room in the journal, and SQL, without Redis", away: ["sql"] },
    options: { withRedis: false, journalBytes: 50 },
    endings: [
      { minimum: least, answer: { reason: "JOURNAL_FULL" }, heldBy: [] },
      { minimum: ["QUEUED", "ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
];

const cases = table.flatMap(({ endings, ...row }) =>
  endings.flatMap(({ minimum, ...ending }) => minimum.map((one) => ({ ...row, ...ending, minimum: one }))),
);

/** A producer of which the queue has 1, where there is one. */
async function known(options?: IntakeOptions): Promise<IntakeParts> {
  const parts = await openIntake(options);
  await parts.queue.append({ records: [p(1)], seeds: seedsFor("p") });
  return parts;
}

describe("when something is away", () => {
  it.each(cases)("away: $what; asked for: $minimum; held by: $heldBy", async (row) => {
    const parts = await known(row.options);
    await parts.lose(...row.away);
    const { answer } = row;
    const calling = parts.intake.keep([p(2), p(3)], named[row.minimum]);
    if ("reason" in answer) {
      const error: unknown = await calling.catch((error: unknown) => error);
      expect(error).toBeInstanceOf(UnavailableError);
      expect(error).toMatchObject(answer);
    } else expect(await calling).toEqual({ ...answer, exceptions: undefined });

    const where = await parts.where();
    const holds = (tier: keyof Whereabouts) => (row.heldBy.includes(tier) ? ["p/2", "p/3"] : []);
    expect(where).toEqual({
      ...{ journal: holds("journal"), archive: holds("archive") },
      queue: ["p/1", ...holds("queue")],
    });
    expect(parts.local.map(idOf)).toEqual(row.local ? ["p/2", "p/3"] : []);
    const counts = { queued: 0, archived: 0, journaled: 0, duplicates: 0, refused: 0, pastRedis: 0 };
    if ("durability" in answer) {
      if (answer.durability === QUEUED) counts.queued = 2;
      if (answer.durability === JOURNALED) counts.journaled = 2;
      if (answer.durability === ARCHIVED) counts.archived = 2;
      if (answer.durability === ARCHIVED && answer.degraded) counts.pastRedis = 2;
    }
    expect(parts.intake.counts).toEqual(counts);
  });

  it("is sorted out by the archive, once the records of all ways come together there", async () => {
    const parts = await known();
    await parts.intake.keep([p(2)], UNSPECIFIED);
    await parts.lose("redis");
    // The same again, by the way that is left; and one that was never queued.
    await parts.intake.keep([p(2), p(3)], UNSPECIFIED);
    expect((await parts.where()).archive).toEqual(["p/2", "p/3"]);
    const journaled = [p(2), p(2), p(3)];
    await parts.intake.deliver(journaled);
    expect((await parts.where()).archive).toEqual(["p/2", "p/3"]);
    expect(await parts.conflicts()).toEqual([]);
  });
});

describe("a record that comes again", () => {
  const exceptions = (answer: Awaited<ReturnType<IntakeParts["intake"]["keep"]>>) =>
    [...(answer.exceptions ?? [])].map(([at, { outcome, durability }]) => [at, outcome, durability]);

  it("is a duplicate, or differs, while the first waits in the queue", async () => {
    const { intake, where } = await known();
    await intake.keep([p(2), p(3)], UNSPECIFIED);
    const answer = await intake.keep([p(4), p(2), p(3, "eve"), p(5)], UNSPECIFIED);
    expect(answer).toMatchObject({ durability: QUEUED, degraded: false, servedBy: "redis" });
    expect(exceptions(answer)).toEqual([
      [1, "duplicate", QUEUED],
      [2, "differs", QUEUED],
    ]);
    expect((await where()).queue).toEqual(["p/1", "p/2", "p/3", "p/4", "p/5"]);
    expect(intake.counts).toEqual({
      ...{ queued: 4, duplicates: 1, refused: 1 },
      archived: 0,
      journaled: 0,
      pastRedis: 0,
    });
  });

  it("is one, or differs, within one call, whether its sequence rises, comes late or is a stranger's", async () => {
    const { intake, where } = await known();
    const rising = await intake.keep([p(9), p(9), p(9, "eve")], UNSPECIFIED);
    expect(exceptions(rising)).toEqual([
      [1, "duplicate", QUEUED],
      [2, "differs", QUEUED],
    ]);
    const late = await intake.keep([p(4), p(4), p(5), p(4, "eve")], UNSPECIFIED);
    expect(exceptions(late)).toEqual([
      [1, "duplicate", QUEUED],
      [3, "differs", QUEUED],
    ]);
    const q = (actor?: string) => sealed({ producer: "q", sequence: 1 }, { actor: actor ?? "user:1" });
    const strange = await intake.keep([q(), q(), q("eve")], UNSPECIFIED);
    expect(exceptions(strange)).toEqual([
      [1, "duplicate", QUEUED],
      [2, "differs", QUEUED],
    ]);
    expect((await where()).queue).toEqual(["p/1", "p/9", "p/4", "p/5", "q/1"]);
  });

  it("is one, or differs, when the first is archived and gone from the queue", async () => {
    const { intake, archive, where } = await openIntake();
    await archive.append([p(1), p(2), p(3)], "refuse");
    const answer = await intake.keep([p(1), p(2, "eve"), p(4), p(3)], UNSPECIFIED);
    expect(answer).toMatchObject({ durability: QUEUED, degraded: false });
    expect(exceptions(answer)).toEqual([
      [0, "duplicate", ARCHIVED],
      [1, "differs", ARCHIVED],
      [3, "duplicate", ARCHIVED],
    ]);
    expect((await where()).queue).toEqual(["p/4"]);
    expect(intake.counts).toMatchObject({ queued: 1, duplicates: 2, refused: 1 });
  });

  it("is one when the first was retired, whatever it says", async () => {
    const parts = await openIntake();
    await parts.archive.append([p(1), p(2)], "refuse");
    await parts.archive.transaction((tx) => tx.query("UPDATE audit_record SET leaf = NULL WHERE leaf_index = 0"));
    const answer = await parts.intake.keep([p(1, "eve"), p(2, "eve")], UNSPECIFIED);
    expect(exceptions(answer)).toEqual([
      [0, "duplicate", ARCHIVED],
      [1, "differs", ARCHIVED],
    ]);
  });

  it("is told apart in the archive as well, where it goes straight there", async () => {
    const { intake } = await openIntake({ withRedis: false });
    await intake.keep([p(1), p(2)], UNSPECIFIED);
    const answer = await intake.keep([p(2, "eve"), p(1), p(3)], ARCHIVED);
    expect(exceptions(answer)).toEqual([
      [0, "differs", ARCHIVED],
      [1, "duplicate", ARCHIVED],
    ]);
    expect(intake.counts).toEqual({
      archived: 3,
      duplicates: 1,
      refused: 1,
      ...{ queued: 0, journaled: 0, pastRedis: 0 },
    });
  });

  it("cannot be told while the archive is away, and is to come again, the others of its call being none the worse", async () => {
    const parts = await openIntake();
    const { intake, archive } = parts;
    await archive.append([p(1), p(2)], "refuse");
    await intake.keep([p(3)], UNSPECIFIED);
    await parts.lose("sql");
    const answer = await intake.keep([p(1), p(2, "eve"), p(3), p(4)], UNSPECIFIED);
    expect(answer).toMatchObject({ durability: QUEUED, degraded: true });
    expect(answer.exceptions).toEqual(
      new Map([
        [0, { outcome: "unsettled", durability: UNSPECIFIED }],
        [1, { outcome: "unsettled", durability: UNSPECIFIED }],
        [2, { outcome: "duplicate", durability: QUEUED }],
      ]),
    );
    expect((await parts.where()).queue).toEqual(["p/3", "p/4"]);
    expect(intake.counts).toMatchObject({ queued: 2, duplicates: 1, refused: 0 });
  });

  it("is told by what waits in the queue, where it is to be archived at once: the first comes first", async () => {
    const { intake, archive, where, conflicts } = await known();
    await intake.keep([p(2), p(3)], UNSPECIFIED);
    const again = sealed({ producer: "p", sequence: 2 }, { actor: "user:1" }, 1_760_000_000_000_000);
    const answer = await intake.keep([again, p(3, "eve"), p(4)], ARCHIVED);
    expect(answer).toMatchObject({ durability: ARCHIVED, degraded: false, servedBy: "sqlite" });
    expect(exceptions(answer)).toEqual([
      [0, "duplicate", ARCHIVED],
      [1, "differs", ARCHIVED],
    ]);
    const held = await archive.find([p(2), p(3)]);
    expect(held.map((one) => Buffer.from(one?.leaf ?? []))).toEqual([p(2), p(3)].map(({ leaf }) => Buffer.from(leaf)));
    expect(await where()).toMatchObject({ archive: ["p/2", "p/3", "p/4"] });
    expect(await conflicts()).toEqual([]);
  });

  it.each([
    { what: "because that was asked for", minimum: ARCHIVED, away: false },
    { what: "because Redis was away", minimum: UNSPECIFIED, away: true },
  ])("is known for one by the queue though the first went past it $what", async ({ minimum, away }) => {
    const { intake, queue, lose, regain, where } = await known();
    if (away) await lose("redis");
    await intake.keep([p(2), p(3)], minimum);
    if (away) await regain();
    // By now others may ask the queue as well.
    else expect(await queue.lastSequence("p")).toBe(3);
    const answer = await intake.keep([p(2), p(3, "eve"), p(4)], UNSPECIFIED);
    expect(answer).toMatchObject({ durability: QUEUED, degraded: false });
    expect(exceptions(answer)).toEqual([
      [0, "duplicate", ARCHIVED],
      [1, "differs", ARCHIVED],
    ]);
    expect((await where()).queue).toEqual(["p/1", "p/4"]);
  });

  it("is known for one after Redis is back and was told, though nothing was appended in between", async () => {
    const { intake, queue, lose, regain } = await known();
    await lose("redis");
    await intake.keep([p(7), sealed({ producer: "@r.1", sequence: 1 })], UNSPECIFIED);
    await expect(intake.queueBack()).rejects.toThrow(UnavailableError);
    await regain();
    await intake.queueBack();
    expect(await queue.lastSequence("p")).toBe(7);
    expect(await queue.lastSequence("@r.1")).toBeUndefined();
  });

  it("of a request is one as well: in the queue, in the archive, and in both", async () => {
    const { intake, archive, where } = await openIntake();
    const request = (actor = "user:1") =>
      [1, 2].map((sequence) => sealed({ producer: "@r.0123", sequence }, { actor }));
    expect(await intake.keep(request(), UNSPECIFIED)).toMatchObject({ durability: QUEUED, exceptions: undefined });
    const again = await intake.keep(request(), UNSPECIFIED);
    expect(exceptions(again)).toEqual([
      [0, "duplicate", QUEUED],
      [1, "duplicate", QUEUED],
    ]);
    expect(exceptions(await intake.keep(request("eve"), UNSPECIFIED))).toEqual([
      [0, "differs", QUEUED],
      [1, "differs", QUEUED],
    ]);
    const archived = [1, 2].map((sequence) => sealed({ producer: "@r.4567", sequence }));
    await archive.append(archived, "refuse");
    expect(exceptions(await intake.keep(archived, UNSPECIFIED))).toEqual([
      [0, "duplicate", ARCHIVED],
      [1, "duplicate", ARCHIVED],
    ]);
    expect((await where()).queue).toEqual(["@r.0123/1", "@r.0123/2"]);
  });
});

describe("a producer that the queue does not know", () => {
  it("is asked about in the archive, and queued from there on", async () => {
    const { intake, archive, queue, where } = await openIntake();
    await archive.append(recordsOf("a", 1, 5), "refuse");
    const records = [recordOf("a", 6), recordOf("b", 3), recordOf("a", 7), recordOf("a", 5)];
    const answer = await intake.keep(records, UNSPECIFIED);
    expect(answer).toMatchObject({ durability: QUEUED, degraded: false });
    expect([...(answer.exceptions ?? [])]).toEqual([[3, { outcome: "duplicate", durability: ARCHIVED }]]);
    expect((await where()).queue).toEqual(["a/6", "b/3", "a/7"]);
    expect([await queue.lastSequence("a"), await queue.lastSequence("b")]).toEqual([7, 3]);
  });

  it("is queued unseen while the archive is away, which is said, and stays unknown", async () => {
    const { intake, lose, queue, where } = await openIntake();
    await lose("sql");
    for (const sequence of [4, 2]) {
      const answer = await intake.keep([p(sequence)], UNSPECIFIED);
      expect(answer).toEqual({ durability: QUEUED, degraded: true, servedBy: "redis", exceptions: undefined });
    }
    expect((await where()).queue).toEqual(["p/4", "p/2"]);
    expect(await queue.lastSequence("p")).toBeUndefined();
    expect(await intake.keep([p(4)], UNSPECIFIED)).toMatchObject({
      exceptions: new Map([[0, { outcome: "duplicate", durability: QUEUED }]]),
    });
  });
});

describe("a sequence that comes late", () => {
  it("is queued when it is held nowhere, and a duplicate afterwards", async () => {
    const { intake, archive, where } = await known();
    await archive.append([p(3)], "refuse");
    await intake.keep([p(9)], UNSPECIFIED);
    const answer = await intake.keep([p(2), p(3), p(4)], UNSPECIFIED);
    expect([...(answer.exceptions ?? [])]).toEqual([[1, { outcome: "duplicate", durability: ARCHIVED }]]);
    expect((await where()).queue).toEqual(["p/1", "p/9", "p/2", "p/4"]);
    expect([...((await intake.keep([p(4), p(2)], UNSPECIFIED)).exceptions ?? [])]).toEqual(
      [0, 1].map((at) => [at, { outcome: "duplicate", durability: QUEUED }]),
    );
  });

  it("is queued once, and its copies told apart, when several callers bring it at the same time", async () => {
    const { intake, where } = await known();
    await intake.keep([p(9)], UNSPECIFIED);
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, at) => intake.keep([p(4, at % 2 === 0 ? "ann" : "eve")], UNSPECIFIED)),
    );
    expect((await where()).queue).toEqual(["p/1", "p/9", "p/4"]);
    const outcomes = answers.map(({ exceptions }) => exceptions?.get(0)?.outcome ?? "appended");
    const count = (outcome: string) => outcomes.filter((one) => one === outcome).length;
    expect([count("appended"), count("duplicate"), count("differs")]).toEqual([1, 5, 6]);
  });
});

describe("a queue that is full in the middle", () => {
  it("takes all of a call or nothing of it", async () => {
    const { intake, where } = await known({ maxLength: 3 });
    expect(await intake.keep([p(2), p(3)], UNSPECIFIED)).toMatchObject({ durability: QUEUED });
    expect(await intake.keep([p(3), p(4)], UNSPECIFIED)).toMatchObject({ durability: ARCHIVED, degraded: true });
    expect(await where()).toMatchObject({ queue: ["p/1", "p/2", "p/3"], archive: ["p/3", "p/4"] });
    // What is there already takes no room.
    expect(await intake.keep([p(2)], UNSPECIFIED)).toMatchObject({ durability: QUEUED, degraded: false });
  });
});

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
    { what: "SQL is, and there is no Redis", options: withoutRedis, away: ["sql"] as const },
  ])("is refused when $what", async ({ options, away }) => {
    const parts = await openIntake(options);
    await parts.lose(...away);
    await expect(parts.intake.deliver([p(1)])).rejects.toThrow(UnavailableError);
    expect(await tiers(parts)).toEqual({ queue: [], archive: [] });
  });
});

describe("what no other tier can make up for", () => {
  it("is not hidden by another way: a defect of the archive reaches the caller", async () => {
    const { intake, where } = await openIntake({ withRedis: false });
    const bad: Sealed = { ...p(1), outcome: Number.NaN };
    const error: unknown = await intake.keep([bad], UNSPECIFIED).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(Error);
    expect(error).not.toBeInstanceOf(Failure);
    expect((await where()).journal).toEqual([]);
  });
});

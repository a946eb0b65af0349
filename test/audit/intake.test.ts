import { describe, expect, it } from "vitest";
import type { Sealed } from "../../src/audit/record/record.ts";
import { AuditDurability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { Failure, UnavailableError } from "../../src/infra/failure.ts";
import { sealed } from "./archives.ts";
import { type IntakeParts, known, openIntake, p } from "./intake-parts.ts";
import { recordOf, recordsOf } from "./queue-parts.ts";

const { UNSPECIFIED, QUEUED, ARCHIVED } = AuditDurability;

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

import { describe, expect, it } from "vitest";
import type { Exception } from "../../src/audit/intake/doubts.ts";
import type { Kept } from "../../src/audit/intake/intake.ts";
import { createRoom } from "../../src/audit/intake/room.ts";
import { LIMITS } from "../../src/audit/record/entry.ts";
import { AuditDurability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { UnavailableError } from "../../src/infra/failure.ts";
import { until } from "../support/until.ts";
import { ackedBy, good, HeldIntake, ROOM, settle, TestProducer, taken } from "./ingest-parts.ts";
import { openIntake } from "./intake-parts.ts";

const { QUEUED, ARCHIVED, JOURNALED, UNSPECIFIED } = AuditDurability;

describe("opening a stream", () => {
  it("is answered with what the server knows of the producer, and with the window", async () => {
    const intake = new HeldIntake();
    const producer = new TestProducer(intake).open({ producer: "p", minDurability: ARCHIVED });
    await until(() => producer.opened.length === 1, { what: "the answer" });
    expect(producer.opened).toMatchObject([
      { instanceId: "one", lastSequence: 41n, windowRecords: 5_000, windowBytes: BigInt(LIMITS.batchBytes) },
    ]);
    producer.batch(2);
    await taken(intake, 1);
    expect(intake.taken).toMatchObject([
      { minimum: ARCHIVED, records: [{ producer: "p", sequence: 1 }, { sequence: 2 }] },
    ]);
    intake.end(1);
    producer.done();
    expect(await producer.end()).toBe("ok");
  });

  it("that is never asked for ends well", async () => {
    const producer = new TestProducer(new HeldIntake());
    producer.done();
    expect(await producer.end()).toBe("ok");
    expect(producer.opened).toEqual([]);
  });

  it.each([
    { what: "has to be the first message", open: undefined, fields: ["message"] },
    { what: "needs a good name", open: { producer: "no spaces" }, fields: ["open.producer"] },
    {
      what: "names all that is wrong",
      open: { producer: "", minDurability: 77 },
      fields: ["open.producer", "open.min_durability"],
    },
  ])("$what", async ({ open, fields }) => {
    const intake = new HeldIntake();
    const producer = new TestProducer(intake);
    if (open === undefined) producer.batch();
    else producer.open(open);
    expect(await producer.end()).toMatchObject({ kind: "invalid", violations: fields.map((field) => ({ field })) });
    expect(intake.taken).toEqual([]);
  });
});

describe("acks", () => {
  it("come in the order of the batches, though later ones were kept first", async () => {
    const intake = new HeldIntake();
    const producer = new TestProducer(intake).open().batch(1).batch(2).batch(3);
    await taken(intake, 3);
    intake.end(3, { durability: ARCHIVED });
    intake.end(2);
    await settle();
    expect(producer.acked).toEqual([]);
    intake.end(1, { durability: JOURNALED, degraded: true });
    await ackedBy(producer, 1, 2, 3);
    expect(producer.acks).toMatchObject([
      { durability: JOURNALED, appended: 1, degraded: true },
      { durability: QUEUED, appended: 2, degraded: false },
      { durability: ARCHIVED, appended: 3, degraded: false },
    ]);
    expect(producer.call.said).toEqual({ servedBy: "redis", degraded: true });
    producer.done();
    expect(await producer.end()).toBe("ok");
  });

  it("of what is under way come before a stream ends that its producer ended", async () => {
    const intake = new HeldIntake();
    const producer = new TestProducer(intake).open().batch().batch();
    producer.done();
    await taken(intake, 2);
    await settle();
    expect(producer.ended).toBeUndefined();
    intake.end(2);
    intake.end(1);
    expect(await producer.end()).toBe("ok");
    expect(producer.acked).toEqual([1, 2]);
  });

  it("tell of duplicates, of what differs and of what was refused by their places in the batch as it was sent", async () => {
    const intake = new HeldIntake();
    const big = "x".repeat(LIMITS.recordBytes);
    const producer = new TestProducer(intake)
      .open()
      .records(
        { sequence: 1n, ...good },
        { sequence: 0n, ...good },
        { sequence: 3n, ...good },
        { sequence: 4n },
        { sequence: 5n, ...good },
        { sequence: 6n, entry: { ...good.entry, attributes: { big } } },
        { sequence: 7n, ...good },
      );
    await taken(intake, 1);
    expect(intake.taken[0]?.records.map(({ sequence }) => sequence)).toEqual([1, 3, 5, 7]);
    const exceptions: Kept["exceptions"] = new Map([
      [1, { outcome: "duplicate", durability: ARCHIVED }],
      [2, { outcome: "differs", durability: ARCHIVED }],
      [3, { outcome: "unsettled", durability: UNSPECIFIED }],
    ]);
    intake.end(1, { exceptions });
    await ackedBy(producer, 1);
    const [ack] = producer.acks;
    expect(ack).toMatchObject({ appended: 1, duplicates: 1, durability: QUEUED });
    expect(ack?.refusals).toMatchObject([
      { index: 1, sequence: 0n, error: { code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field: "sequence" } },
      { index: 3, sequence: 4n, error: { code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field: "entry" } },
      { index: 4, sequence: 5n, error: { code: "ALREADY_EXISTS", reason: "IDENTITY_REUSED" } },
      { index: 5, sequence: 6n, error: { code: "RESOURCE_EXHAUSTED", reason: "RECORD_TOO_LARGE" } },
      { index: 6, sequence: 7n, error: { code: "UNAVAILABLE", reason: "IDENTITY_UNSETTLED" } },
    ]);
    producer.done();
    expect(await producer.end()).toBe("ok");
  });

  const all = (outcome: Exception["outcome"], ...durabilities: readonly AuditDurability[]): Kept["exceptions"] =>
    new Map(durabilities.map((durability, at) => [at, { outcome, durability }]));
  it.each([
    {
      what: "the duplicates, where nothing was appended",
      exceptions: all("duplicate", ARCHIVED, ARCHIVED),
      is: ARCHIVED,
    },
    { what: "the least of them", exceptions: all("duplicate", ARCHIVED, QUEUED), is: QUEUED },
    { what: "what was appended, where that is less", exceptions: all("duplicate", ARCHIVED), is: QUEUED },
    {
      what: "nothing, where nothing is known",
      exceptions: all("unsettled", UNSPECIFIED, UNSPECIFIED),
      is: UNSPECIFIED,
    },
    { what: "nothing, where all differed", exceptions: all("differs", ARCHIVED, ARCHIVED), is: UNSPECIFIED },
  ])("say as durability that of $what", async ({ exceptions, is }) => {
    const intake = new HeldIntake();
    const producer = new TestProducer(intake).open().batch(2);
    await taken(intake, 1);
    intake.end(1, { exceptions });
    await ackedBy(producer, 1);
    expect(producer.acks[0]?.durability).toBe(is);
    producer.leave();
  });

  it("of a batch in which every record was refused come without anything being kept", async () => {
    const intake = new HeldIntake();
    const producer = new TestProducer(intake).open().records({ sequence: 1n }, { sequence: 0n, ...good });
    producer.done();
    expect(await producer.end()).toBe("ok");
    expect(intake.taken).toEqual([]);
    expect(producer.acks).toMatchObject([
      { durability: UNSPECIFIED, appended: 0, refusals: [{ index: 0 }, { index: 1 }] },
    ]);
  });
});

describe("the window", () => {
  it("of records stops the reading until the oldest batch is acknowledged", async () => {
    const intake = new HeldIntake();
    const producer = new TestProducer(intake).open();
    for (let batch = 0; batch < 8; batch++) producer.batch(1_000);
    await taken(intake, 5);
    await settle();
    expect([intake.taken.length, producer.read]).toEqual([5, 6]);
    intake.end(2);
    await settle();
    expect(intake.taken).toHaveLength(5);
    intake.end(1);
    await ackedBy(producer, 1, 2);
    await taken(intake, 7);
    await settle();
    expect([intake.taken.length, producer.read]).toEqual([7, 8]);
    for (const batch of [7, 6, 5, 4, 3]) intake.end(batch);
    await taken(intake, 8);
    intake.end(8);
    producer.done();
    expect(await producer.end()).toBe("ok");
    expect(producer.acked).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it("of bytes does so as well", async () => {
    const intake = new HeldIntake();
    const producer = new TestProducer(intake).open();
    for (let batch = 0; batch < 5; batch++)
      producer.batch(9, { ...good.entry, attributes: { x: "x".repeat(200_000) } });
    await taken(intake, 3);
    await settle();
    expect([intake.taken.length, producer.read]).toEqual([3, 4]);
    intake.end(1);
    await taken(intake, 4);
    producer.leave();
  });

  it("stops the reading of a producer that does not read its acks", async () => {
    const intake = new HeldIntake();
    const room = createRoom(ROOM);
    const producer = new TestProducer(intake, room).open();
    producer.batch();
    await taken(intake, 1);
    const deaf = new TestProducer(intake, room, false);
    producer.leave();
    deaf.open();
    for (let batch = 0; batch < 20; batch++) deaf.batch(1_000);
    await settle();
    // Nobody asked for the first reply yet, so nothing is read.
    expect(deaf.read).toBe(0);
    deaf.readOn();
    await taken(intake, 6);
    deaf.leave();
  });

  it("is told to be small while the room that all share is short, and never to be none", async () => {
    const intake = new HeldIntake();
    const room = createRoom(LIMITS.batchBytes + 1_000);
    const producer = new TestProducer(intake, room).open().batch(1);
    await taken(intake, 1);
    intake.end(1);
    await ackedBy(producer, 1);
    const giveBack = await room.take(5_000, new AbortController().signal);
    producer.batch(1);
    await taken(intake, 2);
    intake.end(2);
    await ackedBy(producer, 1, 2);
    giveBack();
    expect(producer.acks.map(({ windowRecords }) => windowRecords)).toEqual([5_000, LIMITS.batch]);
    producer.leave();
  });
});

describe("a stream that breaks", () => {
  it("because a batch could not be kept ends after the acks before it, and later batches are not acknowledged", async () => {
    const intake = new HeldIntake();
    const producer = new TestProducer(intake).open().batch().batch().batch();
    await taken(intake, 3);
    intake.end(3);
    const failure = new UnavailableError("DURABILITY_NOT_REACHED", "no");
    intake.fail(2, failure);
    await settle();
    expect(producer.ended).toBeUndefined();
    intake.end(1);
    expect(await producer.end()).toBe(failure);
    expect(producer.acked).toEqual([1]);
  });

  it.each([
    { what: "comes out of turn", wrong: { batch: 4n, records: [{ sequence: 9n, ...good }] }, kind: "invalid" },
    { what: "comes again", wrong: { batch: 2n, records: [{ sequence: 9n, ...good }] }, kind: "invalid" },
    { what: "is empty", wrong: { batch: 3n, records: [] }, kind: "invalid" },
    {
      what: "has too many records",
      wrong: { batch: 3n, records: Array.from({ length: 1_001 }, (_, at) => ({ sequence: BigInt(at + 1), ...good })) },
      kind: "invalid",
    },
    {
      what: "is too large",
      wrong: {
        batch: 3n,
        records: Array.from({ length: 20 }, (_, at) => ({
          ...{ sequence: BigInt(at + 1) },
          entry: { ...good.entry, attributes: { x: "x".repeat(230_000) } },
        })),
      },
      kind: "too_large",
    },
  ])("because a batch $what ends when what came before is acknowledged", async ({ wrong, kind }) => {
    const intake = new HeldIntake();
    const room = createRoom(ROOM);
    const producer = new TestProducer(intake, room).open().batch().batch();
    producer.send({ case: "batch", value: wrong });
    await taken(intake, 2);
    await settle();
    expect(producer.ended).toBeUndefined();
    intake.end(2);
    intake.end(1);
    expect(await producer.end()).toMatchObject({ kind });
    expect(producer.acked).toEqual([1, 2]);
    expect(intake.taken).toHaveLength(2);
    expect(room.free).toBe(ROOM);
  });

  it("because it was opened twice ends when what came before is acknowledged", async () => {
    const intake = new HeldIntake();
    const producer = new TestProducer(intake).open().batch().open();
    await taken(intake, 1);
    intake.end(1);
    expect(await producer.end()).toMatchObject({ kind: "invalid", violations: [{ field: "message" }] });
    expect(producer.acked).toEqual([1]);
  });

  it.each([
    { what: "while it waits for the producer", batches: 2, count: 1, read: 2 },
    { what: "while its window is full", batches: 8, count: 1_000, read: 5 },
  ])("because the server drains $what acknowledges what was taken in, and takes in nothing more", async (load) => {
    const intake = new HeldIntake();
    const producer = new TestProducer(intake).open();
    for (let batch = 0; batch < load.batches; batch++) producer.batch(load.count);
    await taken(intake, load.read);
    await settle();
    producer.drain();
    for (let batch = load.read; batch >= 1; batch--) {
      await settle();
      expect(producer.ended).toBeUndefined();
      intake.end(batch);
    }
    expect(await producer.end()).toMatchObject({ kind: "unavailable", reason: "SERVER_DRAINING" });
    expect(producer.acked).toEqual(Array.from({ length: load.read }, (_, at) => at + 1));
    expect(intake.taken).toHaveLength(load.read);
  });

  it("because the server drains while it waits for room gives its place up", async () => {
    const intake = new HeldIntake();
    const room = createRoom(1_000);
    const giveBack = await room.take(990, new AbortController().signal);
    const producer = new TestProducer(intake, room).open().batch(5);
    await until(() => producer.read === 2, { what: "the batch to be read" });
    await settle();
    producer.drain();
    expect(await producer.end()).toMatchObject({ reason: "SERVER_DRAINING" });
    giveBack();
    expect(room.free).toBe(1_000);
    expect(intake.taken).toEqual([]);
  });
});

describe("the room that all share", () => {
  it("is given back when a batch is kept, whether or not its ack is read", async () => {
    const intake = new HeldIntake();
    const room = createRoom(ROOM);
    const producer = new TestProducer(intake, room).open().batch(10).batch(10);
    await taken(intake, 2);
    const held = ROOM - room.free;
    expect(held).toBeGreaterThan(0);
    intake.end(2);
    await settle();
    expect(ROOM - room.free).toBe(held / 2);
    intake.fail(1, new UnavailableError("SQL_UNAVAILABLE", "away"));
    await producer.end();
    expect(room.free).toBe(ROOM);
  });

  it("is whole again after a thousand streams that ended in every way", async () => {
    const intake = new HeldIntake();
    const room = createRoom(40_000);
    const endings = [
      (one: TestProducer) => one.leave(),
      (one: TestProducer) => one.drain(),
      (one: TestProducer) => one.done(),
      (one: TestProducer) => one.open(),
      (one: TestProducer) => one.records(),
    ];
    const producers: TestProducer[] = [];
    let kept = 0;
    for (let stream = 0; stream < 1_000; stream++) {
      const producer = new TestProducer(intake, room).open();
      producers.push(producer);
      for (let batch = 0; batch < stream % 4; batch++) producer.batch(1 + (stream % 50));
      if (stream % 3 === 0) await settle();
      endings[stream % endings.length]?.(producer);
      if (stream % 7 !== 0) continue;
      await settle();
      // Some of what is under way ends now, well or badly.
      for (; kept < intake.taken.length - 2; kept++) {
        if (kept % 2 === 0) intake.end(kept + 1);
        else intake.fail(kept + 1, new UnavailableError("SQL_UNAVAILABLE", "away"));
      }
    }
    const isOver = () => {
      for (; kept < intake.taken.length; kept++) intake.end(kept + 1);
      return producers.every(({ ended }) => ended !== undefined) && room.free === 40_000;
    };
    await until(isOver, { what: "all streams to be over and their room to be free" });
    // And it can be had as a whole.
    const giveBack = await room.take(40_000, new AbortController().signal);
    expect(room.free).toBe(0);
    giveBack();
  });
});

describe("over the real tiers", () => {
  it("acknowledges, refuses and finds again what a producer sends twice, in two streams", async () => {
    const { intake, where } = await openIntake();
    const first = new TestProducer(intake).open().batch(3).batch(2);
    first.done();
    expect(await first.end()).toBe("ok");
    expect(first.acks).toMatchObject([
      { durability: QUEUED, appended: 3, duplicates: 0 },
      { durability: QUEUED, appended: 2, duplicates: 0 },
    ]);
    const eve = { ...good.entry, actor: "eve" };
    const second = new TestProducer(intake)
      .open()
      .batch(4)
      .records({ sequence: 5n, entry: eve }, { sequence: 6n, ...good });
    second.done();
    expect(await second.end()).toBe("ok");
    expect(second.acks).toMatchObject([
      { durability: QUEUED, appended: 0, duplicates: 4 },
      { durability: QUEUED, appended: 1, refusals: [{ index: 0, sequence: 5n, error: { reason: "IDENTITY_REUSED" } }] },
    ]);
    expect((await where()).queue).toEqual(["p/1", "p/2", "p/3", "p/4", "p/5", "p/6"]);
  });

  it("goes on past tiers that fail in the middle, and ends when none is left", async () => {
    const { intake, where, lose } = await openIntake();
    const producer = new TestProducer(intake).open().batch(2);
    await ackedBy(producer, 1);
    await lose("redis");
    producer.batch(2);
    await ackedBy(producer, 1, 2);
    await lose("sql");
    producer.batch(2);
    await ackedBy(producer, 1, 2, 3);
    await lose("journal");
    producer.batch(2);
    expect(await producer.end()).toBeInstanceOf(UnavailableError);
    expect(producer.acks).toMatchObject([
      { durability: QUEUED, degraded: false },
      { durability: ARCHIVED, degraded: true },
      { durability: JOURNALED, degraded: true },
    ]);
    expect(await where()).toEqual({
      ...{ queue: ["p/1", "p/2"], archive: ["p/3", "p/4"] },
      journal: ["p/1", "p/2", "p/3", "p/4", "p/5", "p/6"],
    });
  });
});

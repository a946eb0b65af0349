import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import { until } from "../support/until.ts";
import { sealed } from "./archives.ts";
import { recordsOf } from "./journals.ts";
import { INTERVAL_MS, never, openParts, type Parts } from "./recovery-parts.ts";

let parts: Parts;
beforeEach(async () => {
  parts = await openParts();
});
afterEach(() => parts.close());

const isEmpty = () => parts.journal.segments().length === 0;

/** Lets the clock run until it is so. */
async function whileTimePasses(condition: () => boolean, what: string): Promise<void> {
  await until(
    () => {
      parts.clock.move(1_000);
      return condition();
    },
    { what },
  );
}

describe("the recovery of the journal", () => {
  it("brings what an earlier run left into the archive, once each, and empties the journal", async () => {
    const records = [...recordsOf("a", 1, 1_200), ...recordsOf("b", 5, 3), ...recordsOf("@r.1", 1, 1)];
    await parts.journal.append(records);
    await parts.archive.append(records.slice(0, 1_000), "refuse");
    await parts.reopen();
    const recovery = await parts.startSettled();
    expect(await parts.archive.size()).toBe(records.length);
    expect(await parts.archived(records)).toEqual(records.map(() => true));
    expect(isEmpty()).toBe(true);
    expect(parts.delivered.length).toBe(204);
    expect(recovery.condition()).toMatchObject({
      localOnly: 0,
      segments: 0,
      oldestMs: undefined,
      lastError: undefined,
    });
  });

  it("delivers nothing again that is archived", async () => {
    const records = Array.from({ length: 600 }, (_, i) => recordsOf(`@r.${i}`, 1, 1)).flat();
    records.push(...recordsOf("a", 1, 3_000));
    await parts.journal.append(records);
    await parts.archive.append(records.slice(0, 599).concat(records.slice(600)), "refuse");
    await parts.reopen();
    await parts.startSettled();
    expect(parts.delivered).toEqual([{ producer: "@r.599", sequence: 1 }]);
    expect(isEmpty()).toBe(true);
  });

  it("goes on after a restart where the tiers went away in the middle", async () => {
    const records = recordsOf("a", 1, 2_000);
    await parts.journal.append(records);
    await parts.reopen();
    let batches = 0;
    parts.deliver = async (some) => {
      if (batches++ > 1) throw new UnavailableError("SQL_UNAVAILABLE", "gone in the middle");
      await parts.intoArchive(some);
    };
    await expect(parts.start().settled(never)).rejects.toThrow("gone in the middle");
    expect(parts.journal.segments().length).toBe(1);
    await parts.reopen();
    parts.deliver = (some) => parts.intoArchive(some);
    await parts.startSettled();
    expect(await parts.archive.size()).toBe(2_000);
    expect(isEmpty()).toBe(true);
  });

  it("releases a segment only when all of it is archived", async () => {
    const recovery = await parts.startSettled();
    const records = recordsOf("a", 1, 20);
    await parts.journal.append(records);
    await parts.archive.append(records.slice(0, 19), "refuse");
    await whileTimePasses(() => parts.journal.segments()[0]?.sealed === true, "the segment to be sealed");
    // A look at it that began after it was sealed.
    await recovery.settled(never);
    recovery.tierBack();
    await recovery.close();
    expect(parts.journal.segments().length).toBe(1);
    expect(parts.delivered).toEqual([]);
    parts.start();
    await parts.archive.append(records.slice(19), "refuse");
    await until(isEmpty, { what: "the journal to be emptied" });
  });

  it("empties a journal in which nothing happens", async () => {
    await parts.startSettled();
    const records = recordsOf("a", 1, 3);
    await parts.archive.append(records, "refuse");
    await parts.journal.append(records);
    await whileTimePasses(isEmpty, "the journal to be emptied");
    expect(parts.delivered).toEqual([]);
  });

  it("makes no more segments while nothing can be archived", async () => {
    const recovery = await parts.startSettled();
    parts.archiveAway = true;
    for (let sequence = 1; sequence <= 30; sequence++) {
      const records = recordsOf("a", sequence, 1);
      await parts.journal.append(records);
      recovery.markLocal(records);
      recovery.tierBack();
      await expect(recovery.settled(never)).rejects.toThrow("SQL is away");
      parts.clock.move(10_000);
    }
    expect(parts.journal.segments().length).toBeLessThanOrEqual(3);
    expect(recovery.condition()).toMatchObject({ localOnly: 30, lastError: { message: "SQL is away" } });
  });

  it("makes no small segments while the archiver is behind", async () => {
    await parts.startSettled();
    await parts.journal.append(recordsOf("a", 1, 5));
    await whileTimePasses(() => parts.journal.segments()[0]?.sealed === true, "the segment to be sealed");
    for (let sequence = 6; sequence < 16; sequence++) {
      await parts.journal.append(recordsOf("a", sequence, 1));
      parts.clock.move(6_000);
      const asked = parts.asked;
      await until(() => parts.asked >= asked + 4, { what: "a look at the segments" });
    }
    expect(parts.journal.segments().length).toBe(2);
  });

  it("delivers again what waited longer than the interval, and no sooner", async () => {
    await parts.startSettled();
    const records = recordsOf("a", 1, 5);
    await parts.journal.append(records);
    await whileTimePasses(() => parts.journal.segments()[0]?.sealed === true, "the segment to be sealed");
    expect(parts.delivered).toEqual([]);
    parts.clock.move(INTERVAL_MS);
    await until(isEmpty, { what: "the journal to be emptied" });
    expect(parts.delivered.length).toBe(5);
    expect(await parts.archive.size()).toBe(5);
  });

  it("delivers again what the queue may have lost, also what is only just journaled", async () => {
    const recovery = await parts.startSettled();
    const records = recordsOf("a", 1, 1_500);
    await parts.journal.append(records.slice(0, 1_000));
    await parts.archive.append(records.slice(0, 1_000), "refuse");
    const appended = parts.journal.append(records.slice(1_000));
    recovery.suspectLoss();
    await Promise.all([appended, recovery.settled(never)]);
    expect(await parts.archive.size()).toBe(1_500);
    // All of it: what the archive holds by now under an identity may not be what was journaled.
    expect(parts.delivered.map(({ sequence }) => sequence)).toEqual(records.map((one) => one.sequence));
    expect(recovery.condition().replayed).toBe(1_500);
  });

  it("goes on with the other segments when one cannot be read", async () => {
    await parts.journal.append(recordsOf("a", 1, 5));
    await parts.journal.rotate();
    await parts.journal.append(recordsOf("b", 1, 5));
    await parts.reopen();
    rmSync(join(parts.directory, parts.journal.segments()[0]?.name ?? ""));
    // Whoever reads does not have to wait for what cannot be had.
    await parts.startSettled();
    expect(await parts.archived(recordsOf("b", 1, 5))).toEqual([true, true, true, true, true]);
    expect(parts.recovery?.condition().lastError?.message).toContain("ENOENT");
  });

  it("replays all but a damaged record, and releases its segment", async () => {
    const records = recordsOf("a", 1, 10);
    await parts.journal.append(records);
    await parts.journal.close();
    const path = join(parts.directory, "000000000001.seg");
    const bytes = readFileSync(path);
    bytes[bytes.length - 40] = (bytes[bytes.length - 40] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    await parts.reopen();
    await parts.startSettled();
    expect(await parts.archived(records)).toEqual(records.map(({ sequence }) => sequence !== 10));
    expect(isEmpty()).toBe(true);
    expect(parts.journal.isQuarantined({ producer: "a", sequence: 10 })).toBe(true);
  });

  it("does the same when the damage comes while it runs", async () => {
    const recovery = await parts.startSettled();
    parts.archiveAway = true;
    const records = recordsOf("a", 1, 10);
    await parts.journal.append(records);
    await parts.journal.rotate();
    recovery.markLocal(records);
    const path = join(parts.directory, parts.journal.segments()[0]?.name ?? "");
    const bytes = readFileSync(path);
    // The header of the last.
    const at = bytes.length - 30 - (records[9]?.leaf.length ?? 0) - 20;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    parts.archiveAway = false;
    recovery.tierBack();
    await recovery.settled(never);
    await until(isEmpty, { what: "the journal to be emptied" });
    expect(await parts.archived(records)).toEqual(records.map(({ sequence }) => sequence !== 10));
    expect(parts.journal.isQuarantined({ producer: "a", sequence: 10 })).toBe(true);
    expect(recovery.condition()).toMatchObject({ localOnly: 0, lastError: undefined });
  });

  it("releases a segment of which the one record that was not archived is damaged", async () => {
    const recovery = await parts.startSettled();
    const records = recordsOf("a", 1, 10);
    await parts.journal.append(records);
    await parts.archive.append(records.slice(0, 9), "refuse");
    await parts.journal.rotate();
    const asked = parts.asked;
    await until(() => parts.asked >= asked + 3, { what: "a look at the segment" });
    const path = join(parts.directory, parts.journal.segments()[0]?.name ?? "");
    const bytes = readFileSync(path);
    bytes[bytes.length - 40] = (bytes[bytes.length - 40] ?? 0) ^ 1;
    writeFileSync(path, bytes);
    recovery.suspectLoss();
    await recovery.settled(never);
    expect(isEmpty()).toBe(true);
    expect(parts.journal.isQuarantined({ producer: "a", sequence: 10 })).toBe(true);
  });

  it("archives whatever part was missing, and nothing twice", async () => {
    const parted = fc.array(
      fc.record({ producer: fc.constantFrom("a", "b", "@r.x"), sequence: fc.nat({ max: 1_500 }) }),
      {
        minLength: 1,
        maxLength: 300,
      },
    );
    const recovery = await parts.startSettled();
    let offset = 0;
    await fc.assert(
      fc.asyncProperty(parted, fc.array(fc.boolean(), { maxLength: 300 }), async (ids, archived) => {
        offset += 2_000;
        const names = new Map(ids.map((id) => [`${id.producer}/${id.sequence}`, id]));
        const records = [...names.values()].map(({ producer, sequence }) =>
          sealed({ producer, sequence: offset + sequence }),
        );
        const before = await parts.archive.size();
        await parts.archive.append(
          records.filter((_, i) => archived[i]),
          "refuse",
        );
        for (let at = 0; at < records.length; at += 37) {
          await parts.journal.append(records.slice(at, at + 37));
          if (at % 2 === 0) await parts.journal.rotate();
        }
        recovery.suspectLoss();
        await recovery.settled(never);
        expect(await parts.archive.size()).toBe(before + records.length);
        expect(isEmpty()).toBe(true);
      }),
      { numRuns: 25 },
    );
  });

  it("keeps up while records are appended, and loses none", async () => {
    const recovery = await parts.startSettled();
    const total = 4_000;
    for (let sequence = 1; sequence <= total; sequence += 10) {
      const records = recordsOf("a", sequence, 10);
      await parts.journal.append(records);
      if (sequence % 3 === 0) recovery.markLocal(records);
      else await parts.archive.append(records, "refuse");
      if (sequence % 7 === 0) recovery.suspectLoss();
      if (sequence % 11 === 0) await recovery.settled(never);
    }
    await recovery.settled(never);
    expect(await parts.archive.size()).toBe(total);
    await whileTimePasses(isEmpty, "the journal to be emptied");
  });
});

describe("the barrier for readers", () => {
  it("opens at once when nothing is in the journal alone", async () => {
    const recovery = await parts.startSettled();
    parts.archiveAway = true;
    await parts.journal.append(recordsOf("a", 1, 5));
    await recovery.settled(never);
    expect(parts.delivered).toEqual([]);
  });

  it("opens when records that were in the journal alone are archived", async () => {
    const recovery = await parts.startSettled();
    const records = recordsOf("a", 1, 5);
    await parts.journal.append(records);
    recovery.markLocal(records);
    expect(recovery.condition().localOnly).toBe(5);
    await recovery.settled(never);
    expect(await parts.archived(records)).toEqual(records.map(() => true));
    expect(recovery.condition().localOnly).toBe(0);
  });

  it("says that no tier answers instead of waiting, and opens when one is back", async () => {
    const recovery = await parts.startSettled();
    parts.archiveAway = true;
    const records = recordsOf("a", 1, 5);
    await parts.journal.append(records);
    recovery.markLocal(records);
    await expect(recovery.settled(never)).rejects.toThrow(UnavailableError);
    expect(recovery.condition()).toMatchObject({ localOnly: 5, lastError: { message: "SQL is away" } });
    parts.archiveAway = false;
    recovery.tierBack();
    await recovery.settled(never);
    expect(await parts.archived(records)).toEqual(records.map(() => true));
  });

  it("tries by itself after a while, without anybody telling that a tier is back", async () => {
    const recovery = await parts.startSettled();
    parts.archiveAway = true;
    const records = recordsOf("a", 1, 5);
    await parts.journal.append(records);
    recovery.markLocal(records);
    await expect(recovery.settled(never)).rejects.toThrow(UnavailableError);
    parts.archiveAway = false;
    await whileTimePasses(isEmpty, "the journal to be emptied");
    expect(await parts.archived(records)).toEqual(records.map(() => true));
  });

  it("stops waiting when the reader does", async () => {
    const recovery = await parts.startSettled();
    const held = Promise.withResolvers<void>();
    parts.deliver = () => held.promise;
    const records = recordsOf("a", 1, 5);
    await parts.journal.append(records);
    recovery.markLocal(records);
    const reader = new AbortController();
    const settled = recovery.settled(reader.signal);
    reader.abort(new Error("hung up"));
    await expect(settled).rejects.toThrow("hung up");
    await expect(recovery.settled(reader.signal)).rejects.toThrow("hung up");
    held.resolve();
  });

  it("waits for records marked while another reader's are delivered", async () => {
    const recovery = await parts.startSettled();
    const first = recordsOf("a", 1, 5);
    const second = recordsOf("a", 6, 5);
    await parts.journal.append(first);
    recovery.markLocal(first);
    const started = Promise.withResolvers<void>();
    const held = Promise.withResolvers<void>();
    parts.deliver = async (records) => {
      started.resolve();
      await held.promise;
      await parts.intoArchive(records);
    };
    const firstSettled = recovery.settled(never);
    await started.promise;
    await parts.journal.append(second);
    recovery.markLocal(second);
    const secondSettled = recovery.settled(never);
    held.resolve();
    await Promise.all([firstSettled, secondSettled]);
    expect(await parts.archived([...first, ...second])).toEqual([...first, ...second].map(() => true));
  });

  it("stays shut after a start until it is known what the archive lacks", async () => {
    await parts.journal.append(recordsOf("a", 1, 5));
    await parts.reopen();
    parts.archiveAway = true;
    const recovery = parts.start();
    await expect(recovery.settled(never)).rejects.toThrow("SQL is away");
    parts.archiveAway = false;
    recovery.tierBack();
    await recovery.settled(never);
    expect(await parts.archive.size()).toBe(5);
  });

  it("brings records to a tier that answers while the archive is away, and keeps their segment", async () => {
    const recovery = await parts.startSettled();
    parts.archiveAway = true;
    parts.deliver = async () => {};
    const records = recordsOf("a", 1, 5);
    await parts.journal.append(records);
    recovery.markLocal(records);
    await expect(recovery.settled(never)).rejects.toThrow("SQL is away");
    expect(parts.delivered.length).toBe(5);
    expect(recovery.condition().localOnly).toBe(0);
    expect(parts.journal.segments().length).toBe(1);
  });

  it("has the archive keep both contents of an identity that was used twice while all were away", async () => {
    const recovery = await parts.startSettled();
    parts.archiveAway = true;
    const [one, other] = [{ service: "one" }, { service: "other" }].map((entry) =>
      sealed({ producer: "a", sequence: 1 }, entry),
    );
    if (one === undefined || other === undefined) throw new Error("there are two");
    await parts.journal.append([one]);
    recovery.markLocal([one]);
    await parts.journal.rotate();
    await parts.journal.append([other]);
    recovery.markLocal([other]);
    parts.archiveAway = false;
    recovery.tierBack();
    await recovery.settled(never);
    const { database } = parts.archives.instances[0];
    expect((await database.query("SELECT producer, sequence FROM audit_conflict", [])).length).toBe(1);
    expect(await parts.archive.size()).toBe(1);
    await until(isEmpty, { what: "the journal to be emptied" });
  });
});

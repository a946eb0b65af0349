import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { JournalUnavailableError } from "../../src/audit/journal/journal.ts";
import { Failure } from "../../src/infra/failure.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { sealed } from "./archives.ts";
import { open, readAll, recordsOf, sequencesOf, theOnly } from "./journals.ts";

const scratch = scratchDirectory("journal");
afterAll(() => scratch.remove());
let made = 0;
const newDirectory = () => join(scratch.path, String(made++));

async function failureOf(work: Promise<unknown>): Promise<Failure> {
  const error = await work.then(
    () => new Error("it did not fail"),
    (reason: unknown) => reason,
  );
  if (error instanceof Failure) return error;
  throw error;
}

describe("the journal", () => {
  it("gives back what was appended, byte by byte and in order, before a restart and after it", async () => {
    const directory = newDirectory();
    const { journal } = await open(directory);
    const records = [...recordsOf("a", 1, 700), ...recordsOf("@r.once", 1, 1), ...recordsOf("b", 2 ** 53 - 100, 99)];
    await Promise.all([journal.append(records.slice(0, 300)), journal.append(records.slice(300))]);
    expect(await readAll(journal)).toEqual(records);
    await journal.close();

    const { journal: again, lines } = await open(directory);
    expect(await readAll(again)).toEqual(records);
    expect(again.condition()).toMatchObject({ segments: 1, records: 800, quarantined: 0, lastError: undefined });
    expect([...theOnly(again.segments()).held]).toEqual([
      ["a", [{ first: 1, last: 700 }]],
      ["@r.once", [{ first: 1, last: 1 }]],
      ["b", [{ first: 2 ** 53 - 100, last: 2 ** 53 - 2 }]],
    ]);
    expect(lines).toEqual([]);
    await again.close();
  });

  it("finds the leaf of what it holds, and nothing else", async () => {
    const { journal } = await open(newDirectory(), { segmentBytes: 2_000 });
    const records = recordsOf("a", 1, 100);
    for (let at = 0; at < records.length; at += 10) await journal.append(records.slice(at, at + 10));
    expect(journal.segments().length).toBeGreaterThan(3);
    for (const record of records)
      expect(Buffer.from((await journal.find(record)) ?? []).equals(record.leaf)).toBe(true);
    expect(await journal.find({ producer: "a", sequence: 101 })).toBeUndefined();
    expect(await journal.find({ producer: "b", sequence: 1 })).toBeUndefined();
    await journal.close();
  });

  it("has copied the records when append returns", async () => {
    const { journal } = await open(newDirectory());
    const record = sealed({ producer: "a", sequence: 1 });
    const before = Uint8Array.from(record.leaf);
    const appended = journal.append([record]);
    record.leaf.fill(0);
    await appended;
    expect(await journal.find(record)).toEqual(before);
    await journal.close();
  });

  it("is for this user only, files too", async () => {
    const directory = newDirectory();
    const { journal } = await open(directory);
    await journal.append(recordsOf("a", 1, 1));
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(statSync(join(directory, theOnly(journal.segments()).name)).mode & 0o777).toBe(0o600);
    await journal.close();
  });

  it("belongs to one process: a second one is told who has it, and which setting to change", async () => {
    const directory = newDirectory();
    const { journal } = await open(directory);
    const failure = await failureOf(open(directory));
    expect(failure.reason).toBe("JOURNAL_DIRECTORY_IN_USE");
    expect(failure.message).toContain(directory);
    expect(failure.message).toContain(`process ${process.pid}`);
    expect(failure.message).toContain("AUDIT_BACKUP_PATH");
    await journal.close();
    await (await open(directory)).journal.close();
  });

  it("says so when its directory cannot be used", async () => {
    const file = join(scratch.path, "file");
    writeFileSync(file, "");
    const failure = await failureOf(open(join(file, "audit")));
    expect(failure).toBeInstanceOf(JournalUnavailableError);
    expect(failure.message).toContain(join(file, "audit"));
  });

  it("takes no more than its size, and again when segments were released", async () => {
    const { journal } = await open(newDirectory(), { maxBytes: 10_000 });
    let first = 1;
    const append = () => journal.append(recordsOf("a", first, 10)).then(() => (first += 10));
    let failure: Failure | undefined;
    while (failure === undefined) {
      failure = await append().then(
        () => undefined,
        (error: Failure) => error,
      );
    }
    expect(failure).toBeInstanceOf(JournalUnavailableError);
    expect(failure.reason).toBe("JOURNAL_FULL");
    expect(first).toBeGreaterThan(40);
    expect(journal.condition().bytes).toBeLessThanOrEqual(10_000);
    await journal.rotate();
    await journal.release(theOnly(journal.segments()));
    expect(journal.condition()).toMatchObject({ segments: 0, records: 0, bytes: 0 });
    await append();
    expect(sequencesOf(await readAll(journal))).toEqual(recordsOf("a", first - 10, 10).map((one) => one.sequence));
    await journal.close();
  });

  it("counts what is on its way to the disk against its size", async () => {
    const { journal } = await open(newDirectory(), { maxBytes: 10_000 });
    const results = await Promise.allSettled(
      Array.from({ length: 30 }, (_, i) => journal.append(recordsOf("a", 1 + i * 10, 10))),
    );
    const kept = results.filter(({ status }) => status === "fulfilled").length;
    expect(kept).toBeGreaterThan(3);
    expect(kept).toBeLessThan(15);
    expect(journal.condition().bytes).toBeLessThanOrEqual(10_100);
    await journal.close();
  });

  it("releases no segment that is still written to, and deletes the file of one that is sealed", async () => {
    const directory = newDirectory();
    const { journal } = await open(directory);
    await journal.append(recordsOf("a", 1, 5));
    const segment = theOnly(journal.segments());
    await expect(journal.release(segment)).rejects.toThrow("still written to");
    await journal.rotate();
    await journal.append(recordsOf("a", 6, 5));
    expect(journal.segments().map(({ sealed }) => sealed)).toEqual([true, false]);
    await journal.release(segment);
    expect(readdirSync(directory).filter((name) => name.endsWith(".seg"))).toEqual([theOnly(journal.segments()).name]);
    await journal.close();
  });

  it("rotates behind all that was appended before", async () => {
    const { journal } = await open(newDirectory());
    const appended = [journal.append(recordsOf("a", 1, 5)), journal.append(recordsOf("a", 6, 5))];
    await journal.rotate();
    const segment = theOnly(journal.segments());
    expect(segment).toMatchObject({ sealed: true, records: 10 });
    await Promise.all(appended);
    // There is nothing to seal now.
    await journal.rotate();
    expect(journal.segments()).toEqual([segment]);
    await journal.close();
  });

  it("rotates while appends never pause", async () => {
    const { journal } = await open(newDirectory());
    let sequence = 1;
    let stop = false;
    async function appendOn(): Promise<void> {
      while (!stop) await journal.append(recordsOf("a", sequence++, 1));
    }
    const appenders = [appendOn(), appendOn(), appendOn()];
    for (let i = 0; i < 20; i++) await journal.rotate();
    stop = true;
    await Promise.all(appenders);
    expect(sequencesOf(await readAll(journal)).length).toBe(sequence - 1);
    await journal.close();
  });

  it("appends nothing once it is closed, and keeps what was on its way", async () => {
    const directory = newDirectory();
    const { journal } = await open(directory);
    const appended = journal.append(recordsOf("a", 1, 100));
    await journal.close();
    await appended;
    expect((await failureOf(journal.append(recordsOf("a", 101, 1)))).reason).toBe("JOURNAL_UNAVAILABLE");
    const { journal: again } = await open(directory);
    expect((await readAll(again)).length).toBe(100);
    await again.close();
  });

  it("leaves files alone that are not its own", async () => {
    const directory = newDirectory();
    mkdirSync(directory);
    for (const name of ["notes.txt", "1.seg", "000000000001.seg.bak"]) writeFileSync(join(directory, name), "mine");
    const { journal } = await open(directory);
    await journal.append(recordsOf("a", 1, 1));
    await journal.close();
    await (await open(directory)).journal.close();
    for (const name of ["notes.txt", "1.seg", "000000000001.seg.bak"]) {
      expect(readFileSync(join(directory, name), "utf8")).toBe("mine");
    }
  });
});

import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { frameBytes, SEGMENT_HEADER_BYTES } from "../../src/audit/journal/journal-frame.ts";
import { SegmentParser } from "../../src/audit/journal/journal-parser.ts";
import type { Sealed } from "../../src/audit/record/record.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { sealed } from "./archives.ts";
import { open, readAll, recordsOf, sequencesOf, theOnly } from "./journals.ts";

const scratch = scratchDirectory("journal-damage");
afterAll(() => scratch.remove());
let made = 0;

interface Written {
  readonly name: string;
  readonly bytes: Buffer;
  readonly records: readonly Sealed[];
  /** Where each record begins, and where the last one ends. */
  readonly edges: readonly number[];
}

const producers = ["billing", "@r.5f1d", "b"];

/** A segment with a few records; without its end when the process was killed. */
async function written(killed: boolean): Promise<Written> {
  const directory = join(scratch.path, `written-${made++}`);
  const { journal } = await open(directory);
  const records = producers.flatMap((producer) => recordsOf(producer, 7, 2));
  await journal.append(records.slice(0, 4));
  await journal.append(records.slice(4));
  const { name } = theOnly(journal.segments());
  const path = join(directory, name);
  const whole = killed ? readFileSync(path) : undefined;
  await journal.close();
  const edges = [SEGMENT_HEADER_BYTES];
  for (const { producer, leaf } of records) edges.push((edges.at(-1) ?? 0) + frameBytes(producer, leaf));
  return { name, bytes: whole ?? readFileSync(path), records, edges };
}

/** A directory in which a segment is found with these bytes. */
function placed(name: string, bytes: Buffer): string {
  const directory = join(scratch.path, `placed-${made++}`);
  mkdirSync(directory);
  writeFileSync(join(directory, name), bytes);
  return directory;
}

function quarantined(directory: string): readonly Record<string, unknown>[] {
  const index = join(directory, "quarantine", "index.jsonl");
  if (!existsSync(index)) return [];
  const lines = readFileSync(index, "utf8")
    .split("\n")
    .filter((line) => line !== "");
  return lines.map((line) => JSON.parse(line));
}

function flipped(bytes: Buffer, at: number, bit = at % 8): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ (1 << bit);
  return copy;
}

describe("a torn tail of the journal", () => {
  it("at any byte costs the torn record alone, is no error, and is cut off", async () => {
    const { name, bytes, records, edges } = await written(true);
    expect(bytes.length).toBe(edges.at(-1));
    for (let length = 0; length < bytes.length; length++) {
      const directory = placed(name, bytes.subarray(0, length));
      const { journal, lines } = await open(directory);
      const whole = edges.filter((edge) => edge <= length).length - 1;
      const torn = length - (whole < 0 ? 0 : (edges[whole] ?? 0));
      expect(await readAll(journal), `cut at ${length}`).toEqual(records.slice(0, Math.max(0, whole)));
      expect(journal.condition().quarantined).toBe(0);
      expect(lines).toMatchObject(torn === 0 ? [] : [{ level: "info", bytes: torn }]);
      await journal.close();
      if (whole > 0) expect(statSync(join(directory, name)).size).toBe(edges[whole]);
      else expect(existsSync(join(directory, name))).toBe(false);
    }
  });

  it("is told once: the next start finds nothing wrong", async () => {
    const { name, bytes } = await written(true);
    const directory = placed(name, bytes.subarray(0, bytes.length - 3));
    await (await open(directory)).journal.close();
    const { journal, lines } = await open(directory);
    expect(lines).toEqual([]);
    expect((await readAll(journal)).length).toBe(5);
    await journal.close();
  });
});

describe.each([
  { what: "that was finished", killed: false },
  { what: "of a process that was killed", killed: true },
])("damage in a segment $what", ({ killed }) => {
  it("at any byte costs the record it is in alone, which is counted and kept aside", async () => {
    const { name, bytes, records, edges } = await written(killed);
    for (let at = 0; at < bytes.length; at++) {
      const directory = placed(name, flipped(bytes, at));
      const { journal, lines } = await open(directory);
      const hit = at < SEGMENT_HEADER_BYTES ? -1 : edges.findLastIndex((edge) => edge <= at);
      const lost = hit < records.length ? records[hit] : undefined;
      const others = records.filter((record) => record !== lost);
      expect(await readAll(journal), `byte ${at}`).toEqual(others);
      expect(journal.condition().quarantined, `byte ${at}`).toBe(lost === undefined ? 0 : 1);
      expect(lines.filter(({ level }) => level === "error").map((line) => line.records)).toEqual(lost ? [1] : []);
      if (lost !== undefined) {
        expect(quarantined(directory)).toMatchObject([{ segment: name, offset: edges[hit], records: 1 }]);
        const kept = readFileSync(join(directory, "quarantine", `${name}-${edges[hit]}.bad`));
        expect(kept).toEqual(flipped(bytes, at).subarray(edges[hit], (edges[hit] ?? 0) + kept.length));
        const inLeaf = at >= (edges[hit + 1] ?? 0) - lost.leaf.length - 4;
        expect(journal.isQuarantined(lost), `byte ${at}`).toBe(inLeaf);
        expect(await journal.find(lost)).toBeUndefined();
      }
      await journal.close();
    }
  });

  it("of any bits anywhere is parsed the same in whatever portions it is read", async () => {
    const { bytes, records } = await written(killed);
    const tag = bytes.readUInt32LE(8);
    const body = bytes.subarray(SEGMENT_HEADER_BYTES);
    const at = fc.nat({ max: body.length - 1 });
    fc.assert(
      fc.property(fc.array(fc.tuple(at, fc.nat({ max: 7 })), { maxLength: 4 }), fc.array(at), (flips, cuts) => {
        const damaged = flips.reduce((all, [place, bit]) => flipped(all, place, bit), body);
        const parser = new SegmentParser(tag);
        const edges = [0, ...cuts.toSorted((a, b) => a - b), body.length];
        const parts = edges.slice(1).map((end, i) => parser.push(damaged.subarray(edges[i], end)));
        const { damage, torn } = parser.end();
        const found = parts.flatMap(({ frames }) => frames);
        const lost = [...parts.flatMap(({ damages }) => damages), ...(damage ? [damage] : [])];
        const all = new Map(records.map((record) => [`${record.producer}/${record.sequence}`, record.leaf]));
        for (const { producer, sequence, leaf } of found) {
          expect(leaf.equals(all.get(`${producer}/${sequence}`) ?? Buffer.alloc(0))).toBe(true);
        }
        expect(found).toEqual(new SegmentParser(tag).push(damaged).frames);
        expect(torn).toBe(0);
        // A header that is damaged at the end of a segment that was not finished hides how many there were: at least one.
        const counted = found.length + lost.reduce((sum, one) => sum + one.records, 0);
        if (killed || damage !== undefined) expect(counted).toBeLessThanOrEqual(records.length);
        else expect(counted).toBe(records.length);
      }),
      { numRuns: 500 },
    );
  });
});

describe("a damaged journal", () => {
  it("remembers over restarts what it set aside, and tells of it once", async () => {
    const { name, bytes, records, edges } = await written(false);
    const third = records[2];
    if (third === undefined) throw new Error("there is a third record");
    const directory = placed(name, flipped(bytes, (edges[3] ?? 0) - 10));
    const { journal } = await open(directory);
    expect(journal.isQuarantined(third)).toBe(true);
    expect(journal.quarantined(third.producer)).toEqual([{ first: third.sequence, last: third.sequence }]);
    await journal.close();

    const second = await open(directory);
    expect(second.lines).toEqual([]);
    expect(second.journal.isQuarantined(third)).toBe(true);
    expect(second.journal.condition().quarantined).toBe(1);
    expect(quarantined(directory).length).toBe(1);
    await second.journal.release(theOnly(second.journal.segments()));
    await second.journal.close();

    // A later segment is not taken for the one that was released.
    const last = await open(directory);
    await last.journal.append(recordsOf("later", 1, 1));
    expect(theOnly(last.journal.segments()).name > name).toBe(true);
    expect(last.journal.isQuarantined(third)).toBe(true);
    await last.journal.close();
  });

  it("is read without either copy of its header", async () => {
    const { name, bytes, records } = await written(true);
    const directory = placed(
      name,
      Buffer.concat([Buffer.alloc(SEGMENT_HEADER_BYTES), bytes.subarray(SEGMENT_HEADER_BYTES)]),
    );
    const { journal } = await open(directory);
    expect(await readAll(journal)).toEqual(records);
    await journal.close();
  });

  it("keeps all of a segment in which nothing can be read", async () => {
    const directory = placed("000000000003.seg", Buffer.alloc(100_000, 0x5a));
    const { journal, lines } = await open(directory);
    expect(await readAll(journal)).toEqual([]);
    expect(lines.map(({ level }) => level)).toEqual(["error"]);
    expect(statSync(join(directory, "quarantine", "000000000003.seg-64.bad")).size).toBe(99_936);
    await journal.release(theOnly(journal.segments()));
    await journal.close();
  });

  it("counts exactly when many records in a row are gone", async () => {
    const directory = join(scratch.path, "row");
    const { journal } = await open(directory);
    const records = recordsOf("a", 1, 5_000);
    await journal.append(records);
    const { name } = theOnly(journal.segments());
    await journal.close();
    const bytes = readFileSync(join(directory, name));
    const starts = [SEGMENT_HEADER_BYTES];
    for (const { producer, leaf } of records) starts.push((starts.at(-1) ?? 0) + frameBytes(producer, leaf));
    bytes.fill(0xff, (starts[1_000] ?? 0) + 3, (starts[3_000] ?? 0) + 1);
    writeFileSync(join(directory, name), bytes);
    const { journal: again } = await open(directory);
    expect(again.condition()).toMatchObject({ quarantined: 2_001, records: 2_999 });
    const rest = [...records.slice(0, 1_000), ...records.slice(3_001)];
    expect(sequencesOf(await readAll(again))).toEqual(sequencesOf(rest));
    await again.close();
  });

  it("learns whose the damaged records were when the damage comes while it is open", async () => {
    const directory = join(scratch.path, "while-open");
    const { journal } = await open(directory);
    const records = recordsOf("a", 1, 10);
    await journal.append(records);
    await journal.rotate();
    const segment = theOnly(journal.segments());
    const path = join(directory, segment.name);
    // In the header of the fourth.
    const at = records.slice(0, 3).reduce((sum, { producer, leaf }) => sum + frameBytes(producer, leaf), 64) + 5;
    writeFileSync(path, flipped(readFileSync(path), at));
    expect(sequencesOf(await readAll(journal))).toEqual([1, 2, 3, 5, 6, 7, 8, 9, 10]);
    expect(journal.isQuarantined({ producer: "a", sequence: 4 })).toBe(true);
    expect(segment.held.get("a")).toEqual([
      { first: 1, last: 3 },
      { first: 5, last: 10 },
    ]);
    await readAll(journal);
    await journal.close();
    const { journal: again } = await open(directory);
    expect(again.quarantined("a")).toEqual([{ first: 4, last: 4 }]);
    expect(again.condition().quarantined).toBe(1);
    await again.close();
  });

  it("sets aside a record whose bytes are not what its frame says", async () => {
    const directory = join(scratch.path, "not-a-record");
    const { journal } = await open(directory);
    await journal.append([{ ...sealed({ producer: "a", sequence: 1 }), sequence: 2 }, ...recordsOf("a", 3, 1)]);
    expect(sequencesOf(await readAll(journal))).toEqual([3]);
    expect(journal.isQuarantined({ producer: "a", sequence: 2 })).toBe(true);
    await journal.close();
  });

  it("is not fooled by a record that contains a copy of a frame", async () => {
    const { bytes } = await written(true);
    const directory = join(scratch.path, "copy");
    const { journal } = await open(directory);
    const text = bytes.subarray(SEGMENT_HEADER_BYTES).toString("latin1");
    const records = [sealed({ producer: "a", sequence: 1 }, { service: text }), ...recordsOf("a", 2, 1)];
    await journal.append(records);
    const { name } = theOnly(journal.segments());
    await journal.close();
    writeFileSync(join(directory, name), flipped(readFileSync(join(directory, name)), SEGMENT_HEADER_BYTES + 5));
    const { journal: again } = await open(directory);
    expect(sequencesOf(await readAll(again))).toEqual([2]);
    expect(again.condition().quarantined).toBe(1);
    await again.close();
  });

  it("keeps a segment until what is damaged in it could be set aside", async () => {
    const { name, bytes, records, edges } = await written(false);
    const directory = placed(name, flipped(bytes, (edges[3] ?? 0) - 10));
    const inTheWay = join(directory, "quarantine", `${name}-${edges[2]}.bad`);
    mkdirSync(inTheWay, { recursive: true });
    const { journal, lines } = await open(directory);
    expect(lines.map(({ msg }) => msg)).toEqual(["damage of the audit journal cannot be set aside"]);
    expect(await readAll(journal)).toEqual(records.toSpliced(2, 1));
    const segment = theOnly(journal.segments());
    await expect(journal.release(segment)).rejects.toThrow("EISDIR");
    expect(journal.segments()).toEqual([segment]);
    expect(existsSync(join(directory, name))).toBe(true);
    rmdirSync(inTheWay);
    await journal.release(segment);
    expect(journal.condition()).toMatchObject({ segments: 0, quarantined: 1 });
    await journal.close();
  });

  it("is not opened when a newer version wrote it", async () => {
    const { name, bytes } = await written(false);
    const newer = Buffer.from(bytes);
    for (const copy of [0, 32]) {
      newer.writeUInt32LE(2, copy + 4);
      newer.writeUInt32LE(crc32(newer.subarray(copy, copy + 28)), copy + 28);
    }
    const directory = placed(name, newer);
    await expect(open(directory)).rejects.toMatchObject({ reason: "JOURNAL_VERSION_UNKNOWN" });
    expect(readdirSync(directory)).toContain(name);
  });
});

import { execFileSync } from "node:child_process";
import { rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it } from "vitest";
import { JournalUnavailableError } from "../../src/audit/journal/journal.ts";
import { type Child, startChild } from "../support/child.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { until } from "../support/until.ts";
import { open, readAll, recordsOf, sequencesOf } from "./journals.ts";

const scratch = scratchDirectory("journal-crash");
afterAll(() => scratch.remove());
let made = 0;
const newDirectory = () => join(scratch.path, String(made++));
const appender = fileURLToPath(new URL("./journal-appender.ts", import.meta.url));

function startAppender(directory: string, first: number, care = "careful"): Promise<Child> {
  return startChild({
    command: process.execPath,
    args: [appender, directory, String(first), care],
    isReady: (line) => line === "ready",
  });
}

/** What it said to be acknowledged, in whole lines. */
function ackedBy(child: Child): readonly number[] {
  return child
    .output()
    .split("\n")
    .slice(0, -1)
    .flatMap((line) => {
      const [, first, count] = /^acked (\d+) (\d+)$/.exec(line) ?? [];
      return first === undefined ? [] : Array.from({ length: Number(count) }, (_, i) => Number(first) + i);
    });
}

/** Kills an appender in the middle of its work, again and again, and returns what was acknowledged and is not there. */
async function lostInKills(directory: string, rounds: number, care?: string): Promise<readonly number[]> {
  const acked: number[] = [];
  let first = 1;
  for (let round = 0; round < rounds; round++) {
    const child = await startAppender(directory, first, care);
    const enough = 1 + Math.floor(Math.random() * 3_000);
    await until(() => ackedBy(child).length >= enough, { what: "acknowledgements", intervalMs: 1 });
    await child.kill();
    const these = ackedBy(child);
    acked.push(...these);
    first = Math.max(...these) + 10_000;
  }
  const { journal, lines } = await open(directory);
  const records = await readAll(journal);
  expect(journal.condition().quarantined).toBe(0);
  expect(lines.filter(({ level }) => level !== "info")).toEqual([]);
  const held = new Map(records.map((record) => [record.sequence, record]));
  for (const sequence of acked) {
    const [expected] = recordsOf("appender", sequence, 1);
    if (held.has(sequence)) expect(held.get(sequence)).toEqual(expected);
  }
  await journal.close();
  return acked.filter((sequence) => !held.has(sequence));
}

describe("a journal of a process that is killed", () => {
  it("has everything that was acknowledged, however often", async () => {
    expect(await lostInKills(newDirectory(), 15)).toEqual([]);
  });

  it("would be seen to lack what was acknowledged before it was written", async () => {
    let lost: readonly number[] = [];
    for (let round = 0; round < 30 && lost.length === 0; round++)
      lost = await lostInKills(newDirectory(), 1, "careless");
    expect(lost).not.toEqual([]);
  });
});

describe("a journal on a disk that is full", () => {
  const mounted = mountSmall();
  it.skipIf(mounted === undefined)(
    "refuses what it cannot keep, keeps the rest, and goes on when there is room",
    async () => {
      if (mounted === undefined) return;
      const filler = join(mounted, "filler");
      writeFileSync(filler, Buffer.alloc(300_000));
      const directory = join(mounted, "audit");
      const { journal } = await open(directory, { segmentBytes: 100_000 });
      const acked: number[] = [];
      let next = 1;
      async function append(): Promise<unknown> {
        const records = recordsOf("a", next, 50);
        next += 50;
        try {
          await journal.append(records);
          acked.push(...sequencesOf(records));
          return undefined;
        } catch (error) {
          return error;
        }
      }
      async function appendUntilRefused(): Promise<unknown> {
        for (;;) {
          const refused = await append();
          if (refused !== undefined) return refused;
        }
      }

      const refused = await appendUntilRefused();
      expect(refused).toBeInstanceOf(JournalUnavailableError);
      expect(refused).toMatchObject({ reason: "JOURNAL_UNAVAILABLE", cause: { code: "ENOSPC" } });
      expect(journal.condition().lastError?.message).toContain("ENOSPC");
      expect(await append()).toBeInstanceOf(JournalUnavailableError);
      expect(sequencesOf(await readAll(journal))).toEqual(acked);

      rmSync(filler);
      expect(await append()).toBeUndefined();
      expect(journal.condition().lastError).toBeUndefined();
      await appendUntilRefused();
      expect(sequencesOf(await readAll(journal))).toEqual(acked);

      // Full as it is, it is opened again, and emptied.
      await journal.close();
      const { journal: again, lines } = await open(directory);
      expect(sequencesOf(await readAll(again))).toEqual(acked);
      expect(again.condition().quarantined).toBe(0);
      expect(lines.filter(({ level }) => level !== "info")).toEqual([]);
      for (const segment of again.segments()) await again.release(segment);
      await again.append(recordsOf("a", next, 50));
      await again.close();
    },
  );

  it("refuses what does not fit into a file that may not grow, and has all that was acknowledged", async () => {
    const directory = newDirectory();
    // In units of 1,024 or 512 bytes, as the shell has it: less than a segment in either.
    const script = `trap '' XFSZ; ulimit -f 40; exec "$0" "$@"`;
    const child = await startChild({
      command: "/bin/sh",
      args: ["-c", script, process.execPath, appender, directory, "1"],
      isReady: (line) => line === "ready",
    });
    await until(() => child.output().includes("done"), { what: "the end of the appender" });
    await child.kill();
    expect(child.output()).toContain("EFBIG");
    const acked = ackedBy(child);
    expect(acked.length).toBeGreaterThan(0);
    const { journal } = await open(directory);
    expect(sequencesOf(await readAll(journal))).toEqual(acked.toSorted((a, b) => a - b));
    expect(journal.condition().quarantined).toBe(0);
    for (const { name } of journal.segments()) expect(statSync(join(directory, name)).size).toBeLessThan(64 * 1024);
    await journal.close();
  });
});

/** A file system of 1 MiB. Undefined, and said so, where this user may not mount one. */
function mountSmall(): string | undefined {
  const { path, remove } = scratchDirectory("small-disk");
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", path], { stdio: "pipe" });
  } catch (error) {
    remove();
    console.warn(`the test of a full disk is skipped: ${String(error)}`);
    return undefined;
  }
  afterAll(() => {
    execFileSync("umount", ["-l", path]);
    remove();
  });
  return path;
}

import type { Journal, Segment } from "../../src/audit/journal/journal.ts";
import { type JournalOptions, openJournal } from "../../src/audit/journal/journal-directory.ts";
import { unseal } from "../../src/audit/record/leaf.ts";
import type { Sealed } from "../../src/audit/record/record.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { sealed } from "./archives.ts";

/** A line of the log, as far as tests look at it. */
export interface Line {
  readonly level: string;
  readonly msg: string;
  readonly records?: number;
  readonly bytes?: number;
}

export interface OpenedJournal {
  readonly journal: Journal;
  readonly lines: readonly Line[];
}

export async function open(
  directory: string,
  options: Partial<Pick<JournalOptions, "maxBytes" | "segmentBytes" | "clock">> = {},
): Promise<OpenedJournal> {
  const lines: Line[] = [];
  const log = createLog({ level: "info", destination: { write: (line) => lines.push(JSON.parse(line)) } });
  const journal = await openJournal({ directory, maxBytes: 2 ** 30, clock: systemClock, log, ...options });
  return { journal, lines };
}

/** As it is when it is read from its bytes, to compare it with what a journal gives back. */
export function asRead({ leaf }: Sealed): Sealed {
  return unseal(leaf);
}

/** Records of one producer with these sequences, of different lengths. */
export function recordsOf(producer: string, first: number, count: number): readonly Sealed[] {
  return Array.from({ length: count }, (_, i) => {
    const sequence = first + i;
    return asRead(sealed({ producer, sequence }, { service: "s".repeat(sequence % 13) }));
  });
}

export async function readAll(journal: Journal): Promise<readonly Sealed[]> {
  const records: Sealed[] = [];
  for (const segment of journal.segments()) for await (const some of journal.read(segment)) records.push(...some);
  return records;
}

export function sequencesOf(records: readonly Sealed[]): readonly number[] {
  return records.map(({ sequence }) => sequence);
}

export function theOnly(segments: readonly Segment[]): Segment {
  const [segment, ...others] = segments;
  if (segment === undefined || others.length > 0) throw new Error(`there are ${segments.length} segments, not one`);
  return segment;
}

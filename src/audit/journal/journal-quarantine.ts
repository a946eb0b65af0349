import { mkdir, open, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../infra/clock.ts";
import type { Log } from "../../infra/log.ts";
import type { RecordId } from "../record/record.ts";
import { Identities } from "./held-ranges.ts";
import type { HeldRanges } from "./journal.ts";
import type { Damage } from "./journal-parser.ts";
import { copyBytes, type SegmentFile, segmentNumber, syncDirectory } from "./journal-segment.ts";

/** Damaged bytes of the journal, kept for whoever can make something of them, with an account of what was lost. */
export interface Quarantine {
  /** How many records are in it. */
  readonly records: number;
  /** The largest number of a segment in it; 0: none. */
  readonly lastSegment: number;
  has(id: RecordId): boolean;
  of(producer: string): HeldRanges;
  /** Sets damage aside, once. Resolves when it is on the disk. */
  add(segment: SegmentFile, damage: Damage): Promise<void>;
  /** Takes down whose the damaged records of a segment were. */
  name(segment: SegmentFile, lost: Identities): Promise<void>;
}

/** A line of the index. */
interface Entry {
  readonly segment: string;
  readonly offset?: number;
  readonly bytes?: number;
  readonly records?: number;
  readonly producer?: string;
  readonly sequence?: number;
  /** Of sequences, where a line names more than one. */
  readonly last?: number;
  readonly reason: string;
  readonly time: string;
}

export async function openQuarantine(
  journal: string,
  { clock, log }: { readonly clock: Clock; readonly log: Log },
): Promise<Quarantine> {
  const directory = join(journal, "quarantine");
  const index = join(directory, "index.jsonl");
  const ids = new Identities();
  const places = new Set<string>();
  let records = 0;
  let lastSegment = 0;
  let writing: Promise<void> = Promise.resolve();
  for (const entry of await readIndex(index, log)) take(entry);

  function take({ segment, offset, records: lost = 0, producer, sequence, last = sequence }: Entry): void {
    lastSegment = Math.max(lastSegment, segmentNumber(segment) ?? 0);
    if (offset !== undefined) places.add(placeOf(segment, offset));
    if (producer !== undefined && sequence !== undefined && last !== undefined) ids.add(producer, sequence, last);
    records += lost;
  }

  function write(entries: readonly Entry[]): Promise<void> {
    const written = writing.then(() => appendLines(directory, index, entries));
    writing = written.catch(() => undefined);
    return written.then(() => entries.forEach(take));
  }

  const adding = new Map<string, Promise<void>>();

  async function setAside(segment: SegmentFile, damage: Damage): Promise<void> {
    const { offset, bytes, records: lost, id, reason } = damage;
    const facts = { segment: segment.name, offset, bytes, records: lost, ...id, reason };
    await mkdir(directory, { recursive: true, mode: 0o700 });
    if (bytes > 0) await copyBytes(segment.path, offset, bytes, join(directory, `${segment.name}-${offset}.bad`));
    await write([{ ...facts, time: new Date(clock.now()).toISOString() }]);
    const told = { ...facts, quarantined: records, directory };
    if (lost > 0) log.error(told, "the audit journal is damaged: records were set aside");
    else log.warn(told, "the audit journal is damaged where no record is: the bytes were set aside");
  }

  return {
    get records() {
      return records;
    },
    get lastSegment() {
      return lastSegment;
    },
    has: (id) => ids.contains(id),
    of: (producer) => ids.get(producer) ?? [],
    async add(segment, damage) {
      const place = placeOf(segment.name, damage.offset);
      if (places.has(place)) return;
      let added = adding.get(place);
      if (added === undefined) {
        added = setAside(segment, damage).finally(() => adding.delete(place));
        adding.set(place, added);
      }
      await added;
    },
    async name(segment, lost) {
      const news = new Identities();
      news.addAll(lost);
      news.removeAll(ids);
      if (news.size === 0) return;
      const facts = {
        segment: segment.name,
        reason: "they were in the damage",
        time: new Date(clock.now()).toISOString(),
      };
      await write([...news.runs()].map(({ producer, first, last }) => ({ ...facts, producer, sequence: first, last })));
    },
  };
}

function placeOf(segment: string, offset: number): string {
  return `${segment}-${offset}`;
}

async function appendLines(directory: string, index: string, entries: readonly Entry[]): Promise<void> {
  const handle = await open(index, "a", 0o600);
  try {
    // A line that was torn by a crash must not swallow the first of these.
    await handle.writeFile(`\n${entries.map((entry) => JSON.stringify(entry)).join("\n")}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await syncDirectory(directory);
}

async function readIndex(index: string, log: Log): Promise<readonly Entry[]> {
  let text: string;
  try {
    text = await readFile(index, "utf8");
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
  return text.split("\n").flatMap((line) => {
    if (line === "") return [];
    const entry = parseEntry(line);
    if (entry === undefined) log.warn({ index, line }, "a line of the audit journal's quarantine cannot be read");
    return entry ?? [];
  });
}

function parseEntry(line: string): Entry | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  return isEntry(value) ? value : undefined;
}

function isEntry(value: unknown): value is Entry {
  if (typeof value !== "object" || value === null || !("segment" in value) || typeof value.segment !== "string") {
    return false;
  }
  const facts: Partial<Record<keyof Entry, unknown>> = value;
  const numbers = [facts.offset, facts.bytes, facts.records, facts.sequence, facts.last];
  return (
    numbers.every((one) => one === undefined || Number.isSafeInteger(one)) &&
    (facts.producer === undefined || typeof facts.producer === "string")
  );
}

export function isMissing(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

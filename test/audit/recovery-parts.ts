import { join } from "node:path";
import type { Journal } from "../../src/audit/journal/journal.ts";
import { createRecovery, type Recovery, type RecoveryOptions } from "../../src/audit/journal/recovery.ts";
import type { RecordId, Sealed } from "../../src/audit/record/record.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { type MovedClock, movedClock } from "../support/moved-clock.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { type OpenArchives, openArchives } from "./archives.ts";
import { open } from "./journals.ts";

const scratch = scratchDirectory("recovery");
let made = 0;
export const never = new AbortController().signal;
export const INTERVAL_MS = 300_000;

/** A journal, an archive and what brings the one into the other. */
export class Parts {
  readonly clock: MovedClock = movedClock();
  readonly directory = join(scratch.path, String(made++));
  readonly archives: OpenArchives;
  journal: Journal;
  recovery: Recovery | undefined;
  /** While set, no call reaches it. */
  archiveAway = false;
  /** How often the archive was asked what it holds. */
  asked = 0;
  /** Where records are delivered to: into the archive, unless a test says otherwise. */
  deliver: (records: readonly Sealed[]) => Promise<void> = (records) => this.intoArchive(records);
  readonly delivered: RecordId[] = [];

  constructor(archives: OpenArchives, journal: Journal) {
    this.archives = archives;
    this.journal = journal;
  }

  get archive() {
    return this.archives.instances[0].archive;
  }

  async intoArchive(records: readonly Sealed[]): Promise<void> {
    this.throwIfAway();
    await this.archive.append(records, "keep");
  }

  throwIfAway(): void {
    if (this.archiveAway) throw new UnavailableError("SQL_UNAVAILABLE", "SQL is away");
  }

  start(options: Partial<RecoveryOptions> = {}): Recovery {
    this.recovery = createRecovery({
      journal: this.journal,
      archive: {
        countHeld: async (producer, ranges) => {
          this.throwIfAway();
          this.asked += 1;
          return this.archive.countHeld(producer, ranges);
        },
        find: async (ids) => {
          this.throwIfAway();
          this.asked += 1;
          return this.archive.find(ids);
        },
      },
      deliver: async (records) => {
        await this.deliver(records);
        this.delivered.push(...records.map(({ producer, sequence }) => ({ producer, sequence })));
      },
      intervalMs: INTERVAL_MS,
      clock: this.clock,
      log: createLog({ level: "silent" }),
      tickMs: 10,
      ...options,
    });
    return this.recovery;
  }

  /** As after a restart. */
  async reopen(): Promise<void> {
    await this.recovery?.close();
    await this.journal.close();
    this.journal = (await open(this.directory)).journal;
  }

  /** Waits for what is done at the start of a recovery. */
  async startSettled(options: Partial<RecoveryOptions> = {}): Promise<Recovery> {
    const recovery = this.start(options);
    await recovery.settled(never);
    return recovery;
  }

  async archived(records: readonly Sealed[]): Promise<readonly boolean[]> {
    return (await this.archive.find(records)).map((one) => one !== undefined);
  }

  async close(): Promise<void> {
    await this.recovery?.close();
    await this.journal.close();
    await this.archives[Symbol.asyncDispose]();
  }
}

export async function openParts(): Promise<Parts> {
  const archives = await openArchives("sqlite");
  const directory = join(scratch.path, String(made));
  return new Parts(archives, (await open(directory)).journal);
}

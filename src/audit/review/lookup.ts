import { AuditDurability, type AuditRecord } from "../../gen/holdfast/v1/audit_pb.js";
import type { ServedBy } from "../../infra/call.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { Archive, Archived } from "../archive/archive.ts";
import type { Journal } from "../journal/journal.ts";
import type { Queue } from "../queue/queue.ts";
import type { RecordId } from "../record/record.ts";
import { archivedRecord, recordOf } from "../record/replies.ts";

/** Where a record may be. */
export interface Tiers {
  readonly archive: Archive;
  readonly queue?: Queue | undefined;
  readonly journal?: Journal | undefined;
}

export interface Found {
  readonly outcome: "found";
  readonly record: AuditRecord;
  readonly servedBy: ServedBy;
  /** A safer tier could not be asked. The record may be safer than it says, and may have been reviewed since. */
  readonly degraded: boolean;
}

export type Lookup = Found | { readonly outcome: "not_found" | "retired"; readonly servedBy: ServedBy };

/**
 * Looks for a record in every tier, the safest first. Rejects with UnavailableError when it was not found and a tier that may
 * hold it could not be asked.
 */
export async function lookUp({ archive, queue, journal }: Tiers, id: RecordId): Promise<Lookup> {
  let away: UnavailableError | undefined;

  /** Undefined also while the tier is away. */
  async function ask<T>(answer: Promise<T> | undefined): Promise<T | undefined> {
    try {
      return await answer;
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      away ??= error;
      return undefined;
    }
  }

  async function inArchive(): Promise<Lookup | undefined> {
    const row = (await ask(archive.find([id])))?.[0];
    return row && archivedLookup(archive.kind, row);
  }

  const archived = await inArchive();
  if (archived !== undefined) return archived;
  const queued = (await ask(queue?.find([id])))?.[0];
  if (queued !== undefined) {
    const record = recordOf(id, queued, AuditDurability.QUEUED);
    return { outcome: "found", record, servedBy: "redis", degraded: away !== undefined };
  }
  const journaled = await ask(journal?.find(id));
  // It may have moved on while the other tiers were asked, and the journal keeps a copy of what has.
  const moved = away === undefined ? await inArchive() : undefined;
  if (moved !== undefined) return moved;
  if (journaled !== undefined) {
    const record = recordOf(id, journaled, AuditDurability.JOURNALED);
    return { outcome: "found", record, servedBy: "journal", degraded: away !== undefined };
  }
  if (away !== undefined) throw away;
  return { outcome: "not_found", servedBy: archive.kind };
}

function archivedLookup(servedBy: Archive["kind"], row: Archived): Lookup {
  const { leaf } = row;
  if (leaf === null) return { outcome: "retired", servedBy };
  return { outcome: "found", record: archivedRecord({ ...row, leaf }), servedBy, degraded: false };
}

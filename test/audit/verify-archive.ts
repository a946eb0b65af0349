import type { Archive } from "../../src/audit/archive/archive.ts";
import { parseId, type Sealed } from "../../src/audit/record/record.ts";
import { transitionOf } from "../../src/audit/review/reviews.ts";
import { createSqlReviews } from "../../src/audit/review/sql-reviews.ts";
import { type AuditDecision, AuditStatus } from "../../src/gen/holdfast/v1/audit_pb.js";
import type { Database } from "../../src/infra/database.ts";
import type { MovedClock } from "../support/moved-clock.ts";
import { type KINDS, openArchives, sealed } from "./archives.ts";

/** One archive, for tests that look behind it. */
export interface TestArchive extends AsyncDisposable {
  readonly archive: Archive;
  readonly database: Database;
  readonly clock: MovedClock;
  /** The SQLite file, or the url of the Postgres database. */
  readonly where: string;
}

export async function openArchive(kind: (typeof KINDS)[number]): Promise<TestArchive> {
  const opened = await openArchives(kind);
  const { clock, where, instances } = opened;
  return { ...instances[0], clock, where, [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose]() };
}

interface EntryInit {
  readonly actor?: string;
  readonly action?: string;
  readonly status?: AuditStatus;
}

export const PENDING = { status: AuditStatus.PENDING } as const;

/** A record that states everything that is searched for. */
export function statedRecord(producer: string, sequence: number, acceptMs: number, over: EntryInit = {}): Sealed {
  const entry = {
    actor: `user:${sequence % 7}`,
    action: "memory.update",
    resource: { type: "memory", id: `m${sequence}` },
    outcome: 1,
    service: "billing",
    context: { traceId: `trace-${sequence}` },
    attributes: { sequence },
  } as const;
  return sealed({ producer, sequence }, { ...entry, ...over }, acceptMs * 1000);
}

/** Archives that many records of a producer, accepted now, after those it has; returns them. */
export async function fill(
  { archive, clock }: Pick<TestArchive, "archive" | "clock">,
  count: number,
  options: { readonly producer?: string; readonly over?: (sequence: number) => EntryInit } = {},
): Promise<Sealed[]> {
  const { producer = "app", over = () => ({}) } = options;
  const from = (await archive.lastSequence(producer)) + 1;
  const records = Array.from({ length: count }, (_, i) =>
    statedRecord(producer, from + i, clock.now(), over(from + i)),
  );
  for (let at = 0; at < count; at += 2_000) await archive.append(records.slice(at, at + 2_000), "refuse");
  return records;
}

/** Decides on a record, as Review does. */
export async function review(
  { archive, clock }: Pick<TestArchive, "archive" | "clock">,
  id: string,
  decision: AuditDecision,
): Promise<void> {
  const transition = transitionOf(decision);
  const recordId = parseId(id);
  if (transition === undefined || recordId === undefined) throw new Error("no such review");
  const { applied } = await createSqlReviews({ archive, clock }).decide({
    ...{ id: recordId, transition, expected: transition.from },
    ...{ reviewer: "ada", comment: "seen", caller: "test", named: undefined },
  });
  if (!applied) throw new Error("the review was not applied");
}

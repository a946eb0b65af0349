import { create } from "@bufbuild/protobuf";
import type { Archive } from "../src/audit/archive/archive.ts";
import { seal, toTimestamp } from "../src/audit/record/leaf.ts";
import type { Sealed } from "../src/audit/record/record.ts";
import { AuditEntrySchema, AuditStatus } from "../src/gen/holdfast/v1/audit_pb.js";

/** Who and what the records of a filled archive are about. */
export const FILLED = {
  producer: "fill",
  /** "user:0" has about a hundredth of all records, "user:9999" a hundred-thousandth. */
  actors: 10_000,
  /** "invoice" 0 to 999,999, each as often as the others. */
  resources: 1_000_000,
  /** "action.0" to "action.49". */
  actions: 50,
  firstOccurUs: Date.UTC(2026, 0, 1) * 1000,
  /** Time between two records; each is up to half a second late or early, as they are when several machines write. */
  stepUs: 10_000,
} as const;
/** Every so many records one is by this actor. */
export const RARE = { actor: "user:rare", every: 250_000 } as const;

const APPEND = 2_000;
const HALF_SECOND_US = 500_000;

/** Brings an archive to so many records of about 300 bytes, the same in every run. Goes on where an earlier call ended. */
export async function fillAudit(archive: Archive, records: number, onProgress?: (done: number) => void): Promise<void> {
  let done = await archive.lastSequence(FILLED.producer);
  while (done < records) {
    const count = Math.min(APPEND, records - done);
    const from = done;
    await archive.append(
      Array.from({ length: count }, (_, at) => filledRecord(from + at)),
      "refuse",
    );
    done += count;
    onProgress?.(done);
  }
}

/** The record with this number, from 0. */
export function filledRecord(number: number): Sealed {
  const us = FILLED.firstOccurUs + number * FILLED.stepUs;
  const actor = Math.floor(FILLED.actors * random(number, 1) ** 2);
  return seal(
    { producer: FILLED.producer, sequence: number + 1 },
    us + HALF_SECOND_US,
    create(AuditEntrySchema, {
      occurTime: toTimestamp(us + Math.floor((random(number, 2) - 0.5) * 2 * HALF_SECOND_US)),
      actor: number % RARE.every === RARE.every - 1 ? RARE.actor : `user:${actor}`,
      action: `action.${Math.floor(FILLED.actions * random(number, 3))}`,
      resource: { type: "invoice", id: String(Math.floor(FILLED.resources * random(number, 4))) },
      outcome: 1 + (number % 3),
      service: "billing",
      status: number % 1000 === 0 ? AuditStatus.PENDING : AuditStatus.NOT_REQUIRED,
      context: { ipAddress: "192.0.2.17", userAgent: "Mozilla/5.0 (X11; Linux x86_64)", traceId: traceOf(number) },
      attributes: { order: number, note: "what a user of an application would want to know later", amount: "17.50" },
    }),
  );
}

/** The trace of a record: three records share one. */
export function traceOf(number: number): string {
  return Math.floor(number / 3)
    .toString(16)
    .padStart(32, "0");
}

/** From 0 to 1, the same for the same number and salt. */
function random(number: number, salt: number): number {
  let bits = Math.imul(number + 1, 0x9e3779b1) ^ Math.imul(salt, 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 16), 0x21f0aaad);
  bits = Math.imul(bits ^ (bits >>> 15), 0x735a2d97);
  return ((bits ^ (bits >>> 15)) >>> 0) / 0x1_0000_0000;
}

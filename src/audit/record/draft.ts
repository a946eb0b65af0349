import type { AuditAppend } from "../../gen/holdfast/v1/audit_pb.js";
import { Failure, InvalidFieldsError } from "../../infra/failure.ts";
import { Fields } from "../../infra/fields.ts";
import { checkEntry, LIMITS } from "./entry.ts";
import { encoded, entryBytes, sealScanned } from "./leaf.ts";
import { checkName } from "./name.ts";
import type { RecordId, Sealed } from "./record.ts";
import { isScanned } from "./requests.ts";

/** Why a record is refused by itself, the rest of its batch being none the worse for it. */
export interface Refused {
  readonly refused: Failure;
}

export function checkProducer(fields: Fields, producer: string): void {
  checkName(fields, "producer", producer);
}

/** Seals one record of a request, or says what is wrong with it; fields are named from the record on. */
export function draft(producer: string, append: AuditAppend, acceptUs: number): Sealed | Refused {
  const fields = new Fields();
  const sequence = sequenceOf(fields, append.sequence);
  return draftEntry({ producer, sequence }, append, acceptUs, fields);
}

/** The same for a record whose identity the server gives. */
export function draftEntry(
  id: RecordId,
  append: AuditAppend,
  acceptUs: number,
  fields = new Fields(),
): Sealed | Refused {
  const { entry } = append;
  const isRead = isScanned(append);
  if (!isRead && entry === undefined) fields.refuse("entry", "is required");
  else if (entry !== undefined) checkEntry(fields, "entry.", entry);
  if (fields.violations.length > 0) return { refused: new InvalidFieldsError(fields.violations) };
  const scanned = isRead ? append.scanned : entry && encoded(entry);
  if (scanned === undefined) throw new Error("an entry that is missing was not refused");
  // The rest of the leaf is not the producer's, and may be longer when it tries again.
  if (scanned.entry.length > LIMITS.recordBytes) return { refused: tooLarge(scanned.entry.length) };
  return sealScanned(id, acceptUs, scanned);
}

export function isRefused(made: Sealed | Refused): made is Refused {
  return "refused" in made;
}

function sequenceOf(fields: Fields, sequence: bigint): number {
  if (sequence < 1n || sequence > BigInt(Number.MAX_SAFE_INTEGER)) {
    fields.refuse("sequence", "must be from 1 to 2^53 - 1");
    return 0;
  }
  return Number(sequence);
}

/** Refuses a batch whose entries, `leafBytes` as they were sealed, are too many bytes. */
export function checkBatchBytes(batch: readonly Sealed[], leafBytes: number): void {
  if (leafBytes <= LIMITS.batchBytes) return;
  let bytes = 0;
  for (const record of batch) bytes += entryBytes(record);
  if (bytes <= LIMITS.batchBytes) return;
  const message = `the entries take ${bytes} bytes; the limit is ${LIMITS.batchBytes}`;
  throw new Failure("too_large", "BATCH_TOO_LARGE", message);
}

function tooLarge(bytes: number): Failure {
  return new Failure(
    "too_large",
    "RECORD_TOO_LARGE",
    `the entry takes ${bytes} bytes; the limit is ${LIMITS.recordBytes}`,
  );
}

import { create, toBinary } from "@bufbuild/protobuf";
import { AuditAppendSchema, type AuditIngestAck } from "../../gen/holdfast/v1/audit_pb.js";
import type { ApiOptions } from "../client/api.ts";
import { openSession } from "../client/session.ts";
import type { Account } from "./account.ts";
import type { Convert } from "./convert.ts";
import { type Batch, deliver, isForNow, type Prepared } from "./delivery.ts";
import { reviewBatch } from "./reviewing.ts";
import type { Source, SourceRow } from "./source.ts";

export interface ImportOptions {
  readonly source: Source;
  readonly convert: Convert;
  readonly producer: string;
  readonly account: Account;
}

const BATCH_RECORDS = 500;
const BATCH_BYTES = 1024 * 1024;
/** What the contract allows. A larger one would be refused, or be too large even to be sent. */
const RECORD_BYTES = 256 * 1024;

/** Sends all that the source has to a server. */
export async function importAll(
  options: ImportOptions,
  server: ApiOptions,
  remark: (line: string) => void,
): Promise<void> {
  const { source, producer, account } = options;
  const { api, patience } = openSession(server, remark);

  async function onAcked(batch: Batch, ack: AuditIngestAck): Promise<void> {
    const refused = new Set<SourceRow>();
    for (const refusal of ack.refusals) {
      const row = batch[refusal.index]?.row;
      if (row === undefined) throw new Error("the server refused what was not sent");
      refused.add(row);
      if (isForNow(refusal)) continue;
      const { code = "", reason = "", message = "" } = refusal.error ?? {};
      account.refuse({ row, reason: reason || code, message });
    }
    account.imported += ack.appended;
    account.alreadyThere += ack.duplicates;
    await reviewBatch({ api, producer, patience, account }, batch, ack);
    if (source.remove === undefined) return;
    const safe = batch.map(({ row }) => row).filter((row) => !refused.has(row));
    await source.remove(safe);
    account.removed += safe.length;
  }

  try {
    await deliver({ api, producer, batches: batchesOf(options), patience, onAcked });
  } finally {
    api.close();
  }
}

/** Reads and converts all, and sends nothing. Returns the first few. */
export async function rehearse(options: ImportOptions, most: number): Promise<readonly Prepared[]> {
  const first: Prepared[] = [];
  for await (const batch of batchesOf(options)) first.push(...batch.slice(0, most - first.length));
  return first;
}

async function* batchesOf({ source, convert, account }: ImportOptions): AsyncGenerator<Batch, void> {
  let batch: Prepared[] = [];
  let bytes = 0;
  for await (const row of source.rows()) {
    account.read++;
    const prepared = prepare(row, convert, account);
    if (prepared === undefined) continue;
    if (bytes + prepared.bytes > BATCH_BYTES || batch.length === BATCH_RECORDS) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(prepared);
    bytes += prepared.bytes;
  }
  if (batch.length > 0) yield batch;
}

function prepare(
  row: SourceRow,
  convert: Convert,
  account: Account,
): (Prepared & { readonly bytes: number }) | undefined {
  if (row.fields === undefined) {
    account.refuse({ row, reason: "UNREADABLE", message: row.fault ?? "cannot be read" });
    return undefined;
  }
  const made = convert(row.fields, row.time);
  if ("fault" in made) {
    account.refuse({ row, reason: "NOT_UNDERSTOOD", message: made.fault });
    return undefined;
  }
  let bytes: number;
  try {
    bytes = toBinary(AuditAppendSchema, create(AuditAppendSchema, { entry: made.entry })).length;
  } catch (error) {
    // Such as a number that is not finite, or nesting without end.
    account.refuse({ row, reason: "NOT_UNDERSTOOD", message: error instanceof Error ? error.message : String(error) });
    return undefined;
  }
  if (bytes > RECORD_BYTES) {
    account.refuse({ row, reason: "RECORD_TOO_LARGE", message: `takes ${bytes} bytes; the limit is ${RECORD_BYTES}` });
    return undefined;
  }
  return { row, ...made, bytes };
}

import {
  type AuditAppend,
  type AuditServiceAppendRequest,
  AuditServiceAppendRequestSchema,
  type AuditServiceIngestRequest,
  AuditServiceIngestRequestSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import { decode } from "../../infra/decode.ts";
import { BYTES, tag, UNUSUAL, unlessUnusual, VARINT, WireReader } from "../../infra/wire-reader.ts";
import { LIMITS } from "./entry.ts";
import { type Scanned, scanEntry } from "./scan.ts";

/** A record of a request whose entry was read and checked as bytes, and never made an object. */
export interface ScannedAppend extends AuditAppend {
  readonly scanned: Scanned;
}

export function isScanned(append: AuditAppend): append is ScannedAppend {
  return "scanned" in append;
}

const MESSAGE_BATCH = tag(2, BYTES);
const BATCH_NUMBER = tag(1, VARINT);
const BATCH_RECORDS = tag(2, BYTES);
const APPEND_SEQUENCE = tag(1, VARINT);
const APPEND_ENTRY = tag(2, BYTES);
const REQUEST_PRODUCER = tag(1, BYTES);
const REQUEST_RECORDS = tag(2, BYTES);
const REQUEST_MINIMUM = tag(3, VARINT);
const REQUEST_ID = tag(4, BYTES);

/** Decodes a message of Ingest; a batch in the usual form costs a fifth of the ordinary way. */
export function decodeIngest(bytes: Uint8Array): AuditServiceIngestRequest {
  return unlessUnusual(() => scanIngest(bytes)) ?? decode(AuditServiceIngestRequestSchema, bytes);
}

export function decodeAppend(bytes: Uint8Array): AuditServiceAppendRequest {
  return unlessUnusual(() => scanAppend(bytes)) ?? decode(AuditServiceAppendRequestSchema, bytes);
}

function scanIngest(bytes: Uint8Array): AuditServiceIngestRequest {
  const reader = new WireReader(bytes);
  const { length } = bytes;
  if (reader.varint() !== MESSAGE_BATCH || reader.endOfBytes(length) !== length) throw UNUSUAL;
  let batch = 0;
  const records: ScannedAppend[] = [];
  while (reader.at < length) {
    switch (reader.varint()) {
      case BATCH_NUMBER:
        if (batch !== 0) throw UNUSUAL;
        batch = reader.varint();
        break;
      case BATCH_RECORDS:
        addRecord(records, reader, length);
        break;
      default:
        throw UNUSUAL;
    }
  }
  return {
    $typeName: "holdfast.v1.AuditServiceIngestRequest",
    message: { case: "batch", value: { $typeName: "holdfast.v1.AuditIngestBatch", batch: BigInt(batch), records } },
  };
}

function scanAppend(bytes: Uint8Array): AuditServiceAppendRequest {
  const reader = new WireReader(bytes);
  const { length } = bytes;
  let producer = "";
  let minDurability = 0;
  let requestId = "";
  let last = 0;
  const records: ScannedAppend[] = [];
  while (reader.at < length) {
    const key = reader.varint();
    if (key < last || (key === last && key !== REQUEST_RECORDS)) throw UNUSUAL;
    last = key;
    switch (key) {
      case REQUEST_PRODUCER:
        producer = reader.text(length, LIMITS.producerBytes);
        break;
      case REQUEST_RECORDS:
        addRecord(records, reader, length);
        break;
      case REQUEST_MINIMUM:
        minDurability = reader.varint();
        break;
      case REQUEST_ID:
        requestId = reader.text(length, LIMITS.recordBytes);
        break;
      default:
        throw UNUSUAL;
    }
  }
  return { $typeName: "holdfast.v1.AuditServiceAppendRequest", producer, records, minDurability, requestId };
}

function addRecord(records: ScannedAppend[], reader: WireReader, length: number): void {
  // They are refused for their number: there is no point in keeping them until then.
  if (records.length === LIMITS.batch) throw UNUSUAL;
  records.push(scanRecord(reader, reader.endOfBytes(length)));
}

function scanRecord(reader: WireReader, end: number): ScannedAppend {
  let sequence = 0;
  let key = reader.varint();
  if (key === APPEND_SEQUENCE) {
    sequence = reader.varint();
    key = reader.varint();
  }
  if (key !== APPEND_ENTRY || reader.endOfBytes(end) !== end || end - reader.at > LIMITS.recordBytes) throw UNUSUAL;
  const scanned = scanEntry(reader, end);
  return { $typeName: "holdfast.v1.AuditAppend", sequence: BigInt(sequence), scanned };
}

import { create, equals, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { type AuditEntry, AuditEntrySchema, AuditLeafSchema, AuditStatus } from "../../gen/holdfast/v1/audit_pb.js";
import { Fields } from "../../infra/fields.ts";
import {
  BYTES,
  UNUSUAL,
  unlessUnusual,
  VARINT,
  varintBytes,
  WireReader,
  writeVarint,
} from "../../infra/wire-reader.ts";
import { checkEntry } from "./entry.ts";
import { parseId, type RecordId, type Sealed } from "./record.ts";
import { type Scanned, scanEntry, scanTime } from "./scan.ts";
import { EntryTexts } from "./texts.ts";

/** A record that was decoded for its content. */
export interface Opened {
  readonly acceptUs: number;
  readonly entry: AuditEntry;
}

// Fields of AuditLeaf.
const PRODUCER = (1 << 3) | BYTES;
const SEQUENCE = (2 << 3) | VARINT;
const ACCEPT_TIME = (3 << 3) | BYTES;
const ENTRY = (4 << 3) | BYTES;
// Fields of Timestamp.
const SECONDS = (1 << 3) | VARINT;
const NANOS = (2 << 3) | VARINT;

/** Seals an entry that was checked. */
export function seal(id: RecordId, acceptUs: number, entry: AuditEntry): Sealed {
  return sealScanned(id, acceptUs, encoded(entry));
}

/** An entry that was checked, as scanning its bytes would have found it. */
export function encoded(entry: AuditEntry): Scanned {
  return scannedOf(entry, toBinary(AuditEntrySchema, entry));
}

/** Seals an entry that was scanned. Its bytes go into the leaf as they came. */
export function sealScanned(id: RecordId, acceptUs: number, scanned: Scanned): Sealed {
  const leaf = writeLeaf(id, acceptUs, scanned.entry);
  scanned.texts.moveTo(leaf, leaf.length - scanned.entry.length);
  return sealedOf(id, acceptUs, scanned, leaf);
}

/** How many bytes of a record sealed here are its entry: what its producer knows of its size. */
export function entryBytes({ leaf }: Sealed): number {
  const reader = new WireReader(leaf);
  scanHead(reader, leaf.length);
  return leaf.length - reader.at;
}

/** Reads what a leaf says. Throws when the bytes are none. */
export function unseal(leaf: Uint8Array): Sealed {
  const sealed = unlessUnusual(() => scanLeaf(leaf));
  if (sealed !== undefined) return sealed;
  const { producer, sequence, acceptTime, entry } = fromBinary(AuditLeafSchema, leaf);
  if (acceptTime === undefined || entry === undefined) throw notALeaf();
  const id = parseId(`${producer}/${sequence}`);
  // Who wrote it did not go by our limits, and SQL might refuse it for ever.
  const fields = new Fields();
  checkEntry(fields, "", entry);
  if (id === undefined || fields.violations.length > 0) throw notALeaf();
  return sealedOf(id, microsecondsOf(acceptTime), scannedOf(entry, new Uint8Array()), leaf);
}

/** Decodes a leaf for whoever reads the record. */
export function open(leaf: Uint8Array): Opened {
  const { acceptTime, entry } = fromBinary(AuditLeafSchema, leaf);
  if (acceptTime === undefined || entry === undefined) throw notALeaf();
  return { acceptUs: microsecondsOf(acceptTime), entry };
}

/** Whether two leaves of one identity say the same, whenever they were accepted and in whatever order maps were written. */
export function sameContent(one: Uint8Array, other: Uint8Array): boolean {
  const [a, b] = [fromBinary(AuditLeafSchema, one), fromBinary(AuditLeafSchema, other)];
  a.acceptTime = undefined;
  b.acceptTime = undefined;
  return equals(AuditLeafSchema, a, b);
}

/** Microseconds since 1970; what is finer is cut off. */
export function microsecondsOf({ seconds, nanos }: Timestamp): number {
  return Number(seconds) * 1_000_000 + Math.floor(nanos / 1000);
}

export function toTimestamp(us: number): Timestamp {
  const seconds = Math.floor(us / 1_000_000);
  return create(TimestampSchema, { seconds: BigInt(seconds), nanos: (us - seconds * 1_000_000) * 1000 });
}

/** An AuditLeaf as protobuf would write it. */
function writeLeaf({ producer, sequence }: RecordId, acceptUs: number, entry: Uint8Array): Buffer {
  const seconds = Math.floor(acceptUs / 1_000_000);
  const nanos = (acceptUs - seconds * 1_000_000) * 1000;
  const timeBytes = 1 + varintBytes(seconds) + (nanos === 0 ? 0 : 1 + varintBytes(nanos));
  // A producer is ASCII and at most 129 characters.
  const length =
    1 +
    varintBytes(producer.length) +
    producer.length +
    1 +
    varintBytes(sequence) +
    2 +
    timeBytes +
    1 +
    varintBytes(entry.length) +
    entry.length;
  const bytes = Buffer.allocUnsafe(length);
  bytes[0] = PRODUCER;
  let at = writeVarint(bytes, 1, producer.length);
  at += bytes.write(producer, at, "latin1");
  bytes[at++] = SEQUENCE;
  at = writeVarint(bytes, at, sequence);
  bytes[at++] = ACCEPT_TIME;
  bytes[at++] = timeBytes;
  bytes[at++] = SECONDS;
  at = writeVarint(bytes, at, seconds);
  if (nanos !== 0) {
    bytes[at++] = NANOS;
    at = writeVarint(bytes, at, nanos);
  }
  bytes[at++] = ENTRY;
  at = writeVarint(bytes, at, entry.length);
  bytes.set(entry, at);
  return bytes;
}

function scanLeaf(leaf: Uint8Array): Sealed {
  const reader = new WireReader(leaf);
  const { producer, sequence, acceptUs } = scanHead(reader, leaf.length);
  return sealedOf({ producer, sequence }, acceptUs, scanEntry(reader, leaf.length), leaf);
}

/** What comes before the entry. */
function scanHead(reader: WireReader, length: number) {
  if (reader.varint() !== PRODUCER) throw UNUSUAL;
  const producer = reader.text(length, length);
  if (reader.varint() !== SEQUENCE) throw UNUSUAL;
  const sequence = reader.varint();
  if (reader.varint() !== ACCEPT_TIME) throw UNUSUAL;
  const acceptUs = scanTime(reader, reader.endOfBytes(length));
  if (reader.varint() !== ENTRY || reader.endOfBytes(length) !== length) throw UNUSUAL;
  return { producer, sequence, acceptUs };
}

function scannedOf(entry: AuditEntry, bytes: Uint8Array): Scanned {
  return {
    occurUs: entry.occurTime === undefined ? undefined : microsecondsOf(entry.occurTime),
    texts: EntryTexts.of({
      actor: entry.actor,
      action: entry.action,
      resourceType: entry.resource?.type ?? "",
      resourceId: entry.resource?.id ?? "",
      service: entry.service,
      traceId: entry.context?.traceId ?? "",
    }),
    outcome: entry.outcome,
    pending: entry.status === AuditStatus.PENDING,
    entry: bytes,
  };
}

function sealedOf({ producer, sequence }: RecordId, acceptUs: number, scanned: Scanned, leaf: Uint8Array): Sealed {
  return {
    producer,
    sequence,
    acceptUs,
    occurUs: scanned.occurUs ?? acceptUs,
    texts: scanned.texts,
    outcome: scanned.outcome,
    pending: scanned.pending,
    leaf,
  };
}

function notALeaf(): Error {
  return new Error("these bytes are not an audit record");
}

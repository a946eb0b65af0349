import type { Duration } from "@bufbuild/protobuf/wkt";
import {
  type LockAuthority,
  type LockServiceAcquireRequest,
  LockServiceAcquireRequestSchema,
  type LockServiceReleaseRequest,
  LockServiceReleaseRequestSchema,
  type LockServiceRenewRequest,
  LockServiceRenewRequestSchema,
} from "../../gen/holdfast/v1/lock_pb.js";
import { BackwardsWriter } from "../../infra/backwards-writer.ts";
import { decode } from "../../infra/decode.ts";
import { BYTES, tag, UNUSUAL, unlessUnusual, VARINT, WireReader } from "../../infra/wire-reader.ts";
import type { Lease } from "../authority/authority.ts";

/*
 * Locks are taken, renewed and released before all else that their callers do. These requests and replies, in the usual form, are
 * read from and written straight into protobuf binary; tests hold this to what the generated code does.
 */

/** More than the limits of the contract, which say what is wrong in words. */
const MOST_TEXT = 4_096;

const NAME = tag(1, BYTES);
const TTL = tag(2, BYTES);
const WAIT_TIMEOUT = tag(3, BYTES);
const OWNER = tag(4, BYTES);
const PURPOSE = tag(5, BYTES);
const REQUEST_ID = tag(6, BYTES);
const FENCING_TOKEN = tag(2, VARINT);
const RENEW_TTL = tag(3, BYTES);

export function decodeAcquire(bytes: Uint8Array): LockServiceAcquireRequest {
  return unlessUnusual(() => scanAcquire(bytes)) ?? decode(LockServiceAcquireRequestSchema, bytes);
}

function scanAcquire(bytes: Uint8Array): LockServiceAcquireRequest {
  const reader = new WireReader(bytes);
  const { length } = bytes;
  let [name, owner, purpose, requestId] = ["", "", "", ""];
  let ttl: Duration | undefined;
  let waitTimeout: Duration | undefined;
  while (reader.at < length) {
    switch (reader.varint()) {
      case NAME:
        name = reader.text(length, MOST_TEXT);
        break;
      case TTL:
        ttl = scanDuration(reader, ttl, reader.endOfBytes(length));
        break;
      case WAIT_TIMEOUT:
        waitTimeout = scanDuration(reader, waitTimeout, reader.endOfBytes(length));
        break;
      case OWNER:
        owner = reader.text(length, MOST_TEXT);
        break;
      case PURPOSE:
        purpose = reader.text(length, MOST_TEXT);
        break;
      case REQUEST_ID:
        requestId = reader.text(length, MOST_TEXT);
        break;
      default:
        throw UNUSUAL;
    }
  }
  if (reader.at !== length) throw UNUSUAL;
  return {
    $typeName: "holdfast.v1.LockServiceAcquireRequest",
    ...{ name, owner, purpose, requestId },
    ...(ttl && { ttl }),
    ...(waitTimeout && { waitTimeout }),
  };
}

export function decodeRelease(bytes: Uint8Array): LockServiceReleaseRequest {
  return unlessUnusual(() => scanRelease(bytes)) ?? decode(LockServiceReleaseRequestSchema, bytes);
}

function scanRelease(bytes: Uint8Array): LockServiceReleaseRequest {
  const { name, token, ttl } = scanGrant(bytes);
  if (ttl !== undefined) throw UNUSUAL;
  return { $typeName: "holdfast.v1.LockServiceReleaseRequest", name, fencingToken: BigInt(token) };
}

export function decodeRenew(bytes: Uint8Array): LockServiceRenewRequest {
  return unlessUnusual(() => scanRenew(bytes)) ?? decode(LockServiceRenewRequestSchema, bytes);
}

function scanRenew(bytes: Uint8Array): LockServiceRenewRequest {
  const { name, token, ttl } = scanGrant(bytes);
  return {
    $typeName: "holdfast.v1.LockServiceRenewRequest",
    ...{ name, fencingToken: BigInt(token) },
    ...(ttl && { ttl }),
  };
}

/** What a request is about that names a grant. */
function scanGrant(bytes: Uint8Array): { name: string; token: number; ttl: Duration | undefined } {
  const reader = new WireReader(bytes);
  const { length } = bytes;
  let name = "";
  let token = 0;
  let ttl: Duration | undefined;
  while (reader.at < length) {
    switch (reader.varint()) {
      case NAME:
        name = reader.text(length, MOST_TEXT);
        break;
      case FENCING_TOKEN:
        token = reader.varint();
        break;
      case RENEW_TTL:
        ttl = scanDuration(reader, ttl, reader.endOfBytes(length));
        break;
      default:
        throw UNUSUAL;
    }
  }
  if (reader.at !== length) throw UNUSUAL;
  return { name, token, ttl };
}

/** What comes twice is for the ordinary decoder, which makes one of both. So is what is negative. */
function scanDuration(reader: WireReader, before: Duration | undefined, end: number): Duration {
  if (before !== undefined) throw UNUSUAL;
  let seconds = 0;
  let nanos = 0;
  while (reader.at < end) {
    switch (reader.varint()) {
      case tag(1, VARINT):
        seconds = reader.varint();
        break;
      case tag(2, VARINT):
        nanos = reader.varint();
        break;
      default:
        throw UNUSUAL;
    }
  }
  if (reader.at !== end || nanos > MOST_NANOS) throw UNUSUAL;
  return { $typeName: "google.protobuf.Duration", seconds: BigInt(seconds), nanos };
}

const MOST_NANOS = 2 ** 31 - 1;

/** What the numbers, times and lengths of a lock take at the most, and those of a reply with two of them. */
const LOCK_BYTES = 128;
const REPLY_BYTES = 64;

/** What the replies to Acquire and to Renew have in common, field by field. */
export interface GrantReply {
  /** The outcome of an Acquire, or 1 when the lease was renewed. */
  readonly outcome: number;
  readonly lock: Lease | undefined;
  readonly validForMs: number | undefined;
  readonly holder: Lease | undefined;
  readonly authority: LockAuthority;
}

/** A LockServiceAcquireResponse or a LockServiceRenewResponse. */
export function encodeGrant({ outcome, lock, validForMs, holder, authority }: GrantReply): Buffer {
  const writer = new BackwardsWriter(REPLY_BYTES + boundOf(lock) + boundOf(holder));
  writer.number(0x28, authority);
  if (holder !== undefined) writeLock(writer, 0x22, holder, authority);
  // Never more than there is: fractions of a millisecond are cut off.
  if (validForMs !== undefined) writer.micros(0x1a, Math.max(0, Math.floor(validForMs)) * 1_000);
  if (lock !== undefined) writeLock(writer, 0x12, lock, authority);
  writer.number(0x08, outcome);
  return writer.done();
}

function boundOf(lease: Lease | undefined): number {
  if (lease === undefined) return 0;
  const { name, owner, purpose, caller, instanceId } = lease.grant;
  return LOCK_BYTES + 3 * (name.length + owner.length + purpose.length + caller.length + instanceId.length);
}

function writeLock(writer: BackwardsWriter, field: number, { grant }: Lease, authority: LockAuthority): void {
  const end = writer.at;
  writer.scalarText(0x52, grant.instanceId);
  writer.number(0x48, authority);
  writer.number(0x40, grant.renewals);
  writer.time(0x3a, Math.floor(grant.expireMs));
  writer.time(0x32, Math.floor(grant.acquireMs));
  writer.scalarText(0x2a, grant.caller);
  writer.scalarText(0x22, grant.purpose);
  writer.scalarText(0x1a, grant.owner);
  writer.number(0x10, grant.token);
  writer.scalarText(0x0a, grant.name);
  writer.message(field, end);
}

/** A LockServiceReleaseResponse. */
export function encodeReleased(released: boolean, authority: LockAuthority): Buffer {
  const writer = new BackwardsWriter(REPLY_BYTES);
  writer.number(0x10, authority);
  writer.flag(0x08, released);
  return writer.done();
}

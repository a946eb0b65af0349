import {
  type RateLimitDescriptor,
  type RateLimitServiceCheckRequest,
  RateLimitServiceCheckRequestSchema,
} from "../gen/holdfast/v1/rate_limit_pb.js";
import { BackwardsWriter } from "../infra/backwards-writer.ts";
import { decode } from "../infra/decode.ts";
import { BYTES, tag, UNUSUAL, unlessUnusual, VARINT, WireReader } from "../infra/wire-reader.ts";
import type { Ask, Standing, Verdict } from "./counters.ts";
import { BASES } from "./replies.ts";

/*
 * Check is asked before everything else that its callers do. Its requests and replies in the usual form are read from and written
 * straight into protobuf binary; tests hold this to what the generated code does.
 */

/** More than the limits of the contract, which say what is wrong in words. */
const MOST_TEXT = 4_096;

const NAMESPACE = tag(1, BYTES);
const DESCRIPTORS = tag(2, BYTES);
const CHARGE = tag(3, VARINT);
const SHADOW = tag(4, VARINT);
const REQUEST_ID = tag(5, BYTES);
const RULE_NAME = tag(1, BYTES);
const KEY = tag(3, BYTES);
const COST = tag(4, VARINT);

export function decodeCheck(bytes: Uint8Array): RateLimitServiceCheckRequest {
  return unlessUnusual(() => scanCheck(bytes)) ?? decode(RateLimitServiceCheckRequestSchema, bytes);
}

function scanCheck(bytes: Uint8Array): RateLimitServiceCheckRequest {
  const reader = new WireReader(bytes);
  const { length } = bytes;
  let namespace = "";
  let requestId = "";
  let charge = 0;
  let shadow = false;
  const descriptors: RateLimitDescriptor[] = [];
  while (reader.at < length) {
    switch (reader.varint()) {
      case NAMESPACE:
        namespace = reader.text(length, MOST_TEXT);
        break;
      case DESCRIPTORS:
        descriptors.push(scanDescriptor(reader, reader.endOfBytes(length)));
        break;
      case CHARGE:
        charge = small(reader.varint());
        break;
      case SHADOW:
        shadow = small(reader.varint()) !== 0;
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
    $typeName: "holdfast.v1.RateLimitServiceCheckRequest",
    ...{ namespace, descriptors, charge, shadow, requestId },
  };
}

/** A rule that comes with the request is for the ordinary decoder. */
function scanDescriptor(reader: WireReader, end: number): RateLimitDescriptor {
  let name: string | undefined;
  let key = "";
  let cost: bigint | undefined;
  while (reader.at < end) {
    switch (reader.varint()) {
      case RULE_NAME:
        name = reader.text(end, MOST_TEXT);
        break;
      case KEY:
        key = reader.text(end, MOST_TEXT);
        break;
      case COST:
        cost = BigInt(reader.varint());
        break;
      default:
        throw UNUSUAL;
    }
  }
  if (reader.at !== end) throw UNUSUAL;
  return {
    $typeName: "holdfast.v1.RateLimitDescriptor",
    rule: name === undefined ? { case: undefined } : { case: "ruleName", value: name },
    key,
    ...(cost !== undefined && { cost }),
  };
}

function small(value: number): number {
  if (value > 127) throw UNUSUAL;
  return value;
}

/** What times, numbers and lengths of a status take at the most. */
const STATUS_BYTES = 96;
const REPLY_BYTES = 64;

export interface CheckReply {
  readonly verdict: Verdict;
  readonly deniedBy: string;
  /** Microseconds; undefined for never, and when nothing was denied. */
  readonly retryAfter: number | undefined;
  readonly degraded: boolean;
}

/** A RateLimitServiceCheckResponse. */
export function encodeCheck(asks: readonly Ask[], reply: CheckReply): Buffer {
  const { verdict, deniedBy, retryAfter, degraded } = reply;
  const { standings } = verdict;
  let bound = REPLY_BYTES + deniedBy.length;
  for (const { rule, key } of asks) bound += STATUS_BYTES + rule.name.length + 3 * key.length;
  const writer = new BackwardsWriter(bound);
  writer.micros(0x32, verdict.at);
  writer.flag(0x28, degraded);
  if (retryAfter !== undefined) writer.micros(0x22, retryAfter);
  writer.scalarText(0x1a, deniedBy);
  for (let i = asks.length - 1; i >= 0; i--) {
    const [ask, standing] = [asks[i], standings[i]];
    if (ask !== undefined && standing !== undefined) writeStatus(writer, ask, standing);
  }
  writer.flag(0x08, verdict.allowed);
  return writer.done();
}

function writeStatus(writer: BackwardsWriter, { rule, key }: Ask, standing: Standing): void {
  const end = writer.at;
  const { waitUs, resetAt } = standing;
  writer.number(0x50, BASES[standing.basis]);
  writer.flag(0x48, standing.shadow);
  if (waitUs > 0 && waitUs !== Number.POSITIVE_INFINITY) writer.micros(0x42, waitUs);
  if (resetAt !== undefined) writer.micros(0x3a, resetAt);
  writer.number(0x30, standing.overdrawn);
  writer.number(0x28, standing.remaining);
  writer.number(0x20, standing.limit);
  writer.flag(0x18, waitUs === 0);
  writer.scalarText(0x12, key);
  writer.scalarText(0x0a, rule.name);
  writer.message(0x12, end);
}

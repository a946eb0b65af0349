import { randomUUID } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import { AuditFilterSchema, type AuditServiceSubscribeRequest, AuditStart } from "../../gen/holdfast/v1/audit_pb.js";
import { invalidField } from "../../infra/failure.ts";
import { Fields } from "../../infra/fields.ts";
import { heartbeatOf } from "../../infra/heartbeat.ts";
import { checkName } from "../record/name.ts";
import { filterOf } from "../search/filter.ts";
import { type DeliveryRef, parseDeliveryId } from "./deliveries.ts";
import type { JoinOrder, NackOrder } from "./groups.ts";

/** What a consumer asked for when it opened its stream, with the defaults filled in. */
export interface Subscription {
  readonly join: JoinOrder;
  readonly maxInFlight: number;
  readonly ackTimeoutMs: number;
  readonly maxDeliveries: number;
  readonly heartbeatMs: number;
}

/** What a consumer says about deliveries. */
export interface SettleOrder {
  readonly ids: readonly string[];
  /** Of those ids that can be some delivery's. */
  readonly refs: readonly DeliveryRef[];
  readonly action: { readonly kind: "ack" } | { readonly kind: "extend" } | ({ readonly kind: "nack" } & NackOrder);
}

const HOUR_MS = 3_600_000;
const LIMITS = {
  nameBytes: 128,
  inFlight: 10_000,
  deliveries: 1_000,
  timeoutMs: 12 * HOUR_MS,
  ids: 1_000,
  errorBytes: 1_024,
} as const;
const DEFAULTS = { group: "audit_processors", inFlight: 100, deliveries: 5, ackTimeoutMs: 30_000 } as const;

export function groupOf(fields: Fields, field: string, group: string): string {
  if (group === "") return DEFAULTS.group;
  checkName(fields, field, group);
  return group;
}

/** Reads the first message of a consumer. */
export function subscriptionOf({ message }: AuditServiceSubscribeRequest): Subscription {
  if (message.case !== "open") throw invalidField("message", "must be open, once, in the first message");
  const { value: open } = message;
  const fields = new Fields();
  const group = groupOf(fields, "open.group", open.group);
  fields.text("open.consumer", open.consumer, LIMITS.nameBytes, true);
  if (!(open.start in AuditStart)) fields.refuse("open.start", "is not a start that this server knows");
  filterOf(fields, "open.filter", open.filter);
  if (open.maxInFlight > LIMITS.inFlight) fields.refuse("open.max_in_flight", atMost(LIMITS.inFlight));
  if (open.maxDeliveries > LIMITS.deliveries) fields.refuse("open.max_deliveries", atMost(LIMITS.deliveries));
  const ackTimeoutMs = fields.duration("open.ack_timeout", open.ackTimeout, LIMITS.timeoutMs) ?? DEFAULTS.ackTimeoutMs;
  if (ackTimeoutMs < 1_000) fields.refuse("open.ack_timeout", "must be at least 1 second");
  const heartbeatMs = heartbeatOf(fields, "open.heartbeat_interval", open.heartbeatInterval);
  fields.done();
  return {
    join: {
      group,
      consumer: open.consumer === "" ? `@${randomUUID()}` : open.consumer,
      owner: randomUUID(),
      start: open.start === AuditStart.OLDEST ? "oldest" : "new",
      filter: open.filter && toBinary(AuditFilterSchema, open.filter),
    },
    maxInFlight: open.maxInFlight === 0 ? DEFAULTS.inFlight : open.maxInFlight,
    maxDeliveries: open.maxDeliveries === 0 ? DEFAULTS.deliveries : open.maxDeliveries,
    ackTimeoutMs,
    heartbeatMs,
  };
}

/** Reads any later message. */
export function settleOrderOf({ message }: AuditServiceSubscribeRequest): SettleOrder {
  const fields = new Fields();
  switch (message.case) {
    case "ack":
    case "extend": {
      const said = deliveriesOf(fields, message.case, message.value.deliveryIds);
      fields.done();
      return { ...said, action: { kind: message.case } };
    }
    case "nack": {
      const { deliveryIds, delay, error, dead } = message.value;
      const said = deliveriesOf(fields, "nack", deliveryIds);
      const delayMs = fields.duration("nack.delay", delay, LIMITS.timeoutMs, true) ?? 0;
      fields.done();
      return { ...said, action: { kind: "nack", delayMs, error: cut(error), dead } };
    }
    default:
      throw invalidField("message", "must be ack, nack or extend after the first message");
  }
}

function deliveriesOf(fields: Fields, kind: string, given: readonly string[]): Pick<SettleOrder, "ids" | "refs"> {
  fields.count(`${kind}.delivery_ids`, given.length, LIMITS.ids);
  const ids = [...new Set(given)];
  return { ids, refs: ids.flatMap((id) => parseDeliveryId(id) ?? []) };
}

/** The text as far as it fits, without a part of a character. Postgres has no NUL in a text. */
function cut(text: string): string {
  const bytes = Buffer.from(text.replaceAll("\0", "\ufffd"));
  let end = Math.min(bytes.length, LIMITS.errorBytes);
  while (end < bytes.length && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.toString("utf8", 0, end);
}

function atMost(limit: number): string {
  return `must be at most ${limit}`;
}

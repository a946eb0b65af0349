import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { type AuditEntry, AuditOutcome, AuditStatus } from "../../gen/holdfast/v1/audit_pb.js";
import type { Fields } from "../../infra/fields.ts";
import { MOST_LEVELS, TOO_DEEP } from "../../infra/json-levels.ts";

/** The limits that the contract states. */
export const LIMITS = {
  batch: 1000,
  batchBytes: 4 * 1024 * 1024,
  recordBytes: 256 * 1024,
  producerBytes: 128,
  actorBytes: 256,
  actionBytes: 256,
  resourceTypeBytes: 128,
  resourceIdBytes: 512,
  serviceBytes: 128,
  ipAddressBytes: 64,
  userAgentBytes: 1024,
  contextBytes: 128,
  structLevels: MOST_LEVELS,
  structValues: 4096,
} as const;

/** Years 1700 to 2199: what an integer of microseconds holds exactly in every place it goes. */
const FIRST_SECOND = -8_520_336_000;
const END_SECOND = 7_258_118_400;

/** Refuses what an entry must not be. `path` ends in a dot, or is empty. */
export function checkEntry(fields: Fields, path: string, entry: AuditEntry): void {
  checkTime(fields, `${path}occur_time`, entry.occurTime);
  fields.text(`${path}actor`, entry.actor, LIMITS.actorBytes);
  fields.text(`${path}action`, entry.action, LIMITS.actionBytes);
  if (entry.resource !== undefined) {
    fields.text(`${path}resource.type`, entry.resource.type, LIMITS.resourceTypeBytes);
    fields.text(`${path}resource.id`, entry.resource.id, LIMITS.resourceIdBytes);
  }
  if (AuditOutcome[entry.outcome] === undefined) fields.refuse(`${path}outcome`, `${entry.outcome} is not an outcome`);
  fields.text(`${path}service`, entry.service, LIMITS.serviceBytes, true);
  if (entry.context !== undefined) {
    const { ipAddress, userAgent, traceId, requestId, sessionId } = entry.context;
    fields.text(`${path}context.ip_address`, ipAddress, LIMITS.ipAddressBytes, true);
    fields.text(`${path}context.user_agent`, userAgent, LIMITS.userAgentBytes, true);
    fields.text(`${path}context.trace_id`, traceId, LIMITS.contextBytes, true);
    fields.text(`${path}context.request_id`, requestId, LIMITS.contextBytes, true);
    fields.text(`${path}context.session_id`, sessionId, LIMITS.contextBytes, true);
  }
  checkStatus(fields, `${path}status`, entry.status);
  checkStruct(fields, `${path}attributes`, entry.attributes);
  checkStruct(fields, `${path}before`, entry.before);
  checkStruct(fields, `${path}after`, entry.after);
}

/** Whether a time, in whole seconds since 1970 and nanoseconds, is one that can be kept. */
export function isKeepable(seconds: number, nanos: number): boolean {
  return seconds >= FIRST_SECOND && seconds < END_SECOND && nanos >= 0 && nanos <= 999_999_999;
}

function checkTime(fields: Fields, field: string, time: Timestamp | undefined): void {
  if (time !== undefined && !isKeepable(Number(time.seconds), time.nanos)) {
    fields.refuse(field, "must be a time in the years 1700 to 2199");
  }
}

function checkStatus(fields: Fields, field: string, status: AuditStatus): void {
  switch (status) {
    case AuditStatus.UNSPECIFIED:
    case AuditStatus.NOT_REQUIRED:
    case AuditStatus.PENDING:
      return;
    case AuditStatus.APPROVED:
    case AuditStatus.REJECTED:
      fields.refuse(field, "must be NOT_REQUIRED or PENDING: only Review approves and rejects");
      return;
    default:
      fields.refuse(field, `${String(status)} is not a status`);
  }
}

function checkStruct(fields: Fields, field: string, struct: JsonObject | undefined): void {
  const fault = struct && structFault(struct);
  if (fault !== undefined) fields.refuse(field, fault);
}

type Parent = JsonObject | readonly JsonValue[];

function structFault(struct: JsonObject): string | undefined {
  let values = 0;
  // Level by level, so that depth costs no stack.
  let level: Parent[] = [struct];
  for (let depth = 1; level.length > 0; depth++) {
    if (depth > LIMITS.structLevels) return TOO_DEEP;
    const next: Parent[] = [];
    for (const parent of level) {
      if (!Array.isArray(parent) && !Object.keys(parent).every((key) => key.isWellFormed())) return NOT_TEXT;
      for (const value of Object.values(parent)) {
        if (++values > LIMITS.structValues) return `holds more than ${LIMITS.structValues} values`;
        if (typeof value === "string" && !value.isWellFormed()) return NOT_TEXT;
        if (typeof value === "number" && !Number.isFinite(value)) return "holds a number that is not finite";
        if (typeof value === "object" && value !== null) next.push(value);
      }
    }
    level = next;
  }
  return undefined;
}

/** JSON may carry it; encoded, it would be another text. */
const NOT_TEXT = "holds a text with half a surrogate pair";

import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { AuditDecision, AuditOutcome } from "../../gen/holdfast/v1/audit_pb.js";

/** What foreign values mean. Each reader says undefined for what it does not understand. */

export interface Moment {
  readonly seconds: bigint;
  readonly nanos: number;
}

const ISO =
  /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2})(?::(\d{2})(?:[.,](\d{1,9})\d*)?)?)?\s*(Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?$/i;

/**
 * A time as text in ISO 8601 or as SQLite and Python write it, or as a number since 1970 in seconds, milli-, micro- or nanoseconds,
 * whichever makes it a time near ours. Without a zone it is taken as UTC.
 */
export function momentOf(value: unknown): Moment | undefined {
  if (typeof value === "number") return Number.isFinite(value) ? sinceEpoch(String(value)) : undefined;
  if (typeof value !== "string") return undefined;
  const text = value.trim();
  const found = ISO.exec(text);
  if (found === null) return sinceEpoch(text);
  const [, date, minutes = "00:00", seconds = "00", fraction = "", zone = "Z"] = found;
  const ms = Date.parse(`${date}T${minutes}:${seconds}${zoneOf(zone)}`);
  if (Number.isNaN(ms)) return undefined;
  return { seconds: BigInt(ms / 1000), nanos: Number(fraction.padEnd(9, "0")) };
}

function zoneOf(zone: string): string {
  if (!/^[+-]/.test(zone)) return "Z";
  const digits = zone.replace(":", "");
  return `${digits.slice(0, 3)}:${digits.slice(3) || "00"}`;
}

const NANOS = 1_000_000_000n;

function sinceEpoch(text: string): Moment | undefined {
  const found = /^(-?)(\d{1,19})(?:\.(\d*))?$/.exec(text) ?? /^(-?)(\d)(?:\.(\d+))?e\+?(\d+)$/i.exec(text);
  if (found === null || found[4] !== undefined) return undefined;
  const [, sign, whole = "", fraction = ""] = found;
  // 100,000,000,000 seconds are the year 5138; as milliseconds they are 1973.
  const digits = whole.replace(/^0+/, "").length;
  const power = digits <= 11 ? 9 : digits <= 14 ? 6 : digits <= 17 ? 3 : 0;
  const nanos = BigInt(whole) * 10n ** BigInt(power) + BigInt(fraction.slice(0, power).padEnd(power, "0") || "0");
  const signed = sign === "-" ? -nanos : nanos;
  const seconds = signed >= 0n ? signed / NANOS : -((-signed + NANOS - 1n) / NANOS);
  return { seconds, nanos: Number(signed - seconds * NANOS) };
}

/** What a status says of a review: none has been made yet, or this one. */
export function reviewStateOf(value: unknown): "pending" | AuditDecision | undefined {
  return typeof value === "string" ? REVIEW_STATES.get(wordOf(value)) : undefined;
}

const REVIEW_STATES: ReadonlyMap<string, "pending" | AuditDecision> = new Map<string, "pending" | AuditDecision>([
  ...["pending", "waiting", "open", "inreview", "pendingreview", "awaitingreview", "needsreview"].map(
    (word) => [word, "pending"] as const,
  ),
  ...["approved", "accepted", "approve"].map((word) => [word, AuditDecision.APPROVE] as const),
  ...["rejected", "declined", "reject", "disapproved"].map((word) => [word, AuditDecision.REJECT] as const),
]);

export function outcomeOf(value: unknown): AuditOutcome | undefined {
  if (value === true || value === 1) return AuditOutcome.SUCCESS;
  if (value === false || value === 0) return AuditOutcome.FAILURE;
  return typeof value === "string" ? OUTCOMES.get(wordOf(value)) : undefined;
}

const OUTCOMES: ReadonlyMap<string, AuditOutcome> = new Map([
  ...["success", "succeeded", "successful", "ok", "true", "1", "auditoutcomesuccess"].map(
    (word) => [word, AuditOutcome.SUCCESS] as const,
  ),
  ...["failure", "failed", "fail", "error", "false", "0", "auditoutcomefailure"].map(
    (word) => [word, AuditOutcome.FAILURE] as const,
  ),
  ...["denied", "forbidden", "unauthorized", "auditoutcomedenied"].map((word) => [word, AuditOutcome.DENIED] as const),
]);

/** A name without what different writers do differently: `memory_id`, `memoryId` and `Memory-ID` are one. */
export function wordOf(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]/g, "");
}

/** As text, where that says all of it: names are sometimes kept as numbers. */
export function textOf(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  return typeof value === "number" || typeof value === "boolean" ? String(value) : undefined;
}

export function objectOf(value: JsonValue | undefined): JsonObject | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value : undefined;
}

/** The JSON object or list that a text holds, else the text. */
export function unpacked(text: string): JsonValue {
  const begin = text.trimStart()[0];
  if (begin !== "{" && begin !== "[") return text;
  try {
    const value: JsonValue = JSON.parse(text);
    return value;
  } catch {
    return text;
  }
}

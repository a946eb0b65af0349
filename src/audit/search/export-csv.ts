import { type JsonObject, toJson } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import { AuditDecision, AuditOutcome, type AuditRecord, AuditStatus } from "../../gen/holdfast/v1/audit_pb.js";

/** A cell before it is quoted: a text, which may need a guard, or something that Holdfast itself has written. */
interface Cell {
  readonly text: string;
  readonly isText: boolean;
}

/** The columns in their order. Programs find them by name, so they are only ever added to, at the end. */
const COLUMNS: readonly (readonly [name: string, cell: (record: AuditRecord) => Cell])[] = [
  ["id", ({ id }) => text(id)],
  ["producer", ({ producer }) => text(producer)],
  ["sequence", ({ sequence }) => plain(sequence)],
  ["leaf_index", ({ leafIndex }) => plain(leafIndex)],
  ["occur_time", ({ entry }) => time(entry?.occurTime)],
  ["accept_time", ({ acceptTime }) => time(acceptTime)],
  ["actor", ({ entry }) => text(entry?.actor)],
  ["action", ({ entry }) => text(entry?.action)],
  ["resource_type", ({ entry }) => text(entry?.resource?.type)],
  ["resource_id", ({ entry }) => text(entry?.resource?.id)],
  ["outcome", ({ entry }) => name(AuditOutcome, entry?.outcome)],
  ["service", ({ entry }) => text(entry?.service)],
  ["status", ({ status }) => name(AuditStatus, status)],
  ["review_decision", ({ review }) => name(AuditDecision, review?.decision)],
  ["reviewer", ({ review }) => text(review?.reviewer)],
  ["review_comment", ({ review }) => text(review?.comment)],
  ["review_time", ({ review }) => time(review?.reviewTime)],
  ["review_record_id", ({ review }) => text(review?.recordId)],
  ["ip_address", ({ entry }) => text(entry?.context?.ipAddress)],
  ["user_agent", ({ entry }) => text(entry?.context?.userAgent)],
  ["trace_id", ({ entry }) => text(entry?.context?.traceId)],
  ["request_id", ({ entry }) => text(entry?.context?.requestId)],
  ["session_id", ({ entry }) => text(entry?.context?.sessionId)],
  ["attributes", ({ entry }) => struct(entry?.attributes)],
  ["before", ({ entry }) => struct(entry?.before)],
  ["after", ({ entry }) => struct(entry?.after)],
];

/** RFC 4180: lines end with CR LF. */
export const CSV_HEADER = `${COLUMNS.map(([name]) => name).join(",")}\r\n`;

export function csvLine(record: AuditRecord): string {
  return `${COLUMNS.map(([, cell]) => written(cell(record))).join(",")}\r\n`;
}

function written({ text, isText }: Cell): string {
  // A spreadsheet would run it.
  const safe = isText && /^[=+\-@]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function text(value = ""): Cell {
  return { text: value, isText: true };
}

function plain(value: bigint | undefined): Cell {
  return { text: value === undefined ? "" : String(value), isText: false };
}

/** Not stated is an empty cell. */
function name(names: Readonly<Record<number, string>>, value = 0): Cell {
  return { text: value === 0 ? "" : (names[value] ?? String(value)), isText: false };
}

function time(value: Timestamp | undefined): Cell {
  return { text: value === undefined ? "" : toJson(TimestampSchema, value), isText: false };
}

/** Begins with a brace, so it needs no guard. */
function struct(value: JsonObject | undefined): Cell {
  return { text: value === undefined ? "" : JSON.stringify(value), isText: false };
}

import { create, toJsonString } from "@bufbuild/protobuf";
import {
  AuditExportFormat,
  type AuditRecord,
  AuditRecordSchema,
  type AuditServiceExportRequest,
  type AuditServiceExportResponse,
  AuditServiceExportResponseSchema,
} from "../../gen/holdfast/v1/audit_pb.js";
import type { Clock } from "../../infra/clock.ts";
import { Failure } from "../../infra/failure.ts";
import { Fields } from "../../infra/fields.ts";
import { createPauses } from "../../infra/pauses.ts";
import { readToken, writeToken } from "../../infra/token.ts";
import type { Archive } from "../archive/archive.ts";
import { archivedRecord } from "../record/replies.ts";
import { CSV_HEADER, csvLine } from "./export-csv.ts";
import { type Filter, filterOf, serializeFilter } from "./filter.ts";
import type { Position, Search } from "./search.ts";

const RESUMABLE_MS = 86_400_000;
const CHUNK_BYTES = 64 * 1024;
const LARGEST_CHUNK_BYTES = 1024 * 1024;
const PAGE = 250;
const BEGINNING: Position = { occurUs: -Number.MAX_SAFE_INTEGER, leafIndex: -1 };

/** An export that was asked for, checked. */
export interface ExportWork {
  readonly filter: Filter;
  readonly isCsv: boolean;
  /** What its tokens are bound to. */
  readonly subject: string;
  readonly resumed: { readonly size: number; readonly after: Position } | undefined;
}

export interface ExportOptions {
  readonly search: Search;
  readonly archive: Pick<Archive, "size">;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export function readExport(request: AuditServiceExportRequest, now: number): ExportWork {
  const fields = new Fields();
  const filter = filterOf(fields, "filter", request.filter);
  if (!(request.format in AuditExportFormat)) fields.refuse("format", "is not a format that this server knows");
  const isCsv = request.format === AuditExportFormat.CSV;
  const subject = `Export ${isCsv ? "csv" : "ndjson"} ${serializeFilter(filter)}`;
  const resumed = request.resumeToken === "" ? undefined : resumption(fields, subject, request.resumeToken);
  fields.done();
  if (resumed !== undefined && now - resumed.issuedAt > RESUMABLE_MS) {
    throw new Failure(
      "out_of_range",
      "RESUME_TOO_OLD",
      "the resume_token is more than a day old: export from the start",
    );
  }
  return { filter, isCsv, subject, resumed };
}

/** The chunks of an export. It reads on when the last one was taken, so a slow reader slows it down. */
export async function* exportRecords(
  { filter, isCsv, subject, resumed }: ExportWork,
  { search, archive, clock, signal }: ExportOptions,
): AsyncGenerator<AuditServiceExportResponse> {
  const size = resumed?.size ?? (await archive.size());
  const pause = createPauses();
  let written = resumed?.after ?? BEGINNING;
  let after: Position | undefined = written;
  let lines: Buffer[] = isCsv && resumed === undefined ? [Buffer.from(CSV_HEADER)] : [];
  let bytes = lines.reduce((sum, line) => sum + line.length, 0);
  let records = 0;

  function chunk(last: boolean): AuditServiceExportResponse {
    const response = create(AuditServiceExportResponseSchema, {
      data: Buffer.concat(lines),
      records,
      resumeToken: writeToken(subject, [size, clock.now(), written.occurUs, written.leafIndex]),
      last,
    });
    lines = [];
    bytes = 0;
    records = 0;
    return response;
  }

  while (after !== undefined) {
    signal.throwIfAborted();
    const page = await search.page({ filter, order: "oldest", limit: PAGE, after, belowLeaf: size });
    for (const row of page.rows) {
      const line = lineOf(archivedRecord(row), isCsv);
      if (bytes > 0 && bytes + line.length > LARGEST_CHUNK_BYTES) yield chunk(false);
      lines.push(line);
      bytes += line.length;
      records++;
      written = row;
      if (bytes >= CHUNK_BYTES) yield chunk(false);
      await pause();
    }
    after = page.next;
  }
  yield chunk(true);
}

function lineOf(record: AuditRecord, isCsv: boolean): Buffer {
  return Buffer.from(isCsv ? csvLine(record) : `${toJsonString(AuditRecordSchema, record)}\n`);
}

function resumption(fields: Fields, subject: string, token: string) {
  const [size, issuedAt, occurUs, leafIndex] = readToken(subject, token, 4) ?? [];
  if (size !== undefined && issuedAt !== undefined && occurUs !== undefined && leafIndex !== undefined) {
    return { size, issuedAt, after: { occurUs, leafIndex } };
  }
  fields.refuse("resume_token", "is not a token of an export with the same filter and format");
  return undefined;
}

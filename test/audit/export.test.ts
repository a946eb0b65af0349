import { create, fromBinary, fromJsonString, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Archive } from "../../src/audit/archive/archive.ts";
import { toTimestamp } from "../../src/audit/record/leaf.ts";
import { createListRpcs } from "../../src/audit/search/list-rpcs.ts";
import type { Search } from "../../src/audit/search/search.ts";
import { createSqlSearch } from "../../src/audit/search/sql-search.ts";
import {
  AuditDecision,
  AuditExportFormat,
  AuditRecordSchema,
  AuditReviewSchema,
  AuditServiceExportRequestSchema,
  type AuditServiceExportResponse,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { KINDS, type OpenArchives, openArchives, sealed } from "./archives.ts";
import { messagesOf, testCall } from "./calls.ts";

type ExportInit = MessageInitShape<typeof AuditServiceExportRequestSchema>;
const { NDJSON, CSV } = AuditExportFormat;
const BASE_US = 1_700_000_000_000_000;

describe.each(KINDS)("Export over %s", (kind) => {
  let archives: OpenArchives;
  let archive: Archive;
  let pagesRead: number;
  let settled: () => Promise<{ degraded: boolean }>;
  let rpcs: ReturnType<typeof createListRpcs>;

  beforeEach(async () => {
    archives = await openArchives(kind);
    const { database } = archives.instances[0];
    ({ archive } = archives.instances[0]);
    const real = createSqlSearch({ database });
    pagesRead = 0;
    const search: Search = {
      page(query) {
        pagesRead++;
        return real.page(query);
      },
    };
    settled = async () => ({ degraded: false });
    rpcs = createListRpcs({ search, archive, settled: () => settled(), clock: archives.clock });
  });
  afterEach(() => archives[Symbol.asyncDispose]());

  const start = (init: ExportInit = {}, call = testCall()) =>
    messagesOf(rpcs.export(create(AuditServiceExportRequestSchema, init), call));

  async function chunksOf(init: ExportInit = {}, call = testCall()): Promise<AuditServiceExportResponse[]> {
    const chunks: AuditServiceExportResponse[] = [];
    const chunk = start(init, call);
    for (let next = await chunk.next(); !next.done; next = await chunk.next()) chunks.push(next.value);
    return chunks;
  }

  const textOf = (chunks: readonly AuditServiceExportResponse[]) =>
    Buffer.concat(chunks.map(({ data }) => data)).toString();
  const idsOf = (text: string) =>
    text
      .split("\n")
      .slice(0, -1)
      .map((line) => fromJsonString(AuditRecordSchema, line).id);
  const ids = (count: number, from = 1) => Array.from({ length: count }, (_, at) => `p/${from + at}`);

  async function fill(count: number, entry: (at: number) => Parameters<typeof sealed>[1] = () => ({}), from = 1) {
    const records = Array.from({ length: count }, (_, at) => sealed({ producer: "p", sequence: from + at }, entry(at)));
    await archive.append(records, "refuse");
  }

  it("writes each record once as a line of JSON, the oldest first", async () => {
    await fill(1000, (at) => ({ occurTime: toTimestamp(BASE_US - (at % 10)), attributes: { at, text: "ü\n\u2028" } }));
    const call = testCall();
    const chunks = await chunksOf({ format: NDJSON }, call);
    const expected = Array.from({ length: 1000 }, (_, at) => at).sort((a, b) => (b % 10) - (a % 10) || a - b);
    expect(idsOf(textOf(chunks))).toEqual(expected.map((at) => `p/${at + 1}`));
    expect(chunks.map(({ last }) => last)).toEqual(chunks.map((_, at) => at === chunks.length - 1));
    expect(chunks.reduce((sum, { records }) => sum + records, 0)).toBe(1000);
    expect(call.said).toEqual({ servedBy: kind, degraded: false });
    const [line = ""] = textOf(chunks).split("\n");
    expect(fromJsonString(AuditRecordSchema, line)).toMatchObject({
      entry: { attributes: { at: 9, text: "ü\n\u2028" } },
      leafIndex: 9n,
    });
    expect(textOf(await chunksOf())).toBe(textOf(chunks));
  });

  it("sends whole lines in chunks of about 64 KiB, as they are asked for", async () => {
    await fill(2000, () => ({ attributes: { note: "x".repeat(300) } }));
    const chunks = await chunksOf();
    for (const { data, last } of chunks) {
      if (!last) expect(data.length).toBeGreaterThanOrEqual(64 * 1024);
      expect(data.length).toBeLessThan(66 * 1024);
      if (data.length > 0) expect(data.at(-1)).toBe(10);
    }
    const all = pagesRead;
    expect(all).toBeGreaterThan(4);
    pagesRead = 0;
    const reader = start();
    await reader.next();
    // Nobody has asked for more.
    expect(pagesRead).toBe(1);
    await reader.return(undefined);
  });

  it("never puts more than 1 MiB together", async () => {
    await fill(9, (at) => ({ attributes: { note: "\u0001".repeat(at % 3 === 0 ? 500 : 200_000) } }));
    const chunks = await chunksOf();
    expect(idsOf(textOf(chunks))).toEqual(ids(9));
    for (const { data, records } of chunks) if (records > 1) expect(data.length).toBeLessThanOrEqual(1024 * 1024);
    expect(Math.max(...chunks.map(({ data }) => data.length))).toBeGreaterThan(1024 * 1024);
  });

  it("sends one last chunk when there is nothing", async () => {
    expect(await chunksOf()).toMatchObject([{ records: 0, last: true }]);
    await fill(10);
    expect(await chunksOf({ filter: { actors: ["nobody"] } })).toMatchObject([{ records: 0, last: true }]);
    const [csv, ...more] = await chunksOf({ format: CSV, filter: { actors: ["nobody"] } });
    expect(more).toEqual([]);
    expect(Buffer.from(csv?.data ?? []).toString()).toMatch(/^id,producer,sequence,.*\r\n$/);
  });

  it("leaves out what comes after it began", async () => {
    await fill(1500);
    const reader = start();
    const first = await reader.next();
    await fill(50, () => ({ occurTime: toTimestamp(BASE_US * 1.01) }), 1501);
    await fill(50, () => ({}), 1551);
    const chunks = first.done ? [] : [first.value];
    for (let next = await reader.next(); !next.done; next = await reader.next()) chunks.push(next.value);
    expect(idsOf(textOf(chunks))).toEqual(ids(1500));
  });

  it("waits for the barrier before it looks how much there is", async () => {
    settled = async () => {
      await fill(3);
      return { degraded: true };
    };
    const call = testCall();
    expect(idsOf(textOf(await chunksOf({}, call)))).toEqual(ids(3));
    expect(call.said.degraded).toBe(true);
  });

  it.each([
    ["NDJSON", NDJSON],
    ["CSV", CSV],
  ])("goes on after any chunk of a broken export as %s, as if nothing had happened", async (_, format) => {
    const note = "x".repeat(200);
    await fill(1500, (at) => ({ occurTime: toTimestamp(BASE_US + (at % 3)), attributes: { note } }));
    const whole = await chunksOf({ format });
    expect(whole.length).toBeGreaterThan(3);
    await fill(10, () => ({ occurTime: toTimestamp(BASE_US) }), 1501);
    for (const [at, { resumeToken }] of whole.entries()) {
      const rest = await chunksOf({ format, resumeToken });
      expect(textOf([...whole.slice(0, at + 1), ...rest])).toBe(textOf(whole));
      expect(rest.at(-1)?.last).toBe(true);
    }
  });

  it("refuses a resume_token that is older than a day, damaged, or of another export", async () => {
    await fill(3, () => ({ actor: "ann" }));
    const [chunk] = await chunksOf();
    const resumeToken = chunk?.resumeToken ?? "";
    archives.clock.move(86_400_000);
    expect(await chunksOf({ resumeToken })).toMatchObject([{ records: 0, last: true }]);
    archives.clock.move(1);
    await expect(chunksOf({ resumeToken })).rejects.toMatchObject({ kind: "out_of_range", reason: "RESUME_TOO_OLD" });
    for (const init of [
      { resumeToken: "x" },
      { resumeToken, format: CSV },
      { resumeToken, filter: { actors: ["ann"] } },
    ]) {
      await expect(chunksOf(init)).rejects.toMatchObject({ violations: [{ field: "resume_token" }] });
    }
    const unknown = fromBinary(AuditServiceExportRequestSchema, Uint8Array.of(0x10, 7));
    await expect(chunksOf({ format: unknown.format, filter: { actions: [""] } })).rejects.toMatchObject({
      violations: [{ field: "filter.actions[0]" }, { field: "format" }],
    });
  });

  it("ends when the caller hangs up or the server drains", async () => {
    await fill(2000);
    const hangUp = new AbortController();
    const reader = start({}, testCall("tester", hangUp.signal));
    await reader.next();
    hangUp.abort(new Error("draining"));
    const drained = async () => {
      for (let next = await reader.next(); !next.done; next = await reader.next()) expect(next.value.last).toBe(false);
    };
    await expect(drained()).rejects.toThrow("draining");
  });

  it("writes CSV that a spreadsheet reads as it is, and runs nothing of", async () => {
    await fill(1, () => ({
      actor: '=HYPERLINK("http://x")',
      action: "+1",
      resource: { type: "@x", id: "-1" },
      service: 'a "b", c\r\nd',
      outcome: 3,
      context: { userAgent: "'quoted", traceId: "a=b" },
      attributes: { note: 'say "hi", you' },
      occurTime: { seconds: 1_700_000_000n, nanos: 5000 },
    }));
    const { database } = archives.instances[0];
    const review = create(AuditReviewSchema, {
      decision: AuditDecision.APPROVE,
      reviewer: "@boss",
      recordId: "@review/1",
    });
    await database.write("UPDATE audit_record SET status = 3, review = $1", [toBinary(AuditReviewSchema, review)]);
    const text = textOf(await chunksOf({ format: CSV }));
    const [header = [], row = [], ...more] = parseCsv(text);
    expect(more).toEqual([]);
    expect(row).toHaveLength(header.length);
    expect(Object.fromEntries(header.map((name, at) => [name, row[at]]))).toMatchObject({
      id: "p/1",
      sequence: "1",
      leaf_index: "0",
      occur_time: "2023-11-14T22:13:20.000005Z",
      actor: `'=HYPERLINK("http://x")`,
      action: "'+1",
      resource_type: "'@x",
      resource_id: "'-1",
      service: 'a "b", c\r\nd',
      outcome: "DENIED",
      status: "APPROVED",
      review_decision: "APPROVE",
      reviewer: "'@boss",
      review_record_id: "'@review/1",
      review_time: "",
      user_agent: "'quoted",
      trace_id: "a=b",
      attributes: '{"note":"say \\"hi\\", you"}',
      before: "",
    });
  });
});

/** As RFC 4180 has it, character by character. */
function parseCsv(text: string): string[][] {
  const rows: string[][] = [];
  let row: string[] = [];
  let cell = "";
  let isQuoted = false;
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (isQuoted) {
      if (character !== '"') cell += character;
      else if (text[at + 1] === '"') cell += text[++at];
      else isQuoted = false;
    } else if (character === '"' && cell === "") isQuoted = true;
    else if (character === "," || (character === "\r" && text[at + 1] === "\n")) {
      row.push(cell);
      cell = "";
      if (character === ",") continue;
      at++;
      rows.push(row);
      row = [];
    } else if (character === '"' || character === "\n" || character === "\r") throw new Error(`a bare ${character}`);
    else cell += character;
  }
  if (row.length > 0 || cell !== "" || isQuoted) throw new Error("the last line is not ended");
  return rows;
}

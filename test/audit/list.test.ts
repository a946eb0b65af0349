import { create, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Archive } from "../../src/audit/archive/archive.ts";
import { createListRpcs } from "../../src/audit/search/list-rpcs.ts";
import { createSqlSearch } from "../../src/audit/search/sql-search.ts";
import {
  AuditDurability,
  AuditOrder,
  AuditServiceListPendingRequestSchema,
  AuditServiceListRequestSchema,
  AuditStatus,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { EncodedReply } from "../../src/infra/call.ts";
import { InvalidFieldsError, UnavailableError } from "../../src/infra/failure.ts";
import { KINDS, type OpenArchives, openArchives, sealed } from "./archives.ts";
import { testCall } from "./calls.ts";

type ListInit = MessageInitShape<typeof AuditServiceListRequestSchema>;
type PendingInit = MessageInitShape<typeof AuditServiceListPendingRequestSchema>;

describe.each(KINDS)("List and ListPending over %s", (kind) => {
  let archives: OpenArchives;
  let archive: Archive;
  /** What the barrier before each read does. */
  let settled: () => Promise<{ degraded: boolean }>;
  let rpcs: ReturnType<typeof createListRpcs>;

  beforeEach(async () => {
    archives = await openArchives(kind);
    const { database } = archives.instances[0];
    ({ archive } = archives.instances[0]);
    settled = async () => ({ degraded: false });
    const search = createSqlSearch({ database });
    rpcs = createListRpcs({ search, archive, settled: () => settled(), clock: archives.clock });
  });
  afterEach(() => archives[Symbol.asyncDispose]());

  async function list(init: ListInit = {}, call = testCall()) {
    return plain(await rpcs.list(create(AuditServiceListRequestSchema, init), call));
  }

  async function pending(init: PendingInit = {}, call = testCall()) {
    return plain(await rpcs.listPending(create(AuditServiceListPendingRequestSchema, init), call));
  }

  const fill = (count: number, entry: (at: number) => Parameters<typeof sealed>[1] = () => ({})) =>
    archive.append(
      Array.from({ length: count }, (_, at) => sealed({ producer: "p", sequence: at + 1 }, entry(at))),
      "refuse",
    );
  const sequences = ({ records }: { records: readonly { sequence: bigint }[] }) =>
    records.map(({ sequence }) => Number(sequence));
  const upTo = (count: number) => Array.from({ length: count }, (_, at) => at + 1);
  const refusedFields = async (call: Promise<unknown>) => {
    const error = await call.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(InvalidFieldsError);
    return error instanceof InvalidFieldsError ? error.violations.map(({ field }) => field) : [];
  };

  it("lists records as they are kept, the newest first unless asked otherwise", async () => {
    await fill(3, (at) => ({ actor: `user:${at}`, attributes: { at } }));
    const call = testCall();
    const page = await list({}, call);
    expect(sequences(page)).toEqual([3, 2, 1]);
    expect(page.nextPageToken).toBe("");
    expect(page.records[0]).toMatchObject({
      id: "p/3",
      producer: "p",
      sequence: 3n,
      entry: { actor: "user:2", attributes: { at: 2 } },
      status: AuditStatus.NOT_REQUIRED,
      durability: AuditDurability.ARCHIVED,
      leafIndex: 2n,
    });
    expect(page.records[0]?.entry?.occurTime).toEqual(page.records[0]?.acceptTime);
    expect(call.said).toEqual({ servedBy: kind, degraded: false });
    expect(sequences(await list({ order: AuditOrder.OLDEST_FIRST }))).toEqual([1, 2, 3]);
  });

  it("pages through everything by tokens", async () => {
    await fill(25);
    const listed: number[][] = [];
    let pageToken = "";
    do {
      const page = await list({ order: AuditOrder.OLDEST_FIRST, pageSize: 10, pageToken });
      listed.push(sequences(page));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(listed.map(({ length }) => length)).toEqual([10, 10, 5]);
    expect(listed.flat()).toEqual(upTo(25));
  });

  it("takes a page size of 0 as 100, and one above 1,000 as 1,000", async () => {
    await fill(1100);
    expect((await list()).records).toHaveLength(100);
    const page = await list({ pageSize: 5000 });
    expect(page.records).toHaveLength(1000);
    expect((await list({ pageSize: 5000, pageToken: page.nextPageToken })).records).toHaveLength(100);
  });

  it("ends without a token when the last page is full", async () => {
    await fill(20);
    const first = await list({ pageSize: 10 });
    expect((await list({ pageSize: 10, pageToken: first.nextPageToken })).nextPageToken).toBe("");
  });

  it("refuses all that is wrong with a request at once", async () => {
    const { order } = fromBinary(AuditServiceListRequestSchema, Uint8Array.of(0x10, 9));
    expect(await refusedFields(list({ pageSize: -1, filter: { actors: [""] }, order }))).toEqual([
      "filter.actors[0]",
      "order",
      "page_size",
    ]);
    expect(await refusedFields(pending({ pageSize: -1, filter: { statuses: [AuditStatus.PENDING] } }))).toEqual([
      "filter.statuses",
      "page_size",
    ]);
  });

  it("refuses a token that is damaged, or of another listing", async () => {
    await fill(20, () => ({ status: AuditStatus.PENDING }));
    const { nextPageToken: token } = await list({ pageSize: 1 });
    const inner = Buffer.from(token, "base64url").toString();
    const tampered = [
      "x",
      token.slice(1),
      token.slice(0, -4),
      Buffer.from(inner.replace(/^1/, "2")).toString("base64url"),
      Buffer.from(inner.replace(/ \d+ /, " x ")).toString("base64url"),
      Buffer.from(inner.replace(/ \d+ /, " 9007199254740993 ")).toString("base64url"),
      (await pending({ pageSize: 1 })).nextPageToken,
      (await list({ pageSize: 1, order: AuditOrder.OLDEST_FIRST })).nextPageToken,
      (await list({ pageSize: 1, filter: { services: [], actors: ["user:1"] } })).nextPageToken,
    ];
    for (const pageToken of tampered) expect(await refusedFields(list({ pageToken }))).toEqual(["page_token"]);
    expect(await refusedFields(pending({ pageToken: token }))).toEqual(["page_token"]);
    // With another page size it is the same listing.
    expect(sequences(await list({ pageToken: token, pageSize: 2 }))).toEqual([19, 18]);
  });

  it("lists what waits for a review, the oldest first, and no more when it was reviewed", async () => {
    await fill(6, (at) => ({
      status: at % 2 === 0 ? AuditStatus.PENDING : AuditStatus.NOT_REQUIRED,
      actor: at < 3 ? "ann" : "bob",
    }));
    expect(sequences(await pending())).toEqual([1, 3, 5]);
    expect(sequences(await pending({ filter: { actors: ["ann"] } }))).toEqual([1, 3]);
    const first = await pending({ pageSize: 1 });
    expect(sequences(first)).toEqual([1]);
    await archives.instances[0].database.write("UPDATE audit_record SET status = 3 WHERE leaf_index = 2");
    expect(sequences(await pending({ pageToken: first.nextPageToken }))).toEqual([5]);
    expect(sequences(await list({ filter: { statuses: [AuditStatus.APPROVED] } }))).toEqual([3]);
  });

  it("waits for the barrier before it reads, and passes on what that says", async () => {
    settled = async () => {
      await fill(1, () => ({ status: AuditStatus.PENDING }));
      return { degraded: true };
    };
    const calls = [testCall(), testCall()] as const;
    expect(sequences(await list({}, calls[0]))).toEqual([1]);
    expect(sequences(await pending({}, calls[1]))).toEqual([1]);
    for (const { said } of calls) expect(said.degraded).toBe(true);
    settled = () => Promise.reject(new UnavailableError("ARCHIVE_BEHIND", "not yet"));
    await expect(list()).rejects.toThrow("not yet");
  });

  function plain<Reply>(reply: Reply | EncodedReply): Reply {
    if (reply instanceof EncodedReply) throw new Error("the reply is encoded already");
    return reply;
  }
});

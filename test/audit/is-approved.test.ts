import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Settled } from "../../src/audit/intake/settled.ts";
import { createReviewRpcs } from "../../src/audit/review/review-rpcs.ts";
import { createSqlReviews } from "../../src/audit/review/sql-reviews.ts";
import { createSqlSearch } from "../../src/audit/search/sql-search.ts";
import {
  AuditDecision,
  type AuditServiceIsApprovedRequest,
  AuditServiceIsApprovedRequestSchema,
  AuditServiceIsApprovedResponseSchema,
  AuditServiceReviewRequestSchema,
  AuditStatus,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { EncodedReply } from "../../src/infra/call.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { KINDS, type OpenArchive, type OpenArchives, openArchives, sealed } from "./archives.ts";
import { testCall } from "./calls.ts";
import { countRows } from "./rows-read.ts";

const { APPROVE, REJECT, REOPEN } = AuditDecision;
const { UNSPECIFIED, PENDING, APPROVED, REJECTED, NOT_REQUIRED } = AuditStatus;

const atOnce = async () => ({ degraded: false });

type Target = AuditServiceIsApprovedRequest["target"];

describe.each(KINDS)("whether something was approved, over %s", (kind) => {
  let archives: OpenArchives;
  let producer = "";
  let memory = { type: "memory", id: "" };
  let number = 0;
  let settled: () => ReturnType<Settled>;
  beforeAll(async () => {
    archives = await openArchives(kind);
  });
  afterAll(() => archives[Symbol.asyncDispose]());
  beforeEach(() => {
    producer = `p${++number}`;
    memory = { type: "memory", id: `m${number}` };
    settled = atOnce;
  });

  function rpcs({ database }: Pick<OpenArchive, "database"> = archives.instances[0]) {
    const [{ archive }] = archives.instances;
    const reviews = createSqlReviews({ archive, clock: archives.clock });
    const search = createSqlSearch({ database });
    return createReviewRpcs({ archive, reviews, search, settled: () => settled() });
  }

  interface Appended {
    readonly status?: AuditStatus;
    /** When it happened, in seconds. */
    readonly at?: number;
    readonly action?: string;
    readonly resource?: { type: string; id: string };
  }

  async function append(sequence: number, { at = sequence, ...entry }: Appended = {}): Promise<string> {
    const occurTime = { seconds: BigInt(1_750_000_000 + at) };
    const record = sealed({ producer, sequence }, { resource: memory, status: PENDING, ...entry, occurTime });
    await archives.instances[0].archive.append([record], "refuse");
    return `${producer}/${sequence}`;
  }

  async function review(id: string, decision = APPROVE): Promise<void> {
    const request = create(AuditServiceReviewRequestSchema, { id, decision, reviewer: "ada", comment: "why" });
    expect(await rpcs().review(request, testCall())).toMatchObject({ applied: true });
  }

  async function ask(
    target: MessageInitShape<typeof AuditServiceIsApprovedRequestSchema>["target"],
    { isApproved } = rpcs(),
  ) {
    const call = testCall();
    const reply = await isApproved(create(AuditServiceIsApprovedRequestSchema, { ...(target && { target }) }), call);
    if (reply instanceof EncodedReply) throw new Error("a message was expected");
    expect(call.said).toEqual({ servedBy: kind, degraded: false });
    return create(AuditServiceIsApprovedResponseSchema, reply);
  }

  const byId = (id: string) => ask({ case: "id", value: id });
  const bySubject = (action = "", resource = memory) => ask({ case: "subject", value: { resource, action } });

  it("is told of a record by its id, with the last decision", async () => {
    const id = await append(1);
    expect(await byId(id)).toMatchObject({ approved: false, status: PENDING, recordId: id });
    await review(id);
    expect(await byId(id)).toMatchObject({
      approved: true,
      status: APPROVED,
      recordId: id,
      review: { reviewer: "ada", comment: "why", decision: APPROVE },
    });
    await review(id, REOPEN);
    expect(await byId(id)).toMatchObject({ approved: false, status: PENDING, review: { decision: REOPEN } });
    await review(id, REJECT);
    expect(await byId(id)).toMatchObject({ approved: false, status: REJECTED });
    expect(await byId(await append(2, { status: NOT_REQUIRED }))).toMatchObject({
      approved: false,
      status: NOT_REQUIRED,
    });
  });

  it("is false where there is no such record, and none about the resource", async () => {
    const none = { approved: false, status: UNSPECIFIED, recordId: "" };
    expect(await byId(`${producer}/1`)).toMatchObject(none);
    expect(await bySubject()).toMatchObject(none);
    await append(1, { status: NOT_REQUIRED });
    expect(await bySubject()).toMatchObject(none);
    expect(await bySubject()).not.toHaveProperty("review");
  });

  it("is decided by the newest record about the resource for which a review was wanted", async () => {
    const [old, id] = [await append(1, { at: 10 }), await append(2, { at: 20 })];
    await append(3, { at: 30, status: NOT_REQUIRED });
    await append(4, { at: 40, resource: { type: "memory", id: `${memory.id}-other` } });
    await append(5, { at: 40, resource: { type: "note", id: memory.id } });
    await review(old);
    expect(await bySubject()).toMatchObject({ approved: false, status: PENDING, recordId: id });
    await review(id);
    expect(await bySubject()).toMatchObject({ approved: true, recordId: id, review: { reviewer: "ada" } });
  });

  it("is withdrawn by a newer pending record, until that is approved itself", async () => {
    const id = await append(1);
    await review(id);
    expect(await bySubject()).toMatchObject({ approved: true });
    const newer = await append(2);
    expect(await bySubject()).toMatchObject({ approved: false, status: PENDING, recordId: newer });
    await review(newer, REJECT);
    expect(await bySubject()).toMatchObject({ approved: false, status: REJECTED, recordId: newer });
  });

  it("goes by when it happened, not by when it arrived; at the same time by the place in the log", async () => {
    const id = await append(1, { at: 50 });
    await review(id);
    await append(2, { at: 40 });
    expect(await bySubject()).toMatchObject({ approved: true, recordId: id });
    const same = await append(3, { at: 50 });
    expect(await bySubject()).toMatchObject({ approved: false, recordId: same });
  });

  it("can be asked of one action, taken as it is written", async () => {
    const write = await append(1, { action: "memory.write" });
    await review(write);
    await append(2, { action: "memory.delete" });
    expect(await bySubject("memory.write")).toMatchObject({ approved: true, recordId: write });
    expect(await bySubject("memory.delete")).toMatchObject({ approved: false });
    expect(await bySubject("memory.*")).toMatchObject({ approved: false, recordId: "" });
    const star = await append(3, { action: "memory.*" });
    await review(star);
    expect(await bySubject("memory.*")).toMatchObject({ approved: true, recordId: star });
  });

  it("is found behind 100,000 newer records that nobody has to review, without a look at them", async () => {
    const id = await append(1);
    await review(id);
    await append(2, { at: 0, action: "memory.write" });
    const [{ archive, database }] = archives.instances;
    for (let first = 3; first < 100_000; first += 5_000) {
      const noise = Array.from({ length: 5_000 }, (_, i) =>
        sealed({ producer, sequence: first + i }, { resource: memory }, 1_760_000_000_000_000 + first + i),
      );
      await archive.append(noise, "refuse");
    }
    const counted = countRows(database);
    const target = { case: "subject", value: { resource: memory } } as const;
    expect(await ask(target, rpcs(counted))).toMatchObject({ approved: true, recordId: id });
    const ofAction = { case: "subject", value: { resource: memory, action: "memory.write" } } as const;
    expect(await ask(ofAction, rpcs(counted))).toMatchObject({ status: PENDING, recordId: `${producer}/2` });
    const rows = await counted.rowsRead();
    expect(rows).toBeGreaterThan(0);
    expect(rows).toBeLessThan(50);
  });

  it("is answered once what was acknowledged before is archived", async () => {
    const id = await append(1);
    await review(id);
    settled = async () => {
      settled = atOnce;
      await append(2);
      return { degraded: false };
    };
    expect(await bySubject()).toMatchObject({ approved: false, recordId: `${producer}/2` });
  });

  it("is marked when Redis may hold newer records that cannot be seen", async () => {
    const id = await append(1);
    settled = async () => ({ degraded: true });
    const call = testCall();
    await rpcs().isApproved(create(AuditServiceIsApprovedRequestSchema, { target: { case: "id", value: id } }), call);
    expect(call.said).toEqual({ servedBy: kind, degraded: true });
  });

  it("is never guessed: UNAVAILABLE while SQL cannot be asked, or what was acknowledged cannot be archived", async () => {
    const id = await append(1);
    await review(id);
    const away = new UnavailableError("SQL_UNAVAILABLE", "SQL is away");
    settled = () => Promise.reject(away);
    await expect(byId(id)).rejects.toBe(away);
    await expect(bySubject()).rejects.toBe(away);
    settled = atOnce;
    await using closed = await openArchives(kind);
    const [{ archive, database }] = closed.instances;
    await database.close();
    const over = createReviewRpcs({
      archive,
      reviews: createSqlReviews({ archive, clock: closed.clock }),
      search: createSqlSearch({ database }),
      settled,
    });
    for (const target of targetsOf(id)) {
      const asked = over.isApproved(create(AuditServiceIsApprovedRequestSchema, { target }), testCall());
      await expect(asked).rejects.toMatchObject({ kind: "unavailable" });
    }
  });

  function targetsOf(id: string): Exclude<Target, { case: undefined }>[] {
    const subject = create(AuditServiceIsApprovedRequestSchema, {
      target: { case: "subject", value: { resource: memory } },
    }).target;
    return [{ case: "id", value: id }, ...(subject.case === "subject" ? [subject] : [])];
  }

  it.each<[string, MessageInitShape<typeof AuditServiceIsApprovedRequestSchema>["target"], string[]]>([
    ["nothing", { case: undefined }, ["target"]],
    ["an id that is none", { case: "id", value: "a" }, ["id"]],
    ["no resource", { case: "subject", value: {} }, ["subject.resource.type", "subject.resource.id"]],
    ["half a resource", { case: "subject", value: { resource: { type: "a" } } }, ["subject.resource.id"]],
    ["the other half", { case: "subject", value: { resource: { id: "a" } } }, ["subject.resource.type"]],
    [
      "an action too long",
      { case: "subject", value: { resource: { type: "a", id: "a" }, action: "a".repeat(257) } },
      ["subject.action"],
    ],
  ])("cannot be asked of %s", async (_, target, wrong) => {
    await expect(ask(target)).rejects.toMatchObject({
      kind: "invalid",
      violations: wrong.map((field) => ({ field })),
    });
  });
});

import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Settled } from "../../src/audit/intake/settled.ts";
import { open } from "../../src/audit/record/leaf.ts";
import type { RecordId } from "../../src/audit/record/record.ts";
import { createReviewRpcs } from "../../src/audit/review/review-rpcs.ts";
import type { Reviews } from "../../src/audit/review/reviews.ts";
import { createSqlReviews } from "../../src/audit/review/sql-reviews.ts";
import {
  AuditDecision,
  AuditServiceReviewRequestSchema,
  type AuditServiceReviewResponse,
  AuditServiceReviewResponseSchema,
  AuditStatus,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { EncodedReply } from "../../src/infra/call.ts";
import { type Failure, UnavailableError } from "../../src/infra/failure.ts";
import { KINDS, type OpenArchive, type OpenArchives, openArchives, sealed } from "./archives.ts";
import { testCall } from "./calls.ts";

const { APPROVE, REJECT, REOPEN } = AuditDecision;
const { PENDING, APPROVED, REJECTED, NOT_REQUIRED } = AuditStatus;

/** A decision of a later version. */
const UNKNOWN: number = 9;

type ReviewInit = MessageInitShape<typeof AuditServiceReviewRequestSchema>;

describe.each(KINDS)("a review over %s", (kind) => {
  let archives: OpenArchives;
  const made = new WeakMap<OpenArchive["archive"], Reviews>();
  let producer = "";
  let number = 0;
  beforeAll(async () => {
    archives = await openArchives(kind, 2);
  });
  afterAll(() => archives[Symbol.asyncDispose]());
  beforeEach(() => {
    producer = `p${++number}`;
  });

  const only = { status: PENDING };

  async function append(entry: Parameters<typeof sealed>[1] = only, sequence = 1): Promise<string> {
    await archives.instances[0].archive.append([sealed({ producer, sequence }, entry)], "refuse");
    return `${producer}/${sequence}`;
  }

  function review(
    request: ReviewInit,
    { archive }: OpenArchive = archives.instances[0],
    caller = "tester",
    settled: Settled = async () => ({ degraded: false }),
  ): Promise<AuditServiceReviewResponse> {
    const rpcs = createReviewRpcs({ archive, reviews: reviewsOver(archive), search: UNASKED, settled });
    const whole = create(AuditServiceReviewRequestSchema, { decision: APPROVE, reviewer: "ada", ...request });
    return reply(rpcs.review(whole, testCall(caller)));
  }

  /** One for each instance, as in a server: those who review at the same time share commits. */
  function reviewsOver(archive: OpenArchive["archive"]): Reviews {
    const reviews = made.get(archive) ?? createSqlReviews({ archive, clock: archives.clock });
    made.set(archive, reviews);
    return reviews;
  }

  /** The reviews that the log holds of a record, in the order of the log. */
  async function reviewsOf(id: string) {
    const { database, archive } = archives.instances[0];
    const rows = await database.query<{ sequence: number }>(
      "SELECT sequence FROM audit_record WHERE producer = '@review' ORDER BY leaf_index",
    );
    const found = await archive.find(rows.map(({ sequence }): RecordId => ({ producer: "@review", sequence })));
    return found.flatMap((row) => {
      const entry = row?.leaf ? open(row.leaf).entry : undefined;
      return entry?.resource?.id === id ? [entry] : [];
    });
  }

  it("approves a pending record, and keeps who decided, when and why", async () => {
    const id = await append();
    const { applied, record } = await review({ id, comment: "fine" });
    expect(applied).toBe(true);
    expect(record).toMatchObject({ id, status: APPROVED, entry: { status: PENDING, actor: "user:1" } });
    expect(record?.review).toMatchObject({ decision: APPROVE, reviewer: "ada", comment: "fine" });
    expect(Number(record?.review?.reviewTime?.seconds)).toBe(Math.floor(archives.clock.now() / 1000));
    expect(record?.review?.recordId).toMatch(/^@review\/\d+$/);
  });

  it("is itself a record of the log, under the id that the review names", async () => {
    const id = await append();
    const { record } = await review({ id, decision: REJECT, comment: "no receipt" });
    const [entry, ...more] = await reviewsOf(id);
    expect(more).toEqual([]);
    expect(entry).toMatchObject({
      actor: "ada",
      action: "audit.review.reject",
      resource: { type: "audit_record", id },
      before: { status: "PENDING" },
      after: { status: "REJECTED" },
      attributes: { comment: "no receipt" },
    });
    const sequence = Number(record?.review?.recordId.split("/")[1]);
    const [kept] = await archives.instances[0].archive.find([{ producer: "@review", sequence }]);
    expect(kept?.leaf && open(kept.leaf).entry).toEqual(entry);
  });

  it.each([
    [APPROVE, [PENDING], APPROVED],
    [REJECT, [PENDING], REJECTED],
    [REOPEN, [APPROVED, REJECTED, NOT_REQUIRED], PENDING],
  ])(
    "by decision %i starts from %j alone and leads to %i; from any other it is lost and changes nothing",
    async (decision, from, to) => {
      const sources: readonly [AuditStatus, readonly AuditDecision[]][] = [
        [NOT_REQUIRED, []],
        [PENDING, [REOPEN]],
        [APPROVED, [REOPEN, APPROVE]],
        [REJECTED, [REOPEN, REJECT]],
      ];
      for (const [at, [status, steps]] of sources.entries()) {
        const id = await append({}, at + 1);
        for (const step of steps) expect(await review({ id, decision: step })).toMatchObject({ applied: true });
        const before = await reviewsOf(id);
        const { applied, record } = await review({ id, decision });
        const mayStart = from.some((one) => one === status);
        expect(applied, `from ${AuditStatus[status]}`).toBe(mayStart);
        expect(record?.status).toBe(mayStart ? to : status);
        expect(await reviewsOf(id)).toHaveLength(before.length + (mayStart ? 1 : 0));
      }
    },
  );

  it("with an expected status is lost when the status has become another, and carries the record as it is", async () => {
    const id = await append();
    await review({ id, reviewer: "first" });
    const lost = await review({ id, decision: REOPEN, expectedStatus: REJECTED, reviewer: "second" });
    expect(lost).toMatchObject({ applied: false, record: { status: APPROVED, review: { reviewer: "first" } } });
    expect(await review({ id, decision: REOPEN, expectedStatus: APPROVED })).toMatchObject({ applied: true });
    expect(await reviewsOf(id)).toHaveLength(2);
  });

  it("of a review is a decision of its own, and leaves the first one standing", async () => {
    const id = await append();
    const first = (await review({ id })).record?.review?.recordId ?? "";
    expect(await review({ id: first, decision: REOPEN, reviewer: "auditor" })).toMatchObject({
      applied: true,
      record: { id: first, status: PENDING, entry: { actor: "ada" } },
    });
    expect(await review({ id: first, decision: REJECT, reviewer: "auditor" })).toMatchObject({ applied: true });
    expect(await reviewsOf(first)).toHaveLength(2);
    expect(await review({ id, reviewer: "late" })).toMatchObject({ applied: false, record: { status: APPROVED } });
  });

  it("by many at once on all instances is applied once, and the log holds one record of it", async () => {
    const id = await append();
    const answers = await Promise.all(
      Array.from({ length: 24 }, (_, i) =>
        review(
          { id, decision: i % 2 === 0 ? APPROVE : REJECT, reviewer: `r${i}` },
          archives.instances[i % archives.instances.length],
        ),
      ),
    );
    const won = answers.filter(({ applied }) => applied);
    expect(won).toHaveLength(1);
    const winner = won[0]?.record;
    for (const { record } of answers) expect(record).toEqual(winner);
    const [entry, ...more] = await reviewsOf(id);
    expect(more).toEqual([]);
    expect(entry?.actor).toBe(winner?.review?.reviewer);
  });

  it("of different records at once on all instances are all applied, each with one record of the log", async () => {
    const ids = await Promise.all(Array.from({ length: 20 }, (_, i) => append(only, i + 1)));
    const answers = await Promise.all(
      ids.map((id, i) => review({ id }, archives.instances[i % archives.instances.length])),
    );
    expect(answers.every(({ applied }) => applied)).toBe(true);
    expect(new Set(answers.map(({ record }) => record?.review?.recordId)).size).toBe(ids.length);
    for (const id of ids) expect(await reviewsOf(id)).toHaveLength(1);
  });

  it("that is refused fails alone among those that come at the same time", async () => {
    const ids = await Promise.all(Array.from({ length: 6 }, (_, i) => append(only, i + 1)));
    await review({ id: ids[0] ?? "", requestId: producer });
    const asked = [
      ...ids.slice(1).map((id) => review({ id })),
      review({ id: `${producer}/99` }),
      review({ id: ids[1] ?? "", requestId: producer }),
    ];
    const outcomes = await Promise.allSettled(asked);
    expect(outcomes.map((one) => (one.status === "fulfilled" ? one.value.applied : one.reason.reason))).toEqual([
      ...[true, true, true, true, true],
      "RECORD_NOT_FOUND",
      "REQUEST_ID_REUSED",
    ]);
    for (const id of ids) expect(await reviewsOf(id)).toHaveLength(1);
  });

  describe("that names its request", () => {
    it("is answered as the first time, also when the record has been reviewed again since", async () => {
      const id = await append();
      const first = await review({ id, requestId: producer });
      await review({ id, decision: REOPEN });
      expect(await review({ id, requestId: producer }, archives.instances.at(-1))).toEqual(first);
      expect(await reviewsOf(id)).toHaveLength(2);
    });

    it("is carried out once when its retries come at the same time on all instances", async () => {
      const id = await append();
      const answers = await Promise.all(
        Array.from({ length: 12 }, (_, i) =>
          review({ id, requestId: producer }, archives.instances[i % archives.instances.length]),
        ),
      );
      for (const answer of answers) expect(answer).toEqual(answers[0]);
      expect(answers[0]?.applied).toBe(true);
      expect(await reviewsOf(id)).toHaveLength(1);
    });

    it("that was lost stays lost, although it could be carried out now", async () => {
      const id = await append({});
      expect(await review({ id, requestId: producer })).toMatchObject({ applied: false });
      await review({ id, decision: REOPEN });
      expect(await review({ id, requestId: producer })).toMatchObject({
        applied: false,
        record: { status: NOT_REQUIRED },
      });
    });

    it("has a name of its own for each caller", async () => {
      const [id, other] = [await append(), await append(only, 2)];
      await review({ id, requestId: producer }, archives.instances[0], "one");
      expect(await review({ id: other, requestId: producer }, archives.instances[0], "two")).toMatchObject({
        applied: true,
        record: { id: other },
      });
    });

    it.each([
      ["another record", { id: "p/7" }],
      ["another decision", { decision: REJECT }],
      ["another reviewer", { reviewer: "eve" }],
      ["another comment", { comment: "b" }],
      ["another expectation", { expectedStatus: PENDING }],
    ])("cannot be used again for %s", async (_, change) => {
      const id = await append();
      await review({ id, comment: "a", requestId: producer });
      await expect(review({ id, comment: "a", requestId: producer, ...change })).rejects.toMatchObject({
        kind: "precondition",
        reason: "REQUEST_ID_REUSED",
      });
    });

    it("is forgotten after ten minutes, and not before; what is forgotten is swept", async () => {
      const id = await append();
      await review({ id, requestId: producer });
      await review({ id, decision: REOPEN });
      archives.clock.move(10 * 60_000 - 1);
      expect(await review({ id, requestId: producer })).toMatchObject({ record: { status: APPROVED } });
      expect(await reviewsOf(id)).toHaveLength(2);
      archives.clock.move(1);
      expect(await review({ id, requestId: producer })).toMatchObject({ applied: true });
      expect(await reviewsOf(id)).toHaveLength(3);
      const rows = await archives.instances[0].database.query(
        "SELECT request_id FROM audit_request WHERE expires_at <= $1",
        [archives.clock.now()],
      );
      expect(rows).toEqual([]);
    });
  });

  it("waits until the record that is on its way is archived", async () => {
    const id = `${producer}/1`;
    const answer = await review({ id }, archives.instances[0], "tester", async () => {
      await append();
      return { degraded: false };
    });
    expect(answer).toMatchObject({ applied: true, record: { id, status: APPROVED } });
  });

  it("of a record that is not there is NOT_FOUND, and of a retired one a failed precondition", async () => {
    await expect(review({ id: `${producer}/1` })).rejects.toMatchObject({
      kind: "not_found",
      reason: "RECORD_NOT_FOUND",
    });
    const id = await append();
    const { database } = archives.instances[0];
    await database.write("UPDATE audit_record SET leaf = NULL WHERE producer = $1", [producer]);
    await expect(review({ id })).rejects.toMatchObject({ kind: "precondition", reason: "RECORD_RETIRED" });
    expect(await reviewsOf(id)).toEqual([]);
  });

  it("that fails leaves neither a status nor a record behind", async () => {
    const id = await append();
    const { database } = archives.instances[0];
    const before = await archives.instances[0].archive.size();
    // Fails after the record of the review was appended, as a lost connection would.
    await database.write("ALTER TABLE audit_record RENAME COLUMN review TO reviewed");
    try {
      await expect(review({ id })).rejects.toThrow();
    } finally {
      await database.write("ALTER TABLE audit_record RENAME COLUMN reviewed TO review");
    }
    expect(await archives.instances[0].archive.size()).toBe(before);
    expect(await review({ id })).toMatchObject({ applied: true });
  });

  it("is UNAVAILABLE while what was acknowledged cannot be archived", async () => {
    const id = await append();
    const away = new UnavailableError("SQL_UNAVAILABLE", "away");
    await expect(review({ id }, archives.instances[0], "tester", () => Promise.reject(away))).rejects.toBe(away);
    expect(await reviewsOf(id)).toEqual([]);
  });
});

describe("a request that is wrong", () => {
  it.each<[string, ReviewInit, readonly string[]]>([
    ["nothing", {}, ["id", "decision", "reviewer"]],
    ["no id", { id: "a", decision: APPROVE, reviewer: "a" }, ["id"]],
    ["a sequence of 0", { id: "a/0", decision: APPROVE, reviewer: "a" }, ["id"]],
    ["a sequence that none has", { id: "a/9007199254740992", decision: APPROVE, reviewer: "a" }, ["id"]],
    ["a decision of another version", { id: "a/1", decision: UNKNOWN, reviewer: "a" }, ["decision"]],
    [
      "texts too long",
      {
        id: "a/1",
        decision: APPROVE,
        reviewer: "a".repeat(257),
        comment: "a".repeat(8193),
        requestId: "a".repeat(129),
      },
      ["reviewer", "comment", "request_id"],
    ],
    [
      "an approval of what is approved",
      { id: "a/1", decision: APPROVE, reviewer: "a", expectedStatus: APPROVED },
      ["expected_status"],
    ],
    [
      "a reopening of what is open",
      { id: "a/1", decision: REOPEN, reviewer: "a", expectedStatus: PENDING },
      ["expected_status"],
    ],
  ])("is refused before anything is asked: %s", async (_, request, wrong) => {
    const rpcs = createReviewRpcs({
      archive: UNASKED,
      reviews: UNASKED,
      search: UNASKED,
      settled: () => Promise.reject(new Error("it was asked")),
    });
    const failure = await Promise.resolve()
      .then(() => rpcs.review(create(AuditServiceReviewRequestSchema, request), testCall()))
      .catch((error: Failure) => error);
    expect(failure).toMatchObject({ kind: "invalid", violations: wrong.map((field) => ({ field })) });
  });
});

/** A part that is not to be asked anything. */
const UNASKED = new Proxy(Object.create(null), {
  get() {
    throw new Error("it was asked");
  },
});

async function reply(answer: ReturnType<ReturnType<typeof createReviewRpcs>["review"]>) {
  const given = await answer;
  if (given instanceof EncodedReply) throw new Error("a message was expected");
  return create(AuditServiceReviewResponseSchema, given);
}

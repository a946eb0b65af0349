import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { NackOrder } from "../../src/audit/groups/groups.ts";
import {
  AuditServiceGetGroupRequestSchema,
  AuditServiceListDeadLettersRequestSchema,
  type AuditServiceListDeadLettersResponse,
  AuditServiceListDeadLettersResponseSchema,
  AuditServiceRequeueDeadLettersRequestSchema,
  type AuditServiceRequeueDeadLettersResponse,
  AuditServiceRequeueDeadLettersResponseSchema,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { EncodedReply } from "../../src/infra/call.ts";
import type { Database, SqlRow, SqlValue } from "../../src/infra/database.ts";
import { KINDS } from "./archives.ts";
import { testCall } from "./calls.ts";
import { claimOrder, type GroupInstances, member, openGroups, refsOf, sequencesOf } from "./group-instances.ts";

/** The database, and of each transaction the turn of the event loop in which it began and the rows its statements gave. */
function watchTransactions(database: Database) {
  const seen: { turn: number; rows: number }[] = [];
  let turn = 0;
  const count = () => {
    turn++;
    counting = setImmediate(count);
  };
  let counting = setImmediate(count);
  const watched: Database = {
    ...database,
    transaction: (work) =>
      database.transaction((tx) => {
        const one = { turn, rows: 0 };
        seen.push(one);
        return work({
          ...tx,
          query: async <Row extends SqlRow>(sql: string, params?: readonly SqlValue[]) => {
            const rows = await tx.query<Row>(sql, params);
            one.rows += rows.length;
            return rows;
          },
        });
      }),
  };
  return { database: watched, seen, [Symbol.dispose]: () => clearImmediate(counting) };
}

describe.each(KINDS)("dead letters over %s", (kind) => {
  let open: GroupInstances;
  let group = "";
  let number = 0;
  let base = 0;
  beforeAll(async () => {
    open = await openGroups(kind);
  });
  afterAll(() => open[Symbol.asyncDispose]());
  beforeEach(async () => {
    group = `g${++number}`;
    base = await open.first.archive.size();
    await open.first.groups.join({ ...member(group, "a"), start: "new", filter: undefined });
  });

  const claim = (maxDeliveries = 5) => open.first.groups.claim(member(group, "a"), claimOrder({ maxDeliveries }));
  const own = (...sequences: number[]) => sequences.map((sequence) => base + sequence);
  const idOf = (sequence: number) => `p/${base + sequence}`;

  async function die(count: number, nack: Partial<NackOrder> = {}): Promise<void> {
    await open.append(count);
    const refs = refsOf(await claim());
    expect(refs).toHaveLength(count);
    await open.first.groups.nack(group, refs, { delayMs: 0, error: "", dead: true, ...nack });
  }

  async function list(
    request: MessageInitShape<typeof AuditServiceListDeadLettersRequestSchema> = {},
  ): Promise<AuditServiceListDeadLettersResponse> {
    const whole = create(AuditServiceListDeadLettersRequestSchema, { group, ...request });
    const answer = await open.second.rpcs.listDeadLetters(whole, testCall());
    if (answer instanceof EncodedReply) throw new Error("it is not encoded");
    return create(AuditServiceListDeadLettersResponseSchema, answer);
  }

  async function requeue(
    request: MessageInitShape<typeof AuditServiceRequeueDeadLettersRequestSchema>,
    caller?: string,
  ): Promise<AuditServiceRequeueDeadLettersResponse> {
    const whole = create(AuditServiceRequeueDeadLettersRequestSchema, { group, ...request });
    const answer = await open.first.rpcs.requeueDeadLetters(whole, testCall(caller));
    if (answer instanceof EncodedReply) throw new Error("it is not encoded");
    return create(AuditServiceRequeueDeadLettersResponseSchema, answer);
  }

  async function condition() {
    const request = create(AuditServiceGetGroupRequestSchema, { group });
    const answer = await open.first.rpcs.getGroup(request, testCall());
    if (answer instanceof EncodedReply) throw new Error("it is not encoded");
    return answer.group;
  }

  it("are what was nacked as often as it may be delivered", async () => {
    await open.append(1);
    for (const attempt of [1, 2, 3]) {
      const claimed = await claim(3);
      expect(claimed.deliveries.map((delivery) => delivery.attempt)).toEqual([attempt]);
      await open.first.groups.nack(group, refsOf(claimed), { delayMs: 0, error: `no ${attempt}`, dead: false });
    }
    expect((await claim(3)).deliveries).toEqual([]);
    const { deadLetters } = await list();
    expect(deadLetters).toMatchObject([
      { record: { id: idOf(1) }, deliveries: 3, lastError: "no 3", lastConsumer: "a" },
    ]);
    expect(Number(deadLetters[0]?.deadTime?.seconds)).toBe(Math.floor(open.clock.now() / 1000));
    const after = await condition();
    expect(after).toMatchObject({ pending: 0n, deadLetters: 1n });
    expect(after?.oldestUnackedTime).toBeUndefined();
  });

  it("are what was never answered, without an error, seen even when no consumer is left to notice", async () => {
    await open.append(1);
    await open.first.groups.nack(group, refsOf(await claim(2)), { delayMs: 0, error: "first", dead: false });
    expect((await claim(2)).deliveries).toHaveLength(1);
    open.clock.move(29_999);
    expect(await condition()).toMatchObject({ pending: 1n, deadLetters: 0n });
    open.clock.move(1);
    expect(await condition()).toMatchObject({ pending: 0n, deadLetters: 1n });
    expect((await list()).deadLetters).toMatchObject([{ deliveries: 2, lastError: "" }]);
  });

  it("are not delivered to whoever claims next", async () => {
    await open.append(3);
    const last = await claim(1);
    expect(last.deliveries).toHaveLength(3);
    await open.first.groups.ack(group, refsOf(last).slice(0, 1));
    open.clock.move(30_000);
    expect(await claim()).toMatchObject({ deliveries: [], more: true });
    expect((await list()).deadLetters.map(({ record }) => record?.id)).toEqual([idOf(2), idOf(3)]);
    // Their consumer hears that it is too late.
    expect(await open.first.groups.ack(group, refsOf(last))).toEqual([]);
    expect(await condition()).toMatchObject({ pending: 0n, deadLetters: 2n });
  });

  it("count deliveries by the limit of the consumer that had it last", async () => {
    await open.append(1);
    await open.first.groups.nack(group, refsOf(await claim(5)), { delayMs: 0, error: "", dead: false });
    await open.first.groups.nack(group, refsOf(await claim(1)), { delayMs: 0, error: "", dead: false });
    expect((await list()).deadLetters).toMatchObject([{ deliveries: 2 }]);
  });

  it("are made of what a stream held at its end if that was the last delivery", async () => {
    await open.append(1);
    await claim(1);
    await open.first.groups.leave(member(group, "a"), undefined, undefined);
    expect(await condition()).toMatchObject({ pending: 0n, deadLetters: 1n });
  });

  it("are listed the oldest first, in pages, each once", async () => {
    await die(2, { error: "x" });
    open.clock.move(10);
    await die(3, { error: "y" });
    const seen: string[] = [];
    let pageToken = "";
    do {
      const page = await list({ pageSize: 2, pageToken });
      expect(page.deadLetters.length).toBeLessThanOrEqual(2);
      seen.push(...page.deadLetters.map(({ record }) => record?.id ?? ""));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(seen).toEqual([1, 2, 3, 4, 5].map(idOf));
  });

  it("end a page early that would be large", async () => {
    await open.append(12, { attributes: { body: "x".repeat(250_000) } });
    for (let left = 12; left > 0; ) {
      const refs = refsOf(await claim());
      left -= refs.length;
      await open.first.groups.nack(group, refs, { delayMs: 0, error: "", dead: true });
    }
    const page = await list();
    expect(page.deadLetters).toHaveLength(8);
    expect((await list({ pageToken: page.nextPageToken })).deadLetters).toHaveLength(4);
  });

  it("are delivered again with their attempts counted anew, and are then no dead letters", async () => {
    await die(3);
    const answer = await requeue({ recordIds: [idOf(1), idOf(3), idOf(1), "p/999999", "other/1"] });
    expect(answer).toMatchObject({ requeued: 2n, missingRecordIds: ["p/999999", "other/1"] });
    expect(await condition()).toMatchObject({ pending: 2n, deadLetters: 1n });
    const claimed = await claim();
    expect(sequencesOf(claimed)).toEqual(own(1, 3));
    expect(claimed.deliveries.map(({ attempt }) => attempt)).toEqual([1, 1]);
    expect(await requeue({ recordIds: [idOf(1)] })).toMatchObject({ requeued: 0n, missingRecordIds: [idOf(1)] });
    await open.first.groups.ack(group, refsOf(claimed));
    expect(await requeue({ all: true })).toMatchObject({ requeued: 1n, missingRecordIds: [] });
    expect(sequencesOf(await claim())).toEqual(own(2));
    expect(await requeue({ all: true })).toMatchObject({ requeued: 0n });
  });

  it("are moved once by a retry that names itself, and again when it does not", async () => {
    await die(1);
    const requestId = `retry-${number}`;
    const request = { recordIds: [idOf(1), "p/999999"], requestId };
    const first = await requeue(request);
    await open.first.groups.nack(group, refsOf(await claim()), { delayMs: 0, error: "", dead: true });
    expect(await requeue(request)).toEqual(first);
    expect(await condition()).toMatchObject({ deadLetters: 1n });
    await expect(requeue({ all: true, requestId })).rejects.toMatchObject({ reason: "REQUEST_ID_REUSED" });
    // Another caller's names are its own.
    expect(await requeue(request, "somebody else")).toMatchObject({ requeued: 1n });
    await open.first.groups.nack(group, refsOf(await claim()), { delayMs: 0, error: "", dead: true });
    open.clock.move(10 * 60_000);
    expect(await requeue(request)).toMatchObject({ requeued: 1n });
  });

  it("are moved by the ten thousands", async () => {
    await die(3);
    // As many as would take long to nack one by one; they share the records.
    await open.append(25_000);
    const leaf = base + 3;
    await open.first.database.write(
      `INSERT INTO audit_dead_letter (group_name, leaf_index, deliveries, last_error, last_consumer, dead_ms)
        SELECT $1, leaf_index, 5, '', 'a', 1 FROM audit_record WHERE leaf_index >= $2`,
      [group, leaf],
    );
    const requestId = `many-${number}`;
    expect(await requeue({ all: true, requestId })).toMatchObject({ requeued: 25_003n });
    expect(await requeue({ all: true, requestId })).toMatchObject({ requeued: 25_003n });
    expect(await condition()).toMatchObject({ pending: 25_003n, deadLetters: 0n });
  });

  describe("made of thousands that were not acked in time", () => {
    const COUNT = 5_500;

    /** As if a consumer had taken them for the last time. */
    async function takeForTheLastTime(dueMs: number): Promise<void> {
      await open.append(COUNT);
      await open.first.database.write(
        `INSERT INTO audit_delivery
            (group_name, leaf_index, token, attempt, max_deliveries, consumer, holder, due_ms, last_error)
          SELECT $1, leaf_index, 1, 1, 1, 'a', $2, $3, '' FROM audit_record WHERE leaf_index >= $4`,
        [group, member(group, "a").owner, dueMs, base],
      );
    }

    it("are buried a bounded number at a time, and others get their turn in between", async () => {
      await takeForTheLastTime(open.clock.now() - 1);
      using watched = watchTransactions(open.first.database);
      const condition = await open.instance(watched.database).groups.condition(group);
      expect(condition).toMatchObject({ pending: 0, deadLetters: COUNT });
      expect(watched.seen.length).toBeGreaterThan(1);
      expect(Math.max(...watched.seen.map(({ rows }) => rows))).toBeLessThanOrEqual(2_001);
      expect(new Set(watched.seen.map(({ turn }) => turn)).size).toBe(watched.seen.length);
    });

    it("do not hold up the end of the stream that had them", async () => {
      await takeForTheLastTime(open.clock.now() + 30_000);
      using watched = watchTransactions(open.first.database);
      await open.instance(watched.database).groups.leave(member(group, "a"), undefined, undefined);
      const [left] = watched.seen;
      // What it gives back is one statement; what it buries is a part of that.
      expect(left?.rows).toBeGreaterThanOrEqual(COUNT);
      expect(left?.rows).toBeLessThanOrEqual(COUNT + 2_001);
      expect(await condition()).toMatchObject({ pending: 0n, deadLetters: BigInt(COUNT) });
    });
  });

  it("are not looked for in a group that nobody has subscribed to", async () => {
    const notFound = { kind: "not_found", reason: "GROUP_NOT_FOUND" };
    await expect(list({ group: "nobody" })).rejects.toMatchObject(notFound);
    await expect(requeue({ group: "nobody", all: true })).rejects.toMatchObject(notFound);
    const request = create(AuditServiceGetGroupRequestSchema, { group: "nobody" });
    await expect(open.first.rpcs.getGroup(request, testCall())).rejects.toMatchObject(notFound);
  });

  it("are not asked for wrongly without being told every mistake", async () => {
    const fieldsOf = (violations: readonly string[]) => ({ violations: violations.map((field) => ({ field })) });
    await expect(list({ group: "a b", pageSize: -1 })).rejects.toMatchObject(fieldsOf(["group", "page_size"]));
    await expect(list({ pageToken: "x" })).rejects.toMatchObject(fieldsOf(["page_token"]));
    await die(2);
    const { nextPageToken } = await list({ pageSize: 1 });
    await expect(list({ group: "other", pageToken: nextPageToken })).rejects.toMatchObject(fieldsOf(["page_token"]));
    await expect(requeue({})).rejects.toMatchObject(fieldsOf(["record_ids"]));
    await expect(requeue({ all: true, recordIds: ["p/1"] })).rejects.toMatchObject(fieldsOf(["record_ids"]));
    await expect(requeue({ recordIds: ["p/1", "?"] })).rejects.toMatchObject(fieldsOf(["record_ids[1]"]));
    const many = Array.from({ length: 1_001 }, (_, at) => `p/${at + 1}`);
    await expect(requeue({ recordIds: many })).rejects.toMatchObject(fieldsOf(["record_ids"]));
  });
});

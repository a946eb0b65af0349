import { create, toBinary } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import type { JoinOrder } from "../../src/audit/groups/groups.ts";
import { AuditFilterSchema, AuditStatus } from "../../src/gen/holdfast/v1/audit_pb.js";
import type { Database, SqlSession } from "../../src/infra/database.ts";
import { openPostgres } from "../../src/infra/postgres.ts";
import { openSqlite } from "../../src/infra/sqlite.ts";
import { KINDS } from "./archives.ts";
import { claimOrder, type GroupInstances, member, openGroups, refsOf, sequencesOf } from "./group-instances.ts";

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => from + at);

describe.each(KINDS)("a group over %s", (kind) => {
  let open: GroupInstances;
  let group = "";
  let number = 0;
  // Sequences of the records that the test at hand appended are `base + 1` and up.
  let base = 0;
  beforeAll(async () => {
    open = await openGroups(kind);
  });
  afterAll(() => open[Symbol.asyncDispose]());
  beforeEach(async () => {
    group = `g${++number}`;
    base = await open.first.archive.size();
  });

  const join = (consumer: string, order: Partial<JoinOrder> = {}) =>
    open.first.groups.join({ ...member(group, consumer), start: "new", filter: undefined, ...order });
  const claim = (consumer: string, order: Parameters<typeof claimOrder>[0] = {}, owner?: string) =>
    open.first.groups.claim(member(group, consumer, owner), claimOrder(order));
  const own = (...sequences: number[]) => sequences.map((sequence) => base + sequence);

  it("begins with the records appended after it was made", async () => {
    await open.append(3);
    expect(await join("a")).toMatchObject({ created: true, filter: undefined });
    expect(await join("b")).toMatchObject({ created: false });
    await open.append(2);
    expect(sequencesOf(await claim("a"))).toEqual(own(4, 5));
  });

  it("begins with the oldest record that is kept, when asked to", async () => {
    await open.append(4);
    const cut = base + 2;
    await open.first.database.write("UPDATE audit_record SET leaf = NULL WHERE leaf_index < $1", [cut]);
    await join("a", { start: "oldest" });
    expect((await open.first.groups.condition(group))?.lag).toBe(2);
    expect(sequencesOf(await claim("a"))).toEqual(own(3, 4));
  });

  it("passes over records that retention dropped before they were delivered", async () => {
    await join("a");
    await open.append(4);
    await open.first.database.write("UPDATE audit_record SET leaf = NULL WHERE leaf_index BETWEEN $1 AND $2", [
      base + 1,
      base + 2,
    ]);
    expect(sequencesOf(await claim("a"))).toEqual(own(1, 4));
  });

  it("keeps its filter, wants only what matches as appended, and refuses another", async () => {
    const bytes = (actions: string[], statuses: AuditStatus[] = []) =>
      toBinary(AuditFilterSchema, create(AuditFilterSchema, { actions, statuses }));
    const { filter } = await join("a", { filter: bytes(["x", "y"], [AuditStatus.PENDING]) });
    await expect(join("b", { filter: bytes(["x"]) })).rejects.toMatchObject({ reason: "GROUP_DIFFERS" });
    await expect(join("b", { filter: new Uint8Array() })).rejects.toMatchObject({ reason: "GROUP_DIFFERS" });
    expect((await join("b", { filter: bytes(["y", "x"], [AuditStatus.PENDING]) })).filter).toEqual(filter);
    expect((await join("b")).filter).toEqual(filter);
    await open.append(1, { action: "z", status: AuditStatus.PENDING });
    await open.append(1, { action: "x", status: AuditStatus.PENDING });
    await open.append(1, { action: "x" });
    await open.append(3, { action: "y", status: AuditStatus.PENDING });
    // Reviewed since.
    await open.first.database.write("UPDATE audit_record SET status = 3 WHERE leaf_index = $1", [base + 1]);
    expect(sequencesOf(await claim("a", { filter, room: { leaves: 2, bytes: 1 << 20 } }))).toEqual(own(2, 4));
    expect(sequencesOf(await claim("a", { filter }))).toEqual(own(5, 6));
  });

  it("moves on past a thousand records that it does not want", async () => {
    const { filter } = await join("a", {
      filter: toBinary(AuditFilterSchema, create(AuditFilterSchema, { actions: ["rare"] })),
    });
    await open.append(1_500);
    await open.append(1, { action: "rare" });
    expect(await claim("a", { filter })).toMatchObject({ deliveries: [], more: true });
    expect(sequencesOf(await claim("a", { filter }))).toEqual(own(1_501));
  });

  it("fills the consumer's room in the order of the log, by number and by size", async () => {
    await join("a");
    await open.append(10);
    await open.append(3, { attributes: { body: "x".repeat(60_000) } });
    const some = await claim("a", { room: { leaves: 10, bytes: 1 << 20 } });
    expect(sequencesOf(some)).toEqual(own(...range(1, 10)));
    expect(some.more).toBe(true);
    expect(sequencesOf(await claim("a", { room: { leaves: 10, bytes: 130_000 } }))).toEqual(own(11, 12));
    // One that is larger than the room is delivered nevertheless, by itself.
    const last = await claim("a", { room: { leaves: 10, bytes: 10 } });
    expect(sequencesOf(last)).toEqual(own(13));
    expect(await claim("a")).toMatchObject({ deliveries: [], more: false });
  });

  it("delivers a thousand records, and settles them, in a handful of statements", async () => {
    await join("a");
    await open.append(1_000);
    let statements = 0;
    const counted = open.instance(
      counting(open.first.database, () => {
        statements++;
      }),
    );
    const claimed = await counted.groups.claim(
      member(group, "a"),
      claimOrder({ room: { leaves: 1_000, bytes: 1 << 20 } }),
    );
    expect(claimed.deliveries).toHaveLength(1_000);
    expect(statements).toBeLessThan(10);
    statements = 0;
    expect(await counted.groups.ack(group, refsOf(claimed))).toHaveLength(1_000);
    expect(statements).toBe(1);
  });

  it("gives a delivery to another consumer at its deadline, from when on the first one's ack is late", async () => {
    await join("a");
    await join("b");
    await open.append(2);
    const first = await claim("a");
    expect((await claim("b")).deliveries).toEqual([]);
    open.clock.move(29_999);
    expect((await claim("b")).deliveries).toEqual([]);
    open.clock.move(1);
    // Nobody has taken it yet, so what was done counts.
    expect(await open.first.groups.ack(group, refsOf(first).slice(0, 1))).toHaveLength(1);
    const again = await claim("b");
    expect(sequencesOf(again)).toEqual(own(2));
    expect(again.deliveries[0]?.attempt).toBe(2);
    expect(await open.first.groups.ack(group, refsOf(first))).toEqual([]);
    expect(await open.first.groups.ack(group, refsOf(again))).toEqual(refsOf(again));
    expect(await open.first.groups.ack(group, refsOf(again))).toEqual([]);
    expect(await open.first.groups.condition(group)).toMatchObject({ pending: 0, lag: 0, deadLetters: 0 });
  });

  it("leaves a delivery that was extended with its consumer", async () => {
    await join("a");
    await join("b");
    await open.append(1);
    const { groups } = open.first;
    const claimed = await claim("a");
    open.clock.move(20_000);
    expect(await groups.extend(member(group, "b"), refsOf(claimed), open.clock.now() + 30_000)).toEqual([]);
    expect(await groups.extend(member(group, "a"), refsOf(claimed), open.clock.now() + 30_000)).toHaveLength(1);
    open.clock.move(29_999);
    expect((await claim("b")).deliveries).toEqual([]);
    open.clock.move(1);
    expect((await claim("b")).deliveries).toHaveLength(1);
    expect(await groups.extend(member(group, "a"), refsOf(claimed), open.clock.now() + 30_000)).toEqual([]);
  });

  it("delivers again after the delay of a nack, and takes nothing more from the consumer that gave it back", async () => {
    await join("a");
    await open.append(2);
    const { groups } = open.first;
    const claimed = await claim("a");
    const refs = refsOf(claimed).slice(0, 1);
    expect(await groups.nack(group, refs, { delayMs: 5_000, error: "no", dead: false })).toEqual(refs);
    expect(await groups.nack(group, refs, { delayMs: 0, error: "no", dead: true })).toEqual([]);
    expect(await groups.ack(group, refs)).toEqual([]);
    expect(await groups.condition(group)).toMatchObject({ pending: 2, delayed: 1 });
    open.clock.move(4_999);
    expect((await claim("a")).deliveries).toEqual([]);
    open.clock.move(1);
    expect(await groups.condition(group)).toMatchObject({ pending: 2, delayed: 0 });
    expect(sequencesOf(await claim("a"))).toEqual(own(1));
  });

  it("gives back at once what a stream held when it ends, and does not count what was never sent", async () => {
    await join("a");
    await join("b");
    await open.append(2);
    const sent = await claim("a", { room: { leaves: 1, bytes: 1 << 20 } });
    const unsent = await claim("a");
    await open.first.groups.leave(member(group, "a"), undefined, unsent.token);
    const again = await claim("b");
    expect(again.deliveries.map(({ record, attempt }) => [Number(record.sequence) - base, attempt])).toEqual([
      [1, 2],
      [2, 1],
    ]);
    expect(await open.first.groups.ack(group, refsOf(sent))).toEqual([]);
  });

  it("gives a consumer that is back under its old name what it had not settled, before its deadline", async () => {
    await join("a");
    await join("b");
    await open.append(2);
    const before = await claim("a");
    await open.first.groups.ack(group, refsOf(before).slice(0, 1));
    await join("a", { owner: "a-again" });
    expect((await claim("b")).deliveries).toEqual([]);
    const again = await claim("a", { recoverAfter: 0 }, "a-again");
    expect(sequencesOf(again)).toEqual(own(2));
    expect((await claim("a", { recoverAfter: again.token }, "a-again")).recovered).toBe(true);
    expect(await open.first.groups.ack(group, refsOf(before))).toEqual([]);
  });

  it("is after a restart where it was: what was settled is done, what was not is due at its deadline", async () => {
    await join("a");
    await open.append(3);
    const before = await claim("a", { room: { leaves: 2, bytes: 1 << 20 } });
    await open.first.groups.ack(group, refsOf(before).slice(0, 1));
    const reopened =
      kind === "sqlite"
        ? openSqlite({ path: open.where })
        : openPostgres({ url: open.where, poolSize: 2, statementTimeoutMs: 20_000, connectTimeoutMs: 20_000 });
    onTestFinished(() => reopened.close());
    const { groups } = open.instance(reopened);
    const after = member(group, "b", "b-after");
    await groups.join({ ...after, start: "oldest", filter: undefined });
    expect(sequencesOf(await groups.claim(after, claimOrder()))).toEqual(own(3));
    expect((await groups.claim(after, claimOrder())).deliveries).toEqual([]);
    open.clock.move(30_000);
    expect(sequencesOf(await groups.claim(after, claimOrder()))).toEqual(own(2, 3));
  });

  it("tells a stream whose name another has taken", async () => {
    await join("a");
    await join("a", { owner: "a-again" });
    await expect(claim("a")).rejects.toMatchObject({ reason: "CONSUMER_REPLACED" });
    await expect(open.second.groups.prospect(member(group, "a"))).rejects.toMatchObject({
      reason: "CONSUMER_REPLACED",
    });
    await expect(claim("a", {}, "a-again")).resolves.toMatchObject({ deliveries: [] });
  });

  it("delivers again what a claim took whose answer was lost", async () => {
    await join("a");
    await open.append(3);
    const known = await claim("a", { room: { leaves: 1, bytes: 1 << 20 } });
    await claim("a", { room: { leaves: 1, bytes: 1 << 20 } });
    const recovered = await claim("a", { recoverAfter: known.token });
    expect(sequencesOf(recovered)).toEqual(own(2));
    expect(sequencesOf(await claim("a", { recoverAfter: recovered.token }))).toEqual(own(3));
  });

  it("tells how it does", async () => {
    const { groups } = open.first;
    expect(await groups.condition("nobody")).toBeUndefined();
    await join("b");
    await join("a");
    await open.append(5);
    const claimed = await claim("a", { room: { leaves: 3, bytes: 1 << 20 } });
    const [one, two] = refsOf(claimed);
    if (one === undefined || two === undefined) throw new Error("two deliveries were claimed");
    await groups.ack(group, [one]);
    await groups.nack(group, [two], { delayMs: 60_000, error: "later", dead: false });
    await groups.leave(member(group, "b"), undefined, undefined);
    await groups.touch(member(group, "a"), 123_000);
    expect(await groups.condition(group)).toMatchObject({
      lag: 2,
      pending: 2,
      delayed: 1,
      deadLetters: 0,
      createdMs: open.clock.now(),
      oldestUnackedUs: 1_750_000_000_000_000 + base + 2,
      consumers: [
        { name: "a", connected: true, pending: 1, activeMs: 123_000 },
        { name: "b", connected: false, pending: 0, activeMs: undefined },
      ],
    });
    // Not seen for long: its instance was killed.
    open.clock.move(15_000);
    expect((await groups.condition(group))?.consumers[0]).toMatchObject({ name: "a", connected: false });
    open.clock.move(24 * 3_600_000);
    expect((await groups.condition(group))?.consumers).toEqual([]);
  });
});

/** The same database, that tells of each statement. */
function counting(database: Database, onStatement: () => void): Database {
  return {
    ...database,
    query(sql, params) {
      onStatement();
      return database.query(sql, params);
    },
    write(sql, params) {
      onStatement();
      return database.write(sql, params);
    },
    transaction: (work) =>
      database.transaction((tx) => {
        const counted: SqlSession = {
          query(sql, params) {
            onStatement();
            return tx.query(sql, params);
          },
          each(sql, rows) {
            for (const _ of rows) onStatement();
            return tx.each(sql, rows);
          },
        };
        return work(counted);
      }),
  };
}

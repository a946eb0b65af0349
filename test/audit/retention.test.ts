import { afterEach, describe, expect, it } from "vitest";
import { createGrowth } from "../../src/audit/archive/growth.ts";
import { createSqlGroups } from "../../src/audit/groups/sql-groups.ts";
import { open } from "../../src/audit/record/leaf.ts";
import { type Retention, type RetentionSettings, startRetention } from "../../src/audit/retention/retention.ts";
import { createSqlRetention } from "../../src/audit/retention/sql-retention.ts";
import { createSqliteIndex } from "../../src/audit/search/sqlite-index.ts";
import { AuditDecision } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import { createLog } from "../../src/infra/log.ts";
import { until } from "../support/until.ts";
import { KINDS } from "./archives.ts";
import { fill, openArchive, PENDING, review, type TestArchive } from "./verify-archive.ts";

const DAY = 86_400_000;
const log = createLog({ level: "silent" });
const started: Retention[] = [];
afterEach(async () => {
  for (const retention of started.splice(0)) await retention.close();
});

function retain(
  { archive, database, clock }: TestArchive,
  settings: Partial<RetentionSettings>,
  store = createSqlRetention({ database }),
): Retention {
  const limits = { maxAgeMs: undefined, maxRecords: undefined, ...settings };
  const retention = startRetention({ archive, store, settings: limits, clock, log, everyMs: 2 ** 30 });
  started.push(retention);
  return retention;
}

/** The leaves that still have their record. */
async function kept({ database }: TestArchive): Promise<number[]> {
  const rows = await database.query<{ leaf_index: number }>(
    "SELECT leaf_index FROM audit_record WHERE leaf IS NOT NULL AND producer <> '@retention' ORDER BY leaf_index",
  );
  return rows.map(({ leaf_index }) => leaf_index);
}

/** What the log says of drops, in order. */
async function told({ database, archive }: TestArchive) {
  const rows = await database.query<{ sequence: number }>(
    "SELECT sequence FROM audit_record WHERE producer = '@retention' ORDER BY sequence",
  );
  const found = await archive.find(rows.map(({ sequence }) => ({ producer: "@retention", sequence })));
  return found.map((row) => open(row?.leaf ?? new Uint8Array()).entry);
}

const range = (first: number, end: number) => Array.from({ length: end - first }, (_, i) => first + i);

describe.each(KINDS)("retention in %s", (kind) => {
  it("drops what is too old, and what is left of it is its identity, its hash and its times", async () => {
    await using on = await openArchive(kind);
    await fill(on, 700);
    on.clock.move(2 * DAY);
    await fill(on, 30);
    on.clock.move(DAY);
    const before = await on.database.query(
      "SELECT leaf_index, producer, sequence, leaf_hash, accept_us, occur_us, status FROM audit_record WHERE leaf_index < 730 ORDER BY leaf_index",
    );
    const retention = retain(on, { maxAgeMs: 2 * DAY });
    await retention.run();
    expect(await kept(on)).toEqual(range(700, 730));
    const after = await on.database.query(
      "SELECT leaf_index, producer, sequence, leaf_hash, accept_us, occur_us, status FROM audit_record WHERE leaf_index < 730 ORDER BY leaf_index",
    );
    expect(after).toEqual(before);
    const [row] = await on.database.query("SELECT * FROM audit_record WHERE leaf_index = 3");
    expect(row).toMatchObject({ leaf: null, review: null, actor_key: null, resource_key: null, trace_key: null });
    expect(retention.condition()).toMatchObject({ dropped: 700, heldBack: 0, lastError: undefined });
    expect(await retention.run()).toBe(0);
  });

  it("drops what is too much, the oldest first", async () => {
    await using on = await openArchive(kind);
    await fill(on, 5_000);
    const retention = retain(on, { maxRecords: 300 });
    await retention.run();
    expect(await kept(on)).toEqual(range(4_700, 5_000));
    await fill(on, 10);
    await retention.run();
    // What retention itself has to tell does not count, or each run would make work for the next.
    expect(await kept(on)).toEqual([...range(4_710, 5_000), ...range(5_006, 5_016)]);
    expect(await retention.run()).toBe(0);
    const leaves = (await told(on)).map(({ attributes }) => attributes?.leaves);
    expect(leaves.slice(-2)).toEqual(["4096-4699", "4700-4709"]);
    expect(leaves[0]).toBe("0-999");
  });

  it("does nothing at all without a limit", async () => {
    await using on = await openArchive(kind);
    await fill(on, 20);
    on.clock.move(10_000 * DAY);
    expect(await retain(on, {}).run()).toBe(0);
    expect(await kept(on)).toEqual(range(0, 20));
    expect(await on.archive.size()).toBe(20);
  });

  it("tells of every run that dropped something in a record of the log, which is never dropped itself", async () => {
    await using on = await openArchive(kind);
    const from = on.clock.now();
    await fill(on, 10);
    on.clock.move(5_000);
    await fill(on, 10);
    on.clock.move(DAY);
    const retention = retain(on, { maxAgeMs: DAY / 2, maxRecords: 1_000 });
    await retention.run();
    await retention.run();
    const entries = await told(on);
    expect(entries).toHaveLength(1);
    expect(entries[0]).toMatchObject({ actor: "holdfast", action: "audit.retention.drop" });
    expect(entries[0]?.attributes).toEqual({
      count: 20,
      reason: "age",
      leaves: "0-19",
      oldest_accept_time: new Date(from).toISOString(),
      newest_accept_time: new Date(from + 5_000).toISOString(),
    });
    on.clock.move(30 * DAY);
    await fill(on, 5);
    const stricter = retain(on, { maxAgeMs: DAY, maxRecords: 3 });
    await stricter.run();
    expect(
      (await told(on)).map(({ attributes }) => [attributes?.count, attributes?.reason, attributes?.leaves]),
    ).toEqual([
      [20, "age", "0-19"],
      [2, "count", "21-22"],
    ]);
  });

  it("keeps what waits for a review, however old, and drops it some time after the decision", async () => {
    await using on = await openArchive(kind);
    await fill(on, 20, { over: (sequence) => (sequence % 10 === 5 ? PENDING : {}) });
    on.clock.move(DAY);
    const retention = retain(on, { maxAgeMs: DAY / 2 });
    await retention.run();
    expect(await kept(on)).toEqual([4, 14]);
    expect((await told(on))[0]?.attributes?.leaves).toBe("0-3, 5-13, 15-19");
    expect(retention.condition().heldBack).toBe(2);
    await review(on, "app/5", AuditDecision.APPROVE);
    await retention.run();
    expect(await kept(on)).toEqual([14, 21]);
  });

  it("keeps the reviews of a record as long as the record", async () => {
    await using on = await openArchive(kind);
    await fill(on, 1, { over: () => PENDING });
    await review(on, "app/1", AuditDecision.REJECT);
    await review(on, "app/1", AuditDecision.REOPEN);
    await fill(on, 3);
    on.clock.move(DAY);
    const retention = retain(on, { maxAgeMs: DAY / 2 });
    await retention.run();
    expect(await kept(on)).toEqual([0, 1, 2]);
    await review(on, "app/1", AuditDecision.APPROVE);
    await retention.run();
    // All but the last decision, which is young.
    const [last] = await on.database.query<{ leaf_index: number }>(
      "SELECT leaf_index FROM audit_record WHERE producer = '@review' AND sequence = 3",
    );
    expect(await kept(on)).toEqual([last?.leaf_index]);
    on.clock.move(DAY);
    await retention.run();
    expect(await kept(on)).toEqual([]);
  });

  it("keeps what a group has not acked: not yet delivered, delivered, and given up", async () => {
    await using on = await openArchive(kind);
    await fill(on, 40);
    const groups = createSqlGroups({ database: on.database, clock: on.clock });
    const member = { group: "g", consumer: "c", owner: "o" };
    await groups.join({ ...member, start: "oldest", filter: undefined });
    const order = { filter: undefined, ackTimeoutMs: DAY, maxDeliveries: 1, recoverAfter: undefined };
    const room = { leaves: 10, bytes: 1_000_000 };
    const first = await groups.claim(member, { ...order, room });
    await groups.claim(member, { ...order, room });
    const refs = first.deliveries.map(({ ref }) => ref);
    await groups.ack("g", refs.slice(3));
    await groups.nack("g", refs.slice(2, 3), { delayMs: 0, error: "broken", dead: true });
    on.clock.move(DAY);
    const retention = retain(on, { maxAgeMs: DAY / 2 });
    await retention.run();
    // 0 and 1 are delivered, 2 is a dead letter, 3 to 9 are acked, 10 to 19 are delivered, the others have not been looked at.
    expect(await kept(on)).toEqual([0, 1, 2, ...range(10, 40)]);
    expect(retention.condition().heldBack).toBe(33);
    await groups.ack("g", refs.slice(0, 2));
    await retention.run();
    expect(await kept(on)).toEqual([2, ...range(10, 40)]);
    await groups.requeue({ group: "g", ids: undefined, caller: "test", named: undefined });
    await retention.run();
    expect(await kept(on)).toEqual([2, ...range(10, 40)]);
  });

  it("accounts for every drop once, when a run is cut off and when two instances run at once", async () => {
    await using on = await openArchive(kind);
    await fill(on, 6_000);
    on.clock.move(DAY);
    const store = createSqlRetention({ database: on.database });
    let batches = 0;
    const broken = retain(
      on,
      { maxAgeMs: DAY / 2 },
      {
        ...store,
        async drop(...args) {
          batches++;
          if (batches > 3) throw new Error("the power is gone");
          return store.drop(...args);
        },
      },
    );
    await expect(broken.run()).rejects.toThrow("the power is gone");
    expect(broken.condition().lastError).toBe("the power is gone");
    expect(await kept(on)).toHaveLength(3_000);
    expect((await told(on)).map(({ attributes }) => attributes?.leaves)).toEqual(["0-999", "1000-1999", "2000-2999"]);
    const both = [retain(on, { maxAgeMs: DAY / 2 }), retain(on, { maxAgeMs: DAY / 2 })];
    await Promise.all(both.map((retention) => retention.run()));
    expect(await kept(on)).toEqual([]);
    const counts = (await told(on)).map(({ attributes }) => Number(attributes?.count));
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(6_000);
  });

  it("drops nothing that it cannot announce", async () => {
    await using on = await openArchive(kind);
    await fill(on, 20);
    on.clock.move(DAY);
    const mute: typeof on.archive = {
      ...on.archive,
      transaction: (work) =>
        on.archive.transaction((tx, log) =>
          work(tx, { ...log, append: () => Promise.reject(new Error("the power is gone")) }),
        ),
    };
    await expect(retain({ ...on, archive: mute }, { maxAgeMs: DAY / 2 }).run()).rejects.toThrow("the power is gone");
    expect([await kept(on), await told(on)]).toEqual([range(0, 20), []]);
    await retain(on, { maxAgeMs: DAY / 2 }).run();
    expect((await told(on)).map(({ attributes }) => attributes?.count)).toEqual([20]);
  });

  it("says first what it is about to drop and why, and leaves time to stop it", async () => {
    await using on = await openArchive(kind);
    await fill(on, 10);
    on.clock.move(3 * DAY);
    await fill(on, 10);
    const lines: string[] = [];
    const { archive, database, clock } = on;
    const settings = { maxAgeMs: 2 * DAY, maxRecords: 5 };
    const start = (graceMs: number) => {
      const listening = createLog({ level: "info", destination: { write: (line) => lines.push(line) } });
      const options = { archive, store: createSqlRetention({ database }), settings, clock, log: listening, graceMs };
      const retention = startRetention(options);
      started.push(retention);
      return retention;
    };
    const first = start(2 ** 30);
    await until(() => lines.length > 0, { what: "a warning" });
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({
      level: "warn",
      records: 15,
      byAge: 10,
      msg: expect.stringMatching(
        /drops up to 15 audit records, for good: 10 older than AUDIT_RETENTION_AGE \(2d\), 5 beyond AUDIT_RETENTION_COUNT \(5\); stop the server/,
      ),
    });
    await first.close();
    expect(await kept(on)).toEqual(range(0, 20));
    start(1);
    await until(async () => (await kept(on)).length === 5, { what: "the first run" });
    expect(lines[1]).toContain("drops up to 15 audit records");
  });

  it("stops when it is closed, and what it dropped until then is told by the next one", async () => {
    await using on = await openArchive(kind);
    await fill(on, 5_000);
    on.clock.move(DAY);
    const store = createSqlRetention({ database: on.database });
    const closing: Promise<void>[] = [];
    const first: Retention = retain(
      on,
      { maxAgeMs: DAY / 2 },
      {
        ...store,
        async drop(...args) {
          closing.push(first.close());
          return store.drop(...args);
        },
      },
    );
    await first.run();
    await Promise.all(closing);
    expect(await kept(on)).toHaveLength(4_000);
    await retain(on, { maxAgeMs: DAY / 2 }).run();
    const counts = (await told(on)).map(({ attributes }) => Number(attributes?.count));
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(5_000);
  });
});

describe("retention in SQLite", () => {
  it("takes what it drops out of the index as well", async () => {
    await using on = await openArchive("sqlite");
    await fill(on, 9_000);
    const growth = createGrowth(createLocalBackplane());
    const index = createSqliteIndex({ database: on.database, growth, log });
    await index.caughtUp();
    const entries = () => on.database.query<{ leaf_index: number }>("SELECT DISTINCT leaf_index FROM audit_index");
    expect(await entries()).toHaveLength(8_192);
    const { forgetDropped } = index;
    await retain(on, { maxRecords: 1_000 }, createSqlRetention({ database: on.database, forgetDropped })).run();
    const left = (await entries()).map(({ leaf_index }) => leaf_index);
    expect(Math.min(...left)).toBe(8_000);
    expect(left).toHaveLength(192);
    await index.close();
    growth.close();
  });
});

import { describe, expect, it } from "vitest";
import { verifyArchive } from "../../src/audit/proof/offline-verify.ts";
import { accountLines } from "../../src/audit/proof/offline-verify-report.ts";
import { createSqlArchiveReader } from "../../src/audit/proof/sql-verify.ts";
import { headRoot } from "../../src/audit/proof/tree.ts";
import { startRetention } from "../../src/audit/retention/retention.ts";
import { createSqlRetention } from "../../src/audit/retention/sql-retention.ts";
import { AuditDecision } from "../../src/gen/holdfast/v1/audit_pb.js";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { KINDS } from "./archives.ts";
import { naiveRoot } from "./rfc6962.ts";
import { checkpointOf, DAY, dropOlderThan, fillAll, newKey, SOUND, verify } from "./verify-account.ts";
import { fill, openArchive, PENDING, review } from "./verify-archive.ts";

const { APPROVE, REJECT } = AuditDecision;

describe.each(KINDS)("the archive in %s, verified as a whole", (kind) => {
  it("is sound as it was written, from empty on", async () => {
    await using on = await openArchive(kind);
    expect(await verify(on)).toMatchObject({ ...SOUND, size: 0, root: naiveRoot([]) });
    await fillAll(on);
    const account = await verify(on);
    expect(account).toMatchObject({ ...SOUND, size: 600, checked: 600, retired: 0 });
    expect(account.root).toEqual(headRoot(await createSqlArchiveReader(on.database).head()));
    expect(accountLines(account, undefined)).toEqual([
      "600 leaves checked, 0 of them dropped by retention, 0 damaged",
      expect.stringMatching(/^root [A-Za-z0-9+/]{43}=$/),
      "The archive is consistent with itself; without a checkpoint from outside, a rewritten history would not show.",
    ]);
  });

  it("is sound behind retention, and so are the checkpoints from before it", async () => {
    await using on = await openArchive(kind);
    const key = newKey();
    await fillAll(on);
    const kept = [await checkpointOf(on, key, "before.json")];
    on.clock.move(3 * DAY);
    await fill(on, 10);
    await dropOlderThan(on, DAY);
    kept.push(await checkpointOf(on, key, "after.json"));
    const account = await verify(on, kept, key.publicKey);
    // 300, 400, 500 and 7 wait for a review; 7 keeps its own reviews, and the record of the drop is new.
    expect(account).toMatchObject({ ...SOUND, size: 611, retired: 595 });
    expect(account.checkpoints.map(({ fault }) => fault)).toEqual([undefined, undefined]);
    await review(on, "app/300", APPROVE);
    on.clock.move(3 * DAY);
    await dropOlderThan(on, DAY);
    expect(await verify(on, kept, key.publicKey)).toMatchObject({ ...SOUND, retired: 607 });
  });

  it("does not take a database that goes away for a damaged one", async () => {
    await using on = await openArchive(kind);
    await fill(on, 300);
    const reader = createSqlArchiveReader(on.database);
    const away = () => Promise.reject(new UnavailableError("SQL_UNAVAILABLE", "it is gone"));
    const leaves = (first: number, count: number) => (first < 256 ? reader.leaves(first, count) : away());
    const nothing = { checkpoints: [], publicKey: undefined };
    await expect(verifyArchive({ ...reader, leaves }, nothing)).rejects.toThrow("it is gone");
    await on.database.write("UPDATE audit_record SET status = 3 WHERE leaf_index = 7");
    expect(await verifyArchive({ ...reader, leaves }, nothing)).toMatchObject({ sound: false, damagedCount: 1 });
  });

  it("may be verified while records, reviews and drops go on", async () => {
    await using on = await openArchive(kind);
    await fill(on, 3_000, { over: (sequence) => (sequence % 3 === 0 ? PENDING : {}) });
    on.clock.move(DAY);
    let busy = true;
    const store = createSqlRetention({ database: on.database });
    const settings = { maxAgeMs: DAY / 2, maxRecords: undefined };
    const { archive, clock } = on;
    const work = (async () => {
      const retention = startRetention({ archive, store, settings, clock, log: createLog({ level: "silent" }) });
      for (let at = 3; busy && at < 3_000; at += 3) {
        await review(on, `app/${at}`, at % 2 === 0 ? APPROVE : REJECT);
        await fill(on, 1);
        if (at % 30 === 0) await retention.run();
      }
      await retention.close();
    })();
    for (let round = 0; round < 4; round++) expect(await verify(on)).toMatchObject(SOUND);
    busy = false;
    await work;
    expect(await verify(on)).toMatchObject(SOUND);
  });
});

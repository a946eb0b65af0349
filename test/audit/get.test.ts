import { create } from "@bufbuild/protobuf";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Archive } from "../../src/audit/archive/archive.ts";
import { Ranges } from "../../src/audit/journal/held-ranges.ts";
import { createLookupRpcs } from "../../src/audit/review/lookup-rpcs.ts";
import { createSqlSequences } from "../../src/audit/review/sql-sequences.ts";
import {
  AuditDurability,
  AuditLookup,
  AuditServiceGetRequestSchema,
  AuditStatus,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { UnavailableError } from "../../src/infra/failure.ts";
import { KINDS, type OpenArchives, openArchives, sealed } from "./archives.ts";
import { testCall } from "./calls.ts";
import { Shelf, shelfJournal, shelfQueue } from "./tiers.ts";

const { ARCHIVED, QUEUED, JOURNALED } = AuditDurability;

describe.each(KINDS)("a record that is asked for by its id, over %s", (kind) => {
  let archives: OpenArchives;
  let archive: Archive;
  let queued: Shelf;
  let journaled: Shelf;
  let producer = "";
  let number = 0;
  beforeAll(async () => {
    archives = await openArchives(kind);
  });
  afterAll(() => archives[Symbol.asyncDispose]());
  beforeEach(() => {
    ({ archive } = archives.instances[0]);
    producer = `p${++number}`;
    queued = new Shelf();
    journaled = new Shelf();
  });

  const record = (sequence = 1, entry = {}) => sealed({ producer, sequence }, entry);
  const store = (sequence = 1, entry = {}) => archive.append([record(sequence, entry)], "refuse");

  async function get(id = `${producer}/1`, tiers: { queue?: false; archive?: Archive } = {}) {
    const rpcs = createLookupRpcs({
      archive: tiers.archive ?? archive,
      queue: tiers.queue === false ? undefined : shelfQueue(queued),
      journal: shelfJournal([journaled], new Ranges(), producer),
      sequences: createSqlSequences(archives.instances[0].database),
    });
    const call = testCall();
    const reply = await rpcs.get(create(AuditServiceGetRequestSchema, { id }), call);
    return { ...reply, ...call.said };
  }

  const withoutSql = (): Archive => ({
    ...archive,
    find: () => Promise.reject(new UnavailableError("SQL_UNAVAILABLE", "SQL is away")),
  });

  it("is found in the archive, with its place there and the status it has now", async () => {
    await store(1, { status: AuditStatus.PENDING });
    const { database } = archives.instances[0];
    await database.write("UPDATE audit_record SET status = 3 WHERE producer = $1", [producer]);
    expect(await get()).toMatchObject({
      lookup: AuditLookup.FOUND,
      record: { id: `${producer}/1`, durability: ARCHIVED, status: AuditStatus.APPROVED, leafIndex: expect.anything() },
      servedBy: kind,
      degraded: false,
    });
  });

  it("is found in the queue, as it was appended", async () => {
    queued.put(record(1, { status: AuditStatus.PENDING }));
    journaled.put(record(1, { status: AuditStatus.PENDING }));
    const found = await get();
    expect(found).toMatchObject({
      lookup: AuditLookup.FOUND,
      record: { durability: QUEUED, status: AuditStatus.PENDING, entry: { actor: "user:1" } },
      servedBy: "redis",
      degraded: false,
    });
    expect(found).not.toHaveProperty("record.leafIndex");
  });

  it("is found in the journal alone, with Redis or without", async () => {
    journaled.put(record());
    for (const tiers of [{}, { queue: false } as const]) {
      expect(await get(`${producer}/1`, tiers)).toMatchObject({
        lookup: AuditLookup.FOUND,
        record: { durability: JOURNALED, status: AuditStatus.NOT_REQUIRED },
        servedBy: "journal",
        degraded: false,
      });
    }
  });

  it("is said to be as safe as the safest tier that holds it", async () => {
    await store();
    queued.put(record());
    journaled.put(record());
    expect(await get()).toMatchObject({ record: { durability: ARCHIVED }, servedBy: kind });
  });

  it("is found although it moves from the queue to the archive while it is looked for", async () => {
    queued.put(record());
    queued.onAsked = async () => {
      await store();
      queued.take({ producer, sequence: 1 });
    };
    expect(await get()).toMatchObject({ lookup: AuditLookup.FOUND, record: { durability: ARCHIVED } });
  });

  it("is said to be archived, with its status, although the journal still has what went to the archive meanwhile", async () => {
    const pending = record(1, { status: AuditStatus.PENDING });
    queued.put(pending);
    journaled.put(pending);
    queued.onAsked = async () => {
      await store(1, { status: AuditStatus.PENDING });
      const { database } = archives.instances[0];
      await database.write("UPDATE audit_record SET status = 3 WHERE producer = $1", [producer]);
      queued.take({ producer, sequence: 1 });
    };
    expect(await get()).toMatchObject({
      record: { durability: ARCHIVED, status: AuditStatus.APPROVED },
      servedBy: kind,
      degraded: false,
    });
  });

  it("that nobody holds is not found, which is a value", async () => {
    await store(2);
    expect(await get()).toMatchObject({ lookup: AuditLookup.NOT_FOUND, servedBy: kind });
    expect(await get()).not.toHaveProperty("record");
  });

  it("that retention has dropped is said to be retired", async () => {
    await store();
    await archives.instances[0].database.write("UPDATE audit_record SET leaf = NULL WHERE producer = $1", [producer]);
    expect(await get()).toMatchObject({ lookup: AuditLookup.RETIRED, servedBy: kind });
    expect(await get()).not.toHaveProperty("record");
  });

  it("is found in the other tiers while SQL is away, and the reply is marked", async () => {
    queued.put(record());
    expect(await get(`${producer}/1`, { archive: withoutSql() })).toMatchObject({ servedBy: "redis", degraded: true });
    queued.away = true;
    journaled.put(record());
    expect(await get(`${producer}/1`, { archive: withoutSql() })).toMatchObject({
      servedBy: "journal",
      degraded: true,
    });
  });

  it("is never said not to be there while SQL or Redis is away", async () => {
    await expect(get(`${producer}/1`, { archive: withoutSql() })).rejects.toMatchObject({ reason: "SQL_UNAVAILABLE" });
    queued.away = true;
    await expect(get()).rejects.toMatchObject({ kind: "unavailable", reason: "REDIS_UNAVAILABLE" });
  });

  it.each(["", "a", "a/", "a/0", "a/01", "a/-1", "a b/1", "a/1/2", "/1", "a/9007199254740992", "@@a/1"])(
    "by what is no id is refused: %j",
    async (id) => {
      await expect(get(id)).rejects.toMatchObject({ kind: "invalid", violations: [{ field: "id" }] });
    },
  );
});

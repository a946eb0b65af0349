import { create, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  type AuditEntry,
  AuditEntrySchema,
  AuditIngestAckSchema,
  AuditLeafSchema,
  AuditStatus,
  AuditDurability as Durability,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { type ArchivedLeaf, checkArchive, type SignedRoot } from "./audit-checker.ts";
import { type Claims, countMissing, createAckLedger, createSequenceSet } from "./audit-claims.ts";
import { entryOf, requestEntryOf } from "./audit-entries.ts";
import { createGrowingTree, hashOfLeaf } from "./audit-tree.ts";

/* Promises: the checker that the chaos run relies on finds nothing in a faultless history, and each kind of fault in a planted one. */

interface Planted {
  readonly producer: string;
  readonly sequence: number;
  readonly entry: AuditEntry;
  readonly status?: AuditStatus;
}

const sent = (producer: string, sequence: number): Planted => ({
  producer,
  sequence,
  entry: entryOf(producer, sequence),
});

const requested = (requestId: string, at: number): Planted => ({
  producer: `@r.${requestId}`,
  sequence: at + 1,
  entry: requestEntryOf(requestId, at),
});

const reviewOf = (id: string, sequence: number, action = "audit.review.approve"): Planted => ({
  producer: "@review",
  sequence,
  entry: create(AuditEntrySchema, { actor: "the reviewer", action, resource: { type: "audit_record", id } }),
});

/** One producer that sent 1 to 6 and was told of 1 to 5, another of which all is acked, and two requests, one of them acked. */
const faultless = [
  ...[1, 2, 3].map((sequence) => sent("a", sequence)),
  ...[10, 20, 21].map((sequence) => sent("b", sequence)),
  ...[0, 1].map((at) => requested("r1", at)),
  ...[4, 5, 6].map((sequence) => sent("a", sequence)),
  requested("r2", 0),
];

const setOf = (...sequences: number[]) => {
  const set = createSequenceSet();
  for (const sequence of sequences) set.add(sequence);
  return set.bits;
};

const claims: Claims = {
  producers: [
    { producer: "a", sent: setOf(1, 2, 3, 4, 5, 6, 7), acked: setOf(1, 2, 3, 4, 5), problems: [] },
    { producer: "b", sent: setOf(10, 20, 21), acked: setOf(10, 20, 21), problems: [] },
  ],
  requests: [
    { requestId: "r1", records: 2, ids: ["@r.r1/1", "@r.r1/2"] },
    { requestId: "r2", records: 3, ids: undefined },
  ],
  reviews: [],
  problems: [],
};

function archive(records: readonly Planted[]): ArchivedLeaf[] {
  return records.map(({ producer, sequence, entry, status = AuditStatus.NOT_REQUIRED }, leafIndex) => {
    const message = { producer, sequence: BigInt(sequence), acceptTime: { seconds: BigInt(leafIndex) }, entry };
    const leaf = toBinary(AuditLeafSchema, create(AuditLeafSchema, message));
    return { leafIndex, producer, sequence, leaf, leafHash: hashOfLeaf(leaf), status };
  });
}

function rootsOf(leaves: readonly ArchivedLeaf[]): SignedRoot[] {
  const tree = createGrowingTree();
  const roots = [{ treeSize: 0, rootHash: tree.root(), from: "the start" }];
  for (const { leafHash } of leaves) {
    tree.add(leafHash);
    roots.push({ treeSize: tree.size, rootHash: tree.root(), from: "a checkpoint" });
  }
  return roots;
}

/** Checks these records, with the roots that the server would have stated of them. */
function check(records: readonly Planted[], said: Claims = claims) {
  const leaves = archive(records);
  return checkArchive(said, { leaves, roots: rootsOf(leaves), conflicts: 0 });
}

describe("the checker of the archive", () => {
  it("finds nothing in a faultless history, in which some is archived that nobody was told of", async () => {
    expect(await check(faultless)).toEqual({
      sent: 15,
      acked: 10,
      archived: 12,
      archivedUnacked: 2,
      leaves: 12,
      requests: { sent: 2, acked: 1 },
      reviews: { decided: 0, archived: 0 },
      faults: {},
      examples: [],
    });
  });

  it("finds an acked record that is not archived, of a producer and of a request", async () => {
    const account = await check(faultless.filter((_, at) => at !== 1 && at !== 7));
    expect(account).toMatchObject({ faults: { lost: 2 } });
    expect(account.examples).toEqual([
      "lost: a/2 was acked and is not archived",
      "lost: r1#1 was acked and is not archived",
    ]);
  });

  it("finds a record that is archived twice, under one name or under two", async () => {
    expect(await check([...faultless, sent("b", 20)])).toMatchObject({ faults: { doubled: 1 }, archived: 12 });
    const renamed = { ...requested("r2", 0), producer: "@r.other" };
    expect(await check([...faultless, renamed])).toMatchObject({ faults: { doubled: 1 } });
  });

  it("finds a content that is not what was sent", async () => {
    const altered = { ...sent("a", 4), entry: { ...entryOf("a", 4), actor: "somebody else" } };
    expect(await check(faultless.with(8, altered))).toMatchObject({ faults: { altered: 1 } });
    const swapped = { ...requested("r1", 0), entry: { ...requestEntryOf("r1", 0), action: "job.stop" } };
    expect(await check(faultless.with(6, swapped))).toMatchObject({ faults: { altered: 1 } });
  });

  it("finds a record that nobody sent", async () => {
    const strangers = [sent("a", 8), sent("c", 1), requested("r3", 0), requested("r2", 3)];
    expect(await check([...faultless, ...strangers])).toMatchObject({ faults: { stranger: 4 }, archived: 13 });
  });

  it("finds an ack that names another record than the one archived, and one of a record never sent", async () => {
    const ids = ["@r.r1/2", "@r.r1/1"];
    const said = { ...claims, requests: claims.requests.map((claim) => (claim.ids ? { ...claim, ids } : claim)) };
    expect(await check(faultless, said)).toMatchObject({ faults: { "bad ack": 2 } });
    const boast = { producer: "d", sent: setOf(1), acked: setOf(1, 2), problems: [] };
    const boasted = { ...claims, producers: [...claims.producers, boast] };
    expect(await check([...faultless, sent("d", 1)], boasted)).toMatchObject({ faults: { lost: 1, "bad ack": 1 } });
  });

  it("finds what producers and callers saw go wrong", async () => {
    const producers = claims.producers.map((claim) => ({ ...claim, problems: ["an ack out of order"] }));
    const account = await check(faultless, { ...claims, producers, problems: ["another answer"] });
    expect(account.faults).toEqual({ "bad ack": 3 });
  });

  it("finds a leaf that is missing, bytes that are not those hashed, and a content that is gone", async () => {
    const leaves = archive(faultless);
    const roots = rootsOf(leaves);
    const gap = leaves.map((leaf) => (leaf.leafIndex < 9 ? leaf : { ...leaf, leafIndex: leaf.leafIndex + 1 }));
    expect(await checkArchive(claims, { leaves: gap, roots, conflicts: 0 })).toMatchObject({
      faults: { "missing leaf": 1 },
    });
    const [first, ...rest] = leaves;
    if (first === undefined) throw new Error("no leaf");
    const forged = [{ ...first, leafHash: hashOfLeaf(Buffer.of(1)) }, ...rest];
    expect((await checkArchive(claims, { leaves: forged, roots, conflicts: 0 })).faults["wrong hash"]).toBe(1);
    const empty = [{ ...first, leaf: null }, ...rest];
    expect((await checkArchive(claims, { leaves: empty, roots, conflicts: 0 })).faults.lost).toBe(2);
  });

  it("finds a root that is not that of the leaves, now or at an earlier size, and one that nobody can have", async () => {
    const leaves = archive(faultless);
    const roots = rootsOf(leaves);
    const wrong = (size: number) =>
      roots.map((root) => (root.treeSize === size ? { ...root, rootHash: Buffer.alloc(32) } : root));
    for (const size of [0, 5, 12]) {
      const account = await checkArchive(claims, { leaves, roots: wrong(size), conflicts: 0 });
      expect(account.faults).toEqual({ "wrong root": 1 });
    }
    const unstated = roots.filter(({ treeSize }) => treeSize < 12);
    expect((await checkArchive(claims, { leaves, roots: unstated, conflicts: 0 })).faults).toEqual({ "wrong root": 1 });
    const larger = [...roots, { treeSize: 13, rootHash: Buffer.alloc(32), from: "a checkpoint" }];
    expect((await checkArchive(claims, { leaves, roots: larger, conflicts: 0 })).faults).toEqual({ "missing leaf": 1 });
  });

  it("finds a review that is lost, doubled, nobody's, another one, or without effect", async () => {
    const approved = { ...sent("a", 1), status: AuditStatus.APPROVED };
    const said = {
      ...claims,
      reviews: [
        { id: "a/1", decided: true },
        { id: "a/2", decided: false },
      ],
    };
    const reviewed = [approved, ...faultless.slice(1)];
    const faultsOf = async (records: readonly Planted[]) => (await check(records, said)).faults;
    expect(await faultsOf([...reviewed, reviewOf("a/1", 1)])).toEqual({});
    expect(await faultsOf(reviewed)).toEqual({ lost: 1, altered: 1 });
    expect(await faultsOf([...reviewed, reviewOf("a/1", 1), reviewOf("a/1", 2)])).toEqual({ doubled: 1 });
    expect(await faultsOf([...reviewed, reviewOf("a/1", 1), reviewOf("a/3", 2)])).toEqual({ stranger: 1 });
    expect(await faultsOf([...reviewed, reviewOf("a/1", 1, "audit.review.reject")])).toEqual({ altered: 1 });
    expect(await faultsOf([...faultless, reviewOf("a/1", 1)])).toEqual({ altered: 1 });
    const other = reviewed.with(2, { ...sent("a", 3), status: AuditStatus.APPROVED });
    expect(await faultsOf([...other, reviewOf("a/1", 1)])).toEqual({ stranger: 1 });
  });

  it("finds records that were put aside", async () => {
    const leaves = archive(faultless);
    const account = await checkArchive(claims, { leaves, roots: rootsOf(leaves), conflicts: 2 });
    expect(account.faults).toEqual({ conflict: 1 });
  });
});

it("counts what was acknowledged and given to no consumer", () => {
  const acked = setOf(1, 2, 3, 9_000);
  expect(countMissing(acked, [setOf(1, 3), setOf(2, 9_000, 9_001)])).toBe(0);
  expect(countMissing(acked, [setOf(1, 3), setOf(2)])).toBe(1);
  expect(countMissing(acked, [setOf(3, 4)])).toBe(3);
  expect(countMissing(acked, [])).toBe(4);
});

describe("the ledger of an ingest stream", () => {
  const ack = (batch: number, rest: object = {}) =>
    create(AuditIngestAckSchema, { batch: BigInt(batch), durability: Durability.QUEUED, appended: 2, ...rest });

  function ledger(minDurability = Durability.UNSPECIFIED) {
    const it = createAckLedger(minDurability);
    it.sent(1, [1, 2]);
    it.sent(2, [3, 4]);
    it.sent(3, [7, 9]);
    return it;
  }

  it("takes acks in the order of the batches, whatever part of them was held already", () => {
    const it = ledger();
    expect(it.acked(ack(1))).toEqual({ kept: [1, 2], again: [], problems: [] });
    expect(it.acked(ack(2, { appended: 1, duplicates: 1 }))).toEqual({ kept: [3, 4], again: [], problems: [] });
    expect(it.unackedRecords).toBe(2);
    expect(it.acked(ack(3, { appended: 0, duplicates: 2 })).problems).toEqual([]);
    expect(it.unackedRecords).toBe(0);
  });

  it("finds an ack out of order, one left out, one given twice, and one of a batch that was not sent", () => {
    const swapped = ledger();
    expect(swapped.acked(ack(2)).problems).toEqual(["the ack of batch 2 came after that of 0"]);
    expect(swapped.acked(ack(1)).problems).toEqual(["the ack of batch 1 came after that of 2"]);
    const twice = ledger();
    twice.acked(ack(1));
    expect(twice.acked(ack(1))).toMatchObject({
      kept: [],
      problems: [/after that of 1/, /does not wait/].map(matching),
    });
    expect(ledger().acked(ack(4))).toMatchObject({ kept: [], problems: [/after that of 0/, /4.*wait/].map(matching) });
  });

  it("takes a refusal for now as unacked, and finds any other, which its records do not deserve", () => {
    const refusal = (code: string) => ({ index: 1, sequence: 2n, error: { code, reason: "WHY" } });
    const later = { appended: 1, refusals: [refusal("UNAVAILABLE")] };
    expect(ledger().acked(ack(1, later))).toEqual({ kept: [1], again: [2], problems: [] });
    const never = { appended: 1, refusals: [refusal("ALREADY_EXISTS")] };
    expect(ledger().acked(ack(1, never)).problems).toEqual([matching(/2 was refused: ALREADY_EXISTS WHY/)]);
    const misplaced = { appended: 1, refusals: [{ ...refusal("UNAVAILABLE"), index: 0 }] };
    expect(ledger().acked(ack(1, misplaced)).problems).toEqual([matching(/refusal of 2 names place 0/)]);
  });

  it("finds records that are not answered for, and a durability below the one demanded", () => {
    expect(ledger().acked(ack(1, { appended: 1 })).problems).toEqual(["of 2 records 1 were answered for"]);
    expect(ledger(Durability.ARCHIVED).acked(ack(1)).problems).toEqual(["batch 1 was acked as QUEUED"]);
    expect(ledger().acked(ack(1, { durability: 0 })).problems).toEqual(["batch 1 was acked as UNSPECIFIED"]);
  });

  function matching(pattern: RegExp): unknown {
    return expect.stringMatching(pattern);
  }
});

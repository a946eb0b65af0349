import fc from "fast-check";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import type { Archive, Placed } from "../../src/audit/archive/archive.ts";
import { seal } from "../../src/audit/record/leaf.ts";
import { idOf, type Sealed } from "../../src/audit/record/record.ts";
import type { Database } from "../../src/infra/database.ts";
import { unsoundness } from "../audit/archive-check.ts";
import { type OpenArchives, sealed } from "../audit/archives.ts";
import { entryOf } from "../support/audit-entries.ts";

export interface ArchiveQuirks {
  readonly kind: Archive["kind"];
  /** Whether several instances may append to one database. */
  readonly shared: boolean;
  /** The record, spoilt so that the database refuses to hold it. */
  readonly poisoned: (record: Sealed) => Sealed;
}

const p = (sequence: number, actor = "user:1") => sealed({ producer: "p", sequence }, { actor });
const range = (first: number, last: number, producer = "p") =>
  Array.from({ length: last - first + 1 }, (_, at) => sealed({ producer, sequence: first + at }));
const outcomes = (placed: readonly Placed[]) => placed.map(({ outcome }) => outcome);
const indexes = (placed: readonly Placed[]) => placed.map(({ leafIndex }) => leafIndex);

/** What every archive promises. `open` gives so many instances over one empty database, or as many as there can be. */
export function archiveConformance(open: (count?: number) => Promise<OpenArchives>, quirks: ArchiveQuirks): void {
  let opened: OpenArchives;
  let archive: Archive;
  let database: Database;

  async function reopen(count?: number): Promise<void> {
    opened = await open(count);
    const mine = opened;
    onTestFinished(() => mine[Symbol.asyncDispose]());
    ({ archive, database } = opened.instances[0]);
  }
  beforeEach(() => reopen());

  const ids = async () =>
    (
      await database.query<{ producer: string; sequence: number }>(
        "SELECT producer, sequence FROM audit_record ORDER BY leaf_index",
      )
    ).map(idOf);
  const conflicts = () =>
    database.query<{ producer: string; sequence: number; leaf: Uint8Array; found_at: number }>(
      "SELECT producer, sequence, leaf, found_at FROM audit_conflict ORDER BY producer, sequence",
    );
  const isSound = async () => expect(await unsoundness(database)).toEqual([]);

  describe("an empty archive", () => {
    it("says what it is and holds nothing", async () => {
      expect(archive.kind).toBe(quirks.kind);
      expect(await archive.size()).toBe(0);
      expect(await archive.lastSequence("p")).toBe(0);
      expect(await archive.find([{ producer: "p", sequence: 1 }])).toEqual([undefined]);
      expect(await archive.countHeld("p", [{ first: 1, last: 100 }])).toEqual([0]);
      expect(await archive.append([], "refuse")).toEqual([]);
      await isSound();
    });
  });

  describe("records that are new", () => {
    it("are appended in their order, with leaves that count on", async () => {
      const first = await archive.append([p(1), sealed({ producer: "q", sequence: 9 }), p(2)], "refuse");
      expect(outcomes(first)).toEqual(Array(3).fill("appended"));
      expect(indexes(first)).toEqual([0, 1, 2]);
      expect(indexes(await archive.append(range(3, 5), "keep"))).toEqual([3, 4, 5]);
      expect(await ids()).toEqual(["p/1", "q/9", "p/2", "p/3", "p/4", "p/5"]);
      expect(await archive.size()).toBe(6);
      await isSound();
    });

    it("are given back byte by byte, in the order asked for, with undefined for those that are not held", async () => {
      const records = Array.from({ length: 60 }, (_, at) =>
        seal({ producer: "p", sequence: at + 1 }, 1_750_000_000_123_456 + at, entryOf("päron 🍐", at + 1)),
      );
      await archive.append(records, "refuse");
      const wanted = [...records].reverse();
      const found = await archive.find([
        ...wanted,
        { producer: "p", sequence: 61 },
        { producer: "q", sequence: 1 },
        p(1),
      ]);
      expect(found.slice(60, 62)).toEqual([undefined, undefined]);
      expect(found[62]).toEqual(found[59]);
      for (const [at, record] of wanted.entries()) {
        expect(found[at]).toMatchObject({
          ...{ producer: "p", sequence: record.sequence, leafIndex: record.sequence - 1 },
          ...{ occurUs: record.occurUs, status: record.pending ? 2 : 1, review: null },
        });
        expect(Buffer.from(record.leaf).equals(found[at]?.leaf ?? new Uint8Array())).toBe(true);
      }
      expect(await archive.find([p(3)])).toMatchObject([{ leafIndex: 2 }]);
      await isSound();
    });

    it("may have the largest sequence and the longest names there are", async () => {
      const producer = "x".repeat(128);
      const last = sealed({ producer, sequence: Number.MAX_SAFE_INTEGER }, {}, 7_258_118_399_999_999);
      expect(outcomes(await archive.append([last], "refuse"))).toEqual(["appended"]);
      expect(outcomes(await archive.append([last], "refuse"))).toEqual(["duplicate"]);
      expect(await archive.lastSequence(producer)).toBe(Number.MAX_SAFE_INTEGER);
      expect(await archive.find([last])).toMatchObject([{ sequence: Number.MAX_SAFE_INTEGER, occurUs: last.occurUs }]);
      await isSound();
    });

    it("may be more than a commit takes, from one caller or from many", async () => {
      const placed = await archive.append(range(1, 6_000), "refuse");
      expect(indexes(placed)).toEqual(range(1, 6_000).map((_, at) => at));
      const callers = Array.from({ length: 30 }, (_, at) => archive.append(range(1, 300, `c${at}`), "refuse"));
      const all = (await Promise.all(callers)).flatMap(indexes);
      expect(all).toEqual(Array.from({ length: 9_000 }, (_, at) => 6_000 + at));
      await isSound();
    });
  });

  describe("an identity that comes again", () => {
    it("is a duplicate of the first, in the same batch and in later ones", async () => {
      const one = p(1);
      const placed = await archive.append([one, p(2), one, p(1), p(2), p(3)], "refuse");
      expect(outcomes(placed)).toEqual(["appended", "appended", "duplicate", "duplicate", "duplicate", "appended"]);
      expect(indexes(placed)).toEqual([0, 1, 0, 0, 1, 2]);
      const again = await archive.append([p(4), p(2), p(1)], "keep");
      expect(outcomes(again)).toEqual(["appended", "duplicate", "duplicate"]);
      expect(indexes(again)).toEqual([3, 1, 0]);
      expect(await conflicts()).toEqual([]);
      await isSound();
    });

    it("is a duplicate whenever it was accepted, and in whatever order its maps were written", async () => {
      const id = { producer: "p", sequence: 1 };
      const [a, b] = [
        { one: 1, two: { x: "x", y: [true] } },
        { two: { y: [true], x: "x" }, one: 1 },
      ];
      const first = sealed(id, { attributes: a }, 1_750_000_000_000_000);
      const other = sealed(id, { attributes: b }, 1_760_000_000_000_007);
      expect(Buffer.from(first.leaf).equals(other.leaf)).toBe(false);
      await archive.append([first], "refuse");
      expect(outcomes(await archive.append([other, other], "keep"))).toEqual(["duplicate", "duplicate"]);
      expect(await archive.find([id])).toMatchObject([{ occurUs: 1_750_000_000_000_000 }]);
      expect(await conflicts()).toEqual([]);
      await isSound();
    });

    it("with other content is refused, and the first stays as it was", async () => {
      await archive.append([p(1)], "refuse");
      const placed = await archive.append([p(2), p(1, "eve"), p(2, "eve"), p(3), p(2)], "refuse");
      expect(outcomes(placed)).toEqual(["appended", "differs", "differs", "appended", "duplicate"]);
      expect(indexes(placed)).toEqual([1, 0, 1, 2, 1]);
      const [held] = await archive.find([{ producer: "p", sequence: 1 }]);
      expect(Buffer.from(p(1).leaf).equals(held?.leaf ?? new Uint8Array())).toBe(true);
      expect(await conflicts()).toEqual([]);
      await isSound();
    });

    it("with other content is put aside, each such content once, where nobody can be told", async () => {
      await archive.append([p(1)], "refuse");
      const placed = await archive.append([p(1, "eve"), p(2), p(2, "eve"), p(1, "eve"), p(1, "mallory")], "keep");
      expect(outcomes(placed)).toEqual(["differs", "appended", "differs", "differs", "differs"]);
      expect(outcomes(await archive.append([p(1, "eve")], "keep"))).toEqual(["differs"]);
      const found = await conflicts();
      expect(found.map(idOf)).toEqual(["p/1", "p/1", "p/2"]);
      const leaves = found.map(({ leaf }) => Buffer.from(leaf).toString("hex"));
      const expected = [p(1, "eve"), p(1, "mallory"), p(2, "eve")].map(({ leaf }) => Buffer.from(leaf).toString("hex"));
      expect(leaves.sort()).toEqual(expected.sort());
      expect(found.every(({ found_at }) => found_at === opened.clock.now())).toBe(true);
      await isSound();
    });

    it("is refused to one caller and put aside for another who calls at the same time", async () => {
      await archive.append([p(1)], "refuse");
      const calls = [
        archive.append([p(1, "a"), p(2)], "refuse"),
        archive.append([p(1, "b"), p(3)], "keep"),
        archive.append([p(1, "c"), p(4)], "refuse"),
      ];
      for (const placed of await Promise.all(calls)) expect(outcomes(placed)).toEqual(["differs", "appended"]);
      expect((await conflicts()).map(({ leaf }) => Buffer.from(leaf).equals(p(1, "b").leaf))).toEqual([true]);
      expect(await ids()).toEqual(["p/1", "p/2", "p/3", "p/4"]);
      await isSound();
    });

    it("that was retired is a duplicate whatever it says, and counts as held", async () => {
      await archive.append(range(1, 4), "refuse");
      await database.write("UPDATE audit_record SET leaf = NULL WHERE leaf_index IN (0, 1)");
      expect(outcomes(await archive.append([p(1), p(2, "eve"), p(3, "eve")], "keep"))).toEqual([
        ...["duplicate", "duplicate", "differs"],
      ]);
      expect((await conflicts()).map(idOf)).toEqual(["p/3"]);
      expect(await archive.find([p(1), p(3)])).toMatchObject([{ leaf: null, leafIndex: 0 }, { leafIndex: 2 }]);
      expect(await archive.countHeld("p", [{ first: 1, last: 4 }])).toEqual([4]);
      await isSound();
    });
  });

  describe("sequences that come late", () => {
    it("are appended where they come, and leave the largest as it is", async () => {
      expect(outcomes(await archive.append([p(7), p(3), p(5), p(3), p(4)], "refuse"))).toEqual([
        ...["appended", "appended", "appended", "duplicate", "appended"],
      ]);
      expect(await archive.lastSequence("p")).toBe(7);
      expect(outcomes(await archive.append([p(6), p(7), p(1)], "refuse"))).toEqual([
        "appended",
        "duplicate",
        "appended",
      ]);
      expect(await archive.lastSequence("p")).toBe(7);
      expect(await ids()).toEqual(["p/7", "p/3", "p/5", "p/4", "p/6", "p/1"]);
      const wanted = [
        { first: 1, last: 7 },
        { first: 2, last: 2 },
        { first: 3, last: 5 },
        { first: 8, last: 2 ** 52 },
      ];
      expect(await archive.countHeld("p", wanted)).toEqual([6, 0, 3, 0]);
      expect(await archive.countHeld("q", wanted)).toEqual([0, 0, 0, 0]);
      await isSound();
    });

    it("are placed as a model says, whatever the batches", async () => {
      let run = 0;
      const record = fc.record({
        producer: fc.constantFrom("a", "b", "@r.c"),
        sequence: fc.integer({ min: 1, max: 8 }),
      });
      const content = fc.constantFrom("ann", "ann", "ann", "eve");
      const batches = fc.array(fc.array(fc.tuple(record, content), { minLength: 1, maxLength: 9 }), { maxLength: 6 });
      const check = async (
        sent: readonly (readonly (readonly [{ producer: string; sequence: number }, string])[])[],
      ) => {
        run++;
        const held = new Map<string, { readonly actor: string; readonly leafIndex: number }>();
        for (const batch of sent) {
          let next = await archive.size();
          const records = batch.map(([{ producer, sequence }, actor]) =>
            sealed({ producer: `${producer}${run}`, sequence }, { actor }),
          );
          const expected = records.map((one, at): Placed => {
            const known = held.get(idOf(one));
            const actor = batch[at]?.[1] ?? "";
            if (known !== undefined) {
              return { outcome: known.actor === actor ? "duplicate" : "differs", leafIndex: known.leafIndex };
            }
            held.set(idOf(one), { actor, leafIndex: next });
            return { outcome: "appended", leafIndex: next++ };
          });
          expect(await archive.append(records, run % 2 === 0 ? "keep" : "refuse")).toEqual(expected);
        }
      };
      await fc.assert(fc.asyncProperty(batches, check), { numRuns: 30 });
      await isSound();
    });
  });

  describe("producers that are made of a request", () => {
    it("have no largest sequence, and yet each identity once", async () => {
      const request = range(1, 3, "@r.0123");
      expect(outcomes(await archive.append([...request, ...range(3, 3, "@r.0123")], "refuse"))).toEqual([
        ...["appended", "appended", "appended", "duplicate"],
      ]);
      expect(outcomes(await archive.append(range(1, 4, "@r.0123"), "refuse"))).toEqual([
        ...["duplicate", "duplicate", "duplicate", "appended"],
      ]);
      const eve = sealed({ producer: "@r.0123", sequence: 2 }, { actor: "eve" });
      expect(outcomes(await archive.append([eve], "refuse"))).toEqual(["differs"]);
      expect(await archive.lastSequence("@r.0123")).toBe(0);
      expect(await database.query("SELECT producer FROM audit_producer")).toEqual([]);
      await isSound();
    });
  });

  describe("callers at the same time", () => {
    it("have their records in their own order, and one caller's before those of the next", async () => {
      const callers = Array.from({ length: 50 }, (_, at) => range(1, 1 + (at % 7), `c${at}`));
      const placed = await Promise.all(callers.map((records) => archive.append(records, "refuse")));
      expect(await ids()).toEqual(callers.flat().map(idOf));
      expect(placed.flatMap(indexes)).toEqual(callers.flat().map((_, at) => at));
      await isSound();
    });

    it("are told apart when they bring the same identities: one has appended each", async () => {
      const placed = await Promise.all(Array.from({ length: 20 }, () => archive.append(range(1, 40), "refuse")));
      expect(outcomes(placed.flat()).filter((outcome) => outcome === "appended")).toHaveLength(40);
      for (const one of placed) expect(indexes(one)).toEqual(indexes(placed[0] ?? []));
      await isSound();
    });

    it("do not fail because one of them brings what the database refuses", async () => {
      const bad = quirks.poisoned(sealed({ producer: "bad", sequence: 1 }, { action: "bad.bad" }));
      const calls = [
        archive.append(range(1, 3), "refuse"),
        archive.append([...range(4, 5), bad, ...range(6, 6)], "refuse"),
        archive.append(range(6, 8), "refuse"),
        archive.append([bad], "keep"),
        archive.append(range(8, 9), "keep"),
      ];
      const settled = await Promise.allSettled(calls);
      expect(settled.map(({ status }) => status)).toEqual([
        ...["fulfilled", "rejected", "fulfilled", "rejected", "fulfilled"],
      ]);
      expect(await ids()).toEqual(["p/1", "p/2", "p/3", "p/6", "p/7", "p/8", "p/9"]);
      expect(outcomes(await archive.append(range(4, 9), "refuse"))).toEqual([
        ...["appended", "appended", "duplicate", "duplicate", "duplicate", "duplicate"],
      ]);
      await isSound();
    });

    it("wait for a transaction that is under way, and are appended behind what it appended", async () => {
      const { promise: mayGoOn, resolve: goOn } = Promise.withResolvers<void>();
      const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
      const review = archive.transaction(async (_, log) => {
        begin();
        await mayGoOn;
        const sequence = await log.nextSequence("@review");
        return log.append([sealed({ producer: "@review", sequence })]);
      });
      await begun;
      const calls = [
        archive.append([p(1)], "refuse"),
        archive.append([p(2)], "keep"),
        archive.append([p(1)], "refuse"),
      ];
      expect(await archive.find([p(1)])).toEqual([undefined]);
      goOn();
      expect(indexes(await review)).toEqual([0]);
      expect((await Promise.all(calls)).flatMap(indexes)).toEqual([1, 2, 1]);
      expect(await ids()).toEqual(["@review/1", "p/1", "p/2"]);
      await isSound();
    });
  });

  describe("a transaction", () => {
    it("appends and writes together, and gives back what its work does", async () => {
      await archive.append(range(1, 2), "refuse");
      const answer = await archive.transaction(async (tx, log) => {
        expect(await log.nextSequence("p")).toBe(3);
        expect(await log.nextSequence("new")).toBe(1);
        const placed = [...(await log.append([p(3), p(1)])), ...(await log.append([p(3), p(3, "eve"), p(4)]))];
        expect(await log.nextSequence("p")).toBe(5);
        await tx.query("UPDATE audit_record SET status = 3 WHERE leaf_index = 0");
        return placed;
      });
      expect(outcomes(answer)).toEqual(["appended", "duplicate", "duplicate", "differs", "appended"]);
      expect(indexes(answer)).toEqual([2, 0, 2, 2, 3]);
      expect(await archive.find([p(1)])).toMatchObject([{ status: 3 }]);
      expect(await conflicts()).toEqual([]);
      await isSound();
    });

    it("leaves nothing behind when its work throws, neither records nor the head", async () => {
      await archive.append(range(1, 250), "refuse");
      const failing = archive.transaction(async (tx, log) => {
        await log.append([...range(251, 300), sealed({ producer: "q", sequence: 1 }, { action: "never.seen" })]);
        await tx.query("UPDATE audit_record SET status = 4");
        throw new Error("the work changed its mind");
      });
      await expect(failing).rejects.toThrow("the work changed its mind");
      expect(await archive.size()).toBe(250);
      expect(await archive.lastSequence("p")).toBe(250);
      expect(await archive.lastSequence("q")).toBe(0);
      expect(await archive.find([p(1), p(251)])).toMatchObject([{ status: 1 }, undefined]);
      await isSound();
      // What it undid was not remembered either: neither sequences nor the action.
      const fresh = sealed({ producer: "q", sequence: 1 }, { action: "never.seen" });
      expect(indexes(await archive.append([...range(251, 300), fresh], "refuse")).at(0)).toBe(250);
      await isSound();
    });
  });

  describe("the kept nodes of the tree", () => {
    it("are right whenever a perfect subtree of 256 leaves is completed, in one batch or in several", async () => {
      let next = 1;
      for (const size of [255, 256, 257, 511, 513, 1024, 1791, 1793]) {
        await archive.append(range(next, size), "refuse");
        next = size + 1;
        await isSound();
      }
    });

    it("are right where one of 65,536 leaves is", async () => {
      for (let first = 1; first < 65_535; first += 5_000) {
        await archive.append(range(first, Math.min(65_535, first + 4_999)), "refuse");
      }
      await isSound();
      await archive.append(range(65_536, 65_536), "refuse");
      await isSound();
      await archive.append(range(65_537, 65_537), "refuse");
      await isSound();
      const nodes = await database.query<{ level: number; count: number }>(
        "SELECT level, count(*) AS count FROM audit_node GROUP BY level ORDER BY level",
      );
      expect(nodes).toEqual([
        { level: 8, count: 256 },
        { level: 16, count: 1 },
      ]);
    });
  });

  describe.runIf(quirks.shared)("instances over one database", () => {
    it("hold each identity once, though all of them bring it at the same time", async () => {
      await reopen(3);
      const all = range(1, 120).concat(range(1, 5, "@r.1"));
      const told: (readonly [Sealed, Placed])[] = [];
      const bring = async ({ archive: mine }: { archive: Archive }, offset: number) => {
        for (let at = 0; at < all.length; at += 25) {
          const from = (at + offset * 50) % all.length;
          const batch = all.slice(from, from + 25);
          const placed = await mine.append(offset % 2 === 0 ? batch : batch.reverse(), "refuse");
          for (const [i, one] of batch.entries()) if (placed[i] !== undefined) told.push([one, placed[i]]);
        }
      };
      await Promise.all([0, 1, 2, 3, 4, 5].flatMap((n) => opened.instances.map((one) => bring(one, n))));
      expect(told).toHaveLength(6 * 3 * all.length);
      expect(told.filter(([, { outcome }]) => outcome === "appended")).toHaveLength(all.length);
      const held = await archive.find(all);
      const indexOf = new Map(all.map((one, at) => [idOf(one), held[at]?.leafIndex]));
      expect(told.every(([one, { leafIndex }]) => indexOf.get(idOf(one)) === leafIndex)).toBe(true);
      await isSound();
    });
  });
}

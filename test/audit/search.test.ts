import { create, type MessageInitShape } from "@bufbuild/protobuf";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createGrowth } from "../../src/audit/archive/growth.ts";
import { keyOf } from "../../src/audit/record/keys.ts";
import { microsecondsOf, seal, toTimestamp } from "../../src/audit/record/leaf.ts";
import { filterOf } from "../../src/audit/search/filter.ts";
import { type Order, PAGE_BYTES, type Query, type Search } from "../../src/audit/search/search.ts";
import { createSqlSearch } from "../../src/audit/search/sql-search.ts";
import { BLOCK_LEAVES } from "../../src/audit/search/sqlite-blocks.ts";
import { createSqliteIndex } from "../../src/audit/search/sqlite-index.ts";
import { AuditEntrySchema, AuditFilterSchema } from "../../src/gen/holdfast/v1/audit_pb.js";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import type { Database } from "../../src/infra/database.ts";
import { Fields } from "../../src/infra/fields.ts";
import { createLog } from "../../src/infra/log.ts";
import { type OpenArchives, openArchives } from "./archives.ts";
import { anyEntry, anyFilter, BASE_US, type Facts, wants } from "./filter-model.ts";

type FilterInit = MessageInitShape<typeof AuditFilterSchema>;
type EntryInit = MessageInitShape<typeof AuditEntrySchema>;

interface Kept extends Facts {
  readonly leafIndex: number;
}

const filterFor = (init: FilterInit = {}) => filterOf(new Fields(), "filter", create(AuditFilterSchema, init));

/** Reads to the end. */
async function pagesOf(search: Search, query: Omit<Query, "after">, most = 200) {
  const pages: number[][] = [];
  let after: Query["after"];
  do {
    const page = await search.page({ ...query, after });
    pages.push(page.rows.map(({ leafIndex }) => leafIndex));
    after = page.next;
  } while (after !== undefined && pages.length < most);
  return { pages, rows: pages.flat(), ended: after === undefined };
}

async function buildIndex(database: Database): Promise<void> {
  const growth = createGrowth(createLocalBackplane());
  const index = createSqliteIndex({ database, growth, log: createLog({ level: "silent" }) });
  await index.caughtUp();
  await index.close();
}

// SQLite finds what is in its blocks in another way than what is newer.
const SETUPS = [
  { name: "SQLite, indexed", kind: "sqlite", indexed: true },
  { name: "SQLite, before the index is built", kind: "sqlite", indexed: false },
  { name: "Postgres", kind: "postgres", indexed: false },
] as const;

describe.each(SETUPS)("search over $name", ({ kind, indexed }) => {
  async function append(archives: OpenArchives, entries: readonly EntryInit[], from = 0): Promise<void> {
    const { archive } = archives.instances[0];
    for (let at = 0; at < entries.length; at += 2000) {
      const some = entries.slice(at, at + 2000).map((entry, offset) => {
        const number = from + at + offset;
        const id = { producer: `p${1 + (number % 4)}`, sequence: number + 1 };
        return seal(id, BASE_US, create(AuditEntrySchema, { actor: "ann", action: "a", ...entry }));
      });
      await archive.append(some, "refuse");
    }
  }

  async function filled(entries: readonly EntryInit[]): Promise<OpenArchives> {
    const archives = await openArchives(kind);
    await append(archives, entries);
    if (indexed) await buildIndex(archives.instances[0].database);
    return archives;
  }

  describe("of 20,000 records that have much in common", () => {
    let archives: OpenArchives;
    let search: Search;
    let kept: readonly Kept[];

    beforeAll(async () => {
      // Time goes on, but not evenly: places in the archive and times are two orders, and most times are shared.
      const sample = fc.sample(anyEntry, { numRuns: 500, seed: 7 });
      const entries = Array.from({ length: 20_000 }, (_, at) => {
        const entry = sample[(at * 7) % sample.length] ?? create(AuditEntrySchema);
        const us = microsecondsOf(entry.occurTime ?? toTimestamp(0)) + 15 * Math.floor(at / 2000);
        const time = toTimestamp(us);
        const nanos = time.nanos + ((entry.occurTime?.nanos ?? 0) % 1000);
        return create(AuditEntrySchema, { ...entry, occurTime: { ...time, nanos } });
      });
      archives = await filled(entries);
      const { database } = archives.instances[0];
      await database.write("UPDATE audit_record SET status = 3 WHERE leaf_index % 7 = 0");
      // As retention leaves them, whatever an index says of them.
      await database.write("UPDATE audit_record SET leaf = NULL WHERE leaf_index % 50 = 0");
      search = createSqlSearch({ database });
      kept = entries.flatMap((entry, leafIndex) => {
        const producer = `p${1 + (leafIndex % 4)}`;
        const status = leafIndex % 7 === 0 ? 3 : entry.status === 2 ? 2 : 1;
        const occurUs = microsecondsOf(entry.occurTime ?? toTimestamp(0));
        return leafIndex % 50 === 0 ? [] : [{ leafIndex, producer, status, occurUs, entry }];
      });
    });
    afterAll(() => archives[Symbol.asyncDispose]());

    function expected(wanted: (record: Kept) => boolean, order: Order): number[] {
      const sign = order === "newest" ? -1 : 1;
      return kept
        .filter(wanted)
        .sort((a, b) => sign * (a.occurUs - b.occurUs || a.leafIndex - b.leafIndex))
        .map(({ leafIndex }) => leafIndex);
    }

    const anyOrder = fc.constantFrom<Order>("newest", "oldest");

    it("lists each record that the filter wants once, in order, in pages of any size", async () => {
      await fc.assert(
        fc.asyncProperty(anyFilter, anyOrder, fc.integer({ min: 1, max: 1000 }), async (given, order, size) => {
          const rows = expected((record) => wants(given, record), order);
          const limit = Math.max(size, Math.ceil(rows.length / 20));
          const filter = filterOf(new Fields(), "filter", given);
          const listed = await pagesOf(search, { filter, order, limit });
          expect(listed.rows).toEqual(rows);
          expect(listed.ended).toBe(true);
          expect(Math.max(...listed.pages.map(({ length }) => length))).toBeLessThanOrEqual(limit);
        }),
        { numRuns: 40 },
      );
    });

    it("leaves out what is not in the snapshot", async () => {
      await fc.assert(
        fc.asyncProperty(anyFilter, anyOrder, fc.integer({ min: 0, max: 21_000 }), async (given, order, belowLeaf) => {
          const filter = filterOf(new Fields(), "filter", given);
          const listed = await pagesOf(search, { filter, order, limit: 1000, belowLeaf });
          expect(listed.rows).toEqual(
            expected((record) => record.leafIndex < belowLeaf && wants(given, record), order),
          );
        }),
        { numRuns: 10 },
      );
    });

    it("gives short pages when much is looked at and little matches, and loses nothing by it", async () => {
      const given = create(AuditFilterSchema, {
        actors: ["bob"],
        attributes: [{ pointer: "/deep/x", value: { kind: { case: "stringValue", value: "x" } } }],
      });
      const query = { filter: filterOf(new Fields(), "filter", given), order: "newest", limit: 1000 } as const;
      const listed = await pagesOf(search, { ...query, maxScanned: 20 }, 1000);
      expect(listed.rows).toEqual(expected((record) => wants(given, record), "newest"));
      expect(listed.pages.length).toBeGreaterThan(50);
      expect(listed.pages.some(({ length }) => length === 0)).toBe(true);
    });

    it("says at once that there is nothing, where no action begins like that", async () => {
      const page = await search.page({ filter: filterFor({ actions: ["q*"] }), order: "newest", limit: 10 });
      expect(page).toEqual({ rows: [], next: undefined });
    });
  });

  it("lists every record that was there when it began once, while others arrive on all sides", async () => {
    const at = (us: number): EntryInit => ({ occurTime: toTimestamp(BASE_US + us) });
    await using archives = await filled(Array.from({ length: 9000 }, (_, number) => at(1000 + ((number * 7) % 500))));
    const search = createSqlSearch({ database: archives.instances[0].database });
    let arrived = 9000;
    const listed: number[] = [];
    let after: Query["after"];
    do {
      const page = await search.page({ filter: filterFor(), order: "oldest", limit: 1000, after });
      listed.push(...page.rows.map(({ leafIndex }) => leafIndex));
      after = page.next;
      // Before the place that was reached, at it, and after everything.
      const reached = (after?.occurUs ?? 0) - BASE_US;
      if (after !== undefined) await append(archives, [at(1), at(reached), at(5000)], arrived);
      arrived += 3;
      if (indexed) await buildIndex(archives.instances[0].database);
    } while (after !== undefined);
    expect(new Set(listed).size).toBe(listed.length);
    expect(listed.filter((leafIndex) => leafIndex < 9000)).toHaveLength(9000);
    const late = listed.filter((leafIndex) => leafIndex >= 9000);
    // Those at the end, and those at the place reached, whose leaf comes after it.
    expect(late.length).toBeGreaterThan(9);
    expect(late.every((leafIndex) => leafIndex % 3 !== 0)).toBe(true);
  });

  it("takes what comes first from whichever stretch of the archive has it, when times are the same", async () => {
    // A block of leaves with one late record, then one whose latest is as early as the others of the first.
    const us = (at: number) => (at === 100 ? 9 : at < BLOCK_LEAVES ? 5 : at === BLOCK_LEAVES ? 1 : 5);
    const entries = Array.from({ length: 16_400 }, (_, at) => ({ occurTime: toTimestamp(BASE_US + us(at)) }));
    await using archives = await filled(entries);
    const search = createSqlSearch({ database: archives.instances[0].database });
    const sorted = entries.map((_, at) => at).sort((a, b) => us(a) - us(b) || a - b);
    for (const limit of [1, 2, 50]) {
      const oldest = await pagesOf(search, { filter: filterFor(), order: "oldest", limit }, 20);
      expect(oldest.rows).toEqual(sorted.slice(0, oldest.rows.length));
      const newest = await pagesOf(search, { filter: filterFor(), order: "newest", limit }, 20);
      expect(newest.rows).toEqual(sorted.toReversed().slice(0, newest.rows.length));
    }
  });

  it("pages through thousands of records of the same microsecond", async () => {
    const occurTime = toTimestamp(BASE_US);
    await using archives = await filled(
      Array.from({ length: 17_000 }, (_, at) => ({ occurTime, action: `a${at % 2}` })),
    );
    const search = createSqlSearch({ database: archives.instances[0].database });
    const all = Array.from({ length: 17_000 }, (_, at) => at);
    for (const filter of [filterFor(), filterFor({ actors: ["ann"] })]) {
      expect((await pagesOf(search, { filter, order: "oldest", limit: 999 })).rows).toEqual(all);
      expect((await pagesOf(search, { filter, order: "newest", limit: 999 })).rows).toEqual(all.toReversed());
    }
    const odd = await pagesOf(search, { filter: filterFor({ actions: ["a1"] }), order: "oldest", limit: 500 });
    expect(odd.rows).toEqual(all.filter((at) => at % 2 === 1));
  });

  it("finds by prefixes of actions, few or many", async () => {
    const entries = Array.from({ length: 9000 }, (_, at) => ({
      action: at % 3 === 0 ? `many.${at % 450}` : `few.${at % 5}`,
      occurTime: toTimestamp(BASE_US + at),
    }));
    await using archives = await filled(entries);
    const search = createSqlSearch({ database: archives.instances[0].database });
    for (const prefix of ["many.", "many.1", "few.", "few.3", "m", "none"]) {
      const filter = filterFor({ actions: [`${prefix}*`, "few.0"] });
      const { rows } = await pagesOf(search, { filter, order: "oldest", limit: 1000 });
      const wanted = entries.flatMap(({ action }, at) => (action.startsWith(prefix) || action === "few.0" ? [at] : []));
      expect(rows).toEqual(wanted);
    }
  });

  it("is not misled by texts that share a key", async () => {
    const archives = await openArchives(kind);
    await using _ = archives;
    const entries = Array.from({ length: 8200 }, (_, at) => ({
      actor: at % 2 === 0 ? "ann" : "impostor",
      resource: { type: "t", id: at % 2 === 0 ? "1" : "2" },
      service: at % 2 === 0 ? "billing" : "auth",
    }));
    await append(archives, entries);
    const { database } = archives.instances[0];
    await database.write("UPDATE audit_record SET actor_key = $1, resource_key = $2, service_key = $3", [
      keyOf("ann"),
      keyOf("t", "1"),
      keyOf("billing"),
    ]);
    if (indexed) await buildIndex(database);
    const search = createSqlSearch({ database });
    const even = entries.flatMap((_, at) => (at % 2 === 0 ? [at] : []));
    for (const init of [{ actors: ["ann"] }, { resourceType: "t", resourceId: "1" }, { services: ["billing"] }]) {
      const { rows } = await pagesOf(search, { filter: filterFor(init), order: "oldest", limit: 1000 });
      expect(rows).toEqual(even);
    }
  });

  it("looks through what waits for a review, be it little or much", async () => {
    const entries = Array.from({ length: 9000 }, (_, at) => ({
      actor: at % 10 === 0 ? "ann" : "bob",
      occurTime: toTimestamp(BASE_US + at),
      status: at % 100 < 30 ? 2 : 1,
    }));
    await using archives = await filled(entries);
    const { database } = archives.instances[0];
    const search = createSqlSearch({ database });
    const waiting = async (init: FilterInit) =>
      (await pagesOf(search, { filter: filterFor({ statuses: [2], ...init }), order: "oldest", limit: 1000 })).rows;
    const pending = entries.flatMap(({ status }, at) => (status === 2 ? [at] : []));
    const isAnn = (at: number) => at % 10 === 0;
    expect(await waiting({})).toEqual(pending);
    expect(await waiting({ actors: ["ann"] })).toEqual(pending.filter(isAnn));
    await database.write("UPDATE audit_record SET status = 3 WHERE status = 2 AND leaf_index >= 500");
    const left = pending.filter((at) => at < 500);
    expect(await waiting({})).toEqual(left);
    expect(await waiting({ actors: ["ann"] })).toEqual(left.filter(isAnn));
  });

  it("ends a page of large records early, but never before its first", async () => {
    const note = "x".repeat(200_000);
    const sizes = [10, 200_000, 200_000, 9000, 8000, ...Array<number>(22).fill(200_000)];
    await using archives = await filled(sizes.map((size) => ({ attributes: { note: note.slice(0, size) } })));
    const search = createSqlSearch({ database: archives.instances[0].database });
    const { pages, rows } = await pagesOf(search, { filter: filterFor(), order: "oldest", limit: 100 });
    expect(rows).toEqual(sizes.map((_, at) => at));
    expect(pages.length).toBeGreaterThan(2);
    const bytes = pages.map((page) => page.reduce((sum, at) => sum + (sizes[at] ?? 0), 0));
    expect(Math.max(...bytes)).toBeLessThanOrEqual(PAGE_BYTES);
    expect(Math.max(...bytes)).toBeGreaterThan(PAGE_BYTES / 2);
  });
});

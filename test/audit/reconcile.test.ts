import { create } from "@bufbuild/protobuf";
import * as fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Ranges } from "../../src/audit/journal/held-ranges.ts";
import { createLookupRpcs } from "../../src/audit/review/lookup-rpcs.ts";
import type { HeldSequences } from "../../src/audit/review/reconcile.ts";
import { createSqlSequences } from "../../src/audit/review/sql-sequences.ts";
import {
  AuditSequenceState,
  AuditServiceReconcileRequestSchema,
  type AuditServiceReconcileResponse,
  AuditServiceReconcileResponseSchema,
} from "../../src/gen/holdfast/v1/audit_pb.js";
import { EncodedReply } from "../../src/infra/call.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { KINDS, type OpenArchives, openArchives, sealed } from "./archives.ts";
import { testCall } from "./calls.ts";
import { Shelf, shelfJournal, shelfQueue } from "./tiers.ts";

const END = 2n ** 53n - 1n;

interface Question {
  readonly first?: bigint;
  readonly last?: bigint;
  readonly pageSize?: number;
  readonly pageToken?: string;
  readonly producer?: string;
}

describe.each(KINDS)("what is held of a producer, over %s", (kind) => {
  let archives: OpenArchives;
  let sequences: HeldSequences;
  let queued: Shelf;
  let journals: [Shelf, Shelf];
  let damaged: Ranges;
  let producer = "";
  let number = 0;
  beforeAll(async () => {
    archives = await openArchives(kind);
  });
  afterAll(() => archives[Symbol.asyncDispose]());
  beforeEach(start);

  function start(): void {
    sequences = createSqlSequences(archives.instances[0].database);
    producer = `p${++number}`;
    queued = new Shelf();
    journals = [new Shelf(), new Shelf()];
    damaged = new Ranges();
  }

  const records = (numbers: readonly number[]) => numbers.map((sequence) => sealed({ producer, sequence }));
  const store = (...numbers: number[]) => archives.instances[0].archive.append(records(numbers), "refuse");
  const retire = (...numbers: number[]) =>
    archives.instances[0].database.writeAll(
      numbers.map((sequence) => ({
        sql: "UPDATE audit_record SET leaf = NULL WHERE producer = $1 AND sequence = $2",
        params: [producer, sequence],
      })),
    );

  async function page(question: Question = {}): Promise<AuditServiceReconcileResponse> {
    const rpcs = createLookupRpcs({
      archive: archives.instances[0].archive,
      queue: shelfQueue(queued),
      journal: shelfJournal(journals, damaged, producer),
      sequences,
    });
    const { first = 0n, last = 0n, pageSize = 0, pageToken = "" } = question;
    const request = create(AuditServiceReconcileRequestSchema, {
      producer: question.producer ?? producer,
      firstSequence: first,
      lastSequence: last,
      pageSize,
      pageToken,
    });
    const reply = await rpcs.reconcile(request, testCall());
    if (reply instanceof EncodedReply) throw new Error("a message was expected");
    return create(AuditServiceReconcileResponseSchema, reply);
  }

  /** All pages, as ["ARCHIVED 1-3", ...]. */
  async function told(question: Question = {}): Promise<{ ranges: string[]; pages: number; last: bigint }> {
    const ranges: string[] = [];
    for (let pages = 1, pageToken = ""; ; pages++) {
      const reply = await page({ ...question, pageToken });
      for (const { firstSequence, lastSequence, state } of reply.ranges) {
        ranges.push(`${AuditSequenceState[state]} ${firstSequence}-${lastSequence}`);
      }
      pageToken = reply.nextPageToken;
      if (pageToken === "") return { ranges, pages, last: reply.lastSequence };
    }
  }

  it("is told tier by tier, each sequence by the safest that holds it", async () => {
    await store(1, 2, 3, 7, 9);
    await retire(1, 9);
    queued.put(...records([3, 4, 5, 12]));
    journals[0].put(...records([2, 5, 6]));
    journals[1].put(...records([6, 8]));
    damaged.add(8, 8);
    damaged.add(10, 10);
    damaged.add(12, 12);
    expect(await told()).toEqual({
      ranges: [
        "RETIRED 1-1",
        "ARCHIVED 2-3",
        "QUEUED 4-5",
        "JOURNALED 6-6",
        "ARCHIVED 7-7",
        "QUARANTINED 8-8",
        "RETIRED 9-9",
        "QUARANTINED 10-10",
        "MISSING 11-11",
        "QUEUED 12-12",
      ],
      pages: 1,
      last: 12n,
    });
  });

  it("is cut to what was asked for", async () => {
    await store(2, 3, 4, 5);
    journals[0].put(...records([7, 8, 9]));
    expect((await told({ first: 3n, last: 8n })).ranges).toEqual(["ARCHIVED 3-5", "MISSING 6-6", "JOURNALED 7-8"]);
    expect((await told({ first: 5n, last: 5n })).ranges).toEqual(["ARCHIVED 5-5"]);
    expect((await told({ first: 9n, last: 12n })).ranges).toEqual(["JOURNALED 9-9", "MISSING 10-12"]);
    expect(await told({ first: 10n })).toEqual({ ranges: [], pages: 1, last: 9n });
  });

  it("is nothing of a producer that is not known, and missing where sequences were asked for", async () => {
    expect(await told()).toEqual({ ranges: [], pages: 1, last: 0n });
    expect((await told({ last: 3n })).ranges).toEqual(["MISSING 1-3"]);
  });

  it("is told at once of gaps as wide as sequences can be", async () => {
    await store(5, Number(END));
    queued.put(...records([1_000_000_000_000]));
    expect((await told({ last: END })).ranges).toEqual([
      "MISSING 1-4",
      "ARCHIVED 5-5",
      "MISSING 6-999999999999",
      "QUEUED 1000000000000-1000000000000",
      `MISSING 1000000000001-${END - 1n}`,
      `ARCHIVED ${END}-${END}`,
    ]);
    expect((await told({ first: END, last: END })).ranges).toEqual([`ARCHIVED ${END}-${END}`]);
  });

  it("comes in pages that together are the whole, without overlap", async () => {
    await store(...Array.from({ length: 20 }, (_, i) => 3 * i + 1));
    const whole = await told();
    expect(whole.ranges).toHaveLength(39);
    for (const pageSize of [1, 2, 7, 38, 39]) {
      const paged = await told({ pageSize });
      expect(paged.ranges).toEqual(whole.ranges);
      expect(paged.pages).toBe(Math.ceil(39 / pageSize));
    }
  });

  it("ends where it ended when the first page was asked for, whatever is appended meanwhile", async () => {
    await store(1, 3);
    const { nextPageToken } = await page({ pageSize: 1 });
    await store(4, 9);
    const rest = await page({ pageToken: nextPageToken });
    expect(rest.ranges.map(({ firstSequence, lastSequence }) => [firstSequence, lastSequence])).toEqual([
      [2n, 2n],
      [3n, 3n],
    ]);
  });

  it("is one range however many steps through the archive it takes", async () => {
    const many = Array.from({ length: 12_001 }, (_, i) => i + 1);
    await store(...many);
    expect((await told({ last: 12_005n })).ranges).toEqual(["ARCHIVED 1-12001", "MISSING 12002-12005"]);
  });

  it("is told in more pages, not in longer ones, when a page would take many steps", async () => {
    await store(1);
    const real = sequences;
    let steps = 0;
    // Steps of one sequence each, in the place of thousands.
    sequences = {
      last: real.last,
      scan: async (of, first) => {
        steps++;
        return { ...(await real.scan(of, first, first)), until: first };
      },
    };
    const { ranges, nextPageToken } = await page({ last: 50n });
    expect(steps).toBeLessThan(50);
    expect(ranges.at(-1)?.lastSequence).toBe(BigInt(steps));
    expect(nextPageToken).not.toBe("");
    const { ranges: all } = await told({ last: 50n });
    expect(all.at(-1)).toMatch(/^MISSING \d+-50$/);
  });

  it("is what a look at each sequence by itself would tell", async () => {
    const numbers = fc.uniqueArray(fc.integer({ min: 1, max: 40 }), { maxLength: 25 });
    await fc.assert(
      fc.asyncProperty(
        numbers,
        numbers,
        numbers,
        numbers,
        numbers,
        fc.integer({ min: 1, max: 9 }),
        async (...given) => {
          start();
          const [archived, retired, inQueue, inJournal, broken, pageSize] = given;
          await store(...new Set([...archived, ...retired]));
          await retire(...retired);
          queued.put(...records(inQueue));
          journals[0].put(...records(inJournal.filter((one) => one % 2 === 0)));
          journals[1].put(...records(inJournal));
          for (const one of broken) damaged.add(one, one);
          const stateOf = (sequence: number) => {
            if (retired.includes(sequence)) return "RETIRED";
            if (archived.includes(sequence)) return "ARCHIVED";
            if (inQueue.includes(sequence)) return "QUEUED";
            if (broken.includes(sequence)) return "QUARANTINED";
            return inJournal.includes(sequence) ? "JOURNALED" : "MISSING";
          };
          const { ranges } = await told({ last: 45n, pageSize });
          const seen = ranges.flatMap((range) => {
            const [state = "", edges = ""] = range.split(" ");
            const [first = 0, last = 0] = edges.split("-").map(Number);
            return Array.from({ length: last - first + 1 }, (_, i) => `${first + i} ${state}`);
          });
          expect(seen).toEqual(Array.from({ length: 45 }, (_, i) => `${i + 1} ${stateOf(i + 1)}`));
        },
      ),
      { numRuns: 30 },
    );
  });

  it("is UNAVAILABLE while the archive or the queue cannot be asked: nothing is called missing unseen", async () => {
    queued.away = true;
    await expect(page({ last: 3n })).rejects.toMatchObject({ kind: "unavailable" });
    queued.away = false;
    const away = () => Promise.reject(new UnavailableError("SQL_UNAVAILABLE", "SQL is away"));
    sequences = { last: away, scan: away };
    await expect(page({ last: 3n })).rejects.toMatchObject({ reason: "SQL_UNAVAILABLE" });
  });

  it("misses no record that moves from the queue to the archive meanwhile", async () => {
    queued.put(...records([1]));
    const real = sequences;
    sequences = {
      last: real.last,
      async scan(...args) {
        await store(1);
        queued.take({ producer, sequence: 1 });
        return real.scan(...args);
      },
    };
    expect((await told()).ranges).toEqual(["ARCHIVED 1-1"]);
  });

  it.each<[string, Question, string[]]>([
    ["no producer", { producer: "" }, ["producer"]],
    ["a producer that none can be", { producer: "a b" }, ["producer"]],
    ["a sequence beyond all", { first: END + 1n, last: END + 2n }, ["first_sequence", "last_sequence"]],
    ["an end before the beginning", { first: 5n, last: 4n }, ["last_sequence"]],
    ["a negative page size", { pageSize: -1 }, ["page_size"]],
    ["a token that is none", { pageToken: "x" }, ["page_token"]],
  ])("is not told when the request is wrong: %s", async (_, question, wrong) => {
    await expect(page(question)).rejects.toMatchObject({
      kind: "invalid",
      violations: wrong.map((field) => ({ field })),
    });
  });

  it("is not told to a token of another question", async () => {
    await store(1, 3);
    const { nextPageToken } = await page({ pageSize: 1 });
    await expect(page({ pageToken: nextPageToken, first: 2n })).rejects.toMatchObject({
      violations: [{ field: "page_token" }],
    });
  });
});

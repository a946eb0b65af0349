import { describe, expect, it } from "vitest";
import type { Durability } from "../../src/audit/intake/doubts.ts";
import { idOf } from "../../src/audit/record/record.ts";
import { AuditDurability } from "../../src/gen/holdfast/v1/audit_pb.js";
import { UnavailableError } from "../../src/infra/failure.ts";
import { type IntakeOptions, known, p, type Tier, type Whereabouts } from "./intake-parts.ts";

const { UNSPECIFIED, JOURNALED, QUEUED, ARCHIVED } = AuditDurability;
const named = { UNSPECIFIED, JOURNALED, QUEUED, ARCHIVED };
type Minimum = keyof typeof named;

/** What a call for two records ends with, and which tiers hold them then. */
interface Ending {
  readonly minimum: readonly Minimum[];
  readonly answer:
    | { readonly durability: Durability; readonly degraded: boolean; readonly servedBy: string }
    | { readonly reason: string };
  readonly heldBy: readonly (keyof Whereabouts)[];
  /** Whether recovery is told that they are in the journal alone. */
  readonly local?: true;
}

interface Row {
  readonly away: readonly Tier[];
  readonly options?: IntakeOptions;
  readonly what: string;
  readonly endings: readonly Ending[];
}

const kept = (durability: Durability, servedBy: string, degraded = false) => ({ durability, degraded, servedBy });
const straight: Ending["answer"] = kept(ARCHIVED, "sqlite");
const fallback: Ending["answer"] = kept(ARCHIVED, "sqlite", true);
const alone: Ending["answer"] = kept(JOURNALED, "journal", true);
const notReached = { reason: "DURABILITY_NOT_REACHED" };
const withoutRedis = { withRedis: false };
const usual = ["UNSPECIFIED", "JOURNALED", "QUEUED"] as const;
const least = ["UNSPECIFIED", "JOURNALED"] as const;
const every = ["UNSPECIFIED", "JOURNALED", "QUEUED", "ARCHIVED"] as const;

/** The table "What happens when something fails" of docs/audit.md, and what it leaves out. */
const table: readonly Row[] = [
  {
    ...{ what: "nothing, without Redis", away: [], options: withoutRedis },
    endings: [{ minimum: every, answer: straight, heldBy: ["archive"] }],
  },
  {
    ...{ what: "nothing, with Redis", away: [] },
    endings: [
      { minimum: usual, answer: kept(QUEUED, "redis"), heldBy: ["journal", "queue"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    ...{ what: "Redis", away: ["redis"] },
    endings: [
      { minimum: usual, answer: fallback, heldBy: ["journal", "archive"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    ...{ what: "room in Redis", away: [], options: { maxLength: 2 } },
    endings: [
      { minimum: usual, answer: fallback, heldBy: ["journal", "archive"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    ...{ what: "SQL, with Redis", away: ["sql"] },
    endings: [
      { minimum: usual, answer: kept(QUEUED, "redis"), heldBy: ["journal", "queue"] },
      { minimum: ["ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "Redis and SQL", away: ["redis", "sql"] },
    endings: [
      { minimum: least, answer: alone, heldBy: ["journal"], local: true },
      // They may be archived later; but nobody was told that they are kept.
      { minimum: ["QUEUED"], answer: notReached, heldBy: ["journal"] },
      { minimum: ["ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "SQL, without Redis", away: ["sql"], options: withoutRedis },
    endings: [
      { minimum: least, answer: alone, heldBy: ["journal"], local: true },
      { minimum: ["QUEUED", "ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "the journal's disk", away: ["journal"] },
    endings: [
      { minimum: usual, answer: fallback, heldBy: ["queue", "archive"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    ...{ what: "room in the journal", away: [], options: { journalBytes: 50 } },
    endings: [
      { minimum: usual, answer: fallback, heldBy: ["queue", "archive"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    ...{ what: "the journal's disk, without Redis", away: ["journal"], options: withoutRedis },
    endings: [{ minimum: every, answer: straight, heldBy: ["archive"] }],
  },
  {
    ...{ what: "the journal's disk and Redis", away: ["journal", "redis"] },
    endings: [
      { minimum: usual, answer: fallback, heldBy: ["archive"] },
      { minimum: ["ARCHIVED"], answer: straight, heldBy: ["archive"] },
    ],
  },
  {
    // Redis alone is not enough to acknowledge anything, but it may have taken it.
    ...{ what: "the journal's disk and SQL", away: ["journal", "sql"] },
    endings: [
      { minimum: least, answer: { reason: "JOURNAL_UNAVAILABLE" }, heldBy: ["queue"] },
      { minimum: ["QUEUED"], answer: notReached, heldBy: ["queue"] },
      { minimum: ["ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "the journal's disk, Redis and SQL", away: ["journal", "redis", "sql"] },
    endings: [
      { minimum: least, answer: { reason: "JOURNAL_UNAVAILABLE" }, heldBy: [] },
      { minimum: ["QUEUED", "ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "the journal's disk and SQL, without Redis", away: ["journal", "sql"], options: withoutRedis },
    endings: [
      { minimum: least, answer: { reason: "JOURNAL_UNAVAILABLE" }, heldBy: [] },
      { minimum: ["QUEUED", "ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
  {
    ...{ what: "room in the journal, and SQL, without Redis", away: ["sql"] },
    options: { withRedis: false, journalBytes: 50 },
    endings: [
      { minimum: least, answer: { reason: "JOURNAL_FULL" }, heldBy: [] },
      { minimum: ["QUEUED", "ARCHIVED"], answer: notReached, heldBy: [] },
    ],
  },
];

const cases = table.flatMap(({ endings, ...row }) =>
  endings.flatMap(({ minimum, ...ending }) => minimum.map((one) => ({ ...row, ...ending, minimum: one }))),
);

describe("when something is away", () => {
  it.each(cases)("away: $what; asked for: $minimum; held by: $heldBy", async (row) => {
    const parts = await known(row.options);
    await parts.lose(...row.away);
    const { answer } = row;
    const calling = parts.intake.keep([p(2), p(3)], named[row.minimum]);
    if ("reason" in answer) {
      const error: unknown = await calling.catch((error: unknown) => error);
      expect(error).toBeInstanceOf(UnavailableError);
      expect(error).toMatchObject(answer);
    } else expect(await calling).toEqual({ ...answer, exceptions: undefined });

    const where = await parts.where();
    const holds = (tier: keyof Whereabouts) => (row.heldBy.includes(tier) ? ["p/2", "p/3"] : []);
    expect(where).toEqual({
      ...{ journal: holds("journal"), archive: holds("archive") },
      queue: ["p/1", ...holds("queue")],
    });
    expect(parts.local.map(idOf)).toEqual(row.local ? ["p/2", "p/3"] : []);
    const counts = { queued: 0, archived: 0, journaled: 0, duplicates: 0, refused: 0, pastRedis: 0 };
    if ("durability" in answer) {
      if (answer.durability === QUEUED) counts.queued = 2;
      if (answer.durability === JOURNALED) counts.journaled = 2;
      if (answer.durability === ARCHIVED) counts.archived = 2;
      if (answer.durability === ARCHIVED && answer.degraded) counts.pastRedis = 2;
    }
    expect(parts.intake.counts).toEqual(counts);
  });

  it("is sorted out by the archive, once the records of all ways come together there", async () => {
    const parts = await known();
    await parts.intake.keep([p(2)], UNSPECIFIED);
    await parts.lose("redis");
    // The same again, by the way that is left; and one that was never queued.
    await parts.intake.keep([p(2), p(3)], UNSPECIFIED);
    expect((await parts.where()).archive).toEqual(["p/2", "p/3"]);
    const journaled = [p(2), p(2), p(3)];
    await parts.intake.deliver(journaled);
    expect((await parts.where()).archive).toEqual(["p/2", "p/3"]);
    expect(await parts.conflicts()).toEqual([]);
  });
});

import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ConversationOrder as Order } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { KINDS } from "./ledgers.ts";
import { failureOf, type Opened, openReads, type Reads } from "./reads.ts";

type Request = Parameters<Reads["list"]>[0];

/** All pages, as ids, and what may happen between two of them. */
async function pagesOf(reads: Reads, request: Request, happen = async () => {}): Promise<string[][]> {
  const pages: string[][] = [];
  for (let pageToken = ""; ; ) {
    const page = await reads.list({ ...request, pageToken });
    pages.push(page.conversations.map(({ id }) => id));
    if (page.nextPageToken === pageToken && pageToken !== "") throw new Error("the listing goes in circles");
    pageToken = page.nextPageToken;
    if (pageToken === "") return pages;
    await happen();
  }
}

interface Fact {
  readonly id: string;
  readonly user: string;
  readonly status: string;
  readonly createdMs: number;
  readonly updatedMs: number;
  readonly expired: boolean;
}

const USERS = ["", "ann", "bob"];
/** More than are looked up one by one; the last ones are rare. */
const STATUSES = ["", ...Array.from({ length: 11 }, (_, at) => `s${at}`)];

/** Conversations of all sorts, several in the same millisecond, some of which have expired; and others that are not listed. */
async function filled({ writes, clock }: Opened, count: number): Promise<Fact[]> {
  const facts: Fact[] = [];
  for (let n = 0; n < count; n++) {
    if (n % 3 === 0) clock.move(1000);
    const id = `c${(n * 7919) % count}`;
    const [user, status] = [USERS[n % 3] ?? "", STATUSES[n % 7 === 0 ? n % 12 : n % 4] ?? ""];
    const expired = n % 11 === 0;
    await writes.save({ id, state: { user_id: user, status }, expiry: expired ? { ttl: "1s" } : { never: true } });
    facts.push({ id, user, status, createdMs: clock.now(), updatedMs: clock.now(), expired });
  }
  clock.move(1000);
  for (let n = 0; n < count; n += 4) {
    clock.move(n % 8);
    const fact = facts[n];
    if (fact === undefined || fact.expired) continue;
    await writes.append({ id: fact.id, messages: [{ role: "user", content: "x" }] });
    facts[n] = { ...fact, updatedMs: clock.now() };
  }
  await writes.save({ collection: "other", id: "c1", state: { status: "s1" } });
  await writes.save({ id: "gone", state: { status: "s1" } });
  await writes.delete({ id: "gone" });
  return facts;
}

const byId = (one: Fact, other: Fact) => (one.id < other.id ? -1 : 1);

/** What a listing is to say. */
function expected(facts: readonly Fact[], { filter, updatedSince, order }: Request): string[] {
  const since = updatedSince === undefined ? 0 : Number(updatedSince.seconds) * 1000 + (updatedSince.nanos ?? 0) / 1e6;
  const statuses = filter?.statuses ?? [];
  const found = facts
    .filter((fact) => !fact.expired && fact.updatedMs >= since)
    .filter(({ user }) => (filter?.userId ?? "") === "" || user === filter?.userId)
    .filter(({ status }) => statuses.length === 0 || statuses.includes(status));
  const time = ({ createdMs, updatedMs }: Fact) => (order === Order.LAST_UPDATED_FIRST ? updatedMs : createdMs);
  const oldestFirst = found.toSorted((one, other) => time(one) - time(other) || byId(one, other));
  return (order === Order.OLDEST_FIRST ? oldestFirst : oldestFirst.toReversed()).map(({ id }) => id);
}

describe.each(KINDS)("List over %s", (kind) => {
  it("finds what any filter wants, in any order, on pages of any size", async () => {
    await using all = await openReads(kind);
    const facts = await filled(all, 150);
    const times = facts.map(({ updatedMs }) => updatedMs);
    const requests = fc.record({
      filter: fc.record({
        statuses: fc.uniqueArray(fc.constantFrom(...STATUSES, "unknown"), { maxLength: 12 }),
        userId: fc.constantFrom("", ...USERS),
      }),
      updatedSince: fc.option(
        fc.constantFrom(...times).map((ms) => timestampFromMs(ms)),
        { nil: undefined },
      ),
      order: fc.constantFrom(0, 1, 2, 3),
      pageSize: fc.constantFrom(0, 1, 2, 7, 30, 150, 1000),
    });
    await fc.assert(
      fc.asyncProperty(requests, async ({ updatedSince, ...rest }) => {
        const request = { ...rest, ...(updatedSince && { updatedSince }) };
        const pages = await pagesOf(all.reads, request);
        expect(pages.flat()).toEqual(expected(facts, request));
        const size = request.pageSize || 100;
        for (const page of pages.slice(0, -1)) expect(page).toHaveLength(size);
      }),
      { numRuns: 120 },
    );
    expect(all.reads.said).toEqual({ servedBy: kind, degraded: false });
  });

  it.each([
    ["newest", Order.NEWEST_FIRST],
    ["oldest", Order.OLDEST_FIRST],
  ])("lists each that is there all the time exactly once, the %s first, whatever comes and goes", async (_, order) => {
    await using all = await openReads(kind);
    const { writes, clock } = all;
    const facts = await filled(all, 60);
    const staying = facts.filter(({ expired }, n) => !expired && n % 5 !== 0);
    const going = facts.filter(({ expired }, n) => !expired && n % 5 === 0).map(({ id }) => id);
    let n = 0;
    const pages = await pagesOf(all.reads, { order, pageSize: 4 }, async () => {
      const [first, second] = going.splice(0, 2);
      if (first !== undefined) await writes.delete({ id: first });
      if (second !== undefined) {
        await writes.delete({ id: second });
        await writes.save({ id: second, state: {}, expectedVersion: "0" });
      }
      clock.move(1);
      if (n++ < 20) await writes.save({ id: `new${n}`, state: {} });
      await writes.append({ id: staying[n % staying.length]?.id ?? "", messages: [{ role: "user", content: "x" }] });
    });
    const listed = pages.flat();
    const wanted = new Set(staying.map(({ id }) => id));
    expect(listed.filter((id) => wanted.has(id))).toEqual(expected(staying, { order }));
  });

  it("lists none twice in the order of updates, though another instance's clock is behind", async () => {
    await using all = await openReads(kind);
    const { writes, clock } = all;
    for (let n = 0; n < 10; n++) {
      await writes.save({ id: `c${n}`, state: {} });
      clock.move(1000);
    }
    let updated = 0;
    const pages = await pagesOf(all.reads, { order: Order.LAST_UPDATED_FIRST, pageSize: 2 }, async () => {
      // The last one of the page before is updated by a clock that says what is ahead of the listing.
      clock.move(updated === 0 ? -6_500 : 0);
      await writes.patch({ id: `c${8 - 2 * updated++}`, patch: {} });
    });
    const listed = pages.flat();
    expect(listed).toHaveLength(new Set(listed).size);
    expect(listed.slice(0, 4)).toEqual(["c9", "c8", "c7", "c6"]);
  });

  it("does not list what has expired, from that moment on", async () => {
    await using all = await openReads(kind);
    await all.writes.save({ id: "short", state: {}, expiry: { ttl: "10s" } });
    await all.writes.save({ id: "long", state: {} });
    expect(await pagesOf(all.reads, { pageSize: 1 })).toEqual([["short"], ["long"]]);
    all.clock.move(10_000);
    expect(await pagesOf(all.reads, {})).toEqual([["long"]]);
  });

  it("takes a token only with the collection, filter and order that it was given for", async () => {
    await using all = await openReads(kind);
    const { reads } = all;
    await filled(all, 20);
    const updatedSince = timestampFromMs(1);
    const request = { pageSize: 2, updatedSince, filter: { statuses: ["", "s1", "s2"], userId: "ann" } };
    const { nextPageToken: pageToken } = await reads.list(request);
    expect(pageToken).not.toBe("");
    const next = { ...request, pageToken };
    await reads.list({ ...next, pageSize: 1, filter: { statuses: ["s2", "", "s1", "s1"], userId: "ann" } });
    const wrong: Request[] = [
      { ...next, collection: "other" },
      { ...next, order: Order.OLDEST_FIRST },
      { ...next, updatedSince: timestampFromMs(2) },
      { ...next, filter: { statuses: ["s1"], userId: "ann" } },
      { ...next, filter: { statuses: ["", "s1", "s2"], userId: "bob" } },
      { ...next, pageToken: pageToken.slice(0, -1) },
      { ...next, pageToken: "?" },
    ];
    for (const one of wrong) {
      expect((await failureOf(reads.list(one))).violations.map(({ field }) => field)).toEqual(["page_token"]);
    }
  });

  it("names every field that is wrong", async () => {
    await using all = await openReads(kind);
    const order: number = 9;
    const failure = await failureOf(
      all.reads.list({
        ...{ collection: "ä", filter: { statuses: ["x".repeat(513)], userId: "a\0" }, order, pageSize: -1 },
        ...{ updatedSince: { seconds: 2n ** 62n, nanos: -1 }, pageToken: "x" },
      }),
    );
    expect(failure.violations.map(({ field }) => field)).toEqual([
      ...["collection", "filter.statuses[0]", "filter.user_id", "updated_since", "order", "page_size", "page_token"],
    ]);
  });
});

import type { JsonObject } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  ConversationMessageOrder as Order,
  ConversationPresence as Presence,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import { DEFAULT_POLICY, KEY, KINDS } from "./ledgers.ts";
import { between, failureOf, type Opened, openReads, type Reads, readsOf, versionIn } from "./reads.ts";

const { id } = KEY;
const ROLES = ["user", "assistant", "tool"];

/** Message n has the id n and the role n modulo 3. */
function messages(first: number, last: number, content = "x"): JsonObject[] {
  return Array.from({ length: last - first + 1 }, (_, at) => ({
    ...{ id: String(first + at), role: ROLES[(first + at) % 3] ?? "", content },
  }));
}

const numbers = (first: number, last: number) =>
  Array.from({ length: Math.abs(last - first) + 1 }, (_, at) => first + Math.sign(last - first) * at);

type Request = Parameters<Reads["listMessages"]>[0];

/** All pages, and what may happen between two of them. */
async function pagesOf(reads: Reads, request: Request, happen = async () => {}): Promise<number[][]> {
  const pages: number[][] = [];
  for (let pageToken = ""; ; ) {
    const page = await reads.listMessages({ id, ...request, pageToken });
    for (const message of page.messages) expect(message.id).toBe(String(message.position));
    pages.push(page.messages.map(({ position }) => Number(position)));
    if (page.nextPageToken === pageToken && pageToken !== "") throw new Error("the listing goes in circles");
    pageToken = page.nextPageToken;
    if (pageToken === "") return pages;
    await happen();
  }
}

async function filled(all: Opened, count: number): Promise<Reads> {
  all.opened.policies.set("conversation", { ...DEFAULT_POLICY, history: 5 });
  await all.writes.save({ id, state: {} });
  for (let first = 1; first <= count; first += 500) {
    await all.writes.append({ id, messages: messages(first, Math.min(count, first + 499)) });
  }
  return all.reads;
}

describe.each(KINDS)("ListMessages over %s", (kind) => {
  it("pages from either end, behind a place and by role", async () => {
    await using all = await openReads(kind);
    const reads = await filled(all, 25);
    expect(await pagesOf(reads, { pageSize: 10 })).toEqual([numbers(1, 10), numbers(11, 20), numbers(21, 25)]);
    expect(await pagesOf(reads, { pageSize: 10, order: Order.NEWEST_FIRST })).toEqual([
      ...[numbers(25, 16), numbers(15, 6), numbers(5, 1)],
    ]);
    expect(await pagesOf(reads, { pageSize: 25 })).toEqual([numbers(1, 25)]);
    expect(await pagesOf(reads, { afterPosition: 23n })).toEqual([[24, 25]]);
    expect(await pagesOf(reads, { afterPosition: 22n, pageSize: 2, order: Order.NEWEST_FIRST })).toEqual([
      [25, 24],
      [23],
    ]);
    for (const afterPosition of [25n, 2n ** 64n - 1n]) expect(await pagesOf(reads, { afterPosition })).toEqual([[]]);
    const byRole = await pagesOf(reads, { roles: ["tool", "user", "tool"], pageSize: 5, order: Order.NEWEST_FIRST });
    expect(byRole.flat()).toEqual(numbers(25, 1).filter((n) => n % 3 !== 1));
    expect(await pagesOf(reads, { roles: ["system"] })).toEqual([[]]);
    expect(reads.said).toEqual({ servedBy: kind, degraded: false });
  });

  it("stays stable while messages are appended", async () => {
    await using all = await openReads(kind);
    const reads = await filled(all, 10);
    let last = 10;
    const append = async () => {
      await all.writes.append({ id, messages: messages(last + 1, last + 1) });
      last++;
    };
    const newest = await pagesOf(reads, { pageSize: 3, order: Order.NEWEST_FIRST }, append);
    expect(newest.flat()).toEqual(numbers(10, 1));
    let more = 5;
    const oldest = await pagesOf(reads, { pageSize: 3 }, async () => {
      if (more-- > 0) await append();
    });
    expect(oldest.flat()).toEqual(numbers(1, last));
  });

  it("ends a page at 2 MiB, but sends a message however long it is", async () => {
    await using all = await openReads(kind);
    const { writes, reads } = all;
    await writes.save({ id, state: {} });
    for (let n = 1; n <= 20; n += 5) await writes.append({ id, messages: messages(n, n + 4, "y".repeat(250_000)) });
    expect(await pagesOf(reads, {})).toEqual([numbers(1, 8), numbers(9, 16), numbers(17, 20)]);
    expect(await pagesOf(reads, { roles: ["user"], order: Order.NEWEST_FIRST })).toEqual([[18, 15, 12, 9, 6, 3]]);
  });

  it("looks at a bounded number of messages for a role that is rare, and goes on where it ended", async () => {
    await using all = await openReads(kind);
    const reads = await filled(all, 3);
    // That many appended ones would take long; what they hold is not looked at.
    await all.writes.database.write(`INSERT INTO conversation_message
        (collection, id, generation, position, added, removed, message_id, role, content_hash, body)
      WITH RECURSIVE n (position) AS (SELECT 4 UNION ALL SELECT position + 1 FROM n WHERE position < 45000),
        one (bytes) AS (SELECT state FROM conversation_state)
      SELECT collection, id, generation, position, version, NULL, 'm' || CAST(position AS TEXT), 'bot', bytes, bytes
      FROM conversation CROSS JOIN n CROSS JOIN one`);
    await all.writes.database.write("UPDATE conversation SET message_count = 45000");
    const pages = await pagesOf(reads, { roles: ["user"], order: Order.NEWEST_FIRST });
    expect(pages).toEqual([[], [], [3]]);
  });

  it("says ABORTED when messages were taken away between two pages, and only then", async () => {
    await using all = await openReads(kind);
    const { writes } = all;
    const reads = await filled(all, 6);
    const first = async () => (await reads.listMessages({ id, pageSize: 2 })).nextPageToken;
    const next = async (pageToken: string) =>
      (await reads.listMessages({ id, pageSize: 2, pageToken })).messages.map(({ position }) => Number(position));
    const aborted = { kind: "conflict", reason: "MESSAGES_REPLACED", metadata: { collection: "conversation", id } };
    const six = versionIn(await writes.patch({ id, patch: {} }));

    const undisturbed = await first();
    await writes.restore({ id, version: String(six) });
    await writes.append({ id, messages: messages(7, 7) });
    await writes.restore({ id, version: String(six), keepMessages: true });
    await writes.extend({ id });
    expect(await next(undisturbed)).toEqual([3, 4]);

    const cut = await first();
    await writes.restore({ id, version: String(six) });
    expect(await failureOf(next(cut))).toMatchObject(aborted);
    // Also when there are as many as before again.
    await writes.append({ id, messages: messages(7, 7, "another") });
    expect(await failureOf(next(cut))).toMatchObject(aborted);

    const reborn = await first();
    await writes.delete({ id });
    expect(await reads.listMessages({ id, pageSize: 2, pageToken: reborn })).toMatchObject({
      ...{ presence: Presence.DELETED, messages: [], nextPageToken: "", messageCount: 0n, version: 0n },
    });
    await writes.save({ id, state: {}, messages: messages(1, 7), expectedVersion: "0" });
    expect(await failureOf(next(reborn))).toMatchObject(aborted);
    expect(await next(await first())).toEqual([3, 4]);
  });

  it("reads a page again when messages are taken away while it is read", async () => {
    await using all = await openReads(kind);
    const { writes, clock } = all;
    await filled(all, 4);
    const four = versionIn(await writes.patch({ id, patch: {} }));
    await writes.append({ id, messages: messages(5, 8) });
    const database = between(writes.database, "FROM conversation_message", async () => {
      await writes.restore({ id, version: String(four) });
      for (let more = 0; more < 6; more++) await writes.patch({ id, patch: {} });
    });
    const page = await readsOf({ database, clock }).listMessages({ id });
    expect(page.messages).toHaveLength(4);
    expect(page).toMatchObject({
      messageCount: 4n,
      version: versionIn(await writes.append({ id, messages: messages(4, 4) })),
    });
  });

  it("takes a token only with the conversation, order and filters that it was given for", async () => {
    await using all = await openReads(kind);
    const reads = await filled(all, 10);
    await all.writes.save({ id: "c2", state: {}, messages: messages(1, 10) });
    await all.writes.save({ collection: "other", id, state: {}, messages: messages(1, 10) });
    const request = { id, pageSize: 2, roles: ["user", "tool"] };
    const { nextPageToken: pageToken } = await reads.listMessages(request);
    expect(
      (await reads.listMessages({ ...request, roles: ["tool", "user"], pageSize: 3, pageToken })).messages,
    ).toHaveLength(3);
    const wrong: Request[] = [
      ...[{ id: "c2" }, { collection: "other" }, { order: Order.NEWEST_FIRST }, { afterPosition: 1n }],
      ...[{ roles: ["user"] }, { roles: [] }, { pageToken: `${pageToken}AA` }, { pageToken: "x" }],
    ];
    for (const more of wrong) {
      const failure = await failureOf(reads.listMessages({ ...request, pageToken, ...more }));
      expect(failure.violations.map(({ field }) => field)).toEqual(["page_token"]);
    }
    const { nextPageToken: other } = await reads.list({ pageSize: 1 });
    expect((await failureOf(reads.listMessages({ ...request, pageToken: other }))).violations).toHaveLength(1);
  });

  it("names every field that is wrong", async () => {
    await using all = await openReads(kind);
    const wrong = { collection: "a/b", id: "", order: 9, roles: ["", "x".repeat(65)], pageSize: -1, pageToken: "x" };
    const failure = await failureOf(all.reads.listMessages(wrong));
    expect(failure.violations.map(({ field }) => field)).toEqual([
      ...["collection", "id", "order", "roles[0]", "roles[1]", "page_size", "page_token"],
    ]);
    expect((await failureOf(all.reads.listMessages({ id, roles: Array(17).fill("a") }))).violations).toMatchObject([
      { field: "roles" },
    ]);
    expect(await all.reads.listMessages({ id })).toMatchObject({ presence: Presence.NEVER_EXISTED, messages: [] });
  });
});

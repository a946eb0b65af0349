import { describe, expect, it } from "vitest";
import {
  ConversationChange_Kind as Kind,
  ConversationPresence as Presence,
} from "../../src/gen/holdfast/v1/conversation_pb.js";
import { DEFAULT_POLICY, KEY, KINDS } from "./ledgers.ts";
import { failureOf, openReads, type Reads, versionIn } from "./reads.ts";

const { id } = KEY;

async function kindsIn(reads: Reads): Promise<readonly Kind[]> {
  return (await reads.listVersions({ id })).versions.map(({ kind }) => kind);
}

describe.each(KINDS)("ListVersions over %s", (kind) => {
  it("lists what is kept, the newest first, with what made it", async () => {
    await using all = await openReads(kind);
    const { opened, writes, reads, clock } = all;
    opened.policies.set("conversation", { ...DEFAULT_POLICY, history: 3 });
    const saved = versionIn(await writes.save({ id, state: { status: "first" }, messages: [] }));
    await writes.append({ id, messages: [{ role: "user", content: "a" }] });
    clock.move(1000);
    await writes.patch({ id, patch: { status: "second" } });
    const restored = versionIn(await writes.restore({ id, version: String(saved) }));
    const { presence, versions, nextPageToken } = await reads.listVersions({ id });
    expect([presence, nextPageToken]).toEqual([Presence.LIVE, ""]);
    expect(versions).toMatchObject([
      { kind: Kind.RESTORED, version: restored, restoredVersion: saved, status: "first", messageCount: 0n },
      { kind: Kind.UPDATED, restoredVersion: 0n, status: "second", messageCount: 1n, stateBytes: 20n },
      { kind: Kind.APPENDED, status: "first", messageCount: 1n },
      { kind: Kind.CREATED, version: saved, status: "first", messageCount: 0n, stateBytes: 19n },
    ]);
    for (const { version, updateTime } of versions) {
      const { conversation } = await reads.get({ id, version });
      expect(conversation?.summary).toMatchObject({ version, ...(updateTime && { updateTime }) });
    }
    await writes.patch({ id, patch: {} });
    expect(await kindsIn(reads)).toEqual([Kind.UPDATED, Kind.RESTORED, Kind.UPDATED, Kind.APPENDED]);
  });

  it("lists the current version alone where there is no history", async () => {
    await using all = await openReads(kind);
    const { writes, reads, opened } = all;
    await writes.save({ id, state: {} });
    expect(await kindsIn(reads)).toEqual([Kind.CREATED]);
    const version = versionIn(await writes.patch({ id, patch: {} }));
    expect((await reads.listVersions({ id })).versions).toMatchObject([{ version, kind: Kind.UPDATED }]);
    // Once there is one, it begins with the next change.
    opened.policies.set("conversation", { ...DEFAULT_POLICY, history: 5 });
    await writes.append({ id, messages: [{ role: "user", content: "a" }] });
    expect((await kindsIn(reads))[0]).toBe(Kind.APPENDED);
  });

  it("pages through them, while newer ones come", async () => {
    await using all = await openReads(kind);
    const { opened, writes, reads } = all;
    opened.policies.set("conversation", { ...DEFAULT_POLICY, history: 100 });
    const made = [versionIn(await writes.save({ id, state: {} }))];
    for (let n = 0; n < 6; n++) made.unshift(versionIn(await writes.patch({ id, patch: {} })));
    const found: bigint[] = [];
    for (let pageToken = ""; ; ) {
      const page = await reads.listVersions({ id, pageSize: 3, pageToken });
      found.push(...page.versions.map(({ version }) => version));
      pageToken = page.nextPageToken;
      if (pageToken === "") break;
      await writes.patch({ id, patch: {} });
    }
    expect(found).toEqual(made);
  });

  it("tells what is not there, and which field is wrong", async () => {
    await using all = await openReads(kind);
    const { writes, reads } = all;
    expect(await reads.listVersions({ id })).toMatchObject({ presence: Presence.NEVER_EXISTED, versions: [] });
    await writes.save({ id, state: {} });
    await writes.delete({ id });
    expect(await reads.listVersions({ id })).toMatchObject({ presence: Presence.DELETED, versions: [] });
    const failure = await failureOf(reads.listVersions({ collection: "?", pageSize: -1, pageToken: "x" }));
    expect(failure.violations.map(({ field }) => field)).toEqual(["collection", "id", "page_size", "page_token"]);
  });
});

import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import type { ConversationKey } from "../../src/conversation/record/conversation.ts";
import { pruneChanges } from "../../src/conversation/watch/sql-prune.ts";
import { ConversationPresence as Presence } from "../../src/gen/holdfast/v1/conversation_pb.js";
import { writeToken } from "../../src/infra/token.ts";
import { append, done, expire, extend, KINDS, patch, remove, restore, save } from "./ledgers.ts";
import {
  openWatches,
  realMessage,
  structState,
  TestWatch,
  type WatchInstances,
  type WatchRequest,
} from "./watch-parts.ts";

describe.each(KINDS)("a watch over %s", (kind) => {
  let open: WatchInstances;
  let tests = 0;
  beforeAll(async () => {
    open = await openWatches(kind);
  });
  afterAll(() => open[Symbol.asyncDispose]());

  /** A conversation, in a collection, of this test alone. */
  function freshKey(id = "c1"): ConversationKey {
    return { collection: `test-${++tests}`, id };
  }

  async function watch(request: WatchRequest, instance = open.first): Promise<TestWatch> {
    const opened = new TestWatch(instance, request);
    onTestFinished(() => opened.end());
    await opened.next();
    return opened;
  }

  const live = (status = "", userId = "u1") => ({ state: structState(status, userId) });
  const saved = (key: ConversationKey, status = "", userId = "u1") =>
    done(open.first, save("", { key, ...live(status, userId) }));
  const forgetAll = () => pruneChanges(open.first.database, Number.MAX_SAFE_INTEGER, 1_000_000);

  it("tells of everything that is done to a conversation, in the order of its versions", async () => {
    const key = freshKey();
    open.policies.set(key.collection, { ttlMs: 1_000, sliding: true, history: 5, tombstoneMs: 1_000 });
    const watches = [await watch(key), await watch({ collection: key.collection }, open.second)].map((one) =>
      one.run(),
    );
    const created = await saved(key, "new");
    await done(open.second, patch("", { key, merge: () => structState("open") }));
    await done(open.first, append([realMessage("m1", "hi")], { key }));
    await done(open.second, extend({ key }));
    await done(open.first, restore(created.held.version, { key }));
    await done(open.second, remove({ key }));
    await done(open.second, save("", { key, ...live(), expectedVersion: 0 }));
    open.clock.move(1_001);
    await done(open.first, expire({ key }));
    for (const one of watches) {
      await one.has(7);
      expect(one.events[0]).toBe("opened");
      expect(one.kinds).toEqual(["CREATED", "UPDATED", "APPENDED", "RESTORED", "DELETED", "CREATED", "EXPIRED"]);
      const versions = one.changes.map(({ version }) => version);
      expect(versions).toEqual([...versions].sort());
      const before = one.changes.map(({ previousVersion }) => previousVersion);
      expect(before).toEqual([0n, ...versions.slice(0, 4), 0n, versions[5]]);
      expect(one.changes.map(({ summary }) => summary?.status)).toEqual(["new", "open", "open", "new", "new", "", ""]);
      expect(one.changes.every(({ summary, changeTime }) => summary?.id === key.id && changeTime)).toBe(true);
    }
  });

  it("says first how things stand, and tells of nothing that was before", async () => {
    const key = freshKey();
    const opened = (one: TestWatch) => one.replies[0]?.event.value;
    expect(opened(await watch(key))).toMatchObject({
      ...{ instanceId: "i-1", presence: Presence.NEVER_EXISTED, version: 0n },
    });
    const { held } = await saved(key);
    const one = await watch(key, open.second);
    expect(opened(one)).toMatchObject({ presence: Presence.LIVE, version: BigInt(held.version) });
    await done(open.second, remove({ key }));
    expect(opened(await watch(key))).toMatchObject({ presence: Presence.DELETED, version: 0n });
    await one.run().has(1);
    expect(one.kinds).toEqual(["DELETED"]);
  });

  it("tells who watches one conversation nothing of the others, nor of other collections", async () => {
    const key = freshKey();
    const other = { ...key, id: "other" };
    const [narrow, wide] = [(await watch(key)).run(), (await watch({ collection: key.collection })).run()];
    for (let round = 0; round < 3; round++) {
      await saved({ collection: `${key.collection}-2`, id: key.id });
      await saved(other);
      await saved(key);
    }
    await wide.has(6);
    expect(wide.changes.map(({ summary }) => summary?.id)).toEqual(["other", "c1", "other", "c1", "other", "c1"]);
    await narrow.has(3);
    expect(narrow.changes.every(({ summary }) => summary?.id === "c1")).toBe(true);
  });

  it("tells of a conversation that no longer matches the filter once, and again when it does", async () => {
    const key = freshKey();
    const filter = { statuses: ["open", ""], userId: "ada" };
    const one = (await watch({ collection: key.collection, filter, includeState: true })).run();
    const steps = ["closed", "open", "open", "closed", "closed", "", "open"];
    for (const status of steps) await saved(key, status, "ada");
    await saved(key, "open", "bob");
    await done(open.first, remove({ key }));
    await saved({ ...key, id: "ada-2" }, "open", "ada");
    await done(open.first, remove({ key: { ...key, id: "ada-2" } }));
    await one.has(8);
    expect(one.kinds).toEqual(["UPDATED", "UPDATED", "LEFT", "UPDATED", "UPDATED", "LEFT", "CREATED", "DELETED"]);
    for (const [at, change] of one.changes.entries()) {
      const last = one.changes[at - 1];
      const isAfterLeft = last === undefined || one.kinds[at - 1] === "LEFT";
      if (!isAfterLeft) expect(change.previousVersion).toBe(one.kinds[at] === "CREATED" ? 0n : last.version);
      const hasState = change.state !== undefined || change.stateSuperseded;
      expect(hasState).toBe(!["LEFT", "DELETED"].includes(one.kinds[at] ?? ""));
    }
  });

  it("tells that one has expired, though another was created before anybody removed it", async () => {
    const key = freshKey();
    open.policies.set(key.collection, { ttlMs: 1_000, sliding: true, history: 0, tombstoneMs: 1_000 });
    const one = (await watch({ ...key, filter: { statuses: ["open"] } })).run();
    await saved(key, "open");
    open.clock.move(1_001);
    await saved(key, "closed");
    await saved(key, "open");
    await one.has(3);
    expect(one.kinds).toEqual(["CREATED", "EXPIRED", "UPDATED"]);
  });

  it("sends the state with each change that is the newest or kept, and says so when it is superseded", async () => {
    const key = freshKey();
    const one = await watch({ ...key, includeState: true });
    const { token } = one;
    const bare = await watch(key);
    for (const status of ["a", "b"]) await saved(key, status);
    await done(open.first, append([realMessage("m", "x")], { key }));
    await one.run().has(3);
    expect(one.changes.map(({ state, stateSuperseded }) => [state?.status, stateSuperseded])).toEqual([
      [undefined, true],
      ["b", false],
      ["b", false],
    ]);
    await bare.run().has(3);
    expect(bare.changes.some(({ state, stateSuperseded }) => state !== undefined || stateSuperseded)).toBe(false);
    open.policies.set(key.collection, { ttlMs: 1_000, sliding: true, history: 5, tombstoneMs: 1_000 });
    for (const status of ["c", "d"]) await saved(key, status);
    const again = (await watch({ ...key, includeState: true, start: { case: "resumeToken", value: token } })).run();
    await again.has(5);
    expect(again.changes.slice(3).map(({ state }) => state?.status)).toEqual(["c", "d"]);
  });

  it("sends the messages that a change appended, the first of them where they are many", async () => {
    const key = freshKey();
    const one = (await watch({ ...key, includeMessages: true })).run();
    const few = ["m1", "m2"].map((id) => realMessage(id, `text of ${id}`));
    await done(open.first, save("", { key, ...live(), messages: few }));
    await saved(key);
    const large = Array.from({ length: 12 }, (_, at) => realMessage(`l${at}`, "x".repeat(200_000)));
    await done(open.first, append(large, { key }));
    const many = Array.from({ length: 1_001 }, (_, at) => realMessage(`n${at}`, ""));
    await done(open.first, append(many, { key }));
    const [created, updated, ...appended] = await one.has(4);
    expect(created?.messages.map(({ id, position, content, role }) => [id, position, content, role])).toEqual([
      ["m1", 1n, "text of m1", "user"],
      ["m2", 2n, "text of m2", "user"],
    ]);
    expect(updated?.messages).toEqual([]);
    expect(appended.map(({ messages }) => messages.length)).toEqual([10, 1_000]);
    expect(appended[1]?.messages.map(({ position }) => Number(position))).toEqual(
      many.slice(1).map((_, at) => at + 15),
    );
  });

  it("sends fewer messages when they and the state would be too much together", async () => {
    const key = freshKey();
    const one = (await watch({ ...key, includeMessages: true, includeState: true })).run();
    const state = structState("", "u1", { body: "x".repeat(3_500_000) });
    const messages = Array.from({ length: 10 }, (_, at) => realMessage(`l${at}`, "x".repeat(200_000)));
    await done(open.first, save("", { key, state, messages }));
    const [change] = await one.has(1);
    expect(change?.state?.body).toHaveLength(3_500_000);
    expect(change?.messages).toHaveLength(3);
  });

  it("goes on after a resume token, on another instance, whatever happened meanwhile", async () => {
    const key = freshKey();
    const first = (await watch({ collection: key.collection })).run();
    for (const id of ["a", "b"]) await saved({ ...key, id });
    await first.has(2);
    first.end();
    for (const id of ["c", "a"]) await saved({ ...key, id });
    for (const [at, { resumeToken }] of first.replies.entries()) {
      const start = { case: "resumeToken" as const, value: resumeToken };
      const again = (await watch({ collection: key.collection, start }, open.second)).run();
      await again.has(4 - at);
      expect(again.changes.map(({ summary }) => summary?.id)).toEqual(["a", "b", "c", "a"].slice(at));
      expect(again.events).not.toContain("compacted");
    }
  });

  it("begins after a version, or with the creation", async () => {
    const key = freshKey();
    const versions = [0];
    const keep = async (written: ReturnType<typeof saved>) => {
      versions.push((await written).held.version);
      open.clock.move(1);
    };
    for (const status of ["a", "b", "c"]) await keep(saved(key, status));
    await keep(done(open.first, remove({ key })));
    await saved({ ...key, id: "other" });
    const after = async (version: number) => {
      const start = { case: "afterVersion" as const, value: BigInt(version) };
      return (await watch({ ...key, start }, open.second)).run();
    };
    for (const [at, version] of versions.entries()) {
      // From the second version on, versions between two that were given out begin at the next as well.
      const watches = [await after(version), ...(at > 0 && at < 4 ? [await after(version + 500)] : [])];
      for (const one of watches) {
        await one.has(4 - at);
        expect(one.changes.map((change) => Number(change.version))).toEqual(versions.slice(at + 1));
        expect(one.events).not.toContain("compacted");
      }
    }
  });

  it("refuses a version that the conversation has not reached, whether it is there, deleted or forgotten", async () => {
    const key = freshKey();
    const after = (value: bigint) => watch({ ...key, start: { case: "afterVersion", value } });
    const refusesBeyond = async (version: number) => {
      for (const value of [BigInt(version) + 1n, 2n ** 64n - 1n]) {
        expect((await after(value)).ended).toMatchObject({
          ...{ kind: "precondition", reason: "VERSION_NOT_REACHED" },
          message: expect.stringContaining(`older than ${value}`),
          metadata: { field: "after_version", ...key, version: String(version) },
        });
      }
      expect((await after(BigInt(version))).ended).toBeUndefined();
    };
    const { held } = await saved(key);
    await refusesBeyond(held.version);
    await done(open.first, remove({ key }));
    const [tombstone] = await open.first.database.query<{ version: number }>(
      "SELECT version FROM conversation WHERE collection = $1",
      [key.collection],
    );
    await refusesBeyond(tombstone?.version ?? 0);
    await forgetAll();
    await refusesBeyond(tombstone?.version ?? 0);
  });

  it("refuses tokens of another database, and of changes that this one has lost", async () => {
    const key = freshKey();
    await saved(key);
    await using other = await openWatches(kind);
    for (let more = 0; more < 3; more++) await done(other.first, save("", { key, ...live() }));
    const request = { collection: key.collection };
    const { token: foreign } = await watch(request, other.first);
    const start = (value: string) => ({ ...request, start: { case: "resumeToken" as const, value } });
    expect((await watch(start(foreign))).ended).toMatchObject({
      ...{ kind: "invalid", violations: [{ field: "resume_token" }] },
      message: expect.stringContaining("another database"),
    });
    const { database } = other.first;
    await database.write("UPDATE conversation_head SET seq = seq - 1");
    expect((await watch(start(foreign), other.first)).ended).toMatchObject({
      ...{ kind: "invalid", violations: [{ field: "resume_token" }] },
      message: expect.stringContaining("has lost"),
    });
  });

  it("says when changes after the place, or the version, are no longer kept, and goes on with what comes", async () => {
    const key = freshKey();
    const other = { ...key, id: "other" };
    const before = await saved(key);
    const { token: tooOld } = await watch({ collection: key.collection });
    const second = await saved(key);
    await forgetAll();
    const { token: latest } = await watch({ collection: key.collection });
    const resumed = (value: string) => ({ collection: key.collection, start: { case: "resumeToken" as const, value } });
    const since = (version: number, id = key.id) => ({
      ...{ ...key, id, start: { case: "afterVersion" as const, value: BigInt(version) } },
    });
    const gaps = [
      await watch(resumed(tooOld)),
      await watch(since(0), open.second),
      await watch(since(before.held.version)),
      await watch(since(before.held.version, "other")),
    ];
    // Nobody has been told where to go on yet: who begins again with that token is told of the gap as well.
    for (const { token } of gaps.slice(1)) {
      const again = await watch({ ...key, start: { case: "resumeToken", value: token } });
      if (again.ended === undefined) await again.run().hasEvent("compacted");
    }
    const fine = [
      await watch(resumed(latest)),
      await watch(since(second.held.version)),
      await watch(since(0, "other")),
    ];
    for (const one of [...gaps, ...fine]) one.run();
    for (const [at, one] of gaps.entries()) {
      await one.hasEvent("compacted");
      expect(one.events).toEqual(["opened", "compacted"]);
      const value = one.replies[1]?.event.value;
      // Of the other one nothing has ever been heard.
      const reason = at === 3 ? "nothing is kept of such a conversation" : "resumed too late";
      expect(value).toMatchObject({ reason });
    }
    await saved(key);
    await saved(other);
    for (const [at, one] of [...gaps, ...fine].entries()) {
      await one.has(at === 0 || at === 4 ? 2 : 1);
      expect(one.kinds[0]).toBe(at === 3 || at === 6 ? "CREATED" : "UPDATED");
    }
    for (const one of fine) expect(one.events).not.toContain("compacted");
    await forgetAll();
    // Now only what is told after the gap is known to be a gap no more.
    const on = (await watch(resumed(gaps[0]?.token ?? ""))).run();
    await saved(key);
    await on.has(1);
    expect(on.events).toEqual(["opened", "change"]);
  });

  it("tells one change after another to a reader who is slow, until they are no longer kept", async () => {
    const key = freshKey();
    const small = open.instance(open.second.database, { window: { changes: 10, bytes: 1_000_000 } });
    const slow = await watch({ collection: key.collection }, small);
    for (let more = 0; more < 100; more++) await saved({ ...key, id: `c${more}` });
    while (slow.changes.length < 60) await slow.next();
    expect(slow.changes.map(({ summary }) => summary?.id)).toEqual(slow.changes.map((_, at) => `c${at}`));
    await forgetAll();
    while (!slow.events.includes("compacted")) await slow.next();
    expect(slow.replies.at(-1)?.event.value).toMatchObject({ reason: "reader too slow" });
    await saved(key);
    await slow.next();
    expect(slow.changes.at(-1)?.summary?.id).toBe(key.id);
  });

  it("finds by itself what nobody announced", async () => {
    const key = freshKey();
    const deaf = open.instance(open.second.database, { hears: false });
    const one = (await watch(key, deaf)).run();
    for (const count of [1, 2, 3]) {
      await saved(key);
      await one.has(count);
    }
    expect(one.kinds).toEqual(["CREATED", "UPDATED", "UPDATED"]);
  });

  it("tells in heartbeats how far it has come, though nothing concerned it", async () => {
    const key = freshKey();
    const request = { ...key, heartbeatInterval: { seconds: 1n } };
    const one = await watch(request);
    const { token } = one;
    one.run();
    await saved({ ...key, id: "other" });
    await one.hasEvent("heartbeat", 2);
    expect(one.token).not.toBe(token);
    await forgetAll();
    const again = (await watch({ ...request, start: { case: "resumeToken", value: one.token } })).run();
    await saved(key);
    await again.has(1);
    expect(again.events).toEqual(["opened", "change"]);
  });

  it("ends with the reason of the server", async () => {
    const one = (await watch(freshKey())).run();
    one.end();
    await expect(one.has(1)).rejects.toMatchObject({ kind: "unavailable", reason: "SERVER_DRAINING" });
  });

  it("refuses tokens that are of another watch, or changed, and names every field that is wrong", async () => {
    const key = freshKey();
    const { token } = await watch(key);
    const resumed = (value: string, request: WatchRequest) =>
      watch({ ...request, start: { case: "resumeToken", value } });
    const refused = { kind: "invalid", violations: [{ field: "resume_token" }] };
    const wrong = [
      ...[{ ...key, id: "other" }, { ...key, collection: "other" }, { collection: key.collection }].map((of) =>
        resumed(token, of),
      ),
      resumed(token, { ...key, filter: { userId: "ada" } }),
      ...["", "nonsense", token.slice(1), `${token}A`, writeToken("", [1, 1])].map((value) => resumed(value, key)),
    ];
    for (const one of await Promise.all(wrong)) expect(one.ended).toMatchObject(refused);
    expect((await resumed(token, { ...key, includeState: true, filter: {} })).ended).toBeUndefined();
    const all = await watch({
      ...{ collection: "a b", id: "x".repeat(513), heartbeatInterval: { nanos: 500_000_000 } },
      ...{ filter: { statuses: ["x".repeat(513), "\0"], userId: "\0" }, start: { case: "resumeToken", value: "-" } },
    });
    expect(all.ended).toMatchObject({
      violations: [
        ...[{ field: "collection" }, { field: "id" }, { field: "filter.statuses[0]" }, { field: "filter.statuses[1]" }],
        ...[{ field: "filter.user_id" }, { field: "heartbeat_interval" }, { field: "resume_token" }],
      ],
    });
    const more = await watch({
      ...{ heartbeatInterval: { seconds: 301n }, filter: { statuses: Array.from({ length: 101 }, String) } },
      start: { case: "afterVersion", value: 0n },
    });
    expect(more.ended).toMatchObject({
      violations: [{ field: "filter.statuses" }, { field: "heartbeat_interval" }, { field: "after_version" }],
    });
    open.policies.set("unknown", undefined);
    expect((await watch({ collection: "unknown" })).ended).toMatchObject({ reason: "COLLECTION_UNKNOWN" });
  });
});

import { describe, expect, it } from "vitest";
import { COPIES_GONE_MS } from "../../src/conversation/hot/copy-store.ts";
import { KIND } from "../../src/conversation/ledger/book.ts";
import type { Outlived } from "../../src/conversation/upkeep/remains.ts";
import type { SqlRow } from "../../src/infra/database.ts";
import { append, DAY_MS, DEFAULT_POLICY, done, KEY, KINDS, message, messagesOf, remove, save } from "./ledgers.ts";
import { counted, countOf, openUpkeep, type Upkeep } from "./upkeep-parts.ts";

const keyed = (id: string, collection = "conversation") => ({ key: { collection, id } });
const ids = (count: number) => Array.from({ length: count }, (_, at) => `c${String(at).padStart(4, "0")}`);

/** Saves them at the same time, each with a message. */
async function saveAll(one: Upkeep, names: readonly string[], collection?: string): Promise<void> {
  await Promise.all(names.map((id) => done(one, save("s", { ...keyed(id, collection), messages: [message("m")] }))));
}

async function breakExpiryOf({ database }: Upkeep, id: string): Promise<void> {
  const isIt = `NEW.id = '${id}' AND NEW.kind = ${KIND.expired}`;
  await database.write(
    database.kind === "sqlite"
      ? `CREATE TRIGGER broken BEFORE INSERT ON conversation_change WHEN ${isIt} BEGIN SELECT RAISE(ABORT, 'broken'); END`
      : `ALTER TABLE conversation_change ADD CONSTRAINT broken CHECK (NOT (${isIt.replaceAll("NEW.", "")}))`,
  );
}

describe.each(KINDS)("upkeep in %s", (kind) => {
  it("removes all that has expired with its messages and tells watchers, and leaves what has not", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    open.policies.set("history", { ...DEFAULT_POLICY, history: 3 });
    await saveAll(one, ids(250));
    await saveAll(one, ["h"], "history");
    await done(one, save("t", keyed("h", "history")));
    await done(
      one,
      save("s", { ...keyed("kept"), messages: [message("m")], expiry: { ttlMs: "never", sliding: false } }),
    );
    const before = one.commits();
    open.clock.move(DAY_MS + 1);
    await one.sweeper.sweep();

    expect(await countOf(one, `conversation_change WHERE kind = ${KIND.expired}`)).toBe(251);
    expect(one.commits() - before).toBe(3);
    expect(await countOf(one, "conversation WHERE presence = 2")).toBe(251);
    expect(await countOf(one, "conversation_state")).toBe(1);
    expect(await countOf(one, "conversation_version")).toBe(0);
    expect(await countOf(one, "conversation_message")).toBe(1);
    expect(await countOf(one, "conversation_garbage")).toBe(0);
    expect(await messagesOf(one, keyed("kept").key)).toEqual(["m"]);
    expect(one.swept).toEqual({ conversations: 251, tombstones: 0 });
    const { kept, real } = await counted(one);
    expect(kept).toEqual(real);
    expect(await countOf(one, "conversation_count WHERE conversations = 0")).toBe(0);
  });

  it("keeps tombstones for as long as the policy said, and those that Redis has not heard of for longer", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    open.policies.set("short", { ...DEFAULT_POLICY, tombstoneMs: 60_000 });
    await saveAll(one, ["a", "b", "c"], "short");
    await saveAll(one, ["d"]);
    for (const id of ["a", "b", "c"]) await done(one, remove(keyed(id, "short")));
    await done(one, remove(keyed("d")));
    await one.database.write("UPDATE conversation SET unhealed = 1 WHERE id = 'b'");
    const left = async () =>
      (await one.database.query<{ id: string }>("SELECT id FROM conversation ORDER BY id")).map(({ id }) => id);

    open.clock.move(59_999);
    await one.sweeper.sweep();
    expect(await left()).toEqual(["a", "b", "c", "d"]);
    open.clock.move(1);
    for await (const page of one.remains.outlived(open.clock.now() * 1000)) {
      expect(page.map(({ id }) => id)).toEqual(["a", "c"]);
    }
    await one.sweeper.sweep();
    expect(await left()).toEqual(["b", "d"]);
    const [held] = await one.database.query<Outlived & SqlRow>(
      "SELECT collection, id, stamp FROM conversation WHERE id = 'b'",
    );
    expect(await one.remains.removeTombstones(held === undefined ? [] : [held], open.clock.now() * 1000)).toBe(0);
    await one.database.write("UPDATE conversation SET unhealed = 0");
    await one.sweeper.sweep();
    expect(await left()).toEqual(["d"]);
    expect(one.swept).toEqual({ conversations: 0, tombstones: 3 });
    const { kept, real } = await counted(one);
    expect(kept).toEqual(real);
  });

  it("keeps tombstones that Redis never hears of only for as long as it could have copies from before", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    open.policies.set("short", { ...DEFAULT_POLICY, tombstoneMs: 60_000 });
    await saveAll(one, ["a"], "short");
    await done(one, remove(keyed("a", "short")));
    await one.database.write("UPDATE conversation SET unhealed = 1");
    open.clock.move(COPIES_GONE_MS - 1);
    await one.sweeper.sweep();
    expect(await countOf(one, "conversation")).toBe(1);
    open.clock.move(2);
    await one.sweeper.sweep();
    expect(await countOf(one, "conversation")).toBe(0);
    const { kept, real } = await counted(one);
    expect(kept).toEqual(real);
  });

  it("leaves a tombstone that was overwritten meanwhile", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    await saveAll(one, ["a"]);
    const { held } = await done(one, remove(keyed("a")));
    await done(one, save("again", { ...keyed("a"), expectedVersion: 0 }));
    expect(await one.remains.removeTombstones([held], open.clock.now() * 1000)).toBe(0);
    expect(await countOf(one, "conversation WHERE presence = 1")).toBe(1);
  });

  it("leaves what was begun anew or given another end after it was found to have expired", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    await saveAll(one, ["a", "b"]);
    open.clock.move(DAY_MS + 1);
    const named: string[] = [];
    const removed = await one.removal({
      ...{ includes: () => true, limit: 100, dryRun: false, removed: ({ id }) => named.push(id) },
      goOn: async () => {
        await done(one, save("anew", { ...keyed("a"), expectedVersion: 0 }));
        return true;
      },
    });
    expect(removed).toEqual({ conversations: 1, messages: 1, tombstones: 0, more: false });
    expect(named).toEqual(["b"]);
    expect(await countOf(one, "conversation WHERE id = 'a' AND presence = 1")).toBe(1);
  });

  it("removes the messages of what is gone in portions, and no others", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    await done(one, save("s"));
    for (let batch = 0; batch < 5; batch++) {
      await done(one, append(Array.from({ length: 500 }, (_, at) => message(`${batch}-${at}`))));
    }
    await done(one, remove());
    const again = await done(one, save("again", { expectedVersion: 0, messages: [message("m")] }));
    const lengths: number[] = [];
    const nowUs = open.clock.now() * 1000;
    while (await one.remains.removeMessages(nowUs)) lengths.push(await countOf(one, "conversation_message"));
    expect(lengths).toEqual([1501, 501, 1]);
    expect(await messagesOf(one)).toEqual(["m"]);
    expect(again.held.messageCount).toBe(1);
  });

  it("removes few at a time where they are large", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    const mib = Buffer.alloc(1024 * 1024, 7);
    const state = { userId: "u", status: "", complexityLevel: "", confidenceScore: undefined, bytes: mib };
    for (const id of ids(40)) await done(one, save("", { ...keyed(id), state }));
    await done(one, save("s"));
    await done(
      one,
      append(Array.from({ length: 150 }, (_, at) => ({ ...message(`m${at}`), body: mib.subarray(0, 262_144) }))),
    );
    open.clock.move(DAY_MS + 1);
    const before = one.commits();
    const portions: number[] = [];
    const goOn = async () => portions.push(await countOf(one, "conversation WHERE presence = 1")) > 0;
    await one.removal({ includes: () => true, limit: 1000, dryRun: false, goOn });
    // The last of them waits with the short one.
    expect(portions).toEqual([41, 25, 9]);
    expect(one.commits() - before).toBe(3);
    const left: number[] = [];
    const nowUs = open.clock.now() * 1000;
    while (await one.remains.removeMessages(nowUs)) left.push(await countOf(one, "conversation_message"));
    expect([...new Set(left)]).toEqual([150, 86, 22, 0]);
  });

  it("forgets few large answers at a time", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    for (const id of ids(40)) await done(one, save("s", { ...keyed(id), requestId: "r" }));
    await one.database.write("UPDATE conversation_request SET answer = $1", [Buffer.alloc(1024 * 1024)]);
    open.clock.move(600_000);
    const left: number[] = [];
    const nowUs = open.clock.now() * 1000;
    while (await one.remains.removeAnswers(nowUs)) left.push(await countOf(one, "conversation_request"));
    expect(left).toEqual([24, 8, 0]);
  });

  it("keeps messages that are not due, and those of a generation in use", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    const { held } = await done(one, save("s", { messages: [message("m")] }));
    const nowUs = open.clock.now() * 1000;
    const put = "INSERT INTO conversation_garbage (collection, id, generation, due_us) VALUES ($1, $2, $3, $4)";
    await one.database.write(put, [KEY.collection, KEY.id, held.generation, nowUs]);
    await one.database.write(put, ["conversation", "copied", 7, nowUs + 1]);
    await one.database.write(
      `INSERT INTO conversation_message
        (collection, id, generation, position, added, removed, message_id, role, content_hash, body)
        SELECT collection, 'copied', 7, position, added, removed, message_id, role, content_hash, body FROM conversation_message`,
    );
    while (await one.remains.removeMessages(nowUs));
    expect(await messagesOf(one)).toEqual(["m"]);
    expect(await countOf(one, "conversation_message WHERE id = 'copied'")).toBe(1);
    while (await one.remains.removeMessages(nowUs + 1));
    expect(await countOf(one, "conversation_message WHERE id = 'copied'")).toBe(0);
    expect(await countOf(one, "conversation_garbage")).toBe(0);
  });

  it("forgets what was answered when no retry gets the answer any more", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    await Promise.all(ids(1100).map((id) => done(one, save("s", { ...keyed(id), requestId: "r" }))));
    open.clock.move(599_999);
    await done(one, save("s", { ...keyed("late"), requestId: "r" }));
    await one.sweeper.sweep();
    expect(await countOf(one, "conversation_request")).toBe(1101);
    open.clock.move(1);
    await one.sweeper.sweep();
    expect(await countOf(one, "conversation_request")).toBe(1);
  });

  it("removes changes that are kept no longer, portion by portion", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    await one.sweeper.sweep();
    const untilUs = (open.clock.now() - 3_600_000) * 1000;
    expect(one.changesUntil).toEqual([untilUs, untilUs]);
  });

  it("goes on with the others when one cannot be removed", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    await saveAll(one, ids(150));
    open.clock.move(DAY_MS + 1);
    await breakExpiryOf(one, "c0007");
    await one.sweeper.sweep();
    expect(await countOf(one, "conversation WHERE presence = 2")).toBe(149);
    expect(await countOf(one, "conversation_garbage")).toBe(0);
  });

  it("removes what is left of a collection that is admitted no longer", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    await saveAll(one, ids(3), "dropped");
    open.policies.set("dropped", undefined);
    open.clock.move(DAY_MS + 1);
    await one.sweeper.sweep();
    expect(await countOf(one, "conversation WHERE presence = 2")).toBe(3);
  });

  it("stops at once when it is closed, and is as it was before the portion under way", async () => {
    await using open = await openUpkeep(kind);
    const [one] = open.instances;
    await saveAll(one, ids(300));
    open.clock.move(DAY_MS + 1);
    const sweeping = one.sweeper.sweep();
    await one.sweeper.close();
    await sweeping;
    const { kept, real } = await counted(one);
    expect(kept).toEqual(real);
    expect(await countOf(one, "conversation WHERE presence = 2")).toBeLessThan(300);
  });
});

it("does no harm when several instances do it at once", async () => {
  await using open = await openUpkeep("postgres", { count: 3 });
  const [one] = open.instances;
  open.policies.set("conversation", { ...DEFAULT_POLICY, tombstoneMs: 60_000 });
  await Promise.all(
    ids(400).map((id) =>
      done(one, save("s", { ...keyed(id), requestId: "r", messages: [message("a"), message("b"), message("c")] })),
    ),
  );
  open.clock.move(DAY_MS + 1);
  await Promise.all(open.instances.map(({ sweeper }) => sweeper.sweep()));
  await one.sweeper.sweep();
  expect(await countOf(one, `conversation_change WHERE kind = ${KIND.expired}`)).toBe(400);
  const sum = (name: "conversations" | "tombstones") =>
    open.instances.reduce((total, { swept }) => total + swept[name], 0);
  expect(sum("conversations")).toBe(400);
  for (const table of ["message", "state", "garbage", "request"]) {
    expect([table, await countOf(one, `conversation_${table}`)]).toEqual([table, 0]);
  }
  open.clock.move(60_000);
  await Promise.all(open.instances.map(({ sweeper }) => sweeper.sweep()));
  expect(sum("tombstones")).toBe(400);
  expect(await countOf(one, "conversation")).toBe(0);
  const { kept, real } = await counted(one);
  expect(kept).toEqual(real);
});

import { describe, expect, it } from "vitest";
import type { Order, OrderOf } from "../../src/conversation/change/order.ts";
import { MOST_MESSAGES } from "../../src/conversation/change/placed-messages.ts";
import { Failure } from "../../src/infra/failure.ts";
import {
  adds,
  append,
  DEFAULT_POLICY,
  done,
  expire,
  extend,
  KEY,
  KINDS,
  message,
  messagesOf,
  openLedgers,
  patch,
  remove,
  restore,
  save,
  state,
  stateOf,
} from "./ledgers.ts";

/** What an order is refused with. */
const reason = (expected: string) => expect.objectContaining({ reason: expected });
const failure = (write: Promise<unknown>) =>
  write.then(
    () => undefined,
    (error: unknown) => error,
  );

describe.each(KINDS)("orders to conversations, in %s", (kind) => {
  it("give larger versions across deletion, re-creation and expiry, even when the clock is set back", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    const versions: number[] = [];
    const next = async (order: Order) => versions.push((await done(one, order)).held.version);
    await next(save("a"));
    open.clock.move(-3_600_000);
    await next(patch("b"));
    await next(remove());
    await next(save("c", { expectedVersion: 0, expiry: { ttlMs: 1, sliding: false } }));
    await next(append([message("m1")]));
    open.clock.move(1);
    await next(expire());
    open.clock.move(-1000);
    await next(save("d", { expectedVersion: 0 }));
    expect(versions).toEqual([...versions].sort((a, b) => a - b));
    expect(new Set(versions).size).toBe(versions.length);
  });

  it("are done only on the version they expect, and told what is there instead", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    const absent = await one.ledger.carryOut(save("a", { expectedVersion: 5 }));
    expect(absent).toMatchObject({ kind: "conflict", conflict: { presence: "never", held: undefined } });
    const { held } = await done(one, save("a", { expectedVersion: 0 }));
    for (const expectedVersion of [0, held.version - 1, held.version + 1]) {
      const wishes = [save("z"), patch("z"), append([message("m")]), remove(), restore(held.version)];
      for (const wish of wishes) {
        const outcome = await one.ledger.carryOut({ ...wish, expectedVersion });
        expect(outcome).toMatchObject({
          kind: "conflict",
          conflict: { expectedVersion, presence: "live", held: { version: held.version }, state: Buffer.from("a") },
        });
      }
    }
    expect(await stateOf(one)).toBe("a");
    expect(await messagesOf(one)).toEqual([]);
    const changed = await done(one, patch("b", { expectedVersion: held.version }));
    await done(one, save("c", { expectedVersion: changed.held.version }));
    expect(await stateOf(one)).toBe("c");
  });

  it("do not bring back what was deleted while its tombstone is kept, unless they say that it must not exist", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    open.policies.set("conversation", { ...DEFAULT_POLICY, tombstoneMs: 1000 });
    await done(one, save("a"));
    await done(one, remove());
    const late = [save("b"), append([message("m")], { create: true })];
    for (const write of late) await expect(one.ledger.carryOut(write)).rejects.toEqual(reason("CONVERSATION_DELETED"));
    await expect(one.ledger.carryOut(patch("b"))).rejects.toMatchObject({ kind: "not_found" });
    expect(await one.ledger.carryOut(save("b", { expectedVersion: 7 }))).toMatchObject({
      conflict: { presence: "deleted" },
    });
    expect(await one.ledger.carryOut(remove())).toMatchObject({ kind: "absent", presence: "deleted" });
    expect((await done(one, save("c", { expectedVersion: 0 }))).created).toBe(true);
    await done(one, remove());
    open.clock.move(999);
    await expect(one.ledger.carryOut(save("d"))).rejects.toEqual(reason("CONVERSATION_DELETED"));
    open.clock.move(1);
    expect((await done(one, save("d"))).created).toBe(true);
  });

  it("take what expires for gone from exactly that moment on, removed or not", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    open.policies.set("conversation", { ttlMs: 1000, sliding: true, history: 0, tombstoneMs: 5000 });
    await done(one, save("a", { messages: [message("m1")] }));
    open.clock.move(999);
    await done(one, patch("b"));
    open.clock.move(1000);
    await expect(one.ledger.carryOut(patch("c"))).rejects.toEqual(reason("CONVERSATION_EXPIRED"));
    await expect(one.ledger.carryOut(append([message("m2")]))).rejects.toEqual(reason("CONVERSATION_EXPIRED"));
    expect(await one.ledger.carryOut(remove())).toMatchObject({ kind: "absent", presence: "expired" });
    expect(await one.ledger.carryOut(extend())).toMatchObject({ kind: "absent", presence: "expired" });
    expect(await one.ledger.carryOut(save("c", { expectedVersion: 9 }))).toMatchObject({
      conflict: { presence: "expired" },
    });
    // It begins anew, without the old messages, whose ids are free again.
    const anew = await done(one, append([message("m1", "something else")], { create: true }));
    expect(anew).toMatchObject({ created: true, appended: [{ position: 1, duplicate: false }] });
    expect(await stateOf(one)).toBe("");
    expect(await messagesOf(one)).toEqual(["m1"]);
  });

  it("put the end off only where it slides, and keep an expiry that was ordered", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    const now = () => open.clock.now() * 1000;
    open.policies.set("conversation", { ttlMs: 1000, sliding: false, history: 0, tombstoneMs: 1000 });
    const start = now();
    expect((await done(one, save("a"))).held.expiresUs).toBe(start + 1_000_000);
    open.clock.move(500);
    expect((await done(one, patch("b"))).held.expiresUs).toBe(start + 1_000_000);
    const sliding = { ttlMs: 2000, sliding: true };
    expect((await done(one, patch("c", { expiry: sliding }))).held.expiresUs).toBe(now() + 2_000_000);
    open.clock.move(500);
    expect((await done(one, append([message("m")]))).held.expiresUs).toBe(now() + 2_000_000);
    const never = { ttlMs: "never", sliding: undefined } as const;
    expect((await done(one, save("d", { expiry: never }))).held.expiresUs).toBe(undefined);
    open.clock.move(100_000_000);
    expect((await done(one, patch("e"))).held.expiresUs).toBe(undefined);
    expect((await done(one, extend())).held).toMatchObject({ expiresUs: now() + 1_000_000, ttlMs: 1000 });
  });

  it("extend a life without a new version, state, message or word to watchers", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    const { held } = await done(one, save("a", { messages: [message("m")] }));
    const { version, updatedUs, stateVersion, messageCount } = held;
    const commits = one.commits();
    open.clock.move(10);
    const extended = await done(one, extend({ expiry: { ttlMs: 5, sliding: false } }));
    expect(extended.held).toMatchObject({ version, updatedUs, stateVersion, messageCount, sliding: false });
    expect(extended.held.stamp).toBeGreaterThan(held.stamp);
    const changes = await one.database.query("SELECT seq FROM conversation_change");
    expect([changes.length, one.commits()]).toEqual([1, commits]);
    expect((await done(one, patch("b", { expectedVersion: version }))).held.expiresUs).toBe(
      open.clock.now() * 1000 + 5_000,
    );
  });

  it("append nothing, compare nothing and merge nothing when all messages are there already", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    const { held } = await done(one, save("a", { messages: [message("m1"), message("m2")] }));
    const again = await done(
      one,
      append([message("m2"), message("m1")], { expectedVersion: 1, merge: adds("!"), create: true }),
    );
    expect(again).toMatchObject({ changed: false, created: false, held: { version: held.version } });
    expect(again.appended.map(({ position }) => position)).toEqual([2, 1]);
    expect(await stateOf(one)).toBe("a");
    const mixed = await done(one, append([message("m2"), message("m3")], { merge: adds("!") }));
    expect(mixed.appended).toEqual([
      { id: "m2", position: 2, duplicate: true },
      { id: "m3", position: 3, duplicate: false },
    ]);
    expect(await stateOf(one)).toBe("a!");
    const reused = await failure(one.ledger.carryOut(append([message("m4"), message("m1", "other")])));
    expect(reused).toMatchObject({ reason: "MESSAGE_ID_REUSED", metadata: { message_id: "m1", position: "1" } });
    expect(await messagesOf(one)).toEqual(["m1", "m2", "m3"]);
  });

  it("see what others in the same commit did", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    const outcomes = await Promise.all([
      done(one, save("a", { messages: [message("m1")], requestId: "first" })),
      done(one, append([message("m1"), message("m2")])),
      done(one, patch("b")),
      failure(one.ledger.carryOut(append([message("m2", "other")]))),
      done(one, save("z", { requestId: "first" })),
      one.ledger.carryOut(save("z", { expectedVersion: 1 })),
      done(one, remove()),
      failure(one.ledger.carryOut(save("late"))),
      done(one, save("c", { expectedVersion: 0 })),
      done(one, append([message("m1", "of another life")])),
    ]);
    expect(outcomes.map((outcome) => (outcome instanceof Failure ? outcome.reason : outcome))).toMatchObject([
      { created: true },
      { appended: [{ duplicate: true }, { position: 2, duplicate: false }] },
      { held: { messageCount: 2 } },
      "MESSAGE_ID_REUSED",
      { created: true, held: { messageCount: 1 }, changed: false },
      { kind: "conflict", conflict: { state: Buffer.from("ab") } },
      { held: { presence: "deleted" } },
      "CONVERSATION_DELETED",
      { created: true },
      { appended: [{ position: 1, duplicate: false }] },
    ]);
    expect(one.commits()).toBe(1);
    expect(await stateOf(one)).toBe("c");
    expect(await messagesOf(one)).toEqual(["m1"]);
  });

  it("are answered again as the first time, for ten minutes, whatever came between", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    open.policies.set("conversation", { ...DEFAULT_POLICY, history: 2 });
    const base = await done(one, save("a", { messages: [message("m1")] }));
    const attempts = [
      patch("b", { requestId: "r1", answersState: true }),
      append([message("m2")], { requestId: "r2" }),
      restore(base.held.version, { requestId: "r3", answersState: true }),
      // All of them are there already; a restore may take them away before the retry.
      append([message("m1")], { requestId: "r4" }),
      save("c", { requestId: "r5", messages: [message("m3")] }),
    ];
    const first = [];
    for (const attempt of attempts) first.push(await done(one, attempt));
    await done(one, remove());
    open.clock.move(599_999);
    for (const [at, attempt] of attempts.entries()) {
      const { state: toldState, ...told } = await done(one, attempt);
      const { state: firstState, ...firstTold } = first[at] ?? { state: undefined };
      expect(told).toEqual({ ...firstTold, changed: false });
      expect(toldState).toEqual(attempt.answersState === true ? firstState : undefined);
    }
    // Of another conversation it is another attempt, even in the same commit and where the names put together are the same.
    const odd = { collection: "conversation", id: "c1#r" };
    const both = await Promise.all([
      done(one, save("x", { key: odd, requestId: "1" })),
      done(one, save("y", { key: { ...odd, id: "c1" }, requestId: "r#1", expectedVersion: 0 })),
    ]);
    expect(both.map(({ held }) => held.id)).toEqual(["c1#r", "c1"]);
    open.clock.move(1);
    await expect(one.ledger.carryOut(patch("b", { requestId: "r1" }))).resolves.toMatchObject({ changed: true });
  });

  it("keep as many versions as the policy says, and restore them with or without their messages", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    open.policies.set("conversation", { ...DEFAULT_POLICY, history: 3 });
    const first = await done(one, save("a", { messages: [message("m1")] }));
    const second = await done(one, append([message("m2")]));
    const third = await done(one, save("b", { messages: [message("m3")] }));
    await done(one, restore(first.held.version, { keepMessages: true }));
    expect([await stateOf(one), await messagesOf(one)]).toEqual(["a", ["m1", "m2", "m3"]]);
    await expect(one.ledger.carryOut(restore(first.held.version - 1))).rejects.toEqual(reason("VERSION_NOT_KEPT"));
    const taken = await done(one, restore(second.held.version));
    expect([await stateOf(one), await messagesOf(one)]).toEqual(["a", ["m1", "m2"]]);
    // The id is free again, and what comes back later does not collide with it.
    await done(one, append([message("m3", "another")]));
    await done(one, restore(third.held.version));
    expect([await stateOf(one), await messagesOf(one)]).toEqual(["b", ["m1", "m2", "m3"]]);
    await expect(one.ledger.carryOut(append([message("m3", "another")]))).rejects.toEqual(reason("MESSAGE_ID_REUSED"));
    await done(one, restore(taken.held.version));
    expect(await messagesOf(one)).toEqual(["m1", "m2"]);
    await expect(one.ledger.carryOut(restore(first.held.version))).rejects.toEqual(reason("VERSION_NOT_KEPT"));
  });

  it("refuse more messages than a conversation may have", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    await done(one, save("a"));
    await one.database.write("UPDATE conversation SET message_count = $1", [MOST_MESSAGES - 1]);
    const two = [message("m1"), message("m2")];
    await expect(one.ledger.carryOut(append(two))).rejects.toEqual(reason("TOO_MANY_MESSAGES"));
    expect((await done(one, append([message("m1")]))).held.messageCount).toBe(MOST_MESSAGES);
  });

  it("adopt messages only while nobody may be removing them", async () => {
    await using open = await openLedgers(kind);
    const [one] = open.instances;
    const adopt: OrderOf<"adopt"> = {
      ...{ kind: "adopt", key: KEY, requestId: "", generation: 5, messageCount: 1, origin: undefined },
      state: state("a"),
    };
    await expect(one.ledger.carryOut(adopt)).rejects.toEqual(reason("COPY_OUTLIVED"));
    const prepared = (dueUs: number) =>
      one.database.write(
        `INSERT INTO conversation_garbage (collection, id, generation, due_us) VALUES ($1, $2, 5, $3)
          ON CONFLICT (collection, id, generation) DO UPDATE SET due_us = excluded.due_us`,
        [KEY.collection, KEY.id, dueUs],
      );
    await prepared(open.clock.now() * 1000 + 1_000_000);
    await expect(one.ledger.carryOut(adopt)).rejects.toEqual(reason("COPY_OUTLIVED"));
    await prepared(open.clock.now() * 1000 + 600_000_000);
    expect((await done(one, adopt)).held.generation).toBe(5);
    expect(await one.database.query("SELECT * FROM conversation_garbage")).toEqual([]);
    await expect(one.ledger.carryOut(adopt)).rejects.toEqual(reason("CONVERSATION_EXISTS"));
  });
});

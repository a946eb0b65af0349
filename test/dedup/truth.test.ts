import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createSqlSweep } from "../../src/dedup/sql-sweep.ts";
import type { Truth } from "../../src/dedup/truth/truth.ts";
import { type MovedClock, movedClock } from "../support/moved-clock.ts";
import { SQL_KINDS } from "../support/test-database.ts";
import {
  claimOrder,
  completeOrder,
  idOf,
  type OpenTruths,
  openTruths,
  releaseOrder,
  resultOf,
  tokenOf,
} from "./truths.ts";

const id = idOf("invoice-17");

describe.each(SQL_KINDS)("claims in %s", (kind) => {
  let clock: MovedClock;
  let opened: OpenTruths;
  let truth: Truth;
  beforeEach(async () => {
    clock = movedClock();
    opened = await openTruths(kind, { clock });
    truth = opened.instances[0].truth;
  });
  afterEach(() => opened[Symbol.asyncDispose]());

  const textOf = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString();
  const countOf = async (table: string) => {
    const [row] = await opened.instances[0].database.query<{ count: number }>(`SELECT COUNT(*) AS count FROM ${table}`);
    return row?.count;
  };

  it("have one who is the first, others who are told to wait, and duplicates who are given the result", async () => {
    const first = await truth.claim(claimOrder(id, { owner: "one", leaseMs: 5_000 }));
    expect(first).toMatchObject({ kind: "first", again: false, claim: { attempt: 1, owner: "one" } });
    const second = await truth.claim(claimOrder(id, { owner: "two" }));
    expect(second).toMatchObject({ kind: "in_progress", claim: { owner: "one", leaseEndMs: clock.now() + 5_000 } });
    const token = first.kind === "first" ? first.claim.token : 0;
    clock.move(1_000);
    const done = await truth.complete(completeOrder(id, token, { result: resultOf("paid") }));
    expect(done).toMatchObject({ completed: true, claim: { expireMs: clock.now() + 86_400_000 } });
    const third = await truth.claim(claimOrder(id, { owner: "three" }));
    expect(third).toMatchObject({ kind: "duplicate", claim: { owner: "one", completeMs: clock.now(), attempt: 1 } });
    expect(third.kind === "duplicate" && textOf(third.value)).toBe("paid");
  });

  it("are taken over after the lease ended, and the late holder's Complete is refused", async () => {
    const late = await tokenOf(truth.claim(claimOrder(id, { leaseMs: 1_000 })));
    clock.move(1_000);
    const next = await truth.claim(claimOrder(id));
    expect(next).toMatchObject({ kind: "first", claim: { attempt: 2 } });
    const token = next.kind === "first" ? next.claim.token : 0;
    expect(token).toBeGreaterThan(late);
    const refused = await truth.complete(completeOrder(id, late, { result: resultOf("late") }));
    expect(refused).toMatchObject({ completed: false, current: { claim: { token, status: "in_progress" } } });
    await truth.complete(completeOrder(id, token, { result: resultOf("in time") }));
    const again = await truth.complete(completeOrder(id, late, { result: resultOf("late") }));
    expect(again.completed === false && textOf(again.current?.value)).toBe("in time");
  });

  it("can be completed after the lease ended while nobody took over, once: the first result stays", async () => {
    const token = await tokenOf(truth.claim(claimOrder(id, { leaseMs: 1_000 })));
    clock.move(2_000);
    expect(await truth.complete(completeOrder(id, token, { result: resultOf("a") }))).toMatchObject({
      completed: true,
    });
    const again = await truth.complete(completeOrder(id, token, { result: resultOf("b"), ttlMs: 1_000 }));
    expect(again).toMatchObject({ completed: true, again: true, claim: { expireMs: clock.now() + 86_400_000 } });
    expect(textOf((await truth.get(id))?.value)).toBe("a");
  });

  it("that are released go to the next at once, who knows that the work was begun before", async () => {
    const token = await tokenOf(truth.claim(claimOrder(id)));
    expect(await truth.release(releaseOrder(id, token + 1))).toBe(false);
    expect(await truth.release(releaseOrder(id, token))).toBe(true);
    expect(await truth.get(id)).toBeUndefined();
    expect(await truth.release(releaseOrder(id, token))).toBe(false);
    expect(await truth.complete(completeOrder(id, token))).toEqual({ completed: false, current: undefined });
    const next = await truth.claim(claimOrder(id));
    expect(next).toMatchObject({ kind: "first", claim: { attempt: 2 } });
    expect(next.kind === "first" && next.claim.token).toBeGreaterThan(token);
  });

  it("that are completed are released only when they are to be forgotten, and their results with them", async () => {
    const token = await tokenOf(truth.claim(claimOrder(id)));
    await truth.complete(completeOrder(id, token, { result: resultOf("done") }));
    expect(await truth.release(releaseOrder(id, token))).toBe(false);
    expect(await truth.release(releaseOrder(id, token, true))).toBe(true);
    expect(await countOf("dedup_result")).toBe(0);
    const next = await truth.claim(claimOrder(id));
    expect(next).toMatchObject({ kind: "first", claim: { attempt: 1 } });
    expect(next.kind === "first" && next.claim.token).toBeGreaterThan(token);
    expect(await truth.complete(completeOrder(id, token))).toMatchObject({ completed: false });
  });

  it("leave no result behind when they are completed and forgotten in one commit", async () => {
    const token = await tokenOf(truth.claim(claimOrder(id)));
    const both = [
      truth.complete(completeOrder(id, token, { result: resultOf("done") })),
      truth.release(releaseOrder(id, token, true)),
    ];
    expect(await Promise.all(both)).toMatchObject([{ completed: true }, true]);
    expect([await countOf("dedup_claim"), await countOf("dedup_result")]).toEqual([0, 0]);
  });

  it("are forgotten after their time, which counts from the completion, and no token comes again", async () => {
    const token = await tokenOf(truth.claim(claimOrder(id, { ttlMs: 10_000, leaseMs: 5_000 })));
    clock.move(9_000);
    await truth.complete(completeOrder(id, token, { result: resultOf("done") }));
    clock.move(9_999);
    expect(await truth.claim(claimOrder(id))).toMatchObject({ kind: "duplicate" });
    clock.move(1);
    expect(await truth.get(id)).toBeUndefined();
    const next = await truth.claim(claimOrder(id));
    expect(next).toMatchObject({ kind: "first", claim: { attempt: 1 } });
    expect(next.kind === "first" && next.claim.token).toBeGreaterThan(token);
    expect(await truth.complete(completeOrder(id, token))).toMatchObject({ completed: false });
    expect(await countOf("dedup_result")).toBe(0);
  });

  it("are remembered for the lease at least", async () => {
    await truth.claim(claimOrder(id, { ttlMs: 1_000, leaseMs: 60_000 }));
    clock.move(59_999);
    expect(await truth.claim(claimOrder(id))).toMatchObject({ kind: "in_progress" });
  });

  it("may be completed by the claim itself", async () => {
    const once = claimOrder(id, { atOnce: true, ttlMs: 1_000, request: { id: "r", meaning: "m" } });
    const token = await tokenOf(truth.claim(once));
    const retry = await truth.claim(once);
    expect(retry).toMatchObject({ kind: "first", again: true, claim: { token } });
    expect(await truth.claim(claimOrder(id))).toMatchObject({ kind: "duplicate", value: undefined });
    clock.move(1_000);
    expect(await truth.claim(claimOrder(id))).toMatchObject({ kind: "first" });
  });

  it("tell a retry that it is the first, until the work is completed or another has it", async () => {
    const request = { id: "attempt-1", meaning: "m" };
    const token = await tokenOf(truth.claim(claimOrder(id, { request, leaseMs: 1_000 })));
    clock.move(500);
    const retry = await truth.claim(claimOrder(id, { request, leaseMs: 1_000 }));
    expect(retry).toMatchObject({ kind: "first", again: true, claim: { token, leaseEndMs: clock.now() + 500 } });
    await expect(truth.claim(claimOrder(id, { request: { id: "attempt-1", meaning: "other" } }))).rejects.toMatchObject(
      {
        reason: "REQUEST_ID_REUSED",
      },
    );
    clock.move(500);
    expect(await truth.claim(claimOrder(id, { request }))).toMatchObject({ kind: "first", again: true });
    const next = await tokenOf(truth.claim(claimOrder(id)));
    expect(await truth.claim(claimOrder(id, { request }))).toMatchObject({ kind: "in_progress" });
    await truth.complete(completeOrder(id, next));
    expect(await truth.claim(claimOrder(id, { request }))).toMatchObject({ kind: "duplicate" });
  });

  it("have results of every size, empty ones too", async () => {
    const texts = ["", "x", "y".repeat(16 * 1024), "z".repeat(16 * 1024 + 1), "w".repeat(4 * 1024 * 1024)];
    for (const [at, text] of texts.entries()) {
      const one = idOf(`result-${at}`);
      const token = await tokenOf(truth.claim(claimOrder(one)));
      await truth.complete(completeOrder(one, token, { result: resultOf(text) }));
      const [claimed, got] = [await truth.claim(claimOrder(one)), await truth.get(one)];
      expect(claimed).toMatchObject({ kind: "duplicate", claim: { resultBytes: text.length } });
      for (const value of [claimed.kind === "duplicate" ? claimed.value : undefined, got?.value]) {
        expect(textOf(value)?.length).toBe(text.length);
      }
    }
  });

  it("of the same text, one a key and one a checksum, and in two namespaces, are four claims", async () => {
    const text = "00".repeat(16);
    const ids = ["default", "other"].flatMap((namespace) =>
      (["key", "checksum"] as const).map((form) => ({ namespace, kind: form, text })),
    );
    const claimed = await Promise.all(ids.map((one) => truth.claim(claimOrder(one))));
    expect(claimed.map(({ kind: outcome }) => outcome)).toEqual(Array(4).fill("first"));
    for (const one of ids) expect((await truth.get(one))?.claim.id).toEqual(one);
  });

  it("that are over are removed some at a time, with their results, and no others", async () => {
    const { database, clock: sqlClock } = opened.instances[0];
    for (let at = 0; at < 7; at++) {
      const one = idOf(`short-${at}`);
      const token = await tokenOf(truth.claim(claimOrder(one)));
      await truth.complete(completeOrder(one, token, { result: resultOf("r"), ttlMs: 1_000 }));
    }
    await truth.claim(claimOrder(id));
    const sweep = createSqlSweep(database, sqlClock);
    expect(await sweep(5)).toBe(0);
    clock.move(1_000);
    expect([await sweep(5), await sweep(5), await sweep(5)]).toEqual([5, 2, 0]);
    expect([await countOf("dedup_claim"), await countOf("dedup_result")]).toEqual([1, 0]);
  });

  it("of many ids at once have one first each, whoever else is in the same commit", async () => {
    const ids = Array.from({ length: 50 }, (_, at) => idOf(`many-${at}`));
    const claimed = await Promise.all([...ids, ...ids, ...ids].map((one) => truth.claim(claimOrder(one))));
    const firsts = claimed.filter((one) => one.kind === "first").map(({ claim }) => claim.id.text);
    expect(firsts.toSorted()).toEqual(ids.map(({ text }) => text).toSorted());
  });
});

describe("claims of several instances over one Postgres", () => {
  it("have exactly one first for each id and each takeover, with tokens that grow", async () => {
    const clock = movedClock();
    await using opened = await openTruths("postgres", { count: 3, clock });
    const ids = Array.from({ length: 5 }, (_, at) => idOf(`raced-${at}`));
    const tokens = new Map<string, number>();
    for (let round = 0; round < 5; round++) {
      const racers = ids.flatMap((one) => Array.from({ length: 30 }, (_, at) => ({ one, at })));
      const claimed = await Promise.all(
        racers.map(({ one, at }) => (opened.instances[at % 3] ?? opened.instances[0]).truth.claim(claimOrder(one))),
      );
      const firsts = claimed.flatMap((it) => (it.kind === "first" ? [it.claim] : []));
      expect(firsts.map(({ id: one }) => one.text).toSorted()).toEqual(ids.map(({ text }) => text));
      for (const { id: one, token, attempt } of firsts) {
        expect(attempt).toBe(round + 1);
        expect(token).toBeGreaterThan(tokens.get(one.text) ?? 0);
        tokens.set(one.text, token);
      }
      clock.move(60_000);
    }
  });
});

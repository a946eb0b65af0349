import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import { MOST_STREAK, YIELD_MS } from "../../src/lock/record/decide.ts";
import { until } from "../support/until.ts";
import { releaseOrder, takeOrder } from "./authorities.ts";
import { openLines, release, waitsFor } from "./line-parts.ts";

const soon = { intervalMs: 1 };

describe("a caller who does not wait for a lock", () => {
  it("has it when it is free, however long the answer takes", async () => {
    await using open = await openLines();
    const { join, gate, time } = open;
    gate.hold("take");
    const brief = join("nightly", { waitMs: 1 });
    await until(() => gate.held === 1, { what: "the answer", ...soon });
    time.pass(5);
    await nextTurn();
    expect(brief.ended()).toBeUndefined();
    gate.open();
    expect((await brief.grant()).token).toBeGreaterThan(0);
    expect((await join("weekly", { waitMs: 0 }).grant()).token).toBeGreaterThan(0);
  });

  it("is told who has the lock by the answer that is on its way", async () => {
    await using open = await openLines();
    const { join, gate } = open;
    gate.hold("take");
    const first = join("nightly");
    const others = [1, 2].map(() => join("nightly", { waitMs: 0 }));
    gate.open();
    const { token } = await first.grant();
    for (const { place } of others) {
      expect(await place.turn).toMatchObject({ kind: "held", holder: { grant: { token } } });
    }
    expect(gate.asked.length).toBe(1);
  });

  it("does not go before those who wait, nor ask for them", async () => {
    await using open = await openLines();
    const { join, gate } = open;
    const grant = await join("nightly").grant();
    const waiter = join("nightly");
    await waitsFor(waiter.place, grant);
    const before = gate.asked.length;
    const turn = await join("nightly", { waitMs: 0 }).place.turn;
    expect(turn).toMatchObject({ kind: "held", holder: { grant: { token: grant.token } } });
    expect(gate.asked.length).toBe(before);
    expect(waiter.place.position()).toBe(1);
  });

  it("is the next to be asked for when who was ahead hangs up", async () => {
    await using open = await openLines();
    const { join, gate } = open;
    gate.hold("take");
    const first = join("nightly");
    const second = join("nightly", { waitMs: 0 });
    await until(() => gate.held === 1, { what: "the answer", ...soon });
    first.hangUp();
    gate.open();
    expect((await second.grant()).token).toBeGreaterThan(0);
  });
});

describe("a caller who waits for a lock", () => {
  it("is told who has it when the wait is over, and is out of the line", async () => {
    await using open = await openLines();
    const { join, time, lines, authority } = open;
    const grant = await join("nightly", { ttlMs: 60_000 }).grant();
    const first = join("nightly", { waitMs: 1_000 });
    const second = join("nightly", { waitMs: 2_000 });
    await waitsFor(first.place, grant);
    time.pass(1_000);
    expect(await first.place.turn).toMatchObject({ kind: "held", holder: { grant: { token: grant.token } } });
    expect([second.place.position(), lines.waiters("nightly")]).toEqual([1, 1]);
    await release(authority, lines, grant);
    expect((await second.grant()).token).toBeGreaterThan(grant.token);
    expect([lines.waiting, time.pending]).toEqual([0, 0]);
  });

  it("has it as soon as the lease ahead ends, though nobody says so", async () => {
    await using open = await openLines();
    const { join, time, gate } = open;
    const grant = await join("nightly", { ttlMs: 2_000 }).grant();
    const waiter = join("nightly");
    await waitsFor(waiter.place, grant);
    const before = gate.asked.length;
    time.pass(1_999);
    await nextTurn();
    expect(gate.asked.length).toBe(before);
    time.pass(2);
    expect((await waiter.grant()).token).toBeGreaterThan(grant.token);
  });

  it("asks again after a while, in case it was not told that the lock is free", async () => {
    await using open = await openLines();
    const { join, time, authority } = open;
    const grant = await join("nightly", { ttlMs: 86_400_000 }).grant();
    const waiter = join("nightly");
    await waitsFor(waiter.place, grant);
    await authority.release(releaseOrder(grant));
    time.pass(5_000);
    expect((await waiter.grant()).token).toBeGreaterThan(grant.token);
  });

  it("asks again when the lock was freed while the answer was on its way", async () => {
    await using open = await openLines();
    const { join, gate, lines, authority } = open;
    const grant = await join("nightly").grant();
    gate.hold("take");
    const waiter = join("nightly");
    await until(() => gate.held === 1, { what: "the answer", ...soon });
    await release(authority, lines, grant);
    gate.open();
    expect((await waiter.grant()).token).toBeGreaterThan(grant.token);
  });

  it("leaves a free lock to another instance when its own had its share, and then takes it", async () => {
    await using open = await openLines();
    const { join, time, lines, authority, gate } = open;
    for (let round = 1; round < MOST_STREAK; round++) await release(authority, lines, await join("nightly").grant());
    const grant = await join("nightly").grant();
    await authority.take(takeOrder("nightly", { instanceId: "two", waits: true }));
    const waiter = join("nightly");
    await waitsFor(waiter.place, grant);
    const before = gate.asked.length;
    await release(authority, lines, grant);
    await until(() => gate.asked.length > before && waiter.place.holder() === undefined, { what: "a yield", ...soon });
    expect(waiter.ended()).toBeUndefined();
    time.pass(YIELD_MS);
    expect((await waiter.grant()).token).toBeGreaterThan(grant.token);
  });

  it("is refused when too many wait already, until one of them goes", async () => {
    await using open = await openLines({ mostWaiting: 3 });
    const { join } = open;
    const grant = await join("nightly").grant();
    const [first, ...others] = [join("nightly"), join("nightly"), join("weekly")];
    await others[1]?.grant();
    const third = join("nightly");
    expect(() => join("monthly")).toThrow(expect.objectContaining({ kind: "too_large", reason: "LOCK_QUEUE_FULL" }));
    first?.hangUp();
    await expect(first?.place.turn).rejects.toThrow("hung up");
    expect((await join("monthly").grant()).token).toBeGreaterThan(0);
    await release(open.authority, open.lines, grant);
    await release(open.authority, open.lines, (await others[0]?.grant()) ?? grant);
    expect((await third.grant()).token).toBeGreaterThan(grant.token);
  });

  it("is sent away when the instance ends, and so is whoever comes then", async () => {
    await using open = await openLines();
    const { join, lines, gate, authority } = open;
    const grant = await join("nightly").grant();
    const waiter = join("nightly");
    await waitsFor(waiter.place, grant);
    gate.hold("take");
    const served = join("weekly");
    await until(() => gate.held === 1, { what: "the answer", ...soon });
    const over = new UnavailableError("DRAINING", "the server ends");
    lines.close(over);
    await expect(waiter.place.turn).rejects.toBe(over);
    await expect(served.place.turn).rejects.toBe(over);
    expect(() => join("nightly")).toThrow(over);
    gate.open();
    await until(async () => (await authority.look("weekly")).lease === undefined, { what: "the giving back", ...soon });
    expect(lines.waiting).toBe(0);
  });
});

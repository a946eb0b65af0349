import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { UnavailableError } from "../../src/infra/failure.ts";
import { LockAuthorityUnavailableError } from "../../src/lock/failures.ts";
import { until } from "../support/until.ts";
import { named } from "./authorities.ts";
import { openLines, release, waitsFor } from "./line-parts.ts";

const soon = { intervalMs: 1 };

describe("a caller of a lock who hangs up", () => {
  it("gives the grant back that was on its way, before the next one asks", async () => {
    await using open = await openLines();
    const { gate, join, authority } = open;
    gate.hold("take");
    const first = join("nightly", { owner: "first" });
    const second = join("nightly", { owner: "second" });
    await until(() => gate.held === 1, { what: "the answer", ...soon });
    first.hangUp();
    await expect(first.place.turn).rejects.toThrow("hung up");
    gate.open();
    gate.hold("release");
    await until(() => gate.held === 1, { what: "the giving back", ...soon });
    await nextTurn();
    expect(gate.asked).toEqual(["take first", "release nightly"]);
    gate.open();
    const grant = await second.grant();
    expect(gate.asked).toEqual(["take first", "release nightly", "take second"]);
    expect((await authority.look("nightly")).lease?.grant.token).toBe(grant.token);
  });

  it("leaves nothing behind when nobody else waits", async () => {
    await using open = await openLines();
    const { gate, join, authority, lines, time } = open;
    gate.hold("take");
    const only = join("nightly", { request: named("r1") });
    await until(() => gate.held === 1, { what: "the answer", ...soon });
    only.hangUp();
    expect(lines.waiters("nightly")).toBe(0);
    // Somebody comes while the line of before is still busy with what is to be given back.
    gate.hold("release");
    const next = join("nightly", { request: named("r1") });
    gate.open();
    expect((await next.grant()).token).toBeGreaterThan(0);
    expect((await authority.look("nightly")).lastToken).toBe((await next.grant()).token);
    expect([lines.waiting, lines.waiters("nightly"), time.pending]).toEqual([0, 0, 0]);
  });

  it("has its attempt undone, so that a retry tries anew", async () => {
    await using open = await openLines();
    const { gate, join } = open;
    gate.hold("take");
    const first = join("nightly", { request: named("r1") });
    await until(() => gate.held === 1, { what: "the answer", ...soon });
    first.hangUp();
    gate.open();
    await until(() => gate.asked.length === 2, { what: "the giving back", ...soon });
    expect((await join("nightly", { request: named("r1") }).grant()).token).toBeGreaterThan(0);
  });

  it("takes nothing away from a first attempt that it was a retry of", async () => {
    await using open = await openLines();
    const { gate, join, authority } = open;
    const grant = await join("nightly", { request: named("r1") }).grant();
    gate.hold("take");
    const retry = join("nightly", { request: named("r1") });
    await until(() => gate.held === 1, { what: "the answer", ...soon });
    retry.hangUp();
    gate.open();
    await until(() => open.lines.waiters("nightly") === 0, { what: "the end of the line", ...soon });
    expect((await authority.look("nightly")).lease?.grant.token).toBe(grant.token);
    expect(gate.asked.filter((asked) => asked.startsWith("release"))).toEqual([]);
  });

  it("leaves a lock that cannot be given back to its lease", async () => {
    await using open = await openLines();
    const { gate, join, time } = open;
    gate.hold("take");
    const first = join("nightly", { ttlMs: 3_000 });
    const second = join("nightly");
    await until(() => gate.held === 1, { what: "the answer", ...soon });
    first.hangUp();
    gate.fail(new Error("the release is lost"), "release");
    gate.open();
    await until(() => second.place.holder() !== undefined, { what: "the next answer", ...soon });
    expect(second.ended()).toBeUndefined();
    time.pass(3_001);
    expect((await second.grant()).token).toBeGreaterThan(0);
  });
});

describe("a process that was paused while a lock was on its way", () => {
  it("does not take a lease as its own that may be over, and asks again", async () => {
    await using open = await openLines();
    const { gate, join, clock, authority } = open;
    gate.hold("take");
    const waiter = join("nightly", { ttlMs: 1_000 });
    await until(() => gate.held === 1, { what: "the answer", ...soon });
    clock.move(990);
    gate.open();
    const grant = await waiter.grant();
    expect(gate.asked.length).toBe(3);
    expect((await authority.look("nightly")).lease?.grant).toMatchObject({
      token: grant.token,
      acquireMs: clock.now(),
    });
  });

  it("is told that its attempt is over when that was a retry", async () => {
    await using open = await openLines();
    const { gate, join, clock } = open;
    await join("nightly", { ttlMs: 1_000, request: named("r1") }).grant();
    gate.hold("take");
    const retry = join("nightly", { ttlMs: 1_000, request: named("r1") });
    await until(() => gate.held === 1, { what: "the answer", ...soon });
    clock.move(1_001);
    gate.open();
    await expect(retry.place.turn).rejects.toMatchObject({ reason: "LOCK_ATTEMPT_OVER" });
  });
});

describe("a retry of what has the lock", () => {
  it("does not wait behind those who wait for that", async () => {
    await using open = await openLines();
    const { join } = open;
    const grant = await join("nightly", { request: named("r1") }).grant();
    const others = [1, 2, 3].map(() => join("nightly"));
    for (const { place } of others) await waitsFor(place, grant);
    expect((await join("nightly", { request: named("r1") }).grant()).token).toBe(grant.token);
    expect((await join("nightly", { request: named("r1"), waitMs: 0 }).grant()).token).toBe(grant.token);
    expect(others.map(({ place }) => place.position())).toEqual([1, 2, 3]);
  });

  it("does not wait either when it came before anybody knew who has it", async () => {
    await using open = await openLines();
    const { join, gate, lines } = open;
    const grant = await join("nightly", { request: named("r1") }).grant();
    gate.hold("take");
    const other = join("nightly");
    const retry = join("nightly", { request: named("r1") });
    const impatient = join("nightly", { request: named("r1"), waitMs: 0 });
    gate.open();
    expect((await retry.grant()).token).toBe(grant.token);
    expect((await impatient.grant()).token).toBe(grant.token);
    expect(lines.waiters("nightly")).toBe(1);
    other.hangUp();
  });

  it("is refused by itself when it is no retry", async () => {
    await using open = await openLines();
    const { join } = open;
    const grant = await join("nightly", { request: named("r1") }).grant();
    const other = join("nightly");
    await waitsFor(other.place, grant);
    await expect(join("nightly", { request: named("r1", "other") }).place.turn).rejects.toMatchObject({
      reason: "REQUEST_ID_REUSED",
    });
    expect(other.ended()).toBeUndefined();
    await release(open.authority, open.lines, grant);
    expect((await other.grant()).token).toBeGreaterThan(grant.token);
  });
});

describe("an authority that is away", () => {
  const away = new LockAuthorityUnavailableError("a test says so");

  it("is told to all who wait for a lock, however many, and to nobody after", async () => {
    await using open = await openLines();
    const { join, gate, lines, time } = open;
    const grant = await join("nightly").grant();
    const all = Array.from({ length: 900 }, () => join("nightly"));
    const elsewhere = join("weekly");
    await elsewhere.grant();
    for (const { place } of all.slice(0, 1)) await waitsFor(place, grant);
    gate.fail(away);
    lines.ring("nightly");
    const ended = await Promise.allSettled(all.map(({ place }) => place.turn));
    expect(ended.every((one) => one.status === "rejected" && one.reason instanceof UnavailableError)).toBe(true);
    expect([lines.waiting, time.pending]).toEqual([0, 0]);
    // One of them asked; the others need not.
    expect(gate.asked.length).toBe(4);
    gate.fail(undefined);
    await release(open.authority, lines, grant);
    expect((await join("nightly").grant()).token).toBeGreaterThan(grant.token);
  });

  it("is no reason to call a lock held for those who do not wait", async () => {
    await using open = await openLines();
    const { join, gate } = open;
    gate.fail(away);
    const [first, second] = [join("nightly", { waitMs: 0 }), join("nightly", { waitMs: 0 })];
    await expect(first.place.turn).rejects.toBe(away);
    await expect(second.place.turn).rejects.toBe(away);
  });
});

import { expect, it } from "vitest";
import { named, releaseOrder, renewOrder, takeOrder } from "../authorities.ts";
import { type AuthorityFactory, granted, isOver, leaseOf, SHORT_MS, two } from "./parts.ts";

export function retries(open: AuthorityFactory): void {
  it("gives a retry the grant of its first attempt, on any instance, while the lease lasts", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const order = takeOrder("nightly", { request: named("r1") });
    const first = leaseOf(await one.take(order));
    for (const authority of [one, other]) {
      const again = leaseOf(await authority.take(order));
      expect(again.grant).toMatchObject({ token: first.grant.token, owner: first.grant.owner, renewals: 0 });
      expect(again.grant.streamId).not.toBe(first.grant.streamId);
    }
    await one.renew(renewOrder(first.grant));
    expect(leaseOf(await other.take(order)).grant).toMatchObject({ token: first.grant.token, renewals: 1 });
    expect(await other.take(takeOrder("nightly", { request: named("r2") }))).toMatchObject({ kind: "held" });
  });

  it("refuses a retry whose grant is over, whoever holds the lock then", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    for (const end of ["released", "forced", "expired"] as const) {
      const order = takeOrder(end, { request: named("r1"), ttlMs: end === "expired" ? SHORT_MS : 30_000 });
      const { grant } = leaseOf(await one.take(order));
      if (end === "expired") await isOver(one, end);
      else await one.release(releaseOrder(grant, { end }));
      await expect(other.take(order)).rejects.toMatchObject({ kind: "conflict", reason: "LOCK_ATTEMPT_OVER" });
      const next = await granted(other, end);
      await expect(one.take(order)).rejects.toMatchObject({ reason: "LOCK_ATTEMPT_OVER" });
      await one.release(releaseOrder(next.grant));
      await expect(one.take(order)).rejects.toMatchObject({ reason: "LOCK_ATTEMPT_OVER" });
    }
  });

  it("tries anew for a retry whose first attempt took nothing", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const holder = await granted(one, "nightly");
    const order = takeOrder("nightly", { request: named("r1") });
    expect((await one.take(order)).kind).toBe("held");
    await one.release(releaseOrder(holder.grant));
    expect(leaseOf(await other.take(order)).grant.token).toBeGreaterThan(holder.grant.token);
  });

  it("tries anew for a retry whose grant was given back before its caller had it", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const order = takeOrder("nightly", { request: named("r1") });
    const { grant } = leaseOf(await one.take(order));
    expect((await one.release(releaseOrder(grant, { undo: true, streamId: "" }))).released).toBe(true);
    expect(leaseOf(await other.take(order)).grant.token).toBeGreaterThan(grant.token);
  });

  it("gives nothing back for a first attempt once a retry was given its grant", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const order = takeOrder("nightly", { request: named("r1") });
    const { grant } = leaseOf(await one.take(order));
    const retried = leaseOf(await other.take(order));
    expect((await one.release(releaseOrder(grant, { undo: true, streamId: "" }))).released).toBe(false);
    expect(leaseOf(await one.take(order)).grant.token).toBe(grant.token);
    expect((await other.release(releaseOrder(retried.grant))).released).toBe(true);
  });

  it("leaves a grant with the stream that went on with it when its attempt is retried", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const order = takeOrder("nightly", { request: named("r1") });
    const { grant } = leaseOf(await one.take(order));
    await one.renew(renewOrder(grant, { heir: { streamId: "s1", instanceId: "one" } }));
    expect(leaseOf(await other.take(order)).grant).toMatchObject({ token: grant.token, streamId: "s1" });
    expect((await one.renew(renewOrder(grant, { streamId: "s1" }))).kind).toBe("renewed");
  });

  it("refuses a request id that named another request of the same lock, and no other", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const { grant } = await granted(one, "nightly", { request: named("r1", "one") });
    const reused = { kind: "precondition", reason: "REQUEST_ID_REUSED" };
    const order = takeOrder("nightly", { request: named("r1", "two") });
    await expect(other.take(order)).rejects.toMatchObject(reused);
    await one.release(releaseOrder(grant));
    await expect(other.take(order)).rejects.toMatchObject(reused);
    expect((await granted(other, "weekly", { request: named("r1", "two") })).grant.token).toBeGreaterThan(0);
  });

  it("remembers what was found under a request's id, and returns what was kept first", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    expect(await one.remember("nightly", named("f1", "ForceRelease"), "first")).toBe("first");
    expect(await other.remember("nightly", named("f1", "ForceRelease"), "second")).toBe("first");
    expect(await other.remember("weekly", named("f1", "ForceRelease"), "")).toBe("");
    expect(await one.remember("weekly", named("f1", "ForceRelease"), "late")).toBe("");
    const reused = { reason: "REQUEST_ID_REUSED" };
    await expect(one.remember("nightly", named("f1", "other"), "x")).rejects.toMatchObject(reused);
    await expect(one.take(takeOrder("nightly", { request: named("f1") }))).rejects.toMatchObject(reused);
    await granted(one, "nightly", { request: named("t1") });
    await expect(other.remember("nightly", named("t1", "ForceRelease"), "x")).rejects.toMatchObject(reused);
  });
}

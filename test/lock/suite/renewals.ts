import { expect, it } from "vitest";
import { until } from "../../support/until.ts";
import { releaseOrder, renewOrder } from "../authorities.ts";
import { type AuthorityFactory, granted, isOver, SHORT_MS, two } from "./parts.ts";

export function renewals(open: AuthorityFactory): void {
  it("makes a lease longer and never shorter", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const { grant } = await granted(one, "nightly", { ttlMs: 20_000 });
    const longer = await other.renew(renewOrder(grant, { ttlMs: 60_000 }));
    expect(longer).toMatchObject({
      kind: "renewed",
      lease: { grant: { token: grant.token, renewals: 1, ttlMs: 20_000 } },
    });
    expect(longer.kind === "renewed" && longer.lease.remainingMs).toBeGreaterThan(20_000);
    const shorter = await one.renew(renewOrder(grant, { ttlMs: 100 }));
    expect(shorter.kind === "renewed" && shorter.lease.remainingMs).toBeGreaterThan(20_000);
    const same = await one.renew(renewOrder(grant));
    expect(same.kind === "renewed" && same.lease.grant).toMatchObject({ renewals: 3, ttlMs: 20_000 });
    expect((await other.look("nightly")).lease?.remainingMs).toBeGreaterThan(20_000);
  });

  it("renews by what the lock was taken with, unless told otherwise", async () => {
    await using opened = await open();
    const [one] = two(opened);
    const { grant } = await granted(one, "nightly", { ttlMs: 40_000 });
    await until(async () => ((await one.look("nightly")).lease?.remainingMs ?? 0) < 39_990, { what: "some time" });
    const renewed = await one.renew(renewOrder(grant));
    expect(renewed.kind === "renewed" && renewed.lease.grant.expireMs).toBeGreaterThan(grant.expireMs);
  });

  it("does not renew a lease that ran out, though nobody took the lock since", async () => {
    await using opened = await open();
    const [one] = two(opened);
    const { grant } = await granted(one, "nightly", { ttlMs: SHORT_MS });
    await isOver(one, "nightly");
    expect(await one.renew(renewOrder(grant, { ttlMs: 1_000 }))).toEqual({
      kind: "over",
      cause: "expired",
      holder: undefined,
    });
    expect((await one.look("nightly")).lease).toBeUndefined();
  });

  it("says why a lease that is to be renewed is over, and who has the lock now", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    for (const end of ["released", "forced"] as const) {
      const { grant } = await granted(one, end);
      await one.release(releaseOrder(grant, { end }));
      expect(await other.renew(renewOrder(grant))).toEqual({ kind: "over", cause: end, holder: undefined });
      const next = await granted(one, end);
      const after = await other.renew(renewOrder(grant));
      expect(after).toMatchObject({ kind: "over", holder: { grant: { token: next.grant.token } } });
    }
    const never = await one.renew(renewOrder({ name: "never", token: 7 }));
    expect(never).toEqual({ kind: "over", cause: "expired", holder: undefined });
  });

  it("renews for the stream that keeps a grant, and for calls, and no longer for a stream whose heir goes on", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const { grant } = await granted(one, "nightly", { streamId: "s1", instanceId: "one" });
    expect((await one.renew(renewOrder(grant, { streamId: "s1" }))).kind).toBe("renewed");
    const heir = { streamId: "s2", instanceId: "two" };
    const inherited = await other.renew(renewOrder(grant, { heir }));
    expect(inherited).toMatchObject({ kind: "renewed", lease: { grant: { ...heir, token: grant.token } } });
    expect(await one.renew(renewOrder(grant, { streamId: "s1" }))).toMatchObject({ kind: "over", cause: "taken_over" });
    expect((await other.renew(renewOrder(grant, { streamId: "s2" }))).kind).toBe("renewed");
    expect((await one.renew(renewOrder(grant))).kind).toBe("renewed");
    expect(await one.release(releaseOrder(grant, { streamId: "s1" }))).toMatchObject({ released: false });
    expect((await one.look("nightly")).lease?.grant).toMatchObject(heir);
    expect((await other.release(releaseOrder(grant, { streamId: "s2" }))).released).toBe(true);
  });
}

import { expect, it } from "vitest";
import { until } from "../../support/until.ts";
import { releaseOrder, takeOrder } from "../authorities.ts";
import { type AuthorityFactory, granted, isOver, SHORT_MS, two } from "./parts.ts";

export function releases(open: AuthorityFactory): void {
  it("ends a lease once, and tells how its holder had it", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const { grant } = await granted(one, "nightly");
    expect(await other.release(releaseOrder(grant))).toMatchObject({ released: true, lease: { grant: { ...grant } } });
    expect(await one.release(releaseOrder(grant))).toEqual({ released: false, lease: undefined });
    expect(await one.look("nightly")).toEqual({ lease: undefined, lastToken: grant.token });
  });

  it("need not tell whose the lock was when nobody asks, unless a stream kept it", async () => {
    await using opened = await open();
    const [one] = two(opened);
    const { grant } = await granted(one, "nightly");
    const brief = await one.release(releaseOrder(grant, { brief: true }));
    expect(brief.released).toBe(true);
    expect(brief.unkept ?? brief.lease?.grant.streamId === "").toBe(true);
    const kept = await granted(one, "nightly", { streamId: "stream" });
    const told = await one.release(releaseOrder(kept.grant, { brief: true }));
    expect(told).toMatchObject({ released: true, lease: { grant: { streamId: "stream" } } });
    expect(told.unkept).toBeUndefined();
    expect(await one.release(releaseOrder(kept.grant, { brief: true }))).toEqual({ released: false, lease: undefined });
  });

  it("never touches the lock of a later holder", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const { grant } = await granted(one, "nightly", { ttlMs: SHORT_MS });
    await isOver(one, "nightly");
    expect(await one.release(releaseOrder(grant))).toEqual({ released: false, lease: undefined });
    const next = await granted(other, "nightly");
    for (const end of ["released", "forced"] as const) {
      const late = await one.release(releaseOrder(grant, { end }));
      expect(late).toMatchObject({ released: false, lease: { grant: { token: next.grant.token } } });
    }
    expect((await one.look("nightly")).lease?.grant.token).toBe(next.grant.token);
    expect(await one.release(releaseOrder({ name: "never", token: 1 }))).toEqual({ released: false, lease: undefined });
  });

  it("announces a free lock when somebody waits for it, and only then", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const announced = () => opened.instances.flatMap((instance) => instance.announced);
    const alone = await granted(one, "alone");
    await other.take(takeOrder("alone", { instanceId: "two", waits: false }));
    await one.release(releaseOrder(alone.grant));
    const wanted = await granted(one, "wanted");
    await other.take(takeOrder("wanted", { instanceId: "two", waits: true }));
    expect(announced()).toEqual([]);
    await one.release(releaseOrder(wanted.grant));
    await until(() => announced().length > 0, { what: "the announcement" });
    expect(announced()).toEqual(["wanted"]);
    // Who waited may have given up: the lock's next holder says so again all the same.
    const again = await granted(one, "wanted");
    await one.release(releaseOrder(again.grant));
    await until(() => announced().length > 1, { what: "the second announcement" });
    expect(announced()).toEqual(["wanted", "wanted"]);
  });
}

import { expect, it } from "vitest";
import { MOST_STREAK } from "../../../src/lock/record/decide.ts";
import { until } from "../../support/until.ts";
import { releaseOrder, takeOrder } from "../authorities.ts";
import { type AuthorityFactory, granted, leaseOf, two } from "./parts.ts";

export function turns(open: AuthorityFactory): void {
  it("lets others go first when an instance has had a lock often in a row, if one of them waits", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    let inARow = 0;
    // On a slow machine the time that is left to others may be over between two calls: then it goes on.
    const yielded = await until(
      async () => {
        const taken = await one.take(takeOrder("nightly", { instanceId: "one", waits: true }));
        if (taken.kind !== "granted") return taken;
        inARow++;
        await other.take(takeOrder("nightly", { instanceId: "two", waits: true }));
        await one.release(releaseOrder(taken.lease.grant));
        return undefined;
      },
      { what: "a yield", intervalMs: 0 },
    );
    expect(yielded).toMatchObject({ kind: "yield" });
    expect(inARow).toBeGreaterThanOrEqual(MOST_STREAK);
    const next = await granted(other, "nightly", { instanceId: "two" });
    await other.release(releaseOrder(next.grant));
    expect((await granted(one, "nightly", { instanceId: "one" })).grant.token).toBeGreaterThan(next.grant.token);
  });

  it("grants a lock for ever to an instance that nobody else waits for", async () => {
    await using opened = await open();
    const [one] = two(opened);
    for (let round = 0; round < 2 * MOST_STREAK; round++) {
      const { grant } = await granted(one, "nightly", { waits: true });
      expect((await one.take(takeOrder("nightly", { waits: true }))).kind).toBe("held");
      await one.release(releaseOrder(grant));
    }
  });

  it("does not leave a lock for long to others who do not come", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const release = async (grant: { name: string; token: number }) => one.release(releaseOrder(grant));
    for (let round = 0; round < MOST_STREAK; round++) await release((await granted(one, "nightly")).grant);
    const { grant } = await granted(one, "nightly");
    await other.take(takeOrder("nightly", { instanceId: "two", waits: true }));
    await release(grant);
    const again = await until(
      async () => {
        const taken = await one.take(takeOrder("nightly", { waits: true }));
        return leaseOf(taken).grant;
      },
      { what: "the lock", intervalMs: 1 },
    );
    // And once it was left to them in vain, it is not again before they ask.
    await release(again);
    await release((await granted(one, "nightly")).grant);
  });
}

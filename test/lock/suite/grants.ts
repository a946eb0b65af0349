import { expect, it } from "vitest";
import { named, releaseOrder, takeOrder } from "../authorities.ts";
import { type AuthorityFactory, granted, isOver, SHORT_MS, two } from "./parts.ts";

export function grants(open: AuthorityFactory): void {
  it("grants a free lock, as it was asked for", async () => {
    await using opened = await open();
    const [one] = two(opened);
    const asked = { owner: "o", purpose: "p", caller: "c", instanceId: "i", streamId: "s", ttlMs: 60_000 };
    const { grant, remainingMs } = await granted(one, "team/nightly", asked);
    expect(grant).toMatchObject({ ...asked, name: "team/nightly", renewals: 0, end: "" });
    expect(grant.token).toBeGreaterThan(0);
    expect(remainingMs).toBeGreaterThan(0);
    expect(remainingMs).toBeLessThanOrEqual(60_000);
    expect(grant.expireMs - grant.acquireMs).toBeGreaterThan(0);
  });

  it("tells every instance who holds a lock that is held", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const first = await granted(one, "nightly");
    for (const authority of [one, other]) {
      const taken = await authority.take(takeOrder("nightly", { instanceId: "two" }));
      expect(taken).toMatchObject({ kind: "held", holder: { grant: { ...first.grant } } });
      expect(taken.kind === "held" && taken.holder.remainingMs).toBeGreaterThan(0);
    }
  });

  it("grants a lock to one of many who take it at once, on all instances", async () => {
    await using opened = await open();
    const instances = two(opened);
    const all = Array.from({ length: 40 }, (_, at) => instances[at % 2]?.take(takeOrder("nightly")));
    const taken = await Promise.all(all);
    const [winner, ...others] = taken.flatMap((one) => (one?.kind === "granted" ? [one.lease.grant] : []));
    expect(others).toEqual([]);
    expect((await instances[0].look("nightly")).lease?.grant.token).toBe(winner?.token);
    for (const one of taken) if (one?.kind === "held") expect(one.holder.grant.token).toBe(winner?.token);
  });

  it("keeps locks apart, whatever their names are made of", async () => {
    await using opened = await open();
    const [one] = two(opened);
    const names = ["a", "A", "a ", "a/b", "a:b", "{a}", "{a}b", "*", "a*", "[a-z]", "\\", "'", '"', "%", "_"];
    names.push("日本", "🔒", "\u00e9", "e\u0301");
    names.push("a\nb", "x".repeat(1_024));
    const tokens = await Promise.all(
      names.map(async (name) => [name, (await granted(one, name)).grant.token] as const),
    );
    for (const [name, token] of tokens) {
      const { lease } = await one.look(name);
      expect([lease?.grant.name, lease?.grant.token]).toEqual([name, token]);
    }
  });

  it("grants a lock whose lease ran out, with a larger token", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    let last = 0;
    for (const authority of [one, other, one]) {
      const { grant } = await granted(authority, "nightly", { ttlMs: SHORT_MS });
      expect(grant.token).toBeGreaterThan(last);
      last = grant.token;
      await isOver(authority, "nightly");
    }
    expect((await other.look("nightly")).lastToken).toBe(last);
  });

  it("grants larger tokens each time, however a lease ended", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    let last = 0;
    for (const end of ["released", "forced", "undone", "released"] as const) {
      const { grant } = await granted(one, "nightly", { request: end === "undone" ? named("r") : undefined });
      expect(grant.token).toBeGreaterThan(last);
      last = grant.token;
      const ended = end === "undone" ? ({ undo: true, streamId: "" } as const) : { end };
      expect((await other.release(releaseOrder(grant, ended))).released).toBe(true);
    }
  });
}

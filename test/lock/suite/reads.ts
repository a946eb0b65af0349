import { expect, it } from "vitest";
import { releaseOrder } from "../authorities.ts";
import { type AuthorityFactory, granted, isOver, SHORT_MS, two } from "./parts.ts";

export function reads(open: AuthorityFactory, isSorted: boolean): void {
  it("knows nothing of a lock that was never taken", async () => {
    await using opened = await open();
    const [one] = two(opened);
    expect(await one.look("never")).toEqual({ lease: undefined, lastToken: 0 });
  });

  it("lists the locks that are held, page by page, by prefix and owner and of the namespaces that may be seen", async () => {
    await using opened = await open();
    const [one, other] = two(opened);
    const names = Array.from({ length: 25 }, (_, at) => `team-${at % 3}/job-${String(at).padStart(2, "0")}`);
    await Promise.all(names.map((name, at) => granted(one, name, { owner: `o${at % 2}` })));
    await granted(one, "*");
    const free = await granted(one, "team-0/free");
    await one.release(releaseOrder(free.grant));
    await granted(one, "team-0/short", { ttlMs: SHORT_MS });
    await isOver(one, "team-0/short");

    const all = async (prefix: string, owner?: string, mayUse = (_: string) => true) => {
      const found: string[] = [];
      let after: string | undefined;
      do {
        const page = await other.list({ prefix, owner, mayUse, limit: 4, after });
        expect(page.leases.length).toBeLessThanOrEqual(4);
        for (const { grant, remainingMs } of page.leases) {
          expect(remainingMs).toBeGreaterThan(0);
          found.push(grant.name);
        }
        after = page.after;
      } while (after !== undefined);
      return isSorted ? found : [...new Set(found)].sort();
    };
    const sorted = [...names].sort();
    expect(await all("")).toEqual(["*", ...sorted]);
    expect(await all("team-1/")).toEqual(sorted.filter((name) => name.startsWith("team-1/")));
    expect(await all("*")).toEqual(["*"]);
    expect(await all("team-2/job-2")).toEqual(["team-2/job-20", "team-2/job-23"]);
    expect(await all("none")).toEqual([]);
    expect(await all("", "o1")).toEqual(names.filter((_, at) => at % 2 === 1).sort());
    const ofTeam0 = sorted.filter((name) => name.startsWith("team-0/"));
    expect(await all("", undefined, (namespace) => namespace === "team-0")).toEqual(ofTeam0);
    expect(await all("", undefined, (namespace) => namespace === "default")).toEqual(["*"]);
  });
}

import { describe, it } from "vitest";
import { expectAsRules } from "./authority-rules.ts";
import { grants } from "./suite/grants.ts";
import type { AuthorityFactory } from "./suite/parts.ts";
import { reads } from "./suite/reads.ts";
import { releases } from "./suite/releases.ts";
import { renewals } from "./suite/renewals.ts";
import { retries } from "./suite/retries.ts";
import { turns } from "./suite/turns.ts";

/**
 * What every authority has to do. In its test:
 *
 *     authoritySuite("redis", () => openRedisAuthorities(2), { sorted: false });
 *
 * The factory opens one authority that has never granted anything and is ready to grant, as several instances have it (or as the
 * one instance that may have it); each test opens its own, and disposes of it. The instances' authorities must announce freed
 * locks into `announced`, one entry for each announcement, whoever sends it. Leases are waited out in real time: they are short.
 */
export interface AuthorityQuirks {
  /** Whether List comes sorted by name, each lock once. Otherwise each lock at least once, in any order. */
  readonly sorted: boolean;
}

export function authoritySuite(title: string, open: AuthorityFactory, quirks: AuthorityQuirks): void {
  describe(`${title} as the authority over locks`, () => {
    grants(open);
    renewals(open);
    releases(open);
    retries(open);
    reads(open, quirks.sorted);
    turns(open);
    it("does what the rules say, whatever is asked", async () => {
      await using opened = await open();
      await expectAsRules(opened);
    });
  });
}

import { overtaken } from "../support/fenced-history.ts";
import { isWithin, type LockHistory, type SeenGrant } from "./lock-history.ts";
import { checkWrites, type WriteFault } from "./lock-write-checks.ts";

export type LockFault =
  | "a token granted twice"
  | "a token went back"
  | "valid leases overlap"
  | "granted in the dark"
  | WriteFault;

export interface LockVerdict {
  readonly faults: Readonly<Record<LockFault, number>>;
  readonly examples: readonly string[];
}

/** Whether what was seen is what locks promise. */
export function checkLocks(history: LockHistory): LockVerdict {
  const faults: Record<LockFault, number> = {
    ...{ "a token granted twice": 0, "a token went back": 0, "valid leases overlap": 0 },
    ...{ "granted in the dark": 0, "written in the dark": 0 },
    ...{ "an older token's write accepted": 0, "an older token's value came later": 0 },
    ...{ "a refused write left something": 0, "an accepted write is gone": 0, "a valid holder's write refused": 0 },
  };
  const examples: string[] = [];
  const found = (fault: LockFault, ...of: readonly object[]) => {
    faults[fault]++;
    if (faults[fault] <= 3) examples.push(`${fault}: ${of.map((one) => JSON.stringify(one)).join(" and ")}`);
  };
  const { grants, lossesMs, dark } = history;
  for (const mine of Map.groupBy(grants, ({ lock }) => lock).values()) checkGrants(mine, lossesMs, found);
  for (const grant of grants) {
    if (dark.some((away) => isWithin(away, grant.sentMs, grant.fromMs))) found("granted in the dark", grant);
  }
  checkWrites(history, found);
  return { faults, examples };
}

type Found = (fault: LockFault, ...of: readonly object[]) => void;

function checkGrants(grants: readonly SeenGrant[], lossesMs: readonly number[], found: Found): void {
  const tokens = new Map<number, SeenGrant>();
  for (const grant of grants) {
    const same = tokens.get(grant.token);
    if (same !== undefined) found("a token granted twice", same, grant);
    tokens.set(grant.token, grant);
  }
  // Whatever was there before it was asked for has a smaller token.
  const moments = grants.map((grant) => ({ ...grant, began: grant.sentMs, ended: grant.fromMs }));
  for (const { older, newer } of overtaken(moments, moments)) found("a token went back", newer, older);
  let longest: SeenGrant | undefined;
  for (const grant of grants.toSorted((one, other) => one.fromMs - other.fromMs)) {
    // What was over when it arrived was never held.
    if (grant.untilMs <= grant.fromMs) continue;
    if (longest !== undefined && grant.fromMs < longest.untilMs && !isLostBetween(longest, grant, lossesMs)) {
      found("valid leases overlap", longest, grant);
    }
    if (longest === undefined || grant.untilMs > longest.untilMs) longest = grant;
  }
}

/** The second may have been granted by an authority that had lost the first. */
function isLostBetween(one: SeenGrant, other: SeenGrant, lossesMs: readonly number[]): boolean {
  return lossesMs.some((atMs) => one.sentMs <= atMs && atMs <= other.fromMs);
}

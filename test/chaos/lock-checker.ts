import type { LockHistory, SeenGrant, SeenWrite } from "./lock-history.ts";

export type LockFault =
  | "a token granted twice"
  | "a token went back"
  | "valid leases overlap"
  | "an older token's write accepted"
  | "a valid holder's write refused";

export interface LockVerdict {
  readonly faults: Readonly<Record<LockFault, number>>;
  readonly examples: readonly string[];
}

/** Whether what was seen is what locks promise. */
export function checkLocks({ grants, writes, lossesMs }: LockHistory): LockVerdict {
  const faults: Record<LockFault, number> = {
    ...{ "a token granted twice": 0, "a token went back": 0, "valid leases overlap": 0 },
    ...{ "an older token's write accepted": 0, "a valid holder's write refused": 0 },
  };
  const examples: string[] = [];
  const found = (fault: LockFault, ...of: readonly object[]) => {
    faults[fault]++;
    if (faults[fault] <= 3) examples.push(`${fault}: ${of.map((one) => JSON.stringify(one)).join(" and ")}`);
  };
  for (const mine of Map.groupBy(grants, ({ lock }) => lock).values()) checkGrants(mine, lossesMs, found);
  for (const mine of Map.groupBy(writes, ({ lock }) => lock).values()) checkWrites(mine, grants, lossesMs, found);
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
  const came = [...grants].sort((one, other) => one.fromMs - other.fromMs);
  const asked = [...grants].sort((one, other) => one.sentMs - other.sentMs);
  // Whatever was there before it was asked for has a smaller token.
  let next = 0;
  let highest: SeenGrant | undefined;
  for (const grant of asked) {
    for (let before = came[next]; before !== undefined && before.fromMs < grant.sentMs; before = came[++next]) {
      if (highest === undefined || before.token > highest.token) highest = before;
    }
    if (highest !== undefined && highest.token > grant.token) found("a token went back", highest, grant);
  }
  let longest: SeenGrant | undefined;
  for (const grant of came) {
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

function checkWrites(
  writes: readonly SeenWrite[],
  grants: readonly SeenGrant[],
  lossesMs: readonly number[],
  found: Found,
): void {
  const validUntil = new Map(grants.map((grant) => [JSON.stringify([grant.lock, grant.token, grant.holder]), grant]));
  let newest: SeenWrite | undefined;
  for (const write of writes) {
    if (newest !== undefined && write.accepted && write.token < newest.token) {
      found("an older token's write accepted", newest, write);
    }
    if (write.accepted && (newest === undefined || write.token > newest.token)) newest = write;
    const grant = validUntil.get(JSON.stringify([write.lock, write.token, write.holder]));
    const isValid = grant !== undefined && grant.fromMs <= write.sentMs && write.atMs < grant.untilMs;
    // Where the authority had lost its lease, another may have it, and a newer token.
    const isLost = grant !== undefined && lossesMs.some((atMs) => grant.sentMs <= atMs && atMs <= write.atMs);
    if (!write.accepted && isValid && !isLost) found("a valid holder's write refused", grant, write);
  }
}

/**
 * What a store of the cache should answer, told in the plainest way: everything has a place in one order of events, and nothing
 * is forgotten. Knows nothing of stamps, scripts or statements.
 */
export interface Kept {
  readonly version: number;
  readonly at: number;
  readonly deleted: boolean;
  readonly text: string;
  readonly tags: readonly string[];
  readonly expiresAt: number | undefined;
}

export interface Proposal extends Omit<Kept, "at"> {
  readonly key: string;
}

export type Condition =
  | { readonly kind: "none" }
  | { readonly kind: "version"; readonly seen: number; readonly orAbsent: boolean; readonly grantedAt?: number }
  | { readonly kind: "newer"; readonly grantedAt?: number }
  | { readonly kind: "lease"; readonly token: string; readonly seen: number; readonly grantedAt: number };

export interface StoreModel {
  write(proposal: Proposal, condition: Condition, at: number): string | number;
  invalidate(tags: readonly string[], at: number): void;
  lease(key: string, token: string): boolean;
  version(key: string): number;
  /** The text, `undefined` for a miss. */
  value(key: string, now: number): string | undefined;
  keys(now: number): string[];
}

export function createStoreModel(): StoreModel {
  const records = new Map<string, Kept>();
  const leases = new Map<string, string>();
  const invalidated = new Map<string, number>();

  const invalidatedAfter = (tags: readonly string[], at: number) =>
    ["", ...tags].some((tag) => (invalidated.get(tag) ?? 0) > at);

  function refusal(proposal: Proposal, condition: Condition): string | undefined {
    const have = records.get(proposal.key);
    const version = have?.version ?? 0;
    if (condition.kind !== "none" && condition.grantedAt !== undefined) {
      if (invalidatedAfter(proposal.tags, condition.grantedAt)) return "overtaken";
    }
    switch (condition.kind) {
      case "none":
        return undefined;
      case "newer":
        if (version < proposal.version) return undefined;
        return version === proposal.version && have?.deleted && !proposal.deleted ? undefined : "version";
      case "version":
        return version === condition.seen || (version === 0 && condition.orAbsent) ? undefined : "version";
      case "lease":
        if (leases.get(proposal.key) !== condition.token) return "lease";
        return version === 0 || version === condition.seen ? undefined : "lease";
    }
  }

  function value(key: string, now: number): string | undefined {
    const record = records.get(key);
    if (record === undefined || record.deleted) return undefined;
    if (record.expiresAt !== undefined && record.expiresAt <= now) return undefined;
    return invalidatedAfter(record.tags, record.at) ? undefined : record.text;
  }

  return {
    write(proposal, condition, at) {
      const why = refusal(proposal, condition);
      if (why !== undefined) return why;
      const have = records.get(proposal.key)?.version ?? 0;
      const version = condition.kind === "newer" ? proposal.version : Math.max(proposal.version, have + 1);
      records.set(proposal.key, { ...proposal, version, at });
      if (condition.kind !== "newer") leases.delete(proposal.key);
      return version;
    },
    invalidate(tags, at) {
      for (const tag of tags.length === 0 ? [""] : tags) invalidated.set(tag, at);
    },
    lease(key, token) {
      if (leases.has(key)) return false;
      leases.set(key, token);
      return true;
    },
    version: (key) => records.get(key)?.version ?? 0,
    value,
    keys: (now) => [...records.keys()].filter((key) => value(key, now) !== undefined).sort(),
  };
}

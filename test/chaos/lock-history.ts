/**
 * What clients saw of locks, and a resource of those who wrote to it. Times in milliseconds of the clock that all processes
 * of a machine share.
 */

export interface SeenGrant {
  readonly lock: string;
  readonly token: number;
  /** Which client and worker. */
  readonly holder: string;
  /** When it was asked for. */
  readonly sentMs: number;
  readonly fromMs: number;
  /** The lease lasts until then at least: what was promised is counted from when it was asked for. */
  readonly untilMs: number;
}

/** A write that was protected by a lock, as the resource received it. */
export interface SeenWrite {
  readonly lock: string;
  readonly token: number;
  readonly holder: string;
  readonly sentMs: number;
  readonly atMs: number;
  readonly accepted: boolean;
}

export interface LockHistory {
  readonly grants: readonly SeenGrant[];
  /** In the order in which the resource received them. */
  readonly writes: readonly SeenWrite[];
  /** When the authority lost what it knew, if it may: leases from before and after may overlap. */
  readonly lossesMs: readonly number[];
}

/** What a client says, a line of JSON each. */
export type Said =
  /** `isKept`: by a stream, which gives it back when its client dies. */
  | ({ readonly said: "granted"; readonly isKept: boolean } & SeenGrant)
  | { readonly said: "renewed"; readonly lock: string; readonly token: number; readonly untilMs: number }
  /** From here on it is being given back. */
  | { readonly said: "released"; readonly lock: string; readonly token: number; readonly atMs: number }
  | { readonly said: "failed"; readonly why: string; readonly atMs: number };

/** What a client that died at `atMs` has to be taken to have said besides. */
export function lastWillOf(said: readonly Said[], atMs: number): Said[] {
  return said.flatMap((one) =>
    one.said === "granted" && one.isKept ? [{ said: "released", lock: one.lock, token: one.token, atMs }] : [],
  );
}

/** Puts together what clients said of their grants. */
export function grantsOf(said: readonly Said[]): SeenGrant[] {
  const grants = new Map<string, SeenGrant[]>();
  for (const one of said) {
    if (one.said === "failed") continue;
    const key = JSON.stringify([one.lock, one.token]);
    if (one.said === "granted") {
      const { said: _, isKept: __, ...grant } = one;
      grants.set(key, [...(grants.get(key) ?? []), grant]);
      continue;
    }
    // If the same token was granted twice, both are wrong already.
    const all = grants.get(key) ?? [];
    const last = all.pop();
    if (last === undefined) throw new Error(`${key} was never granted`);
    const untilMs =
      one.said === "renewed"
        ? Math.max(last.untilMs, one.untilMs)
        : Math.max(last.fromMs, Math.min(last.untilMs, one.atMs));
    all.push({ ...last, untilMs });
  }
  return [...grants.values()].flat();
}

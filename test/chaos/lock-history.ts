import type { FencedWrite, TokenMoment } from "../support/fenced-history.ts";

/**
 * What clients saw of locks, and of what they wrote under them. Times in milliseconds of the clock that all processes of a machine
 * share.
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

/** What is written under a lock: a message that is appended, a state that is saved with one, a value of the cache. */
export type WriteKind = "message" | "state" | "durable" | "cached";

/** A write under a lock. Its value is like no other's, and begins with its token. */
export interface SeenWrite extends FencedWrite {
  readonly holder: string;
  readonly kind: WriteKind;
  /** Why it was not stored. */
  readonly reason?: string;
}

/** A value that somebody found where all are written to. */
export interface SeenRead extends TokenMoment {
  readonly lock: string;
  readonly key: string;
  readonly value: string;
}

/** What a lock's conversation has in the end, in its order. */
export interface LeftMessages {
  readonly lock: string;
  readonly values: readonly string[];
}

/** From and until when nobody could decide about locks. */
export interface Darkness {
  readonly fromMs: number;
  readonly toMs: number;
  /** What nobody could write then. */
  readonly kinds: readonly WriteKind[];
}

export function isWithin({ fromMs, toMs }: Darkness, began: number, ended: number): boolean {
  return fromMs <= began && ended <= toMs;
}

export interface LockHistory {
  readonly grants: readonly SeenGrant[];
  readonly writes: readonly SeenWrite[];
  readonly reads: readonly SeenRead[];
  readonly left: readonly LeftMessages[];
  /** When the authority lost what it knew, if it may: leases from before and after may overlap. */
  readonly lossesMs: readonly number[];
  /** When the cache lost what was only in Redis: versions may be smaller afterwards. */
  readonly emptiedMs: readonly number[];
  readonly dark: readonly Darkness[];
  /** One authority took over from another, which knows nothing of the tokens of before. */
  readonly isHandedOver?: boolean;
}

/** What a client says, a line of JSON each. */
export type Said =
  /** `isKept`: by a stream, which gives it back when its client dies. */
  | ({ readonly said: "granted"; readonly isKept: boolean } & SeenGrant)
  | { readonly said: "renewed"; readonly lock: string; readonly token: number; readonly untilMs: number }
  /** From here on it is being given back. */
  | { readonly said: "released"; readonly lock: string; readonly token: number; readonly atMs: number }
  | ({ readonly said: "wrote" } & SeenWrite)
  | ({ readonly said: "read" } & SeenRead)
  | { readonly said: "failed"; readonly why: string; readonly atMs: number };

/** The same in all processes of a machine. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

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
    if (one.said !== "granted" && one.said !== "renewed" && one.said !== "released") continue;
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

/** Under which token it was written. */
export function tokenOf(value: string): number {
  const token = Number.parseInt(value, 10);
  if (!(token > 0)) throw new Error(`nobody wrote ${value}`);
  return token;
}

/** What came of all that clients asked for, for people and for tests that want something to have happened. */
export interface LockCounts {
  readonly grants: number;
  /** By streams. */
  readonly kept: number;
  readonly written: Readonly<Partial<Record<WriteKind, number>>>;
  /** Writes, by the reason. */
  readonly refused: Readonly<Partial<Record<string, number>>>;
  /** Calls, by what they failed with. */
  readonly failed: Readonly<Partial<Record<string, number>>>;
}

export function countsOf(said: readonly Said[]): LockCounts {
  const granted = said.filter((one) => one.said === "granted");
  return {
    grants: granted.length,
    kept: granted.filter(({ isKept }) => isKept).length,
    written: tally(said.flatMap((one) => (one.said === "wrote" && one.stored ? [one.kind] : []))),
    refused: tally(said.flatMap((one) => (one.said === "wrote" && one.stored === false ? [one.reason ?? ""] : []))),
    failed: tally(said.flatMap((one) => (one.said === "failed" ? [one.why] : []))),
  };
}

function tally<Name extends string>(names: readonly Name[]): Partial<Record<Name, number>> {
  const counts: Partial<Record<Name, number>> = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

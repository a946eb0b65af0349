import { invalidField } from "../../infra/failure.ts";
import { LockAuthorityUnavailableError } from "../failures.ts";
import { namespaceOf } from "../record/name.ts";
import type { Authority, Lease, Listed, ListQuery, Looked } from "./authority.ts";
import { locksBeginningWith, nameOf } from "./redlock-keys.ts";
import type { Master } from "./redlock-master.ts";
import { quorumOf } from "./redlock-round.ts";

/** A call returns what it has after this many steps, so that one whose filter fits nothing ends too. */
const MOST_STEPS = 10;
const KEYS_PER_STEP = 100;
const PAGE_TOKEN = /^redlock:(\d{0,64}):(\d{1,4}):(\d{1,20}):([\s\S]*)$/;

/** Where a listing goes on. */
interface Place {
  /** The masters that were walked through. */
  readonly walked: readonly number[];
  /** The one that is being walked through. */
  readonly at: number;
  readonly cursor: string;
  /** Up to here the names of its step have been looked at. */
  readonly after: string;
}

export interface RedlockListOptions {
  readonly masters: readonly Master[];
  readonly look: (name: string) => Promise<Looked>;
}

/**
 * Walks through a majority of the masters, one after the other: one of them has any lock that is held. A name that a master before
 * has is not looked at again.
 */
export function createRedlockList({ masters, look }: RedlockListOptions): Authority["list"] {
  const quorum = quorumOf(masters.length);

  return async (query) => {
    const leases: Lease[] = [];
    let place: Place | undefined = placeOf(query.after);
    for (let step = 0; step < MOST_STEPS && place !== undefined; step++) {
      place = await walk(query, place, leases);
      if (leases.length === query.limit) break;
    }
    return { leases, after: place && tokenOf(place) } satisfies Listed;
  };

  async function walk(query: ListQuery, place: Place, leases: Lease[]): Promise<Place | undefined> {
    const step = await scan(place, query.prefix);
    if (step === undefined) return next(place, false);
    const names = [...new Set(step.keys.map(nameOf))]
      .filter((name) => name > place.after && name.startsWith(query.prefix) && query.mayUse(namespaceOf(name)))
      .sort();
    const looked = await Promise.all(
      names.map(async (name) => ((await isKnown(place, name)) ? undefined : look(name))),
    );
    for (const [index, one] of looked.entries()) {
      const lease = one?.lease;
      if (lease === undefined || (query.owner !== undefined && lease.grant.owner !== query.owner)) continue;
      leases.push(lease);
      if (leases.length === query.limit && index < names.length - 1) return { ...place, after: names[index] ?? "" };
    }
    return step.cursor === "0" ? next(place, true) : { ...place, cursor: step.cursor, after: "" };
  }

  /** Undefined: the master cannot be walked through. */
  async function scan({ at, cursor }: Place, prefix: string) {
    try {
      return await masters[at]?.scan(locksBeginningWith(prefix), cursor, KEYS_PER_STEP);
    } catch {
      // Another one will do; when too few are left, the caller is told.
      return undefined;
    }
  }

  function next({ walked, at }: Place, isWalked: boolean): Place | undefined {
    const all = isWalked ? [...walked, at] : walked;
    if (all.length === quorum) return undefined;
    if (at + 1 >= masters.length) {
      throw new LockAuthorityUnavailableError(`fewer than ${quorum} of ${masters.length} lock masters can be listed`);
    }
    return { walked: all, at: at + 1, cursor: "0", after: "" };
  }

  async function isKnown({ walked }: Place, name: string): Promise<boolean> {
    const known = await Promise.all(walked.map((at) => masters[at]?.has(name).catch(() => false)));
    return known.includes(true);
  }

  function placeOf(token: string | undefined): Place {
    if (token === undefined) return { walked: [], at: 0, cursor: "0", after: "" };
    const [, walked, at, cursor, after] = PAGE_TOKEN.exec(token) ?? [];
    if (walked === undefined || cursor === undefined || after === undefined || Number(at) >= masters.length) {
      throw invalidField("page_token", "is not a token that List returned while redlock decides");
    }
    return { walked: [...walked].map(Number).filter((one) => one < masters.length), at: Number(at), cursor, after };
  }
}

function tokenOf({ walked, at, cursor, after }: Place): string {
  return `redlock:${walked.join("")}:${at}:${cursor}:${after}`;
}

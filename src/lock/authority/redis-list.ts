import { invalidField } from "../../infra/failure.ts";
import type { Redis } from "../../infra/redis.ts";
import { namespaceOf } from "../record/name.ts";
import type { Lease, Listed, ListQuery } from "./authority.ts";
import { nameOf, recordPattern } from "./redis-keys.ts";

/** A call returns what it has after this many steps, so that one whose filter fits nothing ends too. */
const MOST_STEPS = 10;
const KEYS_PER_STEP = 200;
const CURSOR = "redis:";
/** In a cluster it begins with the address of a node. */
const SCAN_CURSOR = /^([^|]+\|)?\d{1,19}$/;

interface Place {
  /** Where SCAN goes on. */
  readonly scan: string;
  /** Up to here the step's names have been looked at; undefined: none. */
  readonly after: string | undefined;
}

export interface RedisListOptions {
  readonly scan: Redis["scan"];
  readonly look: (name: string) => Promise<Lease | undefined>;
}

/** Walks through the records by SCAN: in no order, and what comes twice is listed twice. */
export async function listLocks({ scan, look }: RedisListOptions, query: ListQuery): Promise<Listed> {
  const { prefix, owner, mayUse, limit } = query;
  const pattern = recordPattern(prefix);
  const leases: Lease[] = [];
  let place = placeOf(query.after);
  for (let step = 0; step < MOST_STEPS; step++) {
    const found = await scan(pattern, place.scan, KEYS_PER_STEP);
    const { after } = place;
    const names = [...new Set(found.keys.map(nameOf))]
      .filter((name) => (after === undefined || name > after) && mayUse(namespaceOf(name)))
      .sort();
    const looked = await Promise.all(names.map(look));
    for (const [at, lease] of looked.entries()) {
      if (lease === undefined || (owner !== undefined && lease.grant.owner !== owner)) continue;
      leases.push(lease);
      if (leases.length < limit) continue;
      const isLast = at === looked.length - 1;
      if (isLast && found.cursor === "0") return { leases, after: undefined };
      return {
        leases,
        after: cursorOf(isLast ? { scan: found.cursor, after: undefined } : { ...place, after: names[at] }),
      };
    }
    if (found.cursor === "0") return { leases, after: undefined };
    place = { scan: found.cursor, after: undefined };
  }
  return { leases, after: cursorOf(place) };
}

function cursorOf({ scan, after }: Place): string {
  return CURSOR + JSON.stringify(after === undefined ? [scan] : [scan, after]);
}

function placeOf(cursor: string | undefined): Place {
  if (cursor === undefined) return { scan: "0", after: undefined };
  const [scan, after] = cursor.startsWith(CURSOR) ? textsOf(cursor.slice(CURSOR.length)) : [];
  if (scan === undefined || !SCAN_CURSOR.test(scan))
    throw invalidField("page_token", "is not a token that List returned while Redis decides");
  return { scan, after };
}

function textsOf(json: string): string[] {
  try {
    const parsed: unknown = JSON.parse(json);
    return Array.isArray(parsed) ? parsed.filter((one) => typeof one === "string") : [];
  } catch {
    return [];
  }
}

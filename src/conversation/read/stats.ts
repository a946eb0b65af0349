import type { Clock } from "../../infra/clock.ts";
import { createPauses } from "../../infra/pauses.ts";
import type { Presence } from "../record/conversation.ts";
import type { Listing } from "./listing.ts";

/** Conversations, with their messages and the bytes of their states. */
export interface Sums {
  readonly conversations: number;
  readonly messages: number;
  readonly stateBytes: number;
}

/** Those of a collection that have a status. */
export interface StatusSums extends Sums {
  readonly collection: string;
  readonly status: string;
}

/** As the truth counts with each write: "live" are those that nobody has removed, expired ones among them. */
export interface CountRow extends StatusSums {
  readonly presence: Presence;
}

/** What figures are made of. Both are read part by part, so that nobody waits long for either. */
export interface Counts {
  rows(): AsyncIterable<readonly CountRow[]>;
  /** Those that have expired until then and were not removed; a status may come several times. */
  expired(untilUs: number): AsyncIterable<readonly StatusSums[]>;
  /**
   * When the newest change was made of what is there then, by collection. A few of those that were updated last are looked at: if all
   * of them have expired, it is not known.
   */
  lastUpdates(collections: readonly string[], nowUs: number): Promise<ReadonlyMap<string, number>>;
}

export interface Figures {
  readonly live: number;
  readonly expired: number;
  readonly tombstones: number;
  readonly messages: number;
  readonly stateBytes: number;
  /** The most frequent first. */
  readonly statuses: readonly { readonly status: string; readonly conversations: number }[];
}

export interface Stats {
  /** By collection, not older than ten seconds. */
  figures(): Promise<Counted>;
}

export interface Counted {
  readonly countedUs: number;
  readonly collections: ReadonlyMap<string, Figures>;
  /** When the newest change was made of what is there, by collection; looked up for whoever asks first. */
  lastUpdates(collections: readonly string[]): Promise<ReadonlyMap<string, number | undefined>>;
}

export interface StatsOptions {
  readonly counts: Counts;
  readonly listing: Listing;
  readonly clock: Clock;
}

/** Well below the minute that is promised, and long enough that asking often costs nothing. */
const MOST_AGE_MS = 10_000;
const MOST_STATUSES = 100;
/** Collections of which the last update is looked up in one statement. */
const LOOKED_UP = 100;

export function createStats(options: StatsOptions): Stats {
  const { clock } = options;
  let last: { readonly since: number; readonly counted: Promise<Counted> } | undefined;
  return {
    figures() {
      if (last !== undefined && clock.monotonic() - last.since < MOST_AGE_MS) return last.counted;
      const counted = count(options);
      const mine = { since: clock.monotonic(), counted };
      last = mine;
      counted.catch(() => {
        if (last === mine) last = undefined;
      });
      return counted;
    },
  };
}

async function count({ counts, listing, clock }: StatsOptions): Promise<Counted> {
  const countedUs = clock.now() * 1000;
  const pause = createPauses();
  const expired = new Map<string, Sums>();
  const tallies = new Map<string, Tally>();
  const tallyOf = (collection: string) => {
    const tally = tallies.get(collection) ?? new Tally();
    tallies.set(collection, tally);
    return tally;
  };
  for await (const part of counts.expired(countedUs)) {
    for (const sums of part) {
      tallyOf(sums.collection).expired += sums.conversations;
      expired.set(keyOf(sums), added(expired.get(keyOf(sums)) ?? NONE, sums));
    }
    await pause();
  }
  for await (const part of counts.rows()) {
    for (const row of part) {
      if (row.presence === "live") tallyOf(row.collection).addLive(row.status, row, expired.get(keyOf(row)) ?? NONE);
      else if (row.conversations > 0) tallyOf(row.collection).tombstones += row.conversations;
    }
    await pause();
  }
  const all = [...tallies].filter(([, tally]) => !tally.isEmpty);
  const updates = new Map<string, number | undefined>();
  return {
    countedUs,
    collections: new Map(all.map(([collection, tally]) => [collection, tally.figures()])),
    async lastUpdates(wanted) {
      const unknown = wanted.filter((collection) => !updates.has(collection));
      for (let at = 0; at < unknown.length; at += LOOKED_UP) {
        const some = unknown.slice(at, at + LOOKED_UP);
        const found = await counts.lastUpdates(some, countedUs);
        for (const one of some) updates.set(one, found.get(one) ?? (await newestUpdate(listing, one, countedUs)));
        await pause();
      }
      return updates;
    },
  };
}

async function newestUpdate(listing: Listing, collection: string, nowUs: number): Promise<number | undefined> {
  const filter = { statuses: new Set<string>(), userId: "" };
  const query = { collection, filter, updatedSinceUs: undefined, order: "updated", limit: 1, nowUs } as const;
  for (let after: Parameters<Listing["page"]>[0]["after"]; ; ) {
    const { rows, next } = await listing.page({ ...query, after });
    const [newest] = rows;
    if (newest !== undefined || next === undefined) return newest?.updatedUs;
    after = next;
  }
}

const NONE: Sums = { conversations: 0, messages: 0, stateBytes: 0 };

/** No collection has a "/" in its name. */
function keyOf({ collection, status }: StatusSums): string {
  return `${collection}/${status}`;
}

function added(one: Sums, other: Sums): Sums {
  return {
    conversations: one.conversations + other.conversations,
    messages: one.messages + other.messages,
    stateBytes: one.stateBytes + other.stateBytes,
  };
}

/** What is counted of one collection, row by row. */
class Tally {
  expired = 0;
  tombstones = 0;
  #live = 0;
  #messages = 0;
  #stateBytes = 0;
  #statuses: { status: string; conversations: number }[] = [];

  /** The rows and those that have expired are read one after the other: what happens in between must not show as less than none. */
  addLive(status: string, all: Sums, expired: Sums): void {
    const conversations = all.conversations - expired.conversations;
    if (conversations <= 0) return;
    this.#live += conversations;
    this.#messages += Math.max(0, all.messages - expired.messages);
    this.#stateBytes += Math.max(0, all.stateBytes - expired.stateBytes);
    this.#statuses.push({ status, conversations });
    // A collection may have as many statuses as conversations.
    if (this.#statuses.length >= 10 * MOST_STATUSES) this.#statuses = this.#mostFrequent();
  }

  get isEmpty(): boolean {
    return this.#live + this.expired + this.tombstones === 0;
  }

  figures(): Figures {
    const [live, messages, stateBytes] = [this.#live, this.#messages, this.#stateBytes];
    const { expired, tombstones } = this;
    return { live, expired, tombstones, messages, stateBytes, statuses: this.#mostFrequent() };
  }

  #mostFrequent() {
    return this.#statuses
      .toSorted((one, other) => other.conversations - one.conversations || (one.status < other.status ? -1 : 1))
      .slice(0, MOST_STATUSES);
  }
}

import { describe, expect, it } from "vitest";
import type { Order } from "../../src/conversation/change/order.ts";
import type { ConversationKey } from "../../src/conversation/record/conversation.ts";
import { pruneChanges } from "../../src/conversation/watch/sql-prune.ts";
import type { ConversationChange } from "../../src/gen/holdfast/v1/conversation_pb.js";
import type { Database } from "../../src/infra/database.ts";
import { append, KINDS, patch, remove, save } from "./ledgers.ts";
import { changesAfter, dueOf, faultsOf, logOf, placeIn, type Row, type Told, tokenAt } from "./watch-checker.ts";
import {
  openWatches,
  realMessage,
  structState,
  TestWatch,
  type WatchInstance,
  type WatchRequest,
} from "./watch-parts.ts";

type Roll = (below: number) => number;

/** Numbers that look random, the same for the same seed. */
function dice(seed: number): Roll {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

function pick<T>(roll: Roll, [first, ...others]: readonly [T, ...T[]]): T {
  return [first, ...others][roll(others.length + 1)] ?? first;
}

const IDS = ["a", "b", "c", "d"] as const;
const STATUSES = ["open", "closed", ""] as const;
const USERS = ["ada", "bob"] as const;

/** Does anything at all to one of a few conversations. */
async function writeAtRandom({ ledger }: WatchInstance, roll: Roll, count: number): Promise<void> {
  for (let at = 0; at < count; at++) {
    const key: ConversationKey = { collection: pick(roll, ["one", "two"]), id: pick(roll, IDS) };
    const state = structState(pick(roll, STATUSES), pick(roll, USERS));
    const order = pick<Order>(roll, [
      save("", { key, state }),
      save("", { key, state, expectedVersion: 0 }),
      patch("", { key, merge: () => state }),
      append([realMessage(`m-${at}-${roll(1_000_000)}`, "x")], { key }),
      remove({ key }),
    ]);
    // Many of them are refused, which is no change.
    await ledger.carryOut(order).catch(() => undefined);
  }
}

/** Keeps what there was when it is pruned, and knows up to where that happened. */
class History {
  readonly rows: Row[] = [];
  pruned = 0;
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  get last(): number {
    return this.rows.at(-1)?.seq ?? 0;
  }

  async collect(): Promise<void> {
    this.rows.push(...(await changesAfter(this.#database, this.last)));
  }

  async prune(most: number): Promise<void> {
    await this.collect();
    const limit = Math.min(most, this.last - this.pruned);
    // Counted first: a watcher may hear of the gap before this does.
    this.pruned += limit;
    await pruneChanges(this.#database, Number.MAX_SAFE_INTEGER, limit);
  }
}

interface RestlessOptions {
  readonly request: WatchRequest;
  readonly instances: readonly [WatchInstance, ...WatchInstance[]];
  readonly history: History;
  readonly roll: Roll;
  readonly log: number;
  /** A bug: begins again one place too far. */
  readonly skips: boolean;
}

/** A watcher who breaks off after every few replies, and goes on where it was, with whomever it finds. */
class RestlessWatcher implements Told {
  readonly request: WatchRequest;
  readonly changes: ConversationChange[] = [];
  readonly gaps: { after: number; upTo: number }[] = [];
  readonly #options: RestlessOptions;
  #place = 0;
  #breaks = 0;

  constructor(options: RestlessOptions) {
    this.#options = options;
    this.request = options.request;
  }

  /** Until it has heard of everything up to this place. */
  async readTo(place: number): Promise<void> {
    const { request, instances, roll, log, skips } = this.#options;
    while (this.#place < place) {
      const from = this.#place + (skips && this.#breaks > 0 ? 1 : 0);
      const start = { case: "resumeToken" as const, value: tokenAt(request, { log, place: from }) };
      const one = new TestWatch(pick(roll, instances), { ...request, start, heartbeatInterval: { seconds: 1n } });
      await one.next();
      for (let left = roll(12); left >= 0 && this.#place < place; left--) {
        if (!(await one.next())) throw one.ended;
        this.#take(one);
      }
      one.end();
      this.#breaks++;
    }
  }

  #take({ replies }: TestWatch): void {
    const reply = replies.at(-1);
    const after = this.#place;
    this.#place = placeIn(reply?.resumeToken ?? "");
    if (reply?.event.case === "change") this.changes.push(reply.event.value);
    if (reply?.event.case !== "compacted") return;
    expect(after).toBeLessThan(this.#options.history.pruned);
    this.gaps.push({ after, upTo: this.#place });
  }
}

const WATCHES: readonly WatchRequest[] = [
  { collection: "one" },
  { collection: "two", includeState: true, includeMessages: true },
  { collection: "one", filter: { statuses: ["open"] } },
  { collection: "two", filter: { userId: "ada", statuses: ["", "closed"] } },
  ...IDS.map((id) => ({ collection: "one", id })),
  { collection: "two", id: "a", filter: { userId: "bob" } },
];

/** So few that watchers fall behind. */
const WINDOW = { changes: 15, bytes: 1_000_000 };

/** Writers on two instances, and watchers on three, one of which hears of no commit. */
async function watchRestlessly(kind: (typeof KINDS)[number], { skips = false, prunes = false }) {
  await using open = await openWatches(kind);
  const { first, second } = open;
  const instances = [
    first,
    open.instance(first.database, { window: WINDOW }),
    open.instance(second.database, { window: WINDOW, hears: false }),
  ] as const;
  const roll = dice(prunes ? 2 : 1);
  const history = new History(first.database);
  const log = await logOf(first.database);
  const watchers = WATCHES.map((request) => new RestlessWatcher({ request, instances, history, roll, log, skips }));
  for (let round = 0; round < 4; round++) {
    const reading = watchers.map((watcher) => watcher.readTo(history.last));
    for (let part = 0; part < 10; part++) {
      await Promise.all([first, second].map((instance) => writeAtRandom(instance, roll, 6)));
      if (prunes && round % 2 === 0) await history.prune(roll(20));
    }
    await Promise.all(reading);
    await history.collect();
  }
  await Promise.all(watchers.map((watcher) => watcher.readTo(history.last)));
  const faults = watchers.flatMap((watcher) => faultsOf(watcher, dueOf(history.rows, watcher.request)));
  return { faults, watchers, changes: history.rows.length };
}

describe.each(KINDS)("watchers over %s who break off all the time", (kind) => {
  it("are told of every change once, in order, whoever makes it and whomever they ask", async () => {
    const { faults, watchers, changes } = await watchRestlessly(kind, {});
    expect(faults).toEqual([]);
    expect(changes).toBeGreaterThan(100);
    for (const { changes: told, gaps } of watchers) expect([told.length > 5, gaps]).toEqual([true, []]);
  });

  it("are told of every change, or that there is a gap, while changes are forgotten", async () => {
    const { faults, watchers } = await watchRestlessly(kind, { prunes: true });
    expect(faults).toEqual([]);
    expect(watchers.some(({ gaps }) => gaps.length > 0)).toBe(true);
  });

  it("would be found out if one change was skipped when they begin again", async () => {
    const { faults } = await watchRestlessly(kind, { skips: true });
    expect(faults).not.toEqual([]);
  });
});

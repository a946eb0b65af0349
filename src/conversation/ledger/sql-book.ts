import type { Clock } from "../../infra/clock.ts";
import type { Database, SqlSession } from "../../infra/database.ts";
import { holdFences, raiseFences } from "../../infra/sql-fences.ts";
import type { Order } from "../change/order.ts";
import { type Held, textOf } from "../record/conversation.ts";
import type { Answered, Book, KnownMessage } from "./book.ts";
import { createLookup, type Lookup } from "./sql-lookup.ts";
import { nameOf, prefetch } from "./sql-prefetch.ts";
import { carryOutRows } from "./sql-rows.ts";
import { Sheet } from "./sql-sheet.ts";
import { currentVersion } from "./sql-version-row.ts";

export interface SqlBook extends Book {
  /** Whether watchers have something of what was entered. */
  readonly isTold: boolean;
  /** How many bytes of what was entered, and of the states that were read for it, wait in memory. */
  readonly bytes: number;
  /** Writes all that was entered. The last thing before the commit. */
  write(): Promise<void>;
}

export interface SqlBookOptions {
  readonly kind: Database["kind"];
  readonly tx: SqlSession;
  readonly clock: Clock;
  /** Those that will be carried out on it. */
  readonly orders: readonly Order[];
}

interface VersionState {
  readonly version: number;
  readonly state: Uint8Array;
}

interface EnteredMessage extends KnownMessage {
  readonly body: Uint8Array;
}

/** A plan that reads a whole table, made while that is small, would be kept while it grows. All that is asked here has an index. */
const BY_INDEX = "SET LOCAL enable_seqscan = off";
const RAISE_HEAD = "UPDATE conversation_head SET seq = $1 WHERE id = 1";

/** Opens the book: from now on nobody else writes, and what is read stays true until the commit. */
export async function openSqlBook(options: SqlBookOptions): Promise<SqlBook> {
  const { kind, tx, clock } = options;
  const { seq: before, lookup, tokens } = await begin(options);
  // Not before: whoever had to wait for others must not take what has expired meanwhile for living.
  const nowUs = clock.now() * 1000;
  const sheet = new Sheet(nowUs);
  let seq = before;
  let isEmpty = true;
  let bytes = 0;
  const known = new Map<string, Held | undefined>();
  /** The last state that was entered, by conversation. */
  const states = new Map<string, VersionState>();
  /** The last one that was read: all who expected another version are told the same. */
  const read = new Map<string, VersionState>();
  /** Messages that were entered, by conversation and id. */
  const fresh = new Map<string, Map<string, EnteredMessage>>();
  const answers = new Map<string, Answered>();
  /** Of which locks newer tokens were seen. */
  const raised = new Map<string, number>();

  async function stateOf(of: Held, stateVersion: number): Promise<Uint8Array | undefined> {
    const text = textOf(of);
    const entered = states.get(text);
    if (entered?.version === stateVersion) return entered.state;
    const seen = read.get(text);
    if (seen?.version === stateVersion) return seen.state;
    const state = await lookup.state(of, stateVersion);
    if (state === undefined) return undefined;
    read.set(text, { version: stateVersion, state });
    bytes += state.length;
    return state;
  }

  return {
    nowUs,
    get isTold() {
      return seq > before;
    },
    get bytes() {
      return bytes;
    },
    nextStamp: (held) => Math.max(nowUs, (held?.stamp ?? 0) + 1),
    async held(key) {
      const text = textOf(key);
      if (known.has(text)) return known.get(text);
      const held = await lookup.held(key);
      known.set(text, held);
      return held;
    },
    stateOf,
    async state(of) {
      const state = await stateOf(of, of.stateVersion);
      if (state === undefined) throw new Error(`the state of ${textOf(of)} is missing`);
      return state;
    },
    async messages(of, ids) {
      const entered = fresh.get(textOf(of));
      const found = new Map<string, KnownMessage>();
      for (const row of await lookup.messages(of, entered === undefined ? ids : ids.filter((id) => !entered.has(id)))) {
        found.set(row.message_id, { position: row.position, contentHash: row.content_hash });
      }
      for (const id of ids) {
        const message = entered?.get(id);
        if (message !== undefined) found.set(id, message);
      }
      return found;
    },
    async messageBody(of, id) {
      const body = fresh.get(textOf(of))?.get(id)?.body ?? (await lookup.messageBody(of, id));
      if (body === undefined) throw new Error(`the message "${id}" of ${textOf(of)} is missing`);
      return body;
    },
    messagesSince: (of, version) => lookup.messagesSince(of, version),
    async keptVersion(of, version) {
      const kept = await lookup.keptVersion(of, version);
      return kept ?? (version === of.version ? currentVersion(of) : undefined);
    },
    preparedUntilUs: (key, generation) => lookup.garbageDueUs(key, generation),
    newestToken(lock) {
      const newest = raised.get(lock) ?? tokens.get(lock);
      if (newest === undefined) throw new Error(`the fence of "${lock}" is not held`);
      return newest;
    },
    sawToken({ lock, token }) {
      isEmpty = false;
      raised.set(lock, token);
    },
    async answered(key, requestId) {
      const entered = answers.get(nameOf({ ...key, name: requestId }));
      if (entered !== undefined) return entered;
      const row = await lookup.answer(key, requestId);
      return row !== undefined && row.expires_us > nowUs ? row : undefined;
    },
    remember(key, requestId, answered) {
      isEmpty = false;
      bytes += answered.answer.length;
      answers.set(nameOf({ ...key, name: requestId }), answered);
      sheet.remember(key, requestId, answered);
    },
    enter(entry) {
      const { after, state, messages, firstPosition } = entry;
      const text = textOf(after);
      isEmpty = false;
      known.set(text, after);
      if (state !== undefined) states.set(text, { version: after.stateVersion, state });
      // What is gone is gone for those that follow, too.
      if (after.presence !== "live" || entry.messagesOf !== undefined) fresh.delete(text);
      if (messages.length > 0) {
        const entered = fresh.get(text) ?? new Map<string, EnteredMessage>();
        for (const [at, { id, contentHash, body }] of messages.entries()) {
          entered.set(id, { position: firstPosition + at, contentHash, body });
        }
        fresh.set(text, entered);
      }
      bytes += state?.length ?? 0;
      for (const { body } of messages) bytes += body.length;
      if (entry.kind !== undefined) seq++;
      sheet.add(entry, seq);
    },
    async write() {
      if (isEmpty) return;
      const lines = sheet.lines().filter(([, rows]) => rows.length > 0);
      const sent = lines.map(([statement, rows]) => carryOutRows(kind, tx, statement, rows));
      if (seq > before) sent.push(tx.query(RAISE_HEAD, [seq]).then(() => {}));
      if (raised.size > 0) sent.push(raiseFences(tx, raised));
      // None is left to itself: the first that failed explains the others.
      for (const one of await Promise.allSettled(sent)) if (one.status === "rejected") throw one.reason;
    },
  };
}

interface Opened {
  readonly seq: number;
  readonly lookup: Lookup;
  /** The newest that were seen, by lock. */
  readonly tokens: ReadonlyMap<string, number>;
}

/**
 * Takes the lock of the head, then the fences of the orders, and asks behind them for what will be wanted: in Postgres all in one round
 * trip.
 */
async function begin({ kind, tx, orders }: SqlBookOptions): Promise<Opened> {
  const lookup = createLookup(kind, tx);
  const locks = locksOf(orders);
  const head = "SELECT seq FROM conversation_head WHERE id = 1";
  // In SQLite a question costs no more when it is asked by itself.
  if (kind === "sqlite") {
    return { seq: seqOf(await tx.query<HeadRow>(head)), lookup, tokens: await holdFences(kind, tx, locks) };
  }
  const [, rows, tokens, full] = await Promise.all([
    tx.query(BY_INDEX),
    tx.query<HeadRow>(`${head} FOR UPDATE`),
    holdFences(kind, tx, locks),
    prefetch(tx, orders, lookup),
  ]);
  return { seq: seqOf(rows), lookup: full, tokens };
}

/** Those of orders that are refused anyway are left alone. */
function locksOf(orders: readonly Order[]): readonly string[] {
  const locks = new Set<string>();
  for (const { fence, objection } of orders) if (fence !== undefined && objection === undefined) locks.add(fence.lock);
  return [...locks];
}

type HeadRow = { seq: number };

function seqOf([head]: readonly HeadRow[]): number {
  if (head === undefined) throw new Error("the conversations have lost their head");
  return head.seq;
}

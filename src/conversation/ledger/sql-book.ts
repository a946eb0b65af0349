import { toBinary } from "@bufbuild/protobuf";
import { ConversationSummarySchema } from "../../gen/holdfast/v1/conversation_pb.js";
import type { Database, SqlSession, SqlValue } from "../../infra/database.ts";
import { textArray } from "../../infra/postgres-array.ts";
import { type ConversationKey, type Held, textOf } from "../record/conversation.ts";
import { summaryOf } from "../record/summary.ts";
import type { Book, Entry, KeptVersion, Kind, KnownMessage } from "./book.ts";
import { HELD_COLUMNS, type HeldRow, heldOf, presenceNumber, valuesOf } from "./sql-row.ts";

export interface SqlBook extends Book {
  /** Those whose rows were changed. */
  readonly entries: readonly Entry[];
  /** Reads what the rules are likely to ask for, in few statements. */
  prefetch(keys: readonly ConversationKey[]): Promise<void>;
  /** Writes all that was entered. The last thing before the commit. */
  write(): Promise<void>;
}

export interface SqlBookOptions {
  readonly kind: Database["kind"];
  readonly tx: SqlSession;
  readonly nowUs: number;
  /** Of the hot copies: Redis could not be told before the change. */
  readonly unhealed: (key: ConversationKey) => boolean;
  /** No stamp may be lower: what lies over a hot copy meanwhile has this one. */
  readonly leastStamp: (key: ConversationKey) => number;
}

const OF = "collection = $1 AND id = $2";
const columns = (count: number) => Array.from({ length: count }, (_, at) => `$${at + 1}`).join(", ");

const PUT_HELD = `INSERT INTO conversation (${HELD_COLUMNS.join(", ")}, unhealed) VALUES (${columns(HELD_COLUMNS.length + 1)})
  ON CONFLICT (collection, id) DO UPDATE SET ${HELD_COLUMNS.slice(2)
    .map((column) => `${column} = excluded.${column}`)
    .join(", ")}, unhealed = excluded.unhealed`;
const PUT_STATE = "INSERT INTO conversation_state (collection, id, version, state) VALUES ($1, $2, $3, $4)";
const PUT_MESSAGE = `INSERT INTO conversation_message
  (collection, id, generation, position, added, removed, message_id, role, content_hash, body)
  VALUES ($1, $2, $3, $4, $5, NULL, $6, $7, $8, $9)`;
const REMOVE_LATER = `UPDATE conversation_message SET removed = $4
  WHERE ${OF} AND generation = $3 AND removed IS NULL AND added > $5`;
const BRING_BACK = `INSERT INTO conversation_message
  (collection, id, generation, position, added, removed, message_id, role, content_hash, body)
  SELECT collection, id, generation, position, $4, NULL, message_id, role, content_hash, body FROM conversation_message
  WHERE ${OF} AND generation = $3 AND added <= $5 AND removed > $5`;
const PUT_VERSION = `INSERT INTO conversation_version
  (collection, id, version, kind, generation, state_version, user_id, status, complexity_level, confidence_score,
    message_count, state_bytes, updated_us, restored_version)
  VALUES (${columns(14)})`;
const OLDEST_KEPT = `SELECT version FROM conversation_version WHERE ${OF} ORDER BY version DESC LIMIT 1 OFFSET $3`;
const DROP_VERSIONS = `DELETE FROM conversation_version WHERE ${OF} AND version < $3`;
const DROP_ALL_VERSIONS = `DELETE FROM conversation_version WHERE ${OF}`;
const DROP_STATES = `DELETE FROM conversation_state WHERE ${OF} AND version < $3
  AND NOT EXISTS (SELECT 1 FROM conversation_version v WHERE v.collection = conversation_state.collection
    AND v.id = conversation_state.id AND v.state_version = conversation_state.version)`;
const DROP_ALL_STATES = `DELETE FROM conversation_state WHERE ${OF}`;
const DROP_REMOVED = `DELETE FROM conversation_message
  WHERE ${OF} AND generation = $3 AND removed IS NOT NULL AND removed <= $4`;
const PUT_CHANGE = `INSERT INTO conversation_change
  (seq, collection, id, kind, version, previous_version, generation, state_version, first_position, last_position,
    before_user_id, before_status, summary, changed_us)
  VALUES (${columns(14)})`;
const PUT_REQUEST = `INSERT INTO conversation_request (collection, id, request_id, answer, expires_us) VALUES ($1, $2, $3, $4, $5)
  ON CONFLICT (collection, id, request_id) DO UPDATE SET answer = excluded.answer, expires_us = excluded.expires_us`;
const PUT_GARBAGE = `INSERT INTO conversation_garbage (collection, id, generation, due_us) VALUES ($1, $2, $3, $4)
  ON CONFLICT (collection, id, generation) DO UPDATE SET due_us = excluded.due_us`;
const KEEP_GENERATION = `DELETE FROM conversation_garbage WHERE ${OF} AND generation = $3`;
const ADD_COUNT = `INSERT INTO conversation_count (collection, presence, status, conversations, messages, state_bytes)
  VALUES ($1, $2, $3, $4, $5, $6)
  ON CONFLICT (collection, presence, status) DO UPDATE SET conversations = conversation_count.conversations + excluded.conversations,
    messages = conversation_count.messages + excluded.messages,
    state_bytes = conversation_count.state_bytes + excluded.state_bytes`;
const RAISE_HEAD = "UPDATE conversation_head SET seq = $1 WHERE id = 1";

/** An attempt of the same name within this time gets the same answer. */
const REQUEST_US = 600_000_000;

/** Opens the book: from now on nobody else writes, and what is read stays true until the commit. */
export async function openSqlBook({ kind, tx, nowUs, unhealed, leastStamp }: SqlBookOptions): Promise<SqlBook> {
  const lock = kind === "postgres" ? " FOR UPDATE" : "";
  const [head] = await tx.query<{ seq: number }>(`SELECT seq FROM conversation_head WHERE id = 1${lock}`);
  if (head === undefined) throw new Error("the conversations have lost their head");
  let seq = head.seq;
  const known = new Map<string, Held | undefined>();
  const states = new Map<string, Uint8Array>();
  /** Messages that were entered, by conversation and id. */
  const fresh = new Map<string, Map<string, KnownMessage>>();
  const answers = new Map<string, Uint8Array>();
  const entries: Entry[] = [];

  async function held(key: ConversationKey): Promise<Held | undefined> {
    const text = textOf(key);
    if (known.has(text)) return known.get(text);
    const [row] = await tx.query<HeldRow>(`SELECT ${HELD_COLUMNS.join(", ")} FROM conversation WHERE ${OF}`, [
      key.collection,
      key.id,
    ]);
    const found = row && heldOf(row);
    known.set(text, found);
    return found;
  }

  async function stateOf({ collection, id }: Held, stateVersion: number): Promise<Uint8Array | undefined> {
    const text = `${textOf({ collection, id })}@${stateVersion}`;
    const entered = states.get(text);
    if (entered !== undefined) return entered;
    const [row] = await tx.query<{ state: Uint8Array }>(
      `SELECT state FROM conversation_state WHERE ${OF} AND version = $3`,
      [collection, id, stateVersion],
    );
    return row?.state;
  }

  return {
    nowUs,
    entries,
    held,
    stateOf,
    nextStamp: (before) => Math.max(nowUs, (before?.stamp ?? 0) + 1, before === undefined ? 0 : leastStamp(before)),
    async state(of) {
      const state = await stateOf(of, of.stateVersion);
      if (state === undefined) throw new Error(`the state of ${textOf(of)} is missing`);
      return state;
    },
    async messages(of, ids) {
      const found = new Map<string, KnownMessage>();
      const entered = fresh.get(textOf(of));
      for (const id of ids) {
        const known = entered?.get(id);
        if (known !== undefined) found.set(id, known);
      }
      const wanted = ids.filter((id) => !found.has(id));
      for (const row of await lookUpMessages(kind, tx, of, wanted)) {
        found.set(row.message_id, { position: row.position, contentHash: row.content_hash });
      }
      return found;
    },
    async keptVersion(of, version) {
      const [row] = await tx.query<VersionRow>(`SELECT * FROM conversation_version WHERE ${OF} AND version = $3`, [
        of.collection,
        of.id,
        version,
      ]);
      if (row !== undefined) return row.generation === of.generation ? keptVersionOf(row) : undefined;
      return version === of.version ? currentVersion(of) : undefined;
    },
    async answer(key, requestId) {
      const entered = answers.get(`${textOf(key)}#${requestId}`);
      if (entered !== undefined) return entered;
      const [row] = await tx.query<{ answer: Uint8Array }>(
        `SELECT answer FROM conversation_request WHERE ${OF} AND request_id = $3 AND expires_us > $4`,
        [key.collection, key.id, requestId, nowUs],
      );
      return row?.answer;
    },
    enter(entry) {
      const { after, state, messages, firstPosition, request, before } = entry;
      const text = textOf(after);
      known.set(text, after);
      if (state !== undefined) states.set(`${text}@${after.stateVersion}`, state);
      if (before?.generation !== after.generation || entry.messagesOf !== undefined) fresh.delete(text);
      if (messages.length > 0) {
        const entered = fresh.get(text) ?? new Map<string, KnownMessage>();
        for (const [at, { id, contentHash }] of messages.entries()) {
          entered.set(id, { position: firstPosition + at, contentHash });
        }
        fresh.set(text, entered);
      }
      if (request !== undefined) answers.set(`${text}#${request.id}`, request.answer);
      entries.push(entry);
    },
    async prefetch(keys) {
      if (kind === "sqlite" || keys.length < 2) {
        for (const key of keys) await held(key);
        return;
      }
      const rows = await tx.query<HeldRow>(
        `SELECT ${HELD_COLUMNS.map((column) => `c.${column}`).join(", ")}
          FROM unnest($1::text[], $2::text[]) AS wanted (collection, id)
          JOIN conversation c ON c.collection = wanted.collection AND c.id = wanted.id`,
        [textArray(keys.map((key) => key.collection)), textArray(keys.map((key) => key.id))],
      );
      for (const key of keys) known.set(textOf(key), undefined);
      for (const row of rows) known.set(textOf(row), heldOf(row));
    },
    async write() {
      if (entries.length === 0) return;
      const sums = new Sums();
      for (const round of roundsOf(entries)) {
        const sheet = new Sheet();
        for (const entry of round) {
          if (entry.kind !== undefined) seq++;
          sums.add(entry);
          sheet.add(entry, seq, nowUs);
        }
        for (const [sql, rows] of sheet.statements()) await tx.each(sql, rows);
      }
      // Of a conversation that was changed several times only the last row is written.
      const rows = lastOf(entries).map(({ after }) => [...valuesOf(after), unhealed(after) ? 1 : 0]);
      await tx.each(PUT_HELD, rows);
      for (const entry of lastOf(entries)) await prune(tx, entry);
      // Last: few rows, which all writers share.
      await tx.each(ADD_COUNT, sums.rows());
      if (seq > head.seq) await tx.query(RAISE_HEAD, [seq]);
    },
  };
}

function lastOf(entries: readonly Entry[]): Entry[] {
  return [...new Map(entries.map((entry) => [textOf(entry.after), entry])).values()];
}

/** The first changes of all conversations, then the second ones of those that have any, and so on. */
function roundsOf(entries: readonly Entry[]): readonly (readonly Entry[])[] {
  const rounds: Entry[][] = [];
  const counts = new Map<string, number>();
  for (const entry of entries) {
    const text = textOf(entry.after);
    const at = counts.get(text) ?? 0;
    counts.set(text, at + 1);
    const round = rounds[at];
    if (round === undefined) rounds.push([entry]);
    else round.push(entry);
  }
  return rounds;
}

/** What is taken away comes before what is put in its place. */
const ORDER = [
  ...[DROP_ALL_VERSIONS, DROP_ALL_STATES, PUT_GARBAGE, KEEP_GENERATION, REMOVE_LATER, BRING_BACK, PUT_STATE],
  ...[PUT_MESSAGE, PUT_VERSION, PUT_REQUEST, PUT_CHANGE],
];

/** What changes of different conversations write, by statement. */
class Sheet {
  readonly #rows = new Map<string, SqlValue[][]>(ORDER.map((sql) => [sql, []]));

  #put(sql: string, params: SqlValue[]): void {
    this.#rows.get(sql)?.push(params);
  }

  add(entry: Entry, seq: number, nowUs: number): void {
    const { before, after, kind, state, messages, firstPosition, request } = entry;
    const of: SqlValue[] = [after.collection, after.id];
    const isAnother = before?.generation !== after.generation;
    if (before?.presence === "live" && (isAnother || after.presence !== "live")) {
      this.#put(PUT_GARBAGE, [...of, before.generation, nowUs]);
      this.#put(DROP_ALL_VERSIONS, of);
      this.#put(DROP_ALL_STATES, of);
    }
    if (isAnother && after.origin !== undefined) this.#put(KEEP_GENERATION, [...of, after.generation]);
    if (state !== undefined) this.#put(PUT_STATE, [...of, after.stateVersion, state]);
    if (entry.messagesOf !== undefined) {
      const replace = [...of, after.generation, after.version, entry.messagesOf];
      this.#put(REMOVE_LATER, replace);
      this.#put(BRING_BACK, replace);
    }
    for (const [at, { id, role, contentHash, body }] of messages.entries()) {
      const position = firstPosition + at;
      this.#put(PUT_MESSAGE, [...of, after.generation, position, after.version, id, role, contentHash, body]);
    }
    if (request !== undefined) this.#put(PUT_REQUEST, [...of, request.id, request.answer, nowUs + REQUEST_US]);
    if (kind === undefined) return;
    if (entry.history > 0 && after.presence === "live") this.#put(PUT_VERSION, versionValues(entry, kind));
    this.#put(PUT_CHANGE, changeValues(entry, kind, seq, nowUs));
  }

  statements(): Iterable<readonly [sql: string, rows: readonly (readonly SqlValue[])[]]> {
    return [...this.#rows].filter(([, rows]) => rows.length > 0);
  }
}

function changeValues(entry: Entry, kind: Kind, seq: number, nowUs: number): SqlValue[] {
  const { before, after, messages, firstPosition } = entry;
  const shown = after.presence === "live" ? after : (before ?? after);
  const live = before?.presence === "live" && before.generation === after.generation ? before : undefined;
  return [
    ...[seq, after.collection, after.id, kind, after.version, live?.version ?? 0, after.generation, after.stateVersion],
    messages.length === 0 ? null : firstPosition,
    messages.length === 0 ? null : firstPosition + messages.length - 1,
    live?.userId ?? null,
    live?.status ?? null,
    toBinary(ConversationSummarySchema, summaryOf(shown)),
    nowUs,
  ];
}

/** By how much the counts of conversations, messages and bytes change. */
class Sums {
  readonly #sums = new Map<string, { readonly key: readonly SqlValue[]; readonly sums: [number, number, number] }>();

  add({ before, after }: Entry): void {
    if (before !== undefined) this.#add(before, -1);
    this.#add(after, 1);
  }

  #add(held: Held, sign: 1 | -1): void {
    const key = [held.collection, presenceNumber(held.presence), held.status];
    const text = key.join("/");
    const { sums } = this.#sums.get(text) ?? { sums: [0, 0, 0] };
    sums[0] += sign;
    sums[1] += sign * held.messageCount;
    sums[2] += sign * held.stateBytes;
    this.#sums.set(text, { key, sums: [sums[0], sums[1], sums[2]] });
  }

  rows(): SqlValue[][] {
    const changed = [...this.#sums.values()].filter(({ sums }) => sums.some((sum) => sum !== 0));
    return changed.map(({ key, sums }) => [...key, ...sums]);
  }
}

/** Drops what is not the current state, nor of a version that is kept. */
async function prune(tx: SqlSession, { before, after, history, messagesOf }: Entry): Promise<void> {
  if (after.presence !== "live" || before === undefined) return;
  const of: SqlValue[] = [after.collection, after.id];
  if (history > 0 || messagesOf !== undefined) {
    const [oldest] = await tx.query<{ version: number }>(OLDEST_KEPT, [...of, history]);
    const least = history === 0 ? after.version : (oldest?.version ?? 0);
    await tx.query(DROP_VERSIONS, [...of, least]);
    await tx.query(DROP_REMOVED, [...of, after.generation, least]);
  }
  await tx.query(DROP_STATES, [...of, after.stateVersion]);
}

type MessageRow = { message_id: string; position: number; content_hash: Uint8Array };

async function lookUpMessages(
  kind: Database["kind"],
  tx: SqlSession,
  { collection, id, generation }: Held,
  ids: readonly string[],
): Promise<readonly MessageRow[]> {
  if (ids.length === 0) return [];
  const wanted = "SELECT message_id, position, content_hash FROM conversation_message";
  const of = `${OF} AND generation = $3 AND removed IS NULL`;
  if (kind === "postgres") {
    const params = [collection, id, generation, textArray(ids)];
    return tx.query<MessageRow>(`${wanted} WHERE ${of} AND message_id = ANY($4::text[])`, params);
  }
  const rows: MessageRow[] = [];
  for (const messageId of ids) {
    const params = [collection, id, generation, messageId];
    rows.push(...(await tx.query<MessageRow>(`${wanted} WHERE ${of} AND message_id = $4`, params)));
  }
  return rows;
}

export type VersionRow = {
  version: number;
  kind: number;
  generation: number;
  state_version: number;
  user_id: string;
  status: string;
  complexity_level: string;
  confidence_score: number | null;
  message_count: number;
  state_bytes: number;
  updated_us: number;
  restored_version: number;
};

export function keptVersionOf(row: VersionRow): KeptVersion {
  return {
    version: row.version,
    kind: row.kind as Kind,
    generation: row.generation,
    stateVersion: row.state_version,
    userId: row.user_id,
    status: row.status,
    complexityLevel: row.complexity_level,
    confidenceScore: row.confidence_score ?? undefined,
    messageCount: row.message_count,
    stateBytes: row.state_bytes,
    updatedUs: row.updated_us,
    restoredVersion: row.restored_version,
  };
}

function versionValues({ after, restoredVersion }: Entry, kind: Kind): SqlValue[] {
  return [
    ...[after.collection, after.id, after.version, kind, after.generation, after.stateVersion],
    ...[after.userId, after.status, after.complexityLevel, after.confidenceScore ?? null],
    ...[after.messageCount, after.stateBytes, after.updatedUs, restoredVersion ?? 0],
  ];
}

/** The current version is always kept, whether or not there is a history; what made it is not known without one. */
export function currentVersion(held: Held): KeptVersion {
  const { version, generation, stateVersion, userId, status, complexityLevel, confidenceScore } = held;
  const { messageCount, stateBytes, updatedUs } = held;
  const facts = { userId, status, complexityLevel, confidenceScore, messageCount, stateBytes, updatedUs };
  const kind: Kind = version === generation ? 1 : 2;
  return { ...facts, version, kind, generation, stateVersion, restoredVersion: 0 };
}

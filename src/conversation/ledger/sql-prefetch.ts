import type { SqlSession } from "../../infra/database.ts";
import { textArray } from "../../infra/postgres-array.ts";
import type { Order } from "../change/order.ts";
import { type ConversationKey, type Held, textOf } from "../record/conversation.ts";
import type { AnswerRow, Lookup, MessageRow } from "./sql-lookup.ts";
import { HELD_COLUMNS, type HeldRow, heldOf } from "./sql-row.ts";

/** Larger states are read when they are asked for: a batch of them would take too much memory at once. */
const LARGE_BYTES = 64 * 1024;

/* In Postgres, where each question costs a round trip. LIMIT and the inner questions keep the planner from joining tables: what is
 * wanted is looked up one by one, by all the columns of an index, however little is known yet of how large the tables will be. */
const OF_WANTED = "collection = wanted.collection AND id = wanted.id";
const IDS = "unnest($1::text[], $2::text[]) AS wanted (collection, id)";
const NAMED = "unnest($1::text[], $2::text[], $3::text[]) AS wanted (collection, id, name)";
const current = (column: string) => `(SELECT ${column} FROM conversation WHERE ${OF_WANTED})`;
const HELD = `SELECT found.* FROM ${IDS} CROSS JOIN LATERAL (
  SELECT ${HELD_COLUMNS.join(", ")} FROM conversation WHERE ${OF_WANTED} LIMIT 1) AS found`;
const STATE = `SELECT found.* FROM ${IDS} CROSS JOIN LATERAL (
  SELECT collection, id, version, state FROM conversation_state
  WHERE ${OF_WANTED} AND version = ${current("state_version")} AND ${current("state_bytes")} <= ${LARGE_BYTES}
  LIMIT 1) AS found`;
const MESSAGE = `SELECT found.* FROM ${NAMED} CROSS JOIN LATERAL (
  SELECT collection, id, generation, message_id, position, content_hash FROM conversation_message
  WHERE ${OF_WANTED} AND generation = ${current("generation")} AND message_id = wanted.name AND removed IS NULL
  LIMIT 1) AS found`;
const ANSWER = `SELECT found.* FROM ${NAMED} CROSS JOIN LATERAL (
  SELECT collection, id, request_id, meaning, answer, expires_us FROM conversation_request
  WHERE ${OF_WANTED} AND request_id = wanted.name LIMIT 1) AS found`;

type KeyRow = { collection: string; id: string };
type StateRow = KeyRow & { version: number; state: Uint8Array };
type FoundMessageRow = KeyRow & MessageRow & { generation: number };
type FoundAnswerRow = KeyRow & AnswerRow & { request_id: string };

/** Asks, in one round trip, for what the rules will want to know of these orders. What they want besides is looked up. */
export async function prefetch(tx: SqlSession, orders: readonly Order[], lookup: Lookup): Promise<Lookup> {
  const keys = [...new Map(orders.map(({ key }) => [textOf(key), key])).values()];
  const merged = orders.filter((order) => "merge" in order && order.merge !== undefined).map(({ key }) => key);
  const messages = orders.flatMap((order) =>
    "messages" in order ? order.messages.map(({ id }) => ({ ...order.key, name: id })) : [],
  );
  const attempts = orders.flatMap(({ key, requestId }) => (requestId === "" ? [] : [{ ...key, name: requestId }]));
  const [heldRows, stateRows, messageRows, answerRows] = await Promise.all([
    tx.query<HeldRow>(HELD, arraysOf(keys)),
    merged.length === 0 ? [] : tx.query<StateRow>(STATE, arraysOf(distinct(merged))),
    messages.length === 0 ? [] : tx.query<FoundMessageRow>(MESSAGE, namedArraysOf(messages)),
    attempts.length === 0 ? [] : tx.query<FoundAnswerRow>(ANSWER, namedArraysOf(attempts)),
  ]);

  const held = new Map<string, Held | undefined>(keys.map((key) => [textOf(key), undefined]));
  for (const row of heldRows) held.set(textOf(row), heldOf(row));
  const states = new Map(stateRows.map((row) => [textOf(row), row]));
  const askedMessages = new Set(messages.map(nameOf));
  const foundMessages = new Map(messageRows.map((row) => [nameOf({ ...row, name: row.message_id }), row]));
  const askedAnswers = new Set(attempts.map(nameOf));
  const foundAnswers = new Map(answerRows.map((row) => [nameOf({ ...row, name: row.request_id }), row]));

  return {
    ...lookup,
    async held(key) {
      const text = textOf(key);
      return held.has(text) ? held.get(text) : lookup.held(key);
    },
    async state(key, version) {
      const found = states.get(textOf(key));
      return found?.version === version ? found.state : lookup.state(key, version);
    },
    async messages(of, ids) {
      // Of a generation that began in this batch they have not been asked for.
      if (held.get(textOf(of))?.generation !== of.generation) return lookup.messages(of, ids);
      const names = ids.map((id) => nameOf({ ...of, name: id }));
      const unknown = ids.filter((_, at) => !askedMessages.has(names[at] ?? ""));
      const found = names.flatMap((name) => foundMessages.get(name) ?? []);
      return unknown.length === 0 ? found : [...found, ...(await lookup.messages(of, unknown))];
    },
    async answer(key, requestId) {
      const name = nameOf({ ...key, name: requestId });
      return askedAnswers.has(name) ? foundAnswers.get(name) : lookup.answer(key, requestId);
    },
  };
}

interface Named extends ConversationKey {
  readonly name: string;
}

/** One text for each: the length says where the id ends. */
export function nameOf({ collection, id, name }: Named): string {
  return `${collection}/${id.length}/${id}/${name}`;
}

function distinct(keys: readonly ConversationKey[]): readonly ConversationKey[] {
  return [...new Map(keys.map((key) => [textOf(key), key])).values()];
}

function arraysOf(keys: readonly ConversationKey[]): Uint8Array[] {
  return [textArray(keys.map(({ collection }) => collection)), textArray(keys.map(({ id }) => id))];
}

function namedArraysOf(named: readonly Named[]): Uint8Array[] {
  return [...arraysOf(named), textArray(named.map(({ name }) => name))];
}

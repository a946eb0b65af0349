import type { SqlValue } from "../../infra/database.ts";
import { type ConversationKey, type Held, textOf } from "../record/conversation.ts";
import { summaryBytes } from "../record/summary-bytes.ts";
import type { Answered, Entry, Kind } from "./book.ts";
import { OF } from "./sql-lookup.ts";
import { BRING_BACK, DROP_REMOVED, REMOVE_LATER } from "./sql-removed-messages.ts";
import { PUT_HELD, valuesOf } from "./sql-row.ts";
import { deleteRows, eachRow, insertRows, type RowsStatement } from "./sql-rows.ts";
import { ADD_COUNT, Sums } from "./sql-sums.ts";
import { hasVersionRow, PUT_VERSION, versionValues } from "./sql-version-row.ts";

/** Where Redis could not be told of a change, that is noted afterwards. */
const HEALED = 0;

const PUT_STATE = insertRows("conversation_state", {
  collection: "text",
  id: "text",
  version: "bigint",
  state: "bytea",
});
const PUT_MESSAGE = insertRows("conversation_message", {
  collection: "text",
  id: "text",
  generation: "bigint",
  position: "bigint",
  added: "bigint",
  message_id: "text",
  role: "text",
  content_hash: "bytea",
  body: "bytea",
});
const PUT_CHANGE = insertRows("conversation_change", {
  seq: "bigint",
  collection: "text",
  id: "text",
  kind: "bigint",
  version: "bigint",
  previous_version: "bigint",
  generation: "bigint",
  state_version: "bigint",
  first_position: "bigint",
  last_position: "bigint",
  before_user_id: "text",
  before_status: "text",
  summary: "bytea",
  changed_us: "bigint",
});
const PUT_REQUEST = insertRows(
  "conversation_request",
  { collection: "text", id: "text", request_id: "text", meaning: "text", answer: "bytea", expires_us: "bigint" },
  `ON CONFLICT (collection, id, request_id) DO UPDATE
    SET meaning = excluded.meaning, answer = excluded.answer, expires_us = excluded.expires_us`,
);
const PUT_GARBAGE = insertRows(
  "conversation_garbage",
  { collection: "text", id: "text", generation: "bigint", due_us: "bigint" },
  "ON CONFLICT (collection, id, generation) DO UPDATE SET due_us = excluded.due_us",
);
const KEEP_GENERATION = eachRow(`DELETE FROM conversation_garbage WHERE ${OF} AND generation = $3`);

const VERSIONS = "FROM conversation_version WHERE collection =";
/** More than a conversation has versions. */
const MOST_VERSIONS = 100_000;
const DROP_BELOW = deleteRows(
  "conversation_version",
  { collection: "text", id: "text", floor: "bigint" },
  (row) => `collection = ${row("collection")} AND id = ${row("id")} AND version < ${row("floor")}`,
  MOST_VERSIONS,
);
/** Those beyond the newest ones before the current one that the history keeps. */
const DROP_BEYOND = deleteRows(
  "conversation_version",
  { collection: "text", id: "text", history: "bigint" },
  (row) => `collection = ${row("collection")} AND id = ${row("id")} AND version < (
    SELECT version ${VERSIONS} ${row("collection")} AND id = ${row("id")}
    ORDER BY version DESC LIMIT 1 OFFSET ${row("history")})`,
  MOST_VERSIONS,
);
/** What is older than the current state, and than that of the oldest version that is kept. */
const DROP_STATES = deleteRows(
  "conversation_state",
  { collection: "text", id: "text", floor: "bigint" },
  (row) => `collection = ${row("collection")} AND id = ${row("id")} AND version < ${row("floor")}
    AND version < COALESCE((
      SELECT state_version ${VERSIONS} ${row("collection")} AND id = ${row("id")} ORDER BY version LIMIT 1), ${row("floor")})`,
  MOST_VERSIONS,
);
/** An attempt of the same name within this time gets the same answer. */
const REQUEST_US = 600_000_000;

/** What a batch makes of one conversation. */
interface Page {
  readonly first: Entry;
  last: Entry;
  /** Rows of states and versions, as far as they are not superseded within the batch. */
  states: SqlValue[][];
  versions: SqlValue[][];
  /** Versions below this are gone, whatever history is kept. */
  floor: number;
  history: number;
}

export type Line = readonly [statement: RowsStatement, rows: readonly (readonly SqlValue[])[]];

/** Turns entries into rows, so that each table is written once for all of them. */
export class Sheet {
  readonly #nowUs: number;
  readonly #pages = new Map<string, Page>();
  readonly #sums = new Sums();
  readonly #messages: SqlValue[][] = [];
  readonly #changes: SqlValue[][] = [];
  readonly #requests: SqlValue[][] = [];
  readonly #garbage: SqlValue[][] = [];
  readonly #adopted: SqlValue[][] = [];
  readonly #takenAway: SqlValue[][] = [];
  readonly #broughtBack: SqlValue[][] = [];

  constructor(nowUs: number) {
    this.#nowUs = nowUs;
  }

  remember({ collection, id }: ConversationKey, requestId: string, { meaning, answer }: Answered): void {
    this.#requests.push([collection, id, requestId, meaning, answer, this.#nowUs + REQUEST_US]);
  }

  /** `seq` counts if anybody is told. */
  add(entry: Entry, seq: number): void {
    const { before, after, kind, messages, firstPosition } = entry;
    const of = [after.collection, after.id];
    const page = this.#turnTo(entry);
    this.#sums.add(entry);
    if (entry.adopts === true) this.#adopted.push([...of, after.generation]);
    if (before?.presence === "live" && after.presence !== "live") {
      this.#garbage.push([...of, before.generation, this.#nowUs]);
      this.#bury(page, after.version);
    }
    if (entry.state !== undefined) {
      if (entry.history === 0) page.states = [];
      page.states.push([...of, after.stateVersion, entry.state]);
    }
    if (entry.messagesOf !== undefined) {
      const { version, untouched } = entry.messagesOf;
      const change = [...of, after.generation, after.version, version, untouched];
      this.#takenAway.push([...change, before?.messageCount ?? 0]);
      this.#broughtBack.push([...change, after.messageCount]);
    }
    for (const [at, { id, role, contentHash, body }] of messages.entries()) {
      const place = [after.generation, firstPosition + at, after.version];
      this.#messages.push([...of, ...place, id, role, contentHash, body]);
    }
    if (kind === undefined) return;
    page.history = entry.history;
    if (entry.history === 0) this.#bury(page, after.version, page.states);
    if (hasVersionRow(entry)) page.versions.push(versionValues(entry, kind));
    this.#changes.push(changeValues(entry, kind, seq, this.#nowUs));
  }

  #turnTo(entry: Entry): Page {
    const text = textOf(entry.after);
    const page = this.#pages.get(text);
    if (page !== undefined) {
      page.last = entry;
      return page;
    }
    const fresh: Page = { first: entry, last: entry, states: [], versions: [], floor: 0, history: 0 };
    this.#pages.set(text, fresh);
    return fresh;
  }

  /** Nothing below this version is kept but, maybe, a state that is still the current one. */
  #bury(page: Page, version: number, states: SqlValue[][] = []): void {
    page.states = states;
    page.versions = [];
    page.floor = version;
  }

  /** What is to be carried out, in this order. */
  lines(): readonly Line[] {
    const pages = [...this.#pages.values()];
    const pruned = pages.filter(({ floor }) => floor > 0).filter(hadRows);
    const keeping = pages.filter(({ history, last }) => history > 0 && last.after.presence === "live");
    // Only where messages were taken away some may wait to be dropped.
    const cut = pages.filter(({ last: { after } }) => after.cutVersion > 0 && after.presence === "live");
    return [
      [KEEP_GENERATION, this.#adopted],
      [PUT_GARBAGE, this.#garbage],
      [REMOVE_LATER, this.#takenAway],
      [BRING_BACK, this.#broughtBack],
      [PUT_STATE, pages.flatMap(({ states }) => states)],
      [PUT_MESSAGE, this.#messages],
      [PUT_VERSION, pages.flatMap(({ versions }) => versions)],
      [DROP_BELOW, pruned.map(({ last, floor }) => [...ofPage(last), floor])],
      [DROP_BEYOND, keeping.map(({ last, history }) => [...ofPage(last), history])],
      [
        DROP_STATES,
        [...new Set([...pruned, ...keeping])].map(({ last }) => [...ofPage(last), stateFloorOf(last.after)]),
      ],
      [DROP_REMOVED, cut.map(({ last: { after } }) => [...ofPage({ after }), after.generation, after.version])],
      [PUT_REQUEST, this.#requests],
      [PUT_CHANGE, this.#changes],
      [PUT_HELD, pages.map(({ last: { after } }) => [...valuesOf(after), HEALED])],
      // Last: few rows, which all writers share.
      [ADD_COUNT, this.#sums.rows()],
    ];
  }
}

/** Whether there are rows of what it was before the batch. */
function hadRows({ first }: Page): boolean {
  return first.before?.presence === "live";
}

function ofPage({ after }: Pick<Entry, "after">): SqlValue[] {
  return [after.collection, after.id];
}

/** Older states are not the current one; of a tombstone there is none. */
function stateFloorOf({ presence, stateVersion, version }: Held): number {
  return presence === "live" ? stateVersion : version;
}

function changeValues(entry: Entry, kind: Kind, seq: number, nowUs: number): SqlValue[] {
  const { before, after, messages, firstPosition } = entry;
  const live = before?.presence === "live" ? before : undefined;
  const shown = after.presence === "live" ? after : (live ?? after);
  return [
    ...[seq, after.collection, after.id, kind, after.version, live?.version ?? 0, after.generation, after.stateVersion],
    messages.length === 0 ? null : firstPosition,
    messages.length === 0 ? null : firstPosition + messages.length - 1,
    live?.userId ?? null,
    live?.status ?? null,
    summaryBytes(shown),
    nowUs,
  ];
}

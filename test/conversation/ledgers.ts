import { createHash } from "node:crypto";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import type { Order, OrderOf, Outcome } from "../../src/conversation/change/order.ts";
import { type HotCopies, NO_COPIES } from "../../src/conversation/hot/hot-copies.ts";
import type { Ledger } from "../../src/conversation/ledger/ledger.ts";
import { createSqlLedger } from "../../src/conversation/ledger/sql-ledger.ts";
import type { CollectionPolicy, ConversationKey, Message, State } from "../../src/conversation/record/conversation.ts";
import { ConversationMessageSchema } from "../../src/gen/holdfast/v1/conversation_pb.js";
import type { Database } from "../../src/infra/database.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type MovedClock, movedClock } from "../support/moved-clock.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { openTestDatabase, SQL_KINDS } from "../support/test-database.ts";

export const KINDS = SQL_KINDS;

export const DAY_MS = 86_400_000;

/** What the configuration says by default. */
export const DEFAULT_POLICY: CollectionPolicy = { ttlMs: DAY_MS, sliding: true, history: 0, tombstoneMs: DAY_MS };

/** The ledger of one instance. */
export interface OpenLedger {
  readonly ledger: Ledger;
  readonly database: Database;
  /** How often it told of a commit. */
  commits(): number;
}

/** Instances over one new, empty database; in SQLite there is only one. */
export interface OpenLedgers extends AsyncDisposable {
  readonly instances: readonly [OpenLedger, ...OpenLedger[]];
  readonly clock: MovedClock;
  /** By collection; what is not named has the default, and undefined is not admitted. May be changed while it is used. */
  readonly policies: Map<string, CollectionPolicy | undefined>;
  /** The file, or the url. */
  readonly where: string;
}

export interface LedgerOptions {
  readonly count?: number;
  readonly copies?: HotCopies;
}

export async function openLedgers(kind: (typeof KINDS)[number], options: LedgerOptions = {}): Promise<OpenLedgers> {
  await using parts = new AsyncDisposableStack();
  const clock = movedClock();
  const policies = new Map<string, CollectionPolicy | undefined>();
  const directory = parts.adopt(scratchDirectory("conversation"), (it) => it.remove());
  const where = kind === "postgres" ? await freshDatabase() : join(directory.path, "conversation.db");
  const open = async (): Promise<OpenLedger> => {
    const database = parts.adopt(openTestDatabase(kind, where), (it) => it.close());
    await migrate(database, migrations);
    let commits = 0;
    const ledger = createSqlLedger({
      ...{ database, clock, copies: options.copies ?? NO_COPIES },
      policyFor: (collection) => (policies.has(collection) ? policies.get(collection) : DEFAULT_POLICY),
      onCommit: () => {
        commits++;
      },
    });
    return { ledger, database, commits: () => commits };
  };
  const others = kind === "postgres" ? (options.count ?? 1) - 1 : 0;
  const instances: [OpenLedger, ...OpenLedger[]] = [await open()];
  for (let other = 0; other < others; other++) instances.push(await open());
  const kept = parts.move();
  return { instances, clock, policies, where, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

export const KEY: ConversationKey = { collection: "conversation", id: "c1" };

type Given<Kind extends Order["kind"]> = Omit<Partial<OrderOf<Kind>>, "kind">;

export function state(text: string, status = ""): State {
  return {
    ...{ userId: "u1", status, complexityLevel: "", confidenceScore: undefined },
    bytes: Buffer.from(text),
  };
}

export function message(id: string, content = `content of ${id}`): Message {
  const said = create(ConversationMessageSchema, { id, role: "user", content });
  const contentHash = createHash("sha256").update(content).digest();
  return { id, role: "user", body: toBinary(ConversationMessageSchema, said), contentHash };
}

export function save(text: string, given: Given<"save"> = {}): OrderOf<"save"> {
  return { kind: "save", key: KEY, requestId: "", state: state(text), messages: [], ...given };
}

/** Adds the text to the state. */
export function patch(text: string, given: Given<"patch"> = {}): OrderOf<"patch"> {
  return { kind: "patch", key: KEY, requestId: "", merge: adds(text), ...given };
}

export function adds(text: string): (before: Uint8Array) => State {
  return (before) => state(Buffer.from(before).toString() + text);
}

export function append(messages: readonly Message[], given: Given<"append"> = {}): OrderOf<"append"> {
  return { kind: "append", key: KEY, requestId: "", messages, create: false, ...given };
}

export function remove(given: Given<"delete"> = {}): OrderOf<"delete"> {
  return { kind: "delete", key: KEY, requestId: "", ...given };
}

export function extend(given: Given<"extend"> = {}): OrderOf<"extend"> {
  return { kind: "extend", key: KEY, requestId: "", expiry: { ttlMs: undefined, sliding: undefined }, ...given };
}

export function restore(version: number, given: Given<"restore"> = {}): OrderOf<"restore"> {
  return { kind: "restore", key: KEY, requestId: "", version, keepMessages: false, ...given };
}

export function expire(given: Given<"expire"> = {}): OrderOf<"expire"> {
  return { kind: "expire", key: KEY, requestId: "", ...given };
}

type Done = Extract<Outcome, { kind: "done" }>;

/** Carries it out, and expects that it was done. */
export async function done({ ledger }: Pick<OpenLedger, "ledger">, order: Order): Promise<Done> {
  const outcome = await ledger.carryOut(order);
  if (outcome.kind !== "done") throw new Error(`not done: ${JSON.stringify(outcome)}`);
  return outcome;
}

/** The messages that are there, by position. */
export async function messagesOf({ database }: Pick<OpenLedger, "database">, key = KEY): Promise<readonly string[]> {
  const rows = await database.query<{ message_id: string; position: number }>(
    `SELECT m.message_id, m.position FROM conversation c
      JOIN conversation_message m ON m.collection = c.collection AND m.id = c.id AND m.generation = c.generation
      WHERE c.collection = $1 AND c.id = $2 AND c.presence = 1 AND m.removed IS NULL ORDER BY m.position`,
    [key.collection, key.id],
  );
  for (const [at, { position }] of rows.entries()) if (position !== at + 1) throw new Error("positions have gaps");
  return rows.map((row) => row.message_id);
}

/** The current state, as text. */
export async function stateOf({ database }: Pick<OpenLedger, "database">, key = KEY): Promise<string | undefined> {
  const [row] = await database.query<{ state: Uint8Array }>(
    `SELECT s.state FROM conversation c
      JOIN conversation_state s ON s.collection = c.collection AND s.id = c.id AND s.version = c.state_version
      WHERE c.collection = $1 AND c.id = $2 AND c.presence = 1`,
    [key.collection, key.id],
  );
  return row && Buffer.from(row.state).toString();
}

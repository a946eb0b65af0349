import { fromJson, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { StructSchema } from "@bufbuild/protobuf/wkt";
import Sqlite from "better-sqlite3";
import pg from "pg";
import { CONVERSATIONS, conversationId, stateAt } from "./conversation-messages.ts";

/**
 * `node conversation-upsert-process.ts '{"database":...}'`: the baseline of Save. better-sqlite3, or pg with its pool, puts states of
 * the same size into one table of one index, durably, each by itself, and does nothing else: no version, no message, no history,
 * nothing received from anybody.
 */
export interface UpsertOrder {
  /** A file, or a url. */
  readonly database: string;
  readonly callers: number;
  readonly durationMs: number;
}

export interface UpsertResult {
  readonly calls: number;
  readonly seconds: number;
  /** Processor time of this process. */
  readonly cpuMs: number;
}

const TABLE = (blob: string) =>
  `CREATE TABLE IF NOT EXISTS plain (id TEXT PRIMARY KEY, state ${blob} NOT NULL, updated_ms BIGINT NOT NULL)`;
const UPSERT = (one: string, two: string, three: string) =>
  `INSERT INTO plain (id, state, updated_ms) VALUES (${one}, ${two}, ${three})
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, updated_ms = excluded.updated_ms`;

const order = JSON.parse(process.argv[2] ?? "{}") as UpsertOrder;
const states = Array.from({ length: CONVERSATIONS }, (_, number) => Buffer.from(stateBytes(stateAt(number))));
const upsert = order.database.startsWith("postgres") ? await inPostgres(order) : inSqlite(order);
let number = 0;
const before = process.cpuUsage();
const begun = performance.now();
const until = begun + order.durationMs;
await Promise.all(
  Array.from({ length: order.callers }, async () => {
    while (performance.now() < until) await upsert(number++);
  }),
);
const seconds = (performance.now() - begun) / 1000;
const { user, system } = process.cpuUsage(before);
const result: UpsertResult = { calls: number, seconds, cpuMs: (user + system) / 1000 };
process.stdout.write(`${JSON.stringify(result)}\n`);

async function inPostgres({ database }: UpsertOrder): Promise<(at: number) => Promise<unknown>> {
  const pool = new pg.Pool({ connectionString: database, max: 10 });
  await pool.query(TABLE("BYTEA"));
  const statement = { name: "upsert", text: UPSERT("$1", "$2", "$3") };
  return (at) => pool.query({ ...statement, values: [conversationId(at), states[at % CONVERSATIONS], Date.now()] });
}

function inSqlite({ database }: UpsertOrder): (at: number) => Promise<unknown> {
  const file = new Sqlite(database);
  file.pragma("journal_mode = WAL");
  file.pragma("synchronous = FULL");
  file.exec(TABLE("BLOB"));
  const statement = file.prepare(UPSERT("?", "?", "?"));
  return async (at) => {
    // Callers come from outside, one after the other.
    if (at % order.callers === 0) await new Promise(setImmediate);
    statement.run(conversationId(at), states[at % CONVERSATIONS], Date.now());
  };
}

function stateBytes(state: JsonObject): Uint8Array {
  return toBinary(StructSchema, fromJson(StructSchema, state));
}

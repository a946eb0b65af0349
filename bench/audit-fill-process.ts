import Sqlite from "better-sqlite3";
import { Frontier, leafHash, type TreeNode } from "../src/audit/archive/merkle.ts";
import { keyOf } from "../src/audit/record/keys.ts";
import { migrations } from "../src/infra/migrations/all.ts";
import { migrate } from "../src/infra/migrations.ts";
import { openSqlite } from "../src/infra/sqlite.ts";
import {
  FIRST_SEQUENCE,
  patchSequence,
  patchTrace,
  RARE,
  SECONDS_AT,
  SEQUENCE_BYTES,
  TRACE_DIGITS,
  traceText,
  varint,
} from "./audit-records.ts";
import { COLUMN, insertRow, type PreparedRow, prepareRow } from "./audit-rows.ts";

/**
 * `node audit-fill-process.ts '{"path":...}'`: writes the archive that so many records of one producer would have left behind,
 * tree and all, but for the index, which the server builds. Directly and without waiting for the disk, so that millions take a
 * minute.
 */
export interface FillOrder {
  readonly path: string;
  readonly records: number;
}

const PRODUCER = "fill";
const TEMPLATES = 8_000;
const TRANSACTION = 10_000;
const RECORDS_PER_SECOND = 70;
/** From here on the nanoseconds of a time take five bytes. */
const LEAST_MICROS = 268_436;
const SECONDS_BYTES = 5;

async function fill({ path, records }: FillOrder): Promise<void> {
  const database = await openSqlite({ path });
  await migrate(database, migrations);
  await database.close();
  const db = new Sqlite(path);
  db.pragma("synchronous = OFF");
  db.pragma("cache_size = -65536");
  const insert = insertRow(db);
  const insertNode = db.prepare("INSERT INTO audit_node (level, node_index, hash) VALUES (?, ?, ?)");
  const next = createRows(Math.floor(Date.now() / 1000) - Math.ceil(records / RECORDS_PER_SECOND));
  const frontier = new Frontier(0, Buffer.alloc(0));
  const commit = db.transaction((from: number, to: number) => {
    const kept: TreeNode[] = [];
    for (let number = from; number < to; number++) {
      const { row, leaf } = next(number);
      const hash = leafHash(leaf);
      row[COLUMN.leafHash] = hash;
      insert.run(...row);
      frontier.add(hash, kept);
    }
    for (const { level, index, hash } of kept) insertNode.run(level, index, hash);
  });
  for (let from = 0; from < records; from += TRANSACTION) commit(from, Math.min(records, from + TRANSACTION));
  db.prepare("UPDATE audit_head SET size = ?, frontier = ? WHERE id = 1").run(frontier.size, frontier.bytes());
  db.prepare("INSERT INTO audit_producer (producer, last_sequence) VALUES (?, ?)").run(
    PRODUCER,
    FIRST_SEQUENCE + records - 1,
  );
  db.close();
}

/** Makes the row with a number, the same in every run but for the time. The row before is made into it. */
function createRows(firstSecond: number): (number: number) => PreparedRow {
  const templates = Array.from({ length: TEMPLATES }, (_, number) => asTemplate(prepareRow(PRODUCER, number)));
  const rare = asTemplate(prepareRow(PRODUCER, 0, RARE.actor));
  return (number) => {
    // Any order but that of the actors.
    const template = number % RARE.every === RARE.every - 1 ? rare : templates[(number * 7_919) % TEMPLATES];
    if (template === undefined) throw new Error("a template is missing");
    const { row, leaf, places } = template;
    const seconds = firstSecond + Math.floor(number / RECORDS_PER_SECOND);
    const micros = LEAST_MICROS + ((number * 104_729) % (1_000_000 - LEAST_MICROS));
    row[COLUMN.leafIndex] = number;
    row[COLUMN.sequence] = FIRST_SEQUENCE + number;
    row[COLUMN.acceptUs] = (seconds + 1) * 1_000_000;
    row[COLUMN.occurUs] = seconds * 1_000_000 + micros;
    row[COLUMN.trace] = keyOf(traceText(number));
    patchSequence(leaf, places.sequence, FIRST_SEQUENCE + number);
    leaf.set(varint(seconds + 1), places.acceptSeconds);
    leaf.set(varint(seconds), places.occurSeconds);
    leaf.set(varint(micros * 1000), places.occurSeconds + SECONDS_BYTES + 1);
    patchTrace(leaf, places.trace, number);
    return template;
  };
}

interface Template extends PreparedRow {
  readonly places: {
    readonly sequence: number;
    readonly acceptSeconds: number;
    readonly occurSeconds: number;
    readonly trace: number;
  };
}

/** Where in the leaf is what is patched: producer, sequence, accept_time and the entry follow each other. */
function asTemplate(prepared: PreparedRow): Template {
  const sequence = 2 + PRODUCER.length + 1;
  const acceptSeconds = sequence + SEQUENCE_BYTES + 2 + 1;
  const entry = acceptSeconds + SECONDS_BYTES + 1 + 2;
  const trace = prepared.leaf.indexOf(traceText(0).slice(TRACE_DIGITS)) - TRACE_DIGITS;
  return { ...prepared, places: { sequence, acceptSeconds, occurSeconds: entry + SECONDS_AT, trace } };
}

await fill(JSON.parse(process.argv[2] ?? "{}") as FillOrder);
process.stdout.write("{}\n");

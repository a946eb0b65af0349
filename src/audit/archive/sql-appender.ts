import type { Database, SqlSession, SqlValue } from "../../infra/database.ts";
import { bigintArray, byteaArray, textArray } from "../../infra/postgres-array.ts";
import { sameContent } from "../record/leaf.ts";
import { idOf, REQUEST_PRODUCER, type RecordId, type Sealed } from "../record/record.ts";
import type { Appender, Placed, Prepared, PreparedRecord } from "./archive.ts";
import { Frontier, leafHash, type TreeNode } from "./merkle.ts";

/** A record whose identity is held with other content. */
export interface Differing {
  readonly record: Sealed;
  readonly hash: Buffer;
}

export function prepare(record: Sealed): PreparedRecord {
  return { record, hash: leafHash(record.leaf), keys: record.texts.keys() };
}

export interface SqlAppender extends Appender {
  appendPrepared(prepared: Prepared): Promise<readonly Placed[]>;
  readonly frontier: Frontier;
  readonly differing: readonly Differing[];
  /** Actions that were not known before; known once the transaction is committed. */
  readonly actions: ReadonlySet<string>;
  /** Writes the new head, if there is one. The last thing before the commit. */
  finish(): Promise<void>;
}

interface Held {
  readonly leafIndex: number;
  /** Null when retention has dropped it: then what it said is not known any more. */
  readonly leaf: Uint8Array | null;
}

const IDENTITY = "producer = $1 AND sequence = $2";

const INSERT_COLUMNS =
  "leaf_index, producer, sequence, leaf_hash, accept_us, occur_us, actor_key, action_key, resource_key, resource_type_key, " +
  "trace_key, service_key, outcome, status, leaf";
const COLUMNS = INSERT_COLUMNS.split(", ").length;
/** Records that are placed and inserted together. */
const PART = 500;
/** Rows that SQLite is given at once: most of what a statement costs there is calling it. */
const TOGETHER = 16;
const INSERT_ROW = insertStatement(1);
const INSERT_TOGETHER = insertStatement(TOGETHER);
const INSERT_ROWS = `INSERT INTO audit_record (${INSERT_COLUMNS})
  SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bytea[])`;
const INSERT_ACTION = "INSERT INTO audit_action (action) VALUES ($1) ON CONFLICT (action) DO NOTHING";
const INSERT_NODE = "INSERT INTO audit_node (level, node_index, hash) VALUES ($1, $2, $3)";
const RAISE_PRODUCER = `INSERT INTO audit_producer (producer, last_sequence) VALUES ($1, $2)
  ON CONFLICT (producer) DO UPDATE SET last_sequence = excluded.last_sequence
  WHERE excluded.last_sequence > audit_producer.last_sequence`;

/** AuditStatus NOT_REQUIRED and PENDING. */
const STATUS = { notRequired: 1, pending: 2 } as const;

/**
 * Appends in a transaction that holds the head: whatever is read here stays true until the commit. `expected` are producers that
 * are likely to be appended to.
 */
export async function openAppender(
  kind: Database["kind"],
  tx: SqlSession,
  isKnownAction: (action: string) => boolean,
  expected: readonly string[] = [],
): Promise<SqlAppender> {
  const lastSequences = new Map<string, number>();
  async function learnSequences(producers: readonly string[]): Promise<void> {
    const unknown = producers.filter((producer) => !lastSequences.has(producer));
    if (unknown.length === 0) return;
    for (const producer of unknown) lastSequences.set(producer, 0);
    type Row = { producer: string; last_sequence: number };
    const rows =
      kind === "postgres"
        ? await tx.query<Row>("SELECT producer, last_sequence FROM audit_producer WHERE producer = ANY($1::text[])", [
            textArray(unknown),
          ])
        : await oneByOne(unknown, (producer) =>
            tx.query<Row>("SELECT producer, last_sequence FROM audit_producer WHERE producer = $1", [producer]),
          );
    for (const row of rows) lastSequences.set(row.producer, row.last_sequence);
  }

  const lock = kind === "postgres" ? " FOR UPDATE" : "";
  // On their way together; Postgres begins with the second when the head is locked.
  const [[head]] = await Promise.all([
    tx.query<{ size: number; frontier: Uint8Array }>(`SELECT size, frontier FROM audit_head WHERE id = 1${lock}`),
    learnSequences(expected.filter((one) => !isOfRequest(one))),
  ]);
  if (head === undefined) throw new Error("the audit log has lost its head");
  const frontier = new Frontier(head.size, head.frontier);
  const kept: TreeNode[] = [];
  const raised = new Map<string, number>();
  const actions = new Set<string>();
  const differing: Differing[] = [];

  /** Those of the records that the archive holds, by id. */
  async function lookUp(records: readonly RecordId[]): Promise<Map<string, Held>> {
    type Row = { producer: string; sequence: number; leaf_index: number; leaf: Uint8Array | null };
    const rows =
      kind === "postgres"
        ? await tx.query<Row>(
            `SELECT r.producer, r.sequence, r.leaf_index, r.leaf
              FROM unnest($1::text[], $2::bigint[]) AS wanted (producer, sequence)
              JOIN audit_record r ON r.producer = wanted.producer AND r.sequence = wanted.sequence`,
            [textArray(records.map(({ producer }) => producer)), bigintArray(records.map(({ sequence }) => sequence))],
          )
        : await oneByOne(records, ({ producer, sequence }) =>
            tx.query<Row>(`SELECT producer, sequence, leaf_index, leaf FROM audit_record WHERE ${IDENTITY}`, [
              producer,
              sequence,
            ]),
          );
    return new Map(rows.map((row) => [idOf(row), { leafIndex: row.leaf_index, leaf: row.leaf }]));
  }

  /** Records that may be held: what comes after everything known of its producer cannot be. */
  function doubtful(records: Prepared): Set<Sealed> {
    const doubts = new Set<Sealed>();
    for (const { record } of records) {
      const { producer, sequence } = record;
      if (isOfRequest(producer)) {
        doubts.add(record);
        continue;
      }
      if (sequence > (lastSequences.get(producer) ?? 0)) lastSequences.set(producer, sequence);
      else doubts.add(record);
    }
    return doubts;
  }

  function place(prepared: PreparedRecord, placing: PreparedRecord[]): Placed {
    const { record, hash } = prepared;
    const leafIndex = frontier.size;
    frontier.add(hash, kept);
    placing.push(prepared);
    if (!isKnownAction(record.texts.action)) actions.add(record.texts.action);
    if (!isOfRequest(record.producer)) {
      raised.set(record.producer, Math.max(record.sequence, raised.get(record.producer) ?? 0));
    }
    return { outcome: "appended", leafIndex };
  }

  /** Inserts what was placed from this index on. Postgres is at it while the next rows are being placed. */
  function insert(first: number, rows: Prepared): Promise<unknown> {
    if (kind === "postgres") return tx.query(INSERT_ROWS, columnsOf(first, rows));
    const whole = rows.length - (rows.length % TOGETHER);
    return Promise.all([
      tx.each(INSERT_TOGETHER, chunksOf(first, rows, 0, whole, TOGETHER)),
      tx.each(INSERT_ROW, chunksOf(first, rows, whole, rows.length, 1)),
    ]);
  }

  async function appendPrepared(prepared: Prepared): Promise<readonly Placed[]> {
    const producers = new Set(prepared.map(({ record }) => record.producer));
    await learnSequences([...producers].filter((one) => !isOfRequest(one)));
    const doubts = doubtful(prepared);
    const held = doubts.size === 0 ? NONE_HELD : await lookUp([...doubts]);
    // What is placed here may come a second time in the same batch; only then is it looked for.
    const placedHere = doubts.size === 0 ? undefined : new Map<string, Held>();

    function placeOrFind(one: PreparedRecord, placing: PreparedRecord[]): Placed {
      const { record } = one;
      const id = placedHere === undefined ? "" : idOf(record);
      const known = doubts.has(record) ? (held.get(id) ?? placedHere?.get(id)) : undefined;
      if (known === undefined) {
        const fresh = place(one, placing);
        placedHere?.set(id, { leafIndex: fresh.leafIndex, leaf: record.leaf });
        return fresh;
      }
      const same = known.leaf === null || sameContent(known.leaf, record.leaf);
      if (!same) differing.push({ record, hash: one.hash });
      return { outcome: same ? "duplicate" : "differs", leafIndex: known.leafIndex };
    }

    const placed: Placed[] = [];
    const inserted: Promise<unknown>[] = [];
    for (let from = 0; from < prepared.length; from += PART) {
      const first = frontier.size;
      const placing: PreparedRecord[] = [];
      for (const one of prepared.slice(from, from + PART)) placed.push(placeOrFind(one, placing));
      if (placing.length === 0) continue;
      const part = insert(first, placing);
      // It is waited for below; unless placing the next ones fails, and that is what is told then.
      part.catch(() => {});
      inserted.push(part);
    }
    // None is left to itself: the first that failed explains the others.
    for (const part of await Promise.allSettled(inserted)) if (part.status === "rejected") throw part.reason;
    return placed;
  }

  return {
    frontier,
    differing,
    actions,
    append: (records) => appendPrepared(records.map(prepare)),
    appendPrepared,
    async nextSequence(producer) {
      await learnSequences([producer]);
      return (lastSequences.get(producer) ?? 0) + 1;
    },
    async finish() {
      if (frontier.size === head.size) return;
      await Promise.all([
        tx.each(RAISE_PRODUCER, [...raised]),
        tx.each(
          INSERT_ACTION,
          [...actions].map((action) => [action]),
        ),
        tx.each(
          INSERT_NODE,
          kept.map(({ level, index, hash }) => [level, index, hash]),
        ),
        tx.query("UPDATE audit_head SET size = $1, frontier = $2 WHERE id = 1", [frontier.size, frontier.bytes()]),
      ]);
    },
  };
}

const NONE_HELD: ReadonlyMap<string, Held> = new Map();

function isOfRequest(producer: string): boolean {
  return producer.startsWith(REQUEST_PRODUCER);
}

function statusOf({ pending }: Sealed): number {
  return pending ? STATUS.pending : STATUS.notRequired;
}

function insertStatement(rows: number): string {
  const row = (at: number) => `(${Array.from({ length: COLUMNS }, (_, column) => `$${at * COLUMNS + column + 1}`)})`;
  return `INSERT INTO audit_record (${INSERT_COLUMNS}) VALUES ${Array.from({ length: rows }, (_, at) => row(at))}`;
}

/** The parameters for the rows from `start` to `end`, so many at a time. */
function chunksOf(first: number, rows: Prepared, start: number, end: number, size: number) {
  const chunks: SqlValue[][] = [];
  let chunk: SqlValue[] = [];
  for (let at = start; at < end; at++) {
    const row = rows[at];
    if (row === undefined) break;
    if ((at - start) % size === 0) {
      chunk = [];
      chunks.push(chunk);
    }
    pushRow(chunk, first + at, row);
  }
  return chunks;
}

function columnsOf(first: number, rows: Prepared): Uint8Array[] {
  return [
    bigintArray(rows.map((_, at) => first + at)),
    textArray(rows.map(({ record }) => record.producer)),
    bigintArray(rows.map(({ record }) => record.sequence)),
    byteaArray(rows.map(({ hash }) => hash)),
    bigintArray(rows.map(({ record }) => record.acceptUs)),
    bigintArray(rows.map(({ record }) => record.occurUs)),
    bigintArray(rows.map(({ keys }) => keys.actor)),
    bigintArray(rows.map(({ keys }) => keys.action)),
    bigintArray(rows.map(({ keys }) => keys.resource)),
    bigintArray(rows.map(({ keys }) => keys.resourceType)),
    bigintArray(rows.map(({ keys }) => keys.trace)),
    bigintArray(rows.map(({ keys }) => keys.service)),
    bigintArray(rows.map(({ record }) => record.outcome)),
    bigintArray(rows.map(({ record }) => statusOf(record))),
    byteaArray(rows.map(({ record }) => record.leaf)),
  ];
}

function pushRow(values: SqlValue[], leafIndex: number, { record, hash, keys }: PreparedRecord): void {
  values.push(
    leafIndex,
    record.producer,
    record.sequence,
    hash,
    record.acceptUs,
    record.occurUs,
    keys.actor,
    keys.action,
    keys.resource ?? null,
    keys.resourceType ?? null,
    keys.trace ?? null,
    keys.service ?? null,
    record.outcome,
    statusOf(record),
    record.leaf,
  );
}

async function oneByOne<Item, Row>(items: readonly Item[], query: (item: Item) => Promise<Row[]>): Promise<Row[]> {
  const rows: Row[] = [];
  for (const item of items) rows.push(...(await query(item)));
  return rows;
}

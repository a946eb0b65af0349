import { basename } from "node:path";
import { type ForeignRow, type ForeignSqlite, type ForeignTable, openForeignSqlite } from "../../infra/sqlite-file.ts";
import { UsageError } from "../usage.ts";
import { producerFor, sequenceOfText } from "./identity.ts";
import type { Mapping } from "./roles.ts";
import {
  checkMapped,
  type Likeness,
  likenessOf,
  likenessOfAll,
  remarkOf,
  type Source,
  SourceError,
  type SourceRow,
} from "./source.ts";

export interface SqliteSourceOptions {
  readonly file: string;
  /** Undefined: the one whose columns look most like audit records. */
  readonly table: string | undefined;
  readonly mapping: Mapping;
}

/** So many rows are looked at to tell what a table holds. */
const SAMPLES = 1000;

/** The rows of one table of a SQLite file. */
export function openSqliteSource({ file, table: wanted, mapping }: SqliteSourceOptions): Source {
  const db = open(file);
  try {
    const found = db.tables.map((table) => ({ table, likeness: likenessOfTable(db, table, mapping) }));
    if (wanted === undefined) checkMapped(likenessOfAll(found.map(({ likeness }) => likeness)), mapping);
    const { table, likeness } = choose(file, found, wanted, mapping);
    checkMapped(likeness, mapping);
    const others = found.filter((one) => one.table !== table && one.likeness.score > 0).map((one) => one.table.name);
    const identify = identifier(table);
    return {
      name: `table ${table.name} of ${file}`,
      producer: producerFor(basename(file), table.name),
      remarks: [
        remarkOf(likeness),
        ...identify.remarks,
        ...others.map((name) => `the table ${name} looks like audit records, too: import it with --table ${name}`),
      ],
      likeness,
      isTimed: false,
      total: db.count(table),
      passedOver: () => 0,
      *rows(): Generator<SourceRow> {
        for (const row of db.rows(table)) {
          yield { where: identify.where(row), sequence: identify.sequence(row), fields: row.values, raw: row.values };
        }
      },
      close: async () => db.close(),
    };
  } catch (error) {
    db.close();
    throw error;
  }
}

function open(file: string): ForeignSqlite {
  try {
    return openForeignSqlite(file);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new SourceError(`${file} cannot be read as a SQLite database: ${why}`, error);
  }
}

function likenessOfTable(db: ForeignSqlite, table: ForeignTable, mapping: Mapping): Likeness {
  const columns = Object.fromEntries(table.columns.map((name) => [name, "?"]));
  const samples: Record<string, unknown>[] = [columns];
  for (const { values } of db.rows(table)) {
    samples.push(values);
    if (samples.length > SAMPLES) break;
  }
  return likenessOf(samples, mapping);
}

interface Candidate {
  readonly table: ForeignTable;
  readonly likeness: Likeness;
}

function choose(file: string, found: readonly Candidate[], wanted: string | undefined, mapping: Mapping): Candidate {
  if (wanted !== undefined) {
    const named = found.find(({ table }) => table.name === wanted);
    if (named === undefined) throw new SourceError(`${file} has no table ${wanted}. ${listOf(found)}`);
    if (named.likeness.score === 0) {
      checkMapped(named.likeness, mapping);
      throw new SourceError(
        `the table ${wanted} of ${file} does not look like audit records. ${HOW}\n${listOf([named])}`,
      );
    }
    return named;
  }
  const [best, next] = found.toSorted((one, other) => other.likeness.score - one.likeness.score);
  if (best === undefined || best.likeness.score === 0) {
    throw new SourceError(`no table of ${file} looks like audit records. ${HOW}\n${listOf(found)}`);
  }
  if (next?.likeness.score === best.likeness.score) {
    throw new UsageError(
      `${file} has several tables that look like audit records: say which one with --table. ${listOf(found)}`,
    );
  }
  return best;
}

const HOW =
  "Expected are columns for at least two of actor, action, resource (such as memory_id), time and status; " +
  "--map says which is which, such as --map actor=who.";

function listOf(found: readonly Candidate[]): string {
  if (found.length === 0) return "It has no tables.";
  const tables = found.map(({ table }) => `  ${table.name} (${table.columns.join(", ")})`);
  return `Its tables:\n${tables.join("\n")}`;
}

interface Identifier {
  readonly remarks: readonly string[];
  sequence(row: ForeignRow): number;
  where(row: ForeignRow): string;
}

/**
 * A number that stays a row's own: its INTEGER PRIMARY KEY. Other row numbers may change when the file is compacted, so another key
 * goes before them.
 */
function identifier(table: ForeignTable): Identifier {
  const keyOf = ({ values }: ForeignRow) => JSON.stringify(table.key.map((name) => String(values[name])));
  const byKey: Identifier = {
    remarks: [],
    sequence: (row) => sequenceOfText(keyOf(row)),
    where: (row) => `row ${keyOf(row)}`,
  };
  if (!table.isNumbered && table.key.length > 0) return byKey;
  return {
    remarks: table.isNumbered
      ? []
      : [`${table.name} has no primary key: do not VACUUM the file between two imports of it, rows would count as new`],
    sequence({ rowNumber = 0n }) {
      const number = Number(rowNumber);
      return number >= 1 && Number.isSafeInteger(number) ? number : sequenceOfText(`row ${rowNumber}`);
    },
    where: ({ rowNumber = 0n }) => `row ${rowNumber}`,
  };
}

import Sqlite from "better-sqlite3";

export type ForeignValue = null | number | bigint | string | Uint8Array;

export interface ForeignTable {
  readonly name: string;
  readonly columns: readonly string[];
  /** The columns of its primary key, in order; empty when it has none. */
  readonly key: readonly string[];
  /** Whether `rowNumber` is the primary key, so that it stays a row's own for good. */
  readonly isNumbered: boolean;
}

export interface ForeignRow {
  /** Undefined in a table without row numbers. */
  readonly rowNumber: bigint | undefined;
  readonly values: Readonly<Record<string, ForeignValue>>;
}

/** A SQLite file of somebody else's, which is only read. */
export interface ForeignSqlite {
  readonly tables: readonly ForeignTable[];
  count(table: ForeignTable): number;
  /** All rows as they are when the first is asked for, in the order of their numbers or of their key. */
  rows(table: ForeignTable): Iterable<ForeignRow>;
  close(): void;
}

// No column has it: SQL identifiers hold no NUL.
const ROW_NUMBER = "row\u{1}number";

/** Throws what SQLite says when the file is missing, or is none of its own. */
export function openForeignSqlite(path: string): ForeignSqlite {
  const db = new Sqlite(path, { readonly: true, fileMustExist: true, timeout: 5000 });
  try {
    const rowless = new Set<string>();
    const tables = tableNames(db).map((name): ForeignTable => {
      if (!hasRowNumbers(db, name)) rowless.add(name);
      return tableOf(db, name, !rowless.has(name));
    });
    return {
      tables,
      count({ name }) {
        const row = db.prepare<[], { held: number }>(`SELECT count(*) AS held FROM ${quoted(name)}`).get();
        return row?.held ?? 0;
      },
      *rows(table) {
        const number = rowless.has(table.name) ? "NULL" : "_rowid_";
        const order = rowless.has(table.name) ? table.key.map(quoted).join(", ") : "_rowid_";
        const statement = db
          .prepare<[], Record<string, ForeignValue>>(
            `SELECT ${number} AS ${quoted(ROW_NUMBER)}, * FROM ${quoted(table.name)} ORDER BY ${order}`,
          )
          .safeIntegers();
        for (const { [ROW_NUMBER]: rowNumber, ...values } of statement.iterate()) {
          yield { rowNumber: typeof rowNumber === "bigint" ? rowNumber : undefined, values };
        }
      },
      close: () => void db.close(),
    };
  } catch (error) {
    db.close();
    throw error;
  }
}

function tableNames(db: Sqlite.Database): readonly string[] {
  return db
    .prepare<[], { name: string }>(
      "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )
    .all()
    .map(({ name }) => name);
}

function hasRowNumbers(db: Sqlite.Database, table: string): boolean {
  try {
    db.prepare(`SELECT _rowid_ FROM ${quoted(table)} LIMIT 0`);
    return true;
  } catch {
    return false;
  }
}

function tableOf(db: Sqlite.Database, name: string, hasNumbers: boolean): ForeignTable {
  const columns = db
    .prepare<[string], { name: string; type: string; pk: number }>("SELECT name, type, pk FROM pragma_table_info(?)")
    .all(name);
  const key = columns.filter(({ pk }) => pk > 0).toSorted((one, other) => one.pk - other.pk);
  return {
    name,
    columns: columns.map((column) => column.name),
    key: key.map((column) => column.name),
    isNumbered: hasNumbers && key.length === 1 && key[0]?.type.toUpperCase() === "INTEGER",
  };
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

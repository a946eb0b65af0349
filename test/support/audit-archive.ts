import { createHash } from "node:crypto";
import Sqlite from "better-sqlite3";
import pg from "pg";
import type { ArchivedLeaf, SignedRoot } from "./audit-checker.ts";

/** The archive as the database holds it, read past the server. */
export interface ArchiveReader extends AsyncDisposable {
  leaves(): AsyncIterable<ArchivedLeaf>;
  /** How many records are held of each producer. */
  counts(): Promise<ReadonlyMap<string, number>>;
  /** The root that follows from the head of the log. */
  head(): Promise<SignedRoot>;
  /** How many records were put aside, because another with their identity was held. */
  conflicts(): Promise<number>;
  /** Any other question; parameters are numbered `$1`, or `?` in SQLite. */
  query(text: string, parameters?: readonly unknown[]): Promise<Record<string, unknown>[]>;
}

const PAGE = 5_000;
const COLUMNS = "leaf_index, producer, sequence, leaf_hash, leaf, status";

/** Of a server with these settings: its Postgres, or the SQLite file in its data directory. */
export async function openArchive(env: Readonly<Record<string, string>>): Promise<ArchiveReader> {
  const { DATABASE_URL: url, HOLDFAST_DATA_DIR: directory } = env;
  if (url !== undefined) {
    const client = new pg.Client({ connectionString: url });
    // A server that goes away ends the connection; the next question says so.
    client.on("error", () => undefined);
    await client.connect();
    return reader(
      async (text, parameters) => (await client.query(text, [...parameters])).rows,
      () => client.end(),
    );
  }
  const file = new Sqlite(`${directory}/holdfast.db`, { readonly: true });
  const plain = (text: string) => text.replaceAll(/\$\d/g, "?");
  return reader(
    async (text, parameters) => file.prepare<unknown[], Record<string, unknown>>(plain(text)).all(...parameters),
    async () => void file.close(),
  );
}

type Query = (text: string, parameters: readonly unknown[]) => Promise<Record<string, unknown>[]>;

function reader(query: Query, close: () => Promise<void>): ArchiveReader {
  return {
    query: (text, parameters = []) => query(text, parameters),
    async *leaves() {
      for (let next = 0; ; ) {
        const page = await query(
          `SELECT ${COLUMNS} FROM audit_record WHERE leaf_index >= $1 ORDER BY leaf_index LIMIT ${PAGE}`,
          [next],
        );
        for (const row of page) {
          const leafIndex = Number(row.leaf_index);
          next = leafIndex + 1;
          yield {
            leafIndex,
            producer: String(row.producer),
            sequence: Number(row.sequence),
            leafHash: bytesOf(row.leaf_hash),
            leaf: row.leaf === null ? null : bytesOf(row.leaf),
            status: Number(row.status),
          };
        }
        if (page.length < PAGE) return;
      }
    },
    async counts() {
      const rows = await query("SELECT producer, COUNT(*) AS count FROM audit_record GROUP BY producer", []);
      return new Map(rows.map((row) => [String(row.producer), Number(row.count)]));
    },
    async head() {
      const [row] = await query("SELECT size, frontier FROM audit_head", []);
      if (row === undefined) throw new Error("the archive has no head");
      return { treeSize: Number(row.size), rootHash: rootOf(bytesOf(row.frontier)), from: "the head of the log" };
    },
    async conflicts() {
      const [row] = await query("SELECT COUNT(*) AS count FROM audit_conflict", []);
      return Number(row?.count);
    },
    [Symbol.asyncDispose]: close,
  };
}

function bytesOf(value: unknown): Buffer {
  if (!Buffer.isBuffer(value)) throw new Error(`${String(value)} is not bytes`);
  return value;
}

/** The roots of the perfect subtrees, the largest first, make the root of all. */
function rootOf(frontier: Buffer): Buffer {
  const sha256 = (...parts: Uint8Array[]) => createHash("sha256").update(Buffer.concat(parts)).digest();
  if (frontier.length === 0) return sha256();
  let root = frontier.subarray(-32);
  for (let at = frontier.length - 64; at >= 0; at -= 32) {
    root = sha256(Uint8Array.of(1), frontier.subarray(at, at + 32), root);
  }
  return root;
}

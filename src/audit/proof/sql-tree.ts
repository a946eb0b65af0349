import type { SqlSession } from "../../infra/database.ts";
import { ARCHIVED_COLUMNS, type ArchivedRow, archivedOf } from "../archive/sql-archive.ts";
import { DamagedTreeError, type TreeHashes } from "./tree.ts";
import type { LeafRow, LeafStore } from "./tree-leaf.ts";

const BETWEEN = (column: string) => `${column} >= $1 AND ${column} < $2`;
const LEAF_HASHES = `SELECT leaf_index AS place, leaf_hash AS hash FROM audit_record WHERE ${BETWEEN("leaf_index")}`;
const NODES = `SELECT node_index AS place, hash FROM audit_node WHERE ${BETWEEN("node_index")} AND level = $3`;
/** What to select for `leafRowOf`. */
export const LEAF_ROW_COLUMNS = `${ARCHIVED_COLUMNS}, leaf_hash, accept_us, actor_key, action_key, resource_key,
  resource_type_key, trace_key, service_key, outcome`;
const LEAVES = `SELECT ${LEAF_ROW_COLUMNS} FROM audit_record WHERE ${BETWEEN("leaf_index")} ORDER BY leaf_index`;

type HashRow = { place: number; hash: Uint8Array };
export type WholeRow = ArchivedRow & {
  leaf_hash: Uint8Array;
  accept_us: number;
  outcome: number;
  actor_key: number | null;
  action_key: number | null;
  resource_key: number | null;
  resource_type_key: number | null;
  trace_key: number | null;
  service_key: number | null;
};

/** The Merkle tree as it is kept in SQL: a few range queries for whatever is asked of it. */
export function createSqlTree(database: Pick<SqlSession, "query">): TreeHashes & LeafStore {
  return {
    async head() {
      const [head] = await database.query<{ size: number; frontier: Uint8Array }>(
        "SELECT size, frontier FROM audit_head WHERE id = 1",
      );
      if (head === undefined) throw new DamagedTreeError("the log has lost its head");
      return head;
    },
    async hashes(level, first, count) {
      const range = [first, first + count];
      const rows =
        level === 0
          ? await database.query<HashRow>(LEAF_HASHES, range)
          : await database.query<HashRow>(NODES, [...range, level]);
      const found = new Array<Uint8Array | undefined>(count).fill(undefined);
      for (const { place, hash } of rows) found[place - first] = hash;
      return found;
    },
    async leaves(first, count) {
      return (await database.query<WholeRow>(LEAVES, [first, first + count])).map(leafRowOf);
    },
  };
}

export function leafRowOf(row: WholeRow): LeafRow {
  return {
    ...archivedOf(row),
    leafHash: row.leaf_hash,
    acceptUs: row.accept_us,
    outcome: row.outcome,
    keys: {
      actor: row.actor_key,
      action: row.action_key,
      resource: row.resource_key,
      resourceType: row.resource_type_key,
      trace: row.trace_key,
      service: row.service_key,
    },
  };
}

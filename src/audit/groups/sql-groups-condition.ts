import type { Database } from "../../infra/database.ts";
import { CONSUMER_KNOWN_MS, CONSUMER_SILENT_MS, type GroupCondition, GroupNotFoundError } from "./groups.ts";
import { settleOverdue } from "./sql-groups-dead-letters.ts";

const MOST_CONSUMERS = 1_000;

export async function readCondition(
  database: Database,
  name: string,
  now: number,
): Promise<GroupCondition | undefined> {
  try {
    await settleOverdue(database, name, now);
  } catch (error) {
    if (error instanceof GroupNotFoundError) return undefined;
    throw error;
  }
  const [group] = await database.query<{ filter: Uint8Array; next_leaf: number; created_ms: number; size: number }>(
    "SELECT g.filter, g.next_leaf, g.created_ms, h.size FROM audit_group g JOIN audit_head h ON h.id = 1 WHERE g.name = $1",
    [name],
  );
  if (group === undefined) return undefined;
  const held = await database.query<{ consumer: string; held: number; pending: number; delayed: number }>(
    `SELECT consumer, COUNT(*) AS pending, COUNT(holder) AS held,
        SUM(CASE WHEN holder IS NULL AND due_ms > $2 THEN 1 ELSE 0 END) AS delayed
      FROM audit_delivery WHERE group_name = $1 GROUP BY consumer`,
    [name, now],
  );
  const [dead] = await database.query<{ dead: number }>(
    "SELECT COUNT(*) AS dead FROM audit_dead_letter WHERE group_name = $1",
    [name],
  );
  const consumers = await database.query<{
    name: string;
    owner: string | null;
    seen_ms: number;
    active_ms: number | null;
  }>(
    `SELECT name, owner, seen_ms, active_ms FROM audit_consumer WHERE group_name = $1 AND seen_ms >= $2
      ORDER BY name LIMIT ${MOST_CONSUMERS}`,
    [name, now - CONSUMER_KNOWN_MS],
  );
  const heldBy = new Map(held.map((row) => [row.consumer, row.held]));
  return {
    filter: group.filter,
    createdMs: group.created_ms,
    lag: group.size - group.next_leaf,
    pending: held.reduce((sum, row) => sum + row.pending, 0),
    delayed: held.reduce((sum, row) => sum + row.delayed, 0),
    deadLetters: dead?.dead ?? 0,
    oldestUnackedUs: await oldestUnacked(database, name, group.next_leaf),
    consumers: consumers.map((row) => ({
      name: row.name,
      connected: row.owner !== null && row.seen_ms > now - CONSUMER_SILENT_MS,
      pending: heldBy.get(row.name) ?? 0,
      activeMs: row.active_ms ?? undefined,
    })),
  };
}

/** Of the first leaf that is not settled: the order of leaves is that of acceptance, but for records that came late. */
async function oldestUnacked(database: Database, group: string, nextLeaf: number): Promise<number | undefined> {
  const [row] = await database.query<{ accept_us: number }>(
    `SELECT accept_us FROM audit_record
      WHERE leaf_index = COALESCE((SELECT MIN(leaf_index) FROM audit_delivery WHERE group_name = $1), $2)`,
    [group, nextLeaf],
  );
  return row?.accept_us;
}

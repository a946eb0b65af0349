import type { Database } from "../../infra/database.ts";
import type { GroupSize } from "../usage.ts";

/** Groups that are measured: names of groups become labels, and those must stay few. */
const MOST_GROUPS = 100;

/** How much each group has before it. */
export async function groupSizes(database: Database): Promise<readonly GroupSize[]> {
  const rows = await database.query<{ name: string; lag: number; pending: number; dead: number }>(
    `SELECT g.name, h.size - g.next_leaf AS lag,
        (SELECT COUNT(*) FROM audit_delivery d WHERE d.group_name = g.name) AS pending,
        (SELECT COUNT(*) FROM audit_dead_letter l WHERE l.group_name = g.name) AS dead
      FROM audit_group g JOIN audit_head h ON h.id = 1 ORDER BY g.name LIMIT ${MOST_GROUPS}`,
  );
  return rows.map(({ name, lag, pending, dead }) => ({ name, lag, pending, deadLetters: dead }));
}

import type { Remains } from "../../src/conversation/upkeep/remains.ts";
import { createRemoval, type Removal } from "../../src/conversation/upkeep/removal.ts";
import { createSqlRemains } from "../../src/conversation/upkeep/sql-remains.ts";
import { startConversationSweeper } from "../../src/conversation/upkeep/sweeper.ts";
import type { SqlRow } from "../../src/infra/database.ts";
import { createLog } from "../../src/infra/log.ts";
import type { Sweeper } from "../../src/infra/sweeper.ts";
import { type KINDS, type LedgerOptions, type OpenLedger, type OpenLedgers, openLedgers } from "./ledgers.ts";

export interface Upkeep extends OpenLedger {
  readonly remains: Remains;
  readonly removal: Removal;
  readonly sweeper: Sweeper;
  /** What its sweeper removed. */
  readonly swept: { readonly conversations: number; readonly tombstones: number };
  /** Until when it was told to remove changes. */
  readonly changesUntil: readonly number[];
}

export interface OpenUpkeep extends Pick<OpenLedgers, "clock" | "policies">, AsyncDisposable {
  readonly instances: readonly [Upkeep, ...Upkeep[]];
}

/** Instances that keep house over one new database; nothing happens before a test says so. */
export async function openUpkeep(kind: (typeof KINDS)[number], options: LedgerOptions = {}): Promise<OpenUpkeep> {
  await using parts = new AsyncDisposableStack();
  const { instances, clock, policies } = parts.use(await openLedgers(kind, options));
  const open = (opened: OpenLedger): Upkeep => {
    const remains = createSqlRemains(opened.database);
    const removal = createRemoval({ remains, ledger: opened.ledger, clock });
    const changesUntil: number[] = [];
    const swept = { conversations: 0, tombstones: 0 };
    const sweeper = startConversationSweeper({
      ...{ remains, clock, log: createLog({ level: "silent" }) },
      removal: async (order) => {
        const removed = await removal(order);
        swept.conversations += removed.conversations;
        swept.tombstones += removed.tombstones;
        return removed;
      },
      ...{ changesKeptMs: 3_600_000, intervalMs: 2 ** 30 },
      removeChanges: async (untilUs) => {
        changesUntil.push(untilUs);
        return changesUntil.length % 2 === 1;
      },
    });
    parts.defer(() => sweeper.close());
    return { ...opened, remains, removal, sweeper, swept, changesUntil };
  };
  const [first, ...others] = instances;
  const opened = { clock, policies, instances: [open(first), ...others.map(open)] as const };
  const kept = parts.move();
  return { ...opened, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

export async function countOf({ database }: Pick<OpenLedger, "database">, from: string): Promise<number> {
  const [row] = await database.query<{ count: number }>(`SELECT COUNT(*) AS count FROM ${from}`);
  return row?.count ?? 0;
}

/** What the counts say, and what counting says; they have to agree. */
export async function counted({ database }: Pick<OpenLedger, "database">) {
  const columns = "collection, presence, status";
  const sums = (sql: string) => database.query<SqlRow>(`${sql} ORDER BY ${columns}`);
  return {
    kept: await sums(
      `SELECT ${columns}, conversations, messages, state_bytes FROM conversation_count
        WHERE conversations <> 0 OR messages <> 0 OR state_bytes <> 0`,
    ),
    real: await sums(
      `SELECT ${columns}, COUNT(*) AS conversations, CAST(SUM(message_count) AS BIGINT) AS messages,
        CAST(SUM(state_bytes) AS BIGINT) AS state_bytes FROM conversation GROUP BY ${columns}`,
    ),
  };
}

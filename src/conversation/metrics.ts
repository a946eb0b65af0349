import type { Database } from "../infra/database.ts";
import type { Log } from "../infra/log.ts";
import type { Counter, Metrics } from "../infra/metrics.ts";
import type { Order } from "./change/order.ts";
import type { Ledger } from "./ledger/ledger.ts";
import type { Usages } from "./read/usage.ts";
import type { Removal } from "./upkeep/removal.ts";

/** How the hot copies do. */
export interface CopiesCondition {
  readonly believed: boolean;
  /** Conversations in doubt besides. */
  readonly doubts: number;
  /** Documents that are still to be made. */
  readonly documents: number;
}

export interface ConversationMetricsParts {
  readonly metrics: Metrics;
  /** Asked now and then how much there is. */
  readonly database: Pick<Database, "query">;
  readonly usages: Pick<Usages, "total">;
  /** Undefined: there is no Redis. */
  readonly copies: (() => CopiesCondition) | undefined;
  readonly log: Log;
}

export interface ConversationMetrics {
  /** Counts what comes of the writes of this instance. */
  countWrites(ledger: Ledger): Ledger;
  /** Counts what this instance removes because it is over. */
  countRemoved(removal: Removal): Removal;
  close(): void;
}

const SAMPLE_MS = 15_000;
const PRESENCE = { 1: "live", 2: "expired", 3: "deleted" } as const;
const HELD = `SELECT presence, CAST(SUM(conversations) AS BIGINT) AS conversations, CAST(SUM(messages) AS BIGINT) AS messages,
  CAST(SUM(state_bytes) AS BIGINT) AS state_bytes FROM conversation_count GROUP BY presence`;

type HeldRow = { presence: number; conversations: number; messages: number; state_bytes: number };

/** How conversations are used, for the metrics page. */
export function createConversationMetrics(parts: ConversationMetricsParts): ConversationMetrics {
  const { metrics, database, usages, copies, log } = parts;
  const name = (rest: string) => `holdfast_conversation_${rest}`;
  const writes = metrics.counter(name("writes_total"), "Writes of this instance, by what came of them", [
    "write",
    "outcome",
  ]);
  const reads = metrics.counter(name("reads_total"), "Reads of one conversation, by what answered", ["layer"]);
  const [hotReads, sqlReads] = [reads.with({ layer: "redis" }), reads.with({ layer: "sql" })];
  const swept = metrics.counter(name("removed_total"), "What this instance removed because it was over", ["what"]);
  const kept = metrics.gauge(name("kept"), "Conversations and tombstones in SQL", ["presence"]);
  const gauge = (rest: string, help: string) => metrics.gauge(name(rest), help).with({});
  const messages = gauge("messages", "Messages of the conversations that are kept");
  const bytes = gauge("state_bytes", "Bytes of the states that are kept, encoded");
  const believed = gauge("copies_believed", "1 while hot copies in Redis may be believed");
  const doubts = gauge("copies_doubted", "Conversations whose hot copies are not believed until they are healed");
  const documents = gauge("documents_waiting", "Documents in Redis for other programs that are still to be made");
  const counters = new Map<string, Counter>();
  const removed = {
    conversations: swept.with({ what: "conversation" }),
    tombstones: swept.with({ what: "tombstone" }),
  };

  function count(write: Order["kind"], outcome: string): void {
    const key = `${write} ${outcome}`;
    const known = counters.get(key) ?? writes.with({ write, outcome });
    counters.set(key, known);
    known.inc();
  }

  let before = { hotHits: 0, sqlHits: 0 };
  metrics.beforeScrape(() => {
    const now = usages.total();
    hotReads.inc(now.hotHits - before.hotHits);
    sqlReads.inc(now.sqlHits - before.sqlHits);
    before = now;
    const condition = copies?.();
    believed.set(condition?.believed ? 1 : 0);
    doubts.set(condition?.doubts ?? 0);
    documents.set(condition?.documents ?? 0);
  });

  let asking = false;
  async function sample(): Promise<void> {
    if (asking) return;
    asking = true;
    try {
      const rows = await database.query<HeldRow>(HELD);
      const sum = { messages: 0, bytes: 0 };
      for (const [number, presence] of Object.entries(PRESENCE)) {
        const row = rows.find((one) => one.presence === Number(number));
        kept.with({ presence }).set(row?.conversations ?? 0);
        sum.messages += row?.messages ?? 0;
        sum.bytes += row?.state_bytes ?? 0;
      }
      messages.set(sum.messages);
      bytes.set(sum.bytes);
    } catch (err) {
      // Health says what is away; the last numbers stand meanwhile.
      log.debug({ err }, "conversations could not be counted");
    } finally {
      asking = false;
    }
  }

  void sample();
  const timer = setInterval(() => void sample(), SAMPLE_MS).unref();
  return {
    countWrites: (ledger) => ({
      async carryOut(order) {
        try {
          const outcome = await ledger.carryOut(order);
          count(order.kind, outcome.kind);
          return outcome;
        } catch (error) {
          count(order.kind, "refused");
          throw error;
        }
      },
      close: () => ledger.close(),
    }),
    countRemoved: (removal) => async (order) => {
      if (order.dryRun) return removal(order);
      const done = await removal({
        ...order,
        removed: (key) => {
          removed.conversations.inc();
          order.removed?.(key);
        },
      });
      removed.tombstones.inc(done.tombstones);
      return done;
    },
    close: () => clearInterval(timer),
  };
}

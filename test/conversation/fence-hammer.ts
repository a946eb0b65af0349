import { setImmediate as nextTurn } from "node:timers/promises";
import type { Ledger } from "../../src/conversation/ledger/ledger.ts";
import type { Database } from "../../src/infra/database.ts";
import { type Fence, FencingTokenStaleError } from "../../src/infra/fencing.ts";
import { append, message } from "./ledgers.ts";

/** A write that was acknowledged. */
export interface Accepted extends Fence {
  readonly id: string;
  readonly version: number;
}

export interface Hammered {
  readonly accepted: readonly Accepted[];
  readonly refused: number;
}

const LOCKS = ["a", "b"];
const CONVERSATIONS = ["c1", "c2", "c3"];
const WRITES_PER_GRANT = 4;

/**
 * Writers on all ledgers take the same few locks from each other, and do not know that they lost them: each goes on to write, to any of
 * the conversations, until it is refused or has had enough.
 */
export async function hammerFences(ledgers: readonly Pick<Ledger, "carryOut">[], rounds: number): Promise<Hammered> {
  const granted = new Map<string, number>();
  const accepted: Accepted[] = [];
  let refused = 0;

  async function hold(ledger: Pick<Ledger, "carryOut">, writer: number, round: number): Promise<void> {
    const lock = LOCKS[(writer + round) % LOCKS.length] ?? "";
    const token = (granted.get(lock) ?? 0) + 1;
    granted.set(lock, token);
    const fence = { lock, token };
    for (let write = 0; write < WRITES_PER_GRANT; write++) {
      const id = CONVERSATIONS[(writer + write) % CONVERSATIONS.length] ?? "";
      const key = { collection: "conversation", id };
      const said = message(`${lock}-${token}-${write}`);
      const outcome = await ledger.carryOut(append([said], { key, fence, create: true }));
      if (outcome.kind !== "done") throw new Error(`an append ended with ${outcome.kind}`);
      accepted.push({ ...fence, id, version: outcome.held.version });
      await nextTurn();
    }
  }

  await Promise.all(
    Array.from({ length: ledgers.length * 8 }, async (_, writer) => {
      const ledger = ledgers[writer % ledgers.length];
      if (ledger === undefined) throw new Error("there is no ledger");
      for (let round = 0; round < rounds; round++) {
        try {
          await hold(ledger, writer, round);
        } catch (error) {
          if (!(error instanceof FencingTokenStaleError)) throw error;
          refused++;
        }
      }
    }),
  );
  return { accepted, refused };
}

/** Writes that came, in the order of commits, after one under a newer token of the same lock. */
export async function lateWrites(database: Database, accepted: readonly Accepted[]): Promise<readonly Accepted[]> {
  const rows = await database.query<{ id: string; version: number; seq: number }>(
    "SELECT id, version, seq FROM conversation_change ORDER BY seq",
  );
  const byVersion = new Map(accepted.map((write) => [`${write.id} ${write.version}`, write]));
  const newest = new Map<string, number>();
  const late: Accepted[] = [];
  for (const { id, version } of rows) {
    const write = byVersion.get(`${id} ${version}`);
    if (write === undefined) throw new Error(`nobody was told of version ${version} of ${id}`);
    const { lock, token } = write;
    if (token < (newest.get(lock) ?? 0)) late.push(write);
    newest.set(lock, Math.max(token, newest.get(lock) ?? 0));
  }
  return late;
}

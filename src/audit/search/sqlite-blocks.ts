import type { Database } from "../../infra/database.ts";
import { createPauses } from "../../infra/pauses.ts";

/** How many leaves are indexed together. */
export const BLOCK_LEAVES = 4096;

/** What audit_index knows of records, in the order in which it is built. Stored, so these never change. */
export const KINDS = [
  { driver: "actor", kind: 1, key: "actor_key" },
  { driver: "action", kind: 2, key: "action_key" },
  { driver: "resource", kind: 3, key: "resource_key" },
  { driver: "trace", kind: 4, key: "trace_key" },
  // All records, by time alone.
  { driver: "time", kind: 5, key: "0" },
] as const;

/** So many leaves that follow each other; the last block may be incomplete. */
export interface Block {
  readonly number: number;
  readonly minUs: number;
  readonly maxUs: number;
  /** Whether audit_index has it. Otherwise its records are looked through. */
  readonly indexed: boolean;
}

type BlockRow = { block: number; min_occur_us: number; max_occur_us: number };
type SummaryRow = { leaves: number; min_us: number | null; max_us: number | null };

/** The blocks of the archive, kept in memory: some ten bytes for a thousand records. */
export function createSqliteBlocks(database: Database) {
  const blocks: Block[] = [];
  let indexed = 0;
  /** The leaves below this one are summed up in `blocks`. */
  let known = 0;
  let reading: Promise<unknown> = Promise.resolve();

  /** The index is built in order, so what it has is a number of blocks from the first one on. */
  async function learnIndexed(): Promise<void> {
    const rows = await database.query<BlockRow>(
      "SELECT block, min_occur_us, max_occur_us FROM audit_index_block WHERE block >= $1 ORDER BY block",
      [indexed],
    );
    for (const { block, min_occur_us, max_occur_us } of rows) {
      blocks[block] = { number: block, minUs: min_occur_us, maxUs: max_occur_us, indexed: true };
      indexed = block + 1;
    }
    known = Math.max(known, indexed * BLOCK_LEAVES);
  }

  async function learnNewest(): Promise<void> {
    const pause = createPauses();
    for (;;) {
      const number = Math.floor(known / BLOCK_LEAVES);
      const [row] = await database.query<SummaryRow>(
        `SELECT count(*) AS leaves, min(occur_us) AS min_us, max(occur_us) AS max_us FROM audit_record
          WHERE leaf_index >= $1 AND leaf_index < $2`,
        [known, (number + 1) * BLOCK_LEAVES],
      );
      if (row === undefined || row.min_us === null || row.max_us === null) return;
      const before = blocks[number];
      blocks[number] = {
        number,
        minUs: Math.min(row.min_us, before?.minUs ?? row.min_us),
        maxUs: Math.max(row.max_us, before?.maxUs ?? row.max_us),
        indexed: false,
      };
      known += row.leaves;
      await pause();
    }
  }

  async function read(): Promise<readonly Block[]> {
    await learnIndexed();
    await learnNewest();
    return blocks;
  }

  return {
    /** All blocks as they are now. Not to be kept. */
    current(): Promise<readonly Block[]> {
      // One after the other; whoever asks is told of all that was committed before.
      const answer = reading.then(read, read);
      reading = answer;
      return answer;
    },
  };
}

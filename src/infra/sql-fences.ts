import type { Database, SqlSession } from "./database.ts";
import type { Fence } from "./fencing.ts";
import { textArray } from "./postgres-array.ts";

/** By the database's own clock: instances that share it need not agree on the time. */
const NOW_MS = {
  sqlite: "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
  postgres: "FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::BIGINT",
} as const;

/** When a fence was last seen is only written down anew after this long, so that its index is left alone by most writes. */
const SEEN_STEP_MS = 3_600_000;
const SEEN = `seen_ms = CASE WHEN excluded.seen_ms - fence.seen_ms >= ${SEEN_STEP_MS} THEN excluded.seen_ms ELSE fence.seen_ms END`;

/** In the order of names, so that two transactions never wait for each other. */
const HOLD = {
  sqlite: `INSERT INTO fence (lock, token, seen_ms) VALUES ($1, 0, ${NOW_MS.sqlite})
    ON CONFLICT (lock) DO UPDATE SET ${SEEN} RETURNING lock, token`,
  postgres: `INSERT INTO fence (lock, token, seen_ms)
    SELECT name, 0, ${NOW_MS.postgres} FROM unnest($1::text[]) AS name ORDER BY name COLLATE "C"
    ON CONFLICT (lock) DO UPDATE SET ${SEEN} RETURNING lock, token`,
} as const;

type FenceRow = { lock: string; token: number };

/**
 * Keeps everybody else from writing under these locks until the transaction ends, and returns the newest token that was seen of
 * each; 0: none. The names must differ.
 */
export async function holdFences(
  kind: Database["kind"],
  tx: SqlSession,
  locks: readonly string[],
): Promise<Map<string, number>> {
  const rows: FenceRow[] = [];
  if (locks.length === 0) return new Map();
  if (kind === "postgres") rows.push(...(await tx.query<FenceRow>(HOLD.postgres, [textArray(locks)])));
  else for (const lock of locks) rows.push(...(await tx.query<FenceRow>(HOLD.sqlite, [lock])));
  return new Map(rows.map(({ lock, token }) => [lock, token]));
}

/** From now on older tokens are refused. Only for fences that the transaction holds, and tokens that are not older. */
export async function raiseFences(tx: SqlSession, tokens: ReadonlyMap<string, number>): Promise<void> {
  await tx.each("UPDATE fence SET token = $2 WHERE lock = $1", [...tokens]);
}

const READ = "SELECT lock, token FROM fence WHERE lock = $1";
const raise = (now: string) => `INSERT INTO fence (lock, token, seen_ms) VALUES ($1, $2, ${now})
  ON CONFLICT (lock) DO UPDATE SET ${SEEN},
    token = CASE WHEN fence.token < excluded.token THEN excluded.token ELSE fence.token END
  RETURNING lock, token`;
const RAISE = { sqlite: raise(NOW_MS.sqlite), postgres: raise(NOW_MS.postgres) } as const;

/** The newest token of the lock that was seen, this one included. */
export async function raiseFence(database: Database, { lock, token }: Fence): Promise<number> {
  const [known] = await database.query<FenceRow>(READ, [lock]);
  // Most writes come under a token that is known already: they write nothing here.
  if (known !== undefined && known.token >= token) return known.token;
  // One statement, so that nobody who is frozen meanwhile holds the fence.
  const [raised] = await database.write<FenceRow>(RAISE[database.kind], [lock, token]);
  if (raised === undefined) throw new Error("a fence was neither raised nor found");
  return raised.token;
}

/** Those that somebody holds are no longer old by the time that they are let go. */
const prune = (now: string, skip: string) => `DELETE FROM fence WHERE lock IN (
  SELECT lock FROM fence WHERE seen_ms <= ${now} - $1 ORDER BY seen_ms LIMIT $2${skip}
) RETURNING 1 AS forgotten`;
const PRUNE = {
  sqlite: prune(NOW_MS.sqlite, ""),
  postgres: prune(NOW_MS.postgres, " FOR UPDATE SKIP LOCKED"),
} as const;

/** Forgets fences that nobody has come to for so long, at most so many. Returns how many. */
export async function pruneFences(database: Database, keptMs: number, limit: number): Promise<number> {
  const forgotten = await database.write(PRUNE[database.kind], [keptMs, limit]);
  return forgotten.length;
}

import type { Database } from "../../infra/database.ts";
import { UnavailableError } from "../../infra/failure.ts";
import type { SqlClock } from "../../infra/sql-clock.ts";
import { LockAuthorityChangingError, LockAuthorityUnavailableError } from "../failures.ts";
import { namespaceOf } from "../record/name.ts";
import type { Authority, Lease, Listed, ListQuery, Looked } from "./authority.ts";
import { readHead, requireDecides } from "./sql-heads.ts";
import { RECORD_COLUMNS, type RecordRow, recordOf } from "./sql-records.ts";

/** Rows that one call looks at, at most: a filter that fits nothing must not walk through all. */
const MOST_ROWS = 5_000;
const ROWS_AT_ONCE = 500;

const NOT_ENDED = `SELECT ${RECORD_COLUMNS} FROM lock_record
  WHERE ended = '' AND name > $1 AND name >= $2 ORDER BY name LIMIT ${ROWS_AT_ONCE}`;

/** Reads of locks, which need no transaction: each is one statement. */
export function createSqlLook(database: Database, clock: SqlClock): Pick<Authority, "look" | "list"> {
  const { kind } = database;

  async function guarded<T>(work: () => Promise<T>): Promise<T> {
    try {
      requireDecides(kind, await readHead(database), await clock(database));
      return await work();
    } catch (error) {
      if (!(error instanceof UnavailableError) || error instanceof LockAuthorityChangingError) throw error;
      throw new LockAuthorityUnavailableError(`${kind} does not answer`, error);
    }
  }

  async function look(name: string): Promise<Looked> {
    const [row] = await database.query<RecordRow>(`SELECT ${RECORD_COLUMNS} FROM lock_record WHERE name = $1`, [name]);
    if (row === undefined) return { lease: undefined, lastToken: 0 };
    const nowMs = await clock(database);
    const { grant } = recordOf(row);
    const remainingMs = grant.expireMs - nowMs;
    const isHeld = grant.end === "" && remainingMs > 0;
    return { lease: isHeld ? { grant, remainingMs } : undefined, lastToken: grant.token };
  }

  async function list({ prefix, owner, mayUse, limit, after }: ListQuery): Promise<Listed> {
    const nowMs = await clock(database);
    const leases: Lease[] = [];
    let last = after ?? "";
    for (let looked = 0; looked < MOST_ROWS; looked += ROWS_AT_ONCE) {
      const rows = await database.query<RecordRow>(NOT_ENDED, [last, prefix]);
      for (const row of rows) {
        if (!row.name.startsWith(prefix)) return { leases, after: undefined };
        const { grant } = recordOf(row);
        const fits = grant.expireMs > nowMs && (owner === undefined || grant.owner === owner);
        last = row.name;
        if (!fits || !mayUse(namespaceOf(row.name))) continue;
        leases.push({ grant, remainingMs: grant.expireMs - nowMs });
        if (leases.length === limit) return { leases, after: last };
      }
      if (rows.length < ROWS_AT_ONCE) return { leases, after: undefined };
    }
    return { leases, after: last };
  }

  return {
    look: (name) => guarded(() => look(name)),
    list: (query) => guarded(() => list(query)),
  };
}

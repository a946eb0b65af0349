import { join } from "node:path";
import type { Clock } from "../../src/infra/clock.ts";
import { systemClock } from "../../src/infra/clock.ts";
import type { Database } from "../../src/infra/database.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import type { NamedRequest } from "../../src/infra/named-request.ts";
import { createSqlClock, type SqlClock } from "../../src/infra/sql-clock.ts";
import type { Authority } from "../../src/lock/authority/authority.ts";
import type { Heads } from "../../src/lock/authority/head.ts";
import { createSqlAuthority } from "../../src/lock/authority/sql-authority.ts";
import { createSqlHeads } from "../../src/lock/authority/sql-heads.ts";
import type { ReleaseOrder, RenewOrder, TakeOrder } from "../../src/lock/record/decide.ts";
import { freshDatabase } from "../support/fresh.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { openTestDatabase, type SQL_KINDS } from "../support/test-database.ts";

export type SqlKind = (typeof SQL_KINDS)[number];

/** An authority as one instance has it. */
export interface OpenAuthority {
  readonly authority: Authority;
  /** Locks that were announced as free, by this instance. */
  readonly announced: string[];
}

/** One authority, as one or several instances have it. */
export interface OpenAuthorities extends AsyncDisposable {
  readonly instances: readonly [OpenAuthority, ...OpenAuthority[]];
}

export interface OpenSqlAuthority extends OpenAuthority {
  readonly database: Database;
  readonly heads: Heads;
}

export interface OpenSqlAuthorities extends AsyncDisposable {
  readonly instances: readonly [OpenSqlAuthority, ...OpenSqlAuthority[]];
  /** The file, or the url. */
  readonly where: string;
}

export interface SqlAuthoritiesOptions {
  readonly count?: number;
  /** Instead of the clock of the database. */
  readonly clock?: Clock;
  /** What the authority is given instead of its database: with a bug planted in it. */
  readonly spoil?: (database: Database) => Database;
}

/** Instances over one new, empty database; in SQLite there is only one. */
export async function openSqlAuthorities(
  kind: SqlKind,
  { count = 1, clock, spoil = (database) => database }: SqlAuthoritiesOptions = {},
): Promise<OpenSqlAuthorities> {
  await using parts = new AsyncDisposableStack();
  const directory = parts.adopt(scratchDirectory("lock"), (it) => it.remove());
  const where = kind === "postgres" ? await freshDatabase() : join(directory.path, "lock.db");
  const open = async (): Promise<OpenSqlAuthority> => {
    const opened = parts.adopt(openTestDatabase(kind, where), (it) => it.close());
    await migrate(opened, migrations);
    const database = spoil(opened);
    const sqlClock: SqlClock = clock ? async () => clock.now() : createSqlClock(kind, systemClock);
    const heads = createSqlHeads(database, sqlClock);
    await heads.become(kind);
    const announced: string[] = [];
    const authority = createSqlAuthority({
      ...{ database, clock: sqlClock, log: createLog({ level: "silent" }) },
      announce: async (name) => void announced.push(name),
    });
    parts.defer(() => authority.close());
    return { authority, announced, database, heads };
  };
  const instances: [OpenSqlAuthority, ...OpenSqlAuthority[]] = [await open()];
  while (kind === "postgres" && instances.length < count) instances.push(await open());
  const kept = parts.move();
  return { instances, where, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

let attempts = 0;

export function takeOrder(name: string, given: Partial<TakeOrder> = {}): TakeOrder {
  attempts++;
  return {
    ...{ name, ttlMs: 30_000, owner: `owner-${attempts}`, purpose: "", caller: "anonymous", instanceId: "one" },
    ...{ streamId: "", request: undefined, waits: false },
    ...given,
  };
}

/** Which grant. */
export interface Granted {
  readonly name: string;
  readonly token: number;
}

export function renewOrder({ name, token }: Granted, given: Partial<RenewOrder> = {}): RenewOrder {
  return { name, token, ttlMs: undefined, streamId: undefined, heir: undefined, ...given };
}

export function releaseOrder({ name, token }: Granted, given: Partial<ReleaseOrder> = {}): ReleaseOrder {
  return { name, token, end: "released", streamId: undefined, undo: false, ...given };
}

export function named(id: string, meaning = "Acquire"): NamedRequest {
  return { id, meaning };
}

import { join } from "node:path";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { migrations } from "../../src/infra/migrations/all.ts";
import { migrate } from "../../src/infra/migrations.ts";
import type { Authority } from "../../src/lock/authority/authority.ts";
import { createSqlAuthority } from "../../src/lock/authority/sql-authority.ts";
import { createSqlClock } from "../../src/lock/authority/sql-clock.ts";
import { createSqlHeads } from "../../src/lock/authority/sql-heads.ts";
import type { TakeOrder } from "../../src/lock/record/decide.ts";
import { freshDatabase } from "../support/fresh.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { openTestDatabase } from "../support/test-database.ts";

/** An authority as one instance has it. */
export interface OpenAuthority extends AsyncDisposable {
  readonly authority: Authority;
  /** Locks that were announced as free. */
  readonly announced: string[];
}

export async function openSqlAuthority(kind: "sqlite" | "postgres", url?: string): Promise<OpenAuthority> {
  await using parts = new AsyncDisposableStack();
  const directory = parts.adopt(scratchDirectory("lock"), (it) => it.remove());
  const database = parts.adopt(
    openTestDatabase(kind, kind === "postgres" ? (url ?? (await freshDatabase())) : join(directory.path, "lock.db")),
    (it) => it.close(),
  );
  await migrate(database, migrations);
  const clock = createSqlClock(kind, systemClock);
  const heads = createSqlHeads(database, clock);
  await heads.become(kind);
  const announced: string[] = [];
  const authority = parts.adopt(
    createSqlAuthority({
      ...{ database, heads, clock, log: createLog({ level: "silent" }) },
      announce: async (name) => void announced.push(name),
    }),
    (it) => it.close(),
  );
  const open = parts.move();
  return { authority, announced, [Symbol.asyncDispose]: () => open.disposeAsync() };
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

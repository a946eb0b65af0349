import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Database } from "../../src/infra/database.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createFences } from "../../src/infra/fences.ts";
import { GRANTS_PER_EPOCH } from "../../src/infra/fencing.ts";
import { createLog } from "../../src/infra/log.ts";
import { fence as migration } from "../../src/infra/migrations/0006-fence.ts";
import { migrate } from "../../src/infra/migrations.ts";
import { FENCES_KEPT_MS, startFenceSweeper } from "../../src/infra/sql-fence-sweeper.ts";
import { holdFences, pruneFences, raiseFences } from "../../src/infra/sql-fences.ts";
import { freshDatabase } from "../support/fresh.ts";
import { movedClock } from "../support/moved-clock.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { openTestDatabase, SQL_KINDS } from "../support/test-database.ts";

const stale = { kind: "precondition", reason: "FENCING_TOKEN_STALE" };
const unknown = { kind: "precondition", reason: "FENCING_TOKEN_UNKNOWN" };
const HOUR_MS = 3_600_000;

describe.each(SQL_KINDS)("fences in %s", (kind) => {
  const parts = new AsyncDisposableStack();
  let database: Database;
  beforeAll(async () => {
    const directory = parts.adopt(scratchDirectory("fences"), (it) => it.remove());
    const where = kind === "postgres" ? await freshDatabase() : join(directory.path, "fences.db");
    database = parts.adopt(openTestDatabase(kind, where), (it) => it.close());
    await migrate(database, [migration]);
  });
  afterAll(() => parts.disposeAsync());

  /** Two instances, and who decides about their locks. */
  function begin() {
    const lock = randomUUID();
    const authority = { last: 0, asked: 0, isAway: false };
    const lastTokenOf = async () => {
      authority.asked++;
      if (authority.isAway) throw new UnavailableError("LOCK_AUTHORITY_UNAVAILABLE", "away");
      return authority.last;
    };
    const moved = movedClock();
    const suspended = { ms: 0 };
    const clock = { ...moved, monotonic: () => moved.monotonic() - suspended.ms };
    const open = () => createFences({ database, lastTokenOf, clock });
    /** The monotonic clocks stand still meanwhile. */
    const suspend = (ms: number) => {
      suspended.ms += ms;
      moved.move(ms);
    };
    return { lock, authority, clock, suspend, one: open(), other: open() };
  }
  const rows = (lock: string) => database.query("SELECT token FROM fence WHERE lock = $1", [lock]);
  const age = (lock: string, ms: number) =>
    database.write("UPDATE fence SET seen_ms = seen_ms - $2 WHERE lock = $1", [lock, ms]);

  it("admit the newest token, and ask for it once", async () => {
    const { lock, authority, one } = begin();
    await expect(one.admit({ lock, token: 1 })).rejects.toMatchObject(unknown);
    authority.last = 3;
    for (let time = 0; time < 3; time++) await one.admit({ lock, token: 3 });
    expect(authority.asked).toBe(2);
    await expect(one.admit({ lock, token: 2 })).rejects.toMatchObject(stale);
    expect(authority.asked).toBe(2);
    await expect(one.admit({ lock, token: 4 })).rejects.toMatchObject(unknown);
    authority.last = 4;
    await one.admit({ lock, token: 4 });
    expect(await rows(lock)).toEqual([]);
  });

  it("ask again after an hour, and refuse what is forgotten meanwhile", async () => {
    const { lock, authority, clock, one } = begin();
    authority.last = 3;
    await one.raise({ lock, token: 3 });
    clock.move(HOUR_MS - 1);
    await one.admit({ lock, token: 3 });
    clock.move(1);
    authority.last = 0;
    await expect(one.admit({ lock, token: 3 })).rejects.toMatchObject(unknown);
    authority.last = 7;
    await expect(one.admit({ lock, token: 3 })).rejects.toMatchObject({ ...stale, metadata: { newest: "7" } });
  });

  it("ask again after an hour for which the machine was suspended", async () => {
    const { lock, authority, suspend, one } = begin();
    authority.last = 3;
    await one.raise({ lock, token: 3 });
    suspend(HOUR_MS);
    authority.last = 7;
    await expect(one.admit({ lock, token: 3 })).rejects.toMatchObject(stale);
  });

  it("admit nothing that is no token, though it is what is known of the newest", async () => {
    const { lock, authority, one } = begin();
    // Said by an authority that began in this epoch and has granted nothing since.
    authority.last = 5 * GRANTS_PER_EPOCH;
    for (let time = 0; time < 2; time++) {
      await expect(one.raise({ lock, token: authority.last })).rejects.toMatchObject(unknown);
      await expect(one.raise({ lock, token: 4 * GRANTS_PER_EPOCH + 1 })).rejects.toMatchObject(stale);
    }
    expect(await rows(lock)).toEqual([]);
  });

  it("are raised for all instances, also for those that know no better", async () => {
    const { lock, authority, one, other } = begin();
    authority.last = 1;
    await one.raise({ lock, token: 1 });
    await other.raise({ lock, token: 1 });
    authority.last = 2;
    await other.raise({ lock, token: 2 });
    // It was admitted before, so nobody is asked; but SQL knows.
    await one.admit({ lock, token: 1 });
    await expect(one.raise({ lock, token: 1 })).rejects.toMatchObject({ ...stale, metadata: { newest: "2" } });
    await expect(one.admit({ lock, token: 1 })).rejects.toMatchObject(stale);
    expect(await rows(lock)).toEqual([{ token: 2 }]);
  });

  it("let nothing pass while nobody can be asked", async () => {
    const { lock, authority, one } = begin();
    authority.isAway = true;
    await expect(one.raise({ lock, token: 1 })).rejects.toMatchObject({ reason: "LOCK_AUTHORITY_UNAVAILABLE" });
    expect(await rows(lock)).toEqual([]);
    authority.isAway = false;
    authority.last = 1;
    await one.raise({ lock, token: 1 });
    authority.isAway = true;
    await one.raise({ lock, token: 1 });
    await expect(one.admit({ lock, token: 0 })).rejects.toMatchObject(stale);
  });

  it("let those who hold them, for any locks in any order, decide one after the other", async () => {
    const locks = Array.from({ length: 5 }, () => randomUUID());
    await Promise.all(
      Array.from({ length: 20 }, (_, at) =>
        database.transaction(async (tx) => {
          const mine = [...locks.slice(at % 5), ...locks.slice(0, at % 5)].slice(0, 3);
          const tokens = await holdFences(kind, tx, mine);
          expect([...tokens.keys()].toSorted()).toEqual(mine.toSorted());
          await raiseFences(tx, new Map([...tokens].map(([lock, token]) => [lock, token + 1])));
        }),
      ),
    );
    const tokens = await Promise.all(locks.map(rows));
    expect(tokens).toEqual(locks.map(() => [{ token: 12 }]));
  });

  it("are forgotten when nobody has come for 30 days, a portion at a time", async () => {
    const { lock, authority, clock, one } = begin();
    authority.last = 1;
    const others = Array.from({ length: 4 }, () => randomUUID());
    for (const name of [lock, ...others]) {
      await one.raise({ lock: name, token: 1 });
      await age(name, FENCES_KEPT_MS + HOUR_MS);
    }
    // Whoever comes is seen, also when the token is no other.
    await database.transaction((tx) => holdFences(kind, tx, [lock]));
    expect(await pruneFences(database, FENCES_KEPT_MS, 3)).toBe(3);
    await using sweeper = {
      ...startFenceSweeper({ database, log: createLog({ level: "silent" }) }),
      [Symbol.asyncDispose]: () => sweeper.close(),
    };
    await sweeper.sweep();
    expect(await rows(lock)).toEqual([{ token: 1 }]);
    for (const name of others) expect(await rows(name)).toEqual([]);
    authority.last = 0;
    clock.move(FENCES_KEPT_MS);
    await expect(one.raise({ lock: others[0] ?? "", token: 1 })).rejects.toMatchObject(unknown);
  });

  it("can be held when they were about to be forgotten", async () => {
    const { lock, authority, one } = begin();
    authority.last = 5;
    await one.raise({ lock, token: 5 });
    await age(lock, FENCES_KEPT_MS + HOUR_MS);
    let pruned: Promise<number> | undefined;
    const tokens = await database.transaction(async (tx) => {
      const held = await holdFences(kind, tx, [lock]);
      pruned = pruneFences(database, FENCES_KEPT_MS, 10);
      // Only Postgres has others who go on meanwhile.
      if (kind === "postgres") expect(await pruned).toBe(0);
      return held;
    });
    expect(tokens.get(lock)).toBe(5);
    expect(await pruned).toBe(0);
    expect(await rows(lock)).toEqual([{ token: 5 }]);
  });
});

import { setTimeout as delay } from "node:timers/promises";
import { createPostgresBackplane } from "../../src/infra/backplane-postgres.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { openPostgresListener } from "../../src/infra/postgres-listener.ts";
import { createSqlClock } from "../../src/infra/sql-clock.ts";
import { type Authority, LOCK_TOPIC } from "../../src/lock/authority/authority.ts";
import { createSqlAuthority } from "../../src/lock/authority/sql-authority.ts";
import { createLines } from "../../src/lock/wait/lines.ts";
import { callerOf } from "../../src/lock/wait/visitor.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { releaseOrder, takeOrder } from "./authorities.ts";
import type { TurnTaken, TurnToldOf } from "./turn-history.ts";

/*
 * An instance over Postgres in a process of its own, whose callers want the same locks all the time and write down what they
 * were told. Arguments: its name, Postgres.
 */

const [instance = "", url = ""] = process.argv.slice(2);
const CALLERS = 10;
const LOCKS = ["nightly", "weekly"];
const TTL_MS = 2_000;

const database = openTestDatabase("postgres", url);
const log = createLog({ level: "silent" });
const backplane = createPostgresBackplane({
  ...{ database, instanceId: instance },
  openListener: () => openPostgresListener({ url, connectTimeoutMs: 20_000 }),
});
const clock = createSqlClock("postgres", systemClock);
const authority = createSqlAuthority({
  ...{ database, clock, log },
  announce: (name) => backplane.publish(LOCK_TOPIC, name),
});
const lines = createLines({ authority: told(authority), clock: systemClock, log, mostWaiting: 100 });
backplane.subscribe(LOCK_TOPIC, (name) => lines.ring(name));
const joined = new Map<string, number>();

/** The same for all processes of a machine. */
function now(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

function say(what: TurnTaken | TurnToldOf): void {
  process.stdout.write(`${JSON.stringify(what)}\n`);
}

/** Writes down who was told to wait, and for what. */
function told(real: Authority): Authority {
  return {
    ...real,
    async take(order) {
      const taken = await real.take(order);
      if (taken.kind === "held") {
        const { name, token } = taken.holder.grant;
        say({ kind: "told", instance, lock: name, token, at: now() });
      }
      return taken;
    },
  };
}

async function callAgainAndAgain(lock: string): Promise<void> {
  const caller = callerOf(new AbortController().signal);
  for (;;) {
    const place = (joined.get(lock) ?? 0) + 1;
    joined.set(lock, place);
    const order = takeOrder(lock, { instanceId: instance, ttlMs: TTL_MS });
    const turn = await lines.wait({ order, waitMs: undefined, caller }).turn;
    if (turn.kind !== "acquired") throw new Error("nobody gave up");
    const { grant } = turn.lease;
    const [from, validUntil] = [now(), now() + (turn.validUntil - systemClock.monotonic())];
    await delay(Math.random() * 2);
    const until = Math.min(validUntil, now());
    say({ kind: "taken", instance, lock, place, token: grant.token, from, until });
    const { released } = await authority.release(releaseOrder(grant));
    if (released) lines.ring(lock);
  }
}

process.stdout.write("ready\n");
await Promise.all(Array.from({ length: CALLERS }, (_, at) => callAgainAndAgain(LOCKS[at % LOCKS.length] ?? "")));

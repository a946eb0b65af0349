import { setTimeout as delay } from "node:timers/promises";
import { systemClock } from "../../src/infra/clock.ts";
import { createLog } from "../../src/infra/log.ts";
import { createSqlClock } from "../../src/infra/sql-clock.ts";
import type { Authority } from "../../src/lock/authority/authority.ts";
import { createRedlockAuthority } from "../../src/lock/authority/redlock-authority.ts";
import { createSqlHeads } from "../../src/lock/authority/sql-heads.ts";
import { LockAuthorityUnavailableError } from "../../src/lock/failures.ts";
import { clockMargin } from "../../src/lock/wait/valid-for.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { releaseOrder, renewOrder, takeOrder } from "./authorities.ts";
import type { Held } from "./lease-history.ts";
import { openMaster } from "./redlock-authorities.ts";

/*
 * An instance in a process of its own, whose callers want the same lock all the time and write down what they were told, for as long
 * as it lives. Arguments: its name, Postgres, the masters.
 */

const [instanceId = "", postgres = "", ...urls] = process.argv.slice(2);
const CALLERS = 3;
const TTL_MS = 400;

const database = openTestDatabase("postgres", postgres);
const commandTimeoutMs = 150;
const authority = createRedlockAuthority({
  servers: urls.map((url) => openMaster(url, commandTimeoutMs)),
  ...{ commandTimeoutMs, clock: systemClock, log: createLog({ level: "silent" }) },
  heads: createSqlHeads(database, createSqlClock("postgres", systemClock)),
  announce: async () => {},
});

/** The same for all processes of a machine. */
function now(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** How a lease ends: mostly it is given back; else it runs out, once it was renewed. */
async function hold(authority: Authority, name: string): Promise<Held | undefined> {
  const asked = now();
  const taken = await authority.take(takeOrder(name, { instanceId, ttlMs: TTL_MS, waits: true }));
  if (taken.kind !== "granted") return undefined;
  const { grant, remainingMs } = taken.lease;
  const from = now();
  const validUntil = (since: number, leftMs: number) => since + leftMs - clockMargin(leftMs);
  let until = validUntil(asked, remainingMs);
  // This process was paused on the way: whoever waits in a line is not told of such a lease either.
  if (until <= from) return undefined;
  await delay(Math.random() * 10);
  const how = Math.random();
  if (how < 0.05) {
    const renewing = now();
    const renewed = await authority.renew(renewOrder(grant)).catch(unavailable);
    // Whoever is told in time goes on; whoever is not has to take it as over when it was over before.
    if (renewed?.kind === "renewed" && now() < until) until = validUntil(renewing, renewed.lease.remainingMs);
    return { token: grant.token, from, until };
  }
  until = Math.min(until, now());
  if (how < 0.95) await authority.release(releaseOrder(grant)).catch(unavailable);
  return { token: grant.token, from, until };
}

function unavailable(error: unknown): undefined {
  if (!(error instanceof LockAuthorityUnavailableError)) throw error;
  return undefined;
}

async function callAgainAndAgain(): Promise<void> {
  for (;;) {
    const held = await hold(authority, "nightly").catch(unavailable);
    if (held !== undefined) process.stdout.write(`${JSON.stringify(held)}\n`);
    await delay(Math.random() * 4);
  }
}

process.stdout.write("ready\n");
await Promise.all(Array.from({ length: CALLERS }, callAgainAndAgain));

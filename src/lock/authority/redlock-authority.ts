import { setTimeout as delay } from "node:timers/promises";
import { LockAuthority } from "../../gen/holdfast/v1/lock_pb.js";
import type { Clock } from "../../infra/clock.ts";
import type { Log } from "../../infra/log.ts";
import { LockAuthorityUnavailableError } from "../failures.ts";
import { decideRelease, decideRenew, type ReleaseOrder, type RenewOrder, type TakeOrder } from "../record/decide.ts";
import { type Authority, RECORD_KEPT_MS, type Released, type Renewed, type Taken } from "./authority.ts";
import type { Heads } from "./head.ts";
import { amendment, forgotten, holderOf, leaseOf, repair } from "./redlock-change.ts";
import { createRedlockHead } from "./redlock-head.ts";
import { lockKeys } from "./redlock-keys.ts";
import { createRedlockList } from "./redlock-list.ts";
import { createMaster, type RedlockServer } from "./redlock-master.ts";
import { createNotes } from "./redlock-notes.ts";
import { createRegister } from "./redlock-register.ts";
import { createTake } from "./redlock-take.ts";
import { grantSeen, lastToken, nowOf, recordOf } from "./redlock-view.ts";

export interface RedlockAuthorityOptions {
  /** An odd number, at least three, that know nothing of each other. */
  readonly servers: readonly RedlockServer[];
  /** No answer of a master is waited for longer. */
  readonly commandTimeoutMs: number;
  readonly heads: Heads;
  readonly clock: Clock;
  readonly log: Log;
  /** Tells the other instances that a lock is free that one of them may wait for. */
  readonly announce: (name: string) => Promise<void>;
}

/** So often a call begins anew when another got in its way; then it is told to come back. */
const MOST_TRIES = 8;
/** Between two tries: from nothing up to this, and twice as much each time. */
const FIRST_PAUSE_MS = 4;
const COME_BACK_MS = 50;

/**
 * A majority of independent Redis masters decides. They keep what they are told and refuse what would break a lease; the rules are
 * carried out here, on what a majority of them says, and hold once a majority has kept what came of it.
 */
export function createRedlockAuthority(options: RedlockAuthorityOptions): Authority {
  const { servers, commandTimeoutMs, heads, clock, log, announce } = options;
  if (servers.length < 3 || servers.length % 2 === 0) {
    throw new TypeError(`redlock needs an odd number of masters, at least 3; got ${servers.length}`);
  }
  const monotonic = () => clock.monotonic();
  const head = createRedlockHead({ heads, log, monotonic });
  const masters = servers.map((server) => createMaster({ server, commandTimeoutMs, heads, log, monotonic }));
  // A claim that outlives its process keeps the lock from others: but it must outlast two rounds of questions.
  const register = createRegister({ masters, claimMs: 4 * commandTimeoutMs, keptMs: RECORD_KEPT_MS });
  const takeOnce = createTake({ register, epoch: head.epoch, clock });
  const remember = createNotes({ register, epoch: head.epoch, again });
  let met: Promise<unknown> | undefined;

  /** Rejects while this authority may not decide. */
  async function ready(): Promise<void> {
    await head.epoch();
    // Masters that are new must be met before a lease is announced, or they would wait for one that nobody ever had.
    met ??= Promise.allSettled(masters.map((master) => master.meet()));
    await met;
    const runs = masters.flatMap(({ run }) => run ?? []).filter((run) => run !== "");
    if (new Set(runs).size < runs.length) {
      throw new LockAuthorityUnavailableError("two of the lock masters are the same Redis, which would vote twice");
    }
  }

  /** Runs `work` until it comes to something; undefined: something got in its way. */
  async function again<T>(work: () => Promise<T | undefined>): Promise<T | undefined> {
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      if (tries > 0) await delay(Math.random() * FIRST_PAUSE_MS * 2 ** tries);
      const result = await work();
      if (result !== undefined) return result;
    }
    return undefined;
  }

  async function take(order: TakeOrder): Promise<Taken> {
    await ready();
    await head.allow(order.ttlMs);
    const taken = await again(() => takeOnce(order));
    return taken ?? { kind: "yield", afterMs: COME_BACK_MS * Math.random() };
  }

  async function renew(order: RenewOrder): Promise<Renewed> {
    await ready();
    if (order.ttlMs !== undefined) await head.allow(order.ttlMs);
    const renewed = await again(() => renewOnce(order));
    if (renewed === undefined) throw new LockAuthorityUnavailableError("others change the same lock all the time");
    return renewed;
  }

  async function renewOnce(order: RenewOrder): Promise<Renewed | undefined> {
    const answers = await register.read(lockKeys(order.name, undefined));
    const seen = grantSeen(answers, order.token);
    const nowMs = nowOf(answers);
    const decision = decideRenew(seen && recordOf(seen, answers, nowMs), order, nowMs);
    if (seen === undefined || decision.kind === "over") {
      repair(register, order.name, answers);
      if (decision.kind !== "over") throw new TypeError("a lock that is not there cannot be renewed");
      return { ...decision, holder: holderOf(answers) };
    }
    const { grant } = decision.record;
    const wrote = await register.write(amendment(seen, decision.record, order.ttlMs ?? grant.ttlMs));
    if (wrote.kind === "refused") return undefined;
    return { kind: "renewed", lease: { grant, remainingMs: wrote.leftMs } };
  }

  async function release(order: ReleaseOrder): Promise<Released> {
    await ready();
    const released = await again(() => releaseOnce(order));
    if (released === undefined) throw new LockAuthorityUnavailableError("others change the same lock all the time");
    return released;
  }

  async function releaseOnce(order: ReleaseOrder): Promise<Released | undefined> {
    const { name } = order;
    const answers = await register.read(lockKeys(name, undefined));
    const seen = grantSeen(answers, order.token);
    const nowMs = nowOf(answers);
    const after = decideRelease(seen && recordOf(seen, answers, nowMs), order, nowMs);
    if (seen === undefined || after === undefined) {
      repair(register, name, answers);
      return { released: false, lease: holderOf(answers) };
    }
    const write = amendment(seen, after, 0);
    const wrote = await register.write(order.undo ? forgotten(write) : write);
    if (wrote.kind === "refused") return undefined;
    if (wrote.wanted || answers.some(({ wantedMs }) => wantedMs > 0)) announceFree(name);
    return { released: true, lease: leaseOf(seen) };
  }

  function announceFree(name: string): void {
    announce(name).catch((error: unknown) =>
      // Whoever waits asks again by itself.
      log.debug({ err: error, lock: name }, "could not tell other instances that a lock is free"),
    );
  }

  async function look(name: string) {
    await ready();
    const answers = await register.read(lockKeys(name, undefined));
    return { lease: holderOf(answers), lastToken: lastToken(answers) };
  }

  const seen = () => masters.map(({ missing }, at) => ({ place: at + 1, missing }));
  return {
    kind: LockAuthority.REDLOCK,
    voters: {
      get lastSeen() {
        return seen();
      },
      async ask() {
        await Promise.allSettled(masters.map((master) => master.meet()));
        return seen();
      },
    },
    ...{ take, renew, release, look },
    list: createRedlockList({ masters, look }),
    async remember(name, request, text) {
      await ready();
      return remember(name, request, text);
    },
    async close() {
      head.close();
    },
  };
}

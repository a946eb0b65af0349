import { setTimeout as delay } from "node:timers/promises";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { LockOutcome, LockService } from "../../src/gen/holdfast/v1/lock_pb.js";
import { createRandom } from "../support/load-child.ts";
import { CallFailed, createLockClient, inMs, type LockClient, ms } from "../support/lock-client.ts";
import { monotonicMs, type Said } from "./lock-history.ts";
import { chooseWrite, createWriter, failureOf, type WriteKinds } from "./lock-writes.ts";

/* Workers that take locks and write under their protection, in a process of its own: for tests that kill and freeze it. */

export interface LockClientOptions {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly locks: readonly string[];
  readonly workers: number;
  /** So many of them take locks with streams. */
  readonly holders: number;
  readonly ttlMs: number;
  readonly seed: number;
  readonly writes: WriteKinds;
}

const options = JSON.parse(process.argv[2] ?? "") as LockClientOptions;
const { locks, ttlMs } = options;
const { kinds, readable } = options.writes;
const { method } = LockService;

/** The shortest that a stream may have. */
const HOLD_TTL_MS = 1_000;
/** A stream's lease is counted from when its message was sent; this is what the message may have taken. */
const ON_THE_WAY_MS = 200;

/** Nobody waits longer for a write before the next: some are under way when a lease is over. */
const PATIENCE_MS = 100;

/** When this process was last seen to run, and until when what it reads may be from before it stood still. */
let tickMs = monotonicMs();
let isLateUntilMs = 0;
const STOOD_STILL_MS = 100;
function tick(): void {
  const nowMs = monotonicMs();
  if (nowMs - tickMs > STOOD_STILL_MS) isLateUntilMs = nowMs + 2 * STOOD_STILL_MS;
  tickMs = nowMs;
}
setInterval(tick, 10);

function say(said: Said): void {
  process.stdout.write(`${JSON.stringify(said)}\n`);
}

/** Takes a lock, writes under it without looking at the time, as one would who was paused, and mostly gives it back. */
async function work(client: LockClient, holder: string, random: (below: number) => number): Promise<void> {
  const lock = locks[random(locks.length)] ?? "lock";
  const sentMs = monotonicMs();
  const wanted = { ttl: ms(ttlMs), waitTimeout: ms(random(3) * (ttlMs / 4)), owner: holder };
  const { outcome, lock: taken, validFor } = await client.acquire(lock, wanted);
  if (outcome !== LockOutcome.ACQUIRED || taken === undefined) return;
  const token = Number(taken.fencingToken);
  const untilMs = sentMs + inMs(validFor);
  say({ said: "granted", isKept: false, lock, token, holder, sentMs, fromMs: monotonicMs(), untilMs });
  const writer = createWriter({ client, readable, say }, { lock, token, holder });
  const write = () => writer(chooseWrite(kinds, lock, random));
  for (let left = random(4); left >= 0; left--) {
    await Promise.race([write(), delay(PATIENCE_MS)]);
    if (random(3) === 0) {
      const askedMs = monotonicMs();
      const { reply } = await client.call(method.renew, { name: lock, fencingToken: taken.fencingToken });
      // Others may have it by now.
      if (!reply.renewed) return write();
      say({ said: "renewed", lock, token, untilMs: askedMs + inMs(reply.validFor) });
    }
    await delay(random(10));
  }
  if (random(4) === 0) {
    // Forgotten: its lease has to run out. And a write comes late.
    await delay(ttlMs + random(ttlMs));
    await write();
    return;
  }
  say({ said: "released", lock, token, atMs: monotonicMs() });
  await client.release(lock, taken.fencingToken);
}

/** Takes a lock with a stream, writes while that says that it goes on, and ends it, or is told that it has ended. */
async function hold(client: LockClient, holder: string, random: (below: number) => number): Promise<void> {
  const lock = locks[random(locks.length)] ?? "lock";
  const sentMs = monotonicMs();
  const wanted = { name: lock, ttl: ms(HOLD_TTL_MS), waitTimeout: ms(random(3) * (ttlMs / 4)), owner: holder };
  let token: number | undefined;
  let write = async () => {};
  let isOver = false;
  const ends = () => {
    if (token !== undefined && !isOver) say({ said: "released", lock, token, atMs: monotonicMs() });
    isOver = true;
  };
  using stream = client.follow(method.hold, wanted, ({ event }) => {
    tick();
    const nowMs = tickMs;
    // It may have lain about since before this process was frozen.
    const lasts = (validFor: Duration | undefined) =>
      nowMs < isLateUntilMs ? nowMs : nowMs + Math.max(0, inMs(validFor) - ON_THE_WAY_MS);
    if (event.case === "acquired") {
      token = Number(event.value.lock?.fencingToken);
      const writer = createWriter({ client, readable, say }, { lock, token, holder });
      write = () => writer(chooseWrite(kinds, lock, random));
      const untilMs = lasts(event.value.validFor);
      say({ said: "granted", isKept: true, lock, token, holder, sentMs, fromMs: nowMs, untilMs });
    } else if (event.case === "renewed" && token !== undefined && !isOver) {
      say({ said: "renewed", lock, token, untilMs: lasts(event.value.validFor) });
    } else if (event.case === "lost" || event.case === "handover") ends();
  });
  const ended = stream.ended.finally(ends);
  // Some are held for longer than anything is frozen.
  for (let rounds = random(4) === 0 ? 40 : random(8); !isOver && rounds > 0; ) {
    if (token !== undefined) {
      rounds--;
      await Promise.race([write(), delay(PATIENCE_MS)]);
    }
    await Promise.race([ended, delay(random(150))]);
  }
  ends();
  stream.cancel();
  const failed = await ended;
  if (failed !== undefined && failed.code !== "CANCELLED") throw failed;
}

async function run(at: number): Promise<void> {
  const random = createRandom(options.seed + at);
  const clients = options.addresses.map((address) => createLockClient(address, { deadlineMs: 2_000 }));
  for (let round = 0; ; round++) {
    // Half of them stay with one server: the others are soon all stuck on one that is frozen.
    const client = clients[(at + (at % 4 < 2 ? 0 : random(4))) % clients.length];
    if (client === undefined) throw new Error("there is no server");
    try {
      await (at < options.holders ? hold : work)(client, `${options.name}-${at}-${round}`, random);
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error;
      say(failureOf(error));
      await delay(50);
    }
  }
}

process.stdout.write("ready\n");
await Promise.all(Array.from({ length: options.workers }, (_, at) => run(at)));

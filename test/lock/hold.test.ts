import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  LockLost_Cause,
  LockServiceHoldRequestSchema,
  type LockServiceHoldResponse,
} from "../../src/gen/holdfast/v1/lock_pb.js";
import { createLocalBackplane } from "../../src/infra/backplane-local.ts";
import type { CallContext } from "../../src/infra/call.ts";
import type { Database } from "../../src/infra/database.ts";
import { Failure, UnavailableError } from "../../src/infra/failure.ts";
import { createLog } from "../../src/infra/log.ts";
import { createMetrics } from "../../src/infra/metrics.ts";
import { createHoldRpc } from "../../src/lock/hold/hold-rpc.ts";
import { createKeepings, drainingFailure } from "../../src/lock/hold/keepings.ts";
import { createLockMetrics } from "../../src/lock/metrics.ts";
import { createNotice } from "../../src/lock/notice.ts";
import { createLines } from "../../src/lock/wait/lines.ts";
import { inMs, ms } from "../support/lock-client.ts";
import { type MovedTime, movedTime } from "../support/moved-timer.ts";
import { until } from "../support/until.ts";
import { openSqlAuthorities, releaseOrder, renewOrder, takeOrder } from "./authorities.ts";

const log = createLog({ level: "silent" });
const CAUSE = LockLost_Cause;
const TTL = 30_000;

/** Holds as one instance serves them, over a real SQLite; time is the test's, and SQL may be taken away. */
async function openHolds(parts: AsyncDisposableStack) {
  const time = movedTime();
  const sql = { isAway: false };
  const { instances } = parts.use(
    await openSqlAuthorities("sqlite", { clock: time, spoil: (database) => mayBeAway(database, sql) }),
  );
  const [{ authority }] = instances;
  const keepings = createKeepings();
  const lines = createLines({ authority, clock: time, timer: time.timer, log, mostWaiting: 10 });
  const notice = createNotice({ backplane: createLocalBackplane({ log }), lines, keepers: keepings, log });
  const metrics = createLockMetrics({
    metrics: createMetrics({ defaults: false }),
    ...{ authority, waiting: () => lines.waiting, kept: () => keepings.size },
  });
  const { hold } = createHoldRpc({
    ...{ authority, lines, keepings, notice, metrics, instanceId: "one", clock: time, timer: time.timer, log },
    policyFor: () => ({ ttlMs: TTL }),
  });

  function open(name: string, more: MessageInitShape<typeof LockServiceHoldRequestSchema> = {}) {
    const controller = new AbortController();
    const call: CallContext = {
      method: "Hold",
      caller: { name: "tests", hasScope: () => true, mayUse: () => true },
      deadline: undefined,
      signal: controller.signal,
      interruption: undefined,
      servedBy: () => {},
      degraded: () => {},
    };
    return reader(hold(create(LockServiceHoldRequestSchema, { name, ...more }), call), controller);
  }

  return { time, sql, authority, keepings, lines, notice, open };
}

/** Reads a stream as slowly as the test does. */
function reader(stream: AsyncIterable<unknown>, controller: AbortController) {
  const iterator = stream[Symbol.asyncIterator]();
  const next = async () => (await iterator.next()) as IteratorResult<LockServiceHoldResponse, undefined>;
  return {
    next,
    async event() {
      const { value } = await next();
      if (value === undefined) throw new Error("the stream has ended");
      return value.event;
    },
    hangUp: () => controller.abort(new Failure("cancelled", "CANCELLED", "the caller hung up")),
    drain: () => controller.abort(drainingFailure()),
    close: () => iterator.return?.(),
  };
}

function mayBeAway(database: Database, sql: { readonly isAway: boolean }): Database {
  const refuse = () => {
    if (sql.isAway) throw new UnavailableError("SQL_UNAVAILABLE", "taken away by the test");
  };
  return {
    ...database,
    async transaction(work) {
      refuse();
      return database.transaction(work);
    },
    async query(statement, params) {
      refuse();
      return database.query(statement, params);
    },
  };
}

describe("a Hold", () => {
  let parts: AsyncDisposableStack;
  let holds: Awaited<ReturnType<typeof openHolds>>;
  let time: MovedTime;
  beforeEach(async () => {
    parts = new AsyncDisposableStack();
    holds = await openHolds(parts);
    time = holds.time;
  });
  afterEach(() => parts.disposeAsync());

  const heldBy = async (name: string) => (await holds.authority.look(name)).lease?.grant.token;
  const free = (name: string) => until(async () => (await heldBy(name)) === undefined, { what: `${name} to be free` });

  it("begins with the lock, and never says that it lasts longer than its authority says", async () => {
    const { case: name, value } = await holds.open("a").event();
    expect([name, value]).toMatchObject(["acquired", { lock: { name: "a", owner: "tests", renewals: 0n } }]);
    if (name !== "acquired") throw new Error("not acquired");
    const { lease } = await holds.authority.look("a");
    expect(inMs(value.validFor)).toBeLessThan(lease?.remainingMs ?? 0);
    expect(inMs(value.validFor)).toBeGreaterThan(TTL * 0.9);
  });

  it("renews the lease every third of it, and says so", async () => {
    const stream = holds.open("a");
    await stream.event();
    for (const renewals of [1n, 2n, 3n]) {
      const event = stream.event();
      time.move(TTL / 3);
      expect(await event).toMatchObject({ case: "renewed", value: { renewals } });
    }
    expect((await holds.authority.look("a")).lease?.remainingMs).toBe(TTL);
  });

  it("tells a slow reader the newest renewal only", async () => {
    const stream = holds.open("a");
    await stream.event();
    for (const renewals of [1, 2, 3]) {
      time.move(TTL / 3);
      await until(async () => (await holds.authority.look("a")).lease?.grant.renewals === renewals, {
        what: "renewal",
      });
    }
    // The answer to the last renewal is a turn later here than there.
    await new Promise((resolve) => setImmediate(resolve));
    expect(await stream.event()).toMatchObject({ case: "renewed", value: { renewals: 3n } });
  });

  it("is lost before the lease can be over when its authority does not answer, and gives back when it does", async () => {
    const stream = holds.open("a");
    await stream.event();
    holds.sql.isAway = true;
    const event = stream.event();
    let lost: Awaited<typeof event> | undefined;
    void event.then((it) => {
      lost = it;
    });
    for (let step = 0; step < 300 && lost === undefined; step++) {
      time.move(TTL / 300);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(lost).toMatchObject({ case: "lost", value: { cause: CAUSE.AUTHORITY_UNAVAILABLE } });
    holds.sql.isAway = false;
    expect(await heldBy("a")).toBeDefined();
    expect((await stream.next()).done).toBe(true);
    await until(
      async () => {
        time.move(10);
        return (await heldBy("a")) === undefined;
      },
      { what: "the lock to be given back" },
    );
    expect(time.monotonic()).toBeLessThan(TTL);
  });

  it("lives through an authority that is away for a moment", async () => {
    const stream = holds.open("a");
    await stream.event();
    holds.sql.isAway = true;
    time.move(TTL / 3);
    await new Promise((resolve) => setImmediate(resolve));
    holds.sql.isAway = false;
    const event = stream.event();
    time.move(TTL / 3);
    expect(await event).toMatchObject({ case: "renewed", value: { renewals: 1n } });
  });

  it("is lost as expired when its server was frozen for longer than the lease", async () => {
    const stream = holds.open("a");
    await stream.event();
    time.freeze(TTL + 1);
    const event = stream.event();
    time.move(0);
    expect(await event).toMatchObject({ case: "lost", value: { cause: CAUSE.EXPIRED } });
    expect((await stream.next()).done).toBe(true);
  });

  it("gives the lock to the next in the line when its caller hangs up, without waiting for the lease", async () => {
    const [first, second] = [holds.open("a"), holds.open("a")];
    await first.event();
    expect(await second.event()).toMatchObject({ case: "waiting", value: { position: 1, holder: { owner: "tests" } } });
    const next = second.event();
    const ended = first.next();
    first.hangUp();
    await expect(ended).rejects.toMatchObject({ reason: "CANCELLED" });
    expect(await next).toMatchObject({ case: "acquired" });
  });

  it("gives the lock back when its stream is closed while nobody reads", async () => {
    const stream = holds.open("a");
    await stream.event();
    await stream.close();
    await free("a");
    expect(holds.keepings.size).toBe(0);
  });

  it("says that it waits at once, with its place, and again within 15 seconds", async () => {
    await holds.authority.take(takeOrder("a", { ttlMs: 3_600_000, owner: "me" }));
    const [first, second] = [holds.open("a"), holds.open("a")];
    expect(await first.event()).toMatchObject({ case: "waiting", value: { position: 1, holder: { owner: "me" } } });
    expect(await second.event()).toMatchObject({ case: "waiting", value: { position: 2 } });
    const again = second.event();
    time.move(15_000);
    expect(await again).toMatchObject({ case: "waiting", value: { position: 2 } });
    const ended = first.next();
    first.hangUp();
    await expect(ended).rejects.toMatchObject({ reason: "CANCELLED" });
    const forward = second.event();
    time.move(15_000);
    expect(await forward).toMatchObject({ case: "waiting", value: { position: 1 } });
  });

  it("says when the wait was over first", async () => {
    await holds.authority.take(takeOrder("a", { owner: "me" }));
    const stream = holds.open("a", { waitTimeout: ms(1_000) });
    expect((await stream.event()).case).toBe("waiting");
    const over = stream.event();
    time.move(1_000);
    expect(await over).toMatchObject({ case: "notAcquired", value: { holder: { owner: "me" } } });
    expect((await stream.next()).done).toBe(true);
  });

  it("takes nothing when it is closed while it waits", async () => {
    const { token } = await taken("a");
    const stream = holds.open("a");
    await stream.event();
    await stream.close();
    await holds.authority.release(releaseOrder({ name: "a", token }));
    holds.lines.ring("a");
    expect(holds.lines.waiters("a")).toBe(0);
    expect(await heldBy("a")).toBeUndefined();
  });

  it("goes on with the grant of an Acquire, without a gap, and renews it from then on", async () => {
    const { token } = await taken("a");
    const stream = holds.open("a", { resumeToken: BigInt(token) });
    expect(await stream.event()).toMatchObject({ case: "acquired", value: { lock: { fencingToken: BigInt(token) } } });
    const renewed = stream.event();
    time.move(TTL / 3);
    expect(await renewed).toMatchObject({ case: "renewed", value: { renewals: 2n } });
  });

  it.each([
    ["released", CAUSE.RELEASED],
    ["forced", CAUSE.FORCED],
  ] as const)("is told at once, and why, when its lock is %s by others", async (end, cause) => {
    const stream = holds.open("a");
    await stream.event();
    const token = (await heldBy("a")) ?? 0;
    const event = stream.event();
    holds.notice.freed("a", await holds.authority.release(releaseOrder({ name: "a", token }, { end })));
    expect(await event).toMatchObject({ case: "lost", value: { cause } });
  });

  it("is told at once when another stream goes on with its grant, and takes nothing from that", async () => {
    const before = holds.open("a");
    await before.event();
    const token = (await heldBy("a")) ?? 0;
    const event = before.event();
    const after = holds.open("a", { resumeToken: BigInt(token) });
    await after.event();
    expect(await event).toMatchObject({ case: "lost", value: { cause: CAUSE.TAKEN_OVER } });
    expect((await before.next()).done).toBe(true);
    await holds.keepings.close();
    expect(await heldBy("a")).toBe(token);
  });

  it.each([
    ["never was", undefined, CAUSE.EXPIRED],
    ["was released", "released", CAUSE.RELEASED],
    ["was taken away", "forced", CAUSE.FORCED],
  ] as const)("cannot go on with a grant that %s", async (_, end, cause) => {
    const { token } = await taken("a");
    if (end !== undefined) await holds.authority.release(releaseOrder({ name: "a", token }, { end }));
    const stream = holds.open("a", { resumeToken: BigInt(end === undefined ? token + 1 : token) });
    expect(await stream.event()).toMatchObject({ case: "lost", value: { cause } });
    expect((await stream.next()).done).toBe(true);
  });

  it("is handed over by a drain with all of its lease, and stays held", async () => {
    const stream = holds.open("a");
    await stream.event();
    time.move(TTL / 4);
    const token = (await heldBy("a")) ?? 0;
    const event = stream.event();
    const handedOver = holds.keepings.handOver(1_000);
    const handover = await event;
    if (handover.case !== "handover") throw new Error(`${handover.case} instead of handover`);
    expect(handover.value.resumeToken).toBe(BigInt(token));
    expect(inMs(handover.value.validFor)).toBeGreaterThan(TTL * 0.9);
    await expect(stream.next()).rejects.toMatchObject({ reason: "SERVER_DRAINING", retryAfterMs: 1000 });
    await handedOver;
    expect((await holds.authority.look("a")).lease).toMatchObject({ remainingMs: TTL, grant: { token } });
    expect(
      await holds.authority.renew(renewOrder({ name: "a", token }, { heir: { streamId: "b", instanceId: "two" } })),
    ).toMatchObject({ kind: "renewed" });
  });

  it("stays held when the server is ended before its reader has heard of the handover", async () => {
    const stream = holds.open("a");
    await stream.event();
    const token = await heldBy("a");
    stream.drain();
    await expect(stream.next()).rejects.toMatchObject({ reason: "SERVER_DRAINING" });
    await holds.keepings.close();
    expect(await heldBy("a")).toBe(token);
  });

  it("is not begun by a server that drains", async () => {
    await holds.keepings.handOver(1_000);
    await expect(holds.open("a").next()).rejects.toMatchObject({ reason: "SERVER_DRAINING" });
    expect(await heldBy("a")).toBeUndefined();
  });

  async function taken(name: string) {
    const given = await holds.authority.take(takeOrder(name));
    if (given.kind !== "granted") throw new Error(`${name} is ${given.kind}`);
    return given.lease.grant;
  }
});

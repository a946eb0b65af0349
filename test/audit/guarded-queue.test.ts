import { describe, expect, it, onTestFinished } from "vitest";
import { guardQueue } from "../../src/audit/queue/guarded-queue.ts";
import { type Queue, QueueFullError } from "../../src/audit/queue/queue.ts";
import { BreakerOpenError, createBreaker } from "../../src/infra/circuit-breaker.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { open } from "../infra/redis-clients.ts";
import { freshRedis } from "../support/fresh.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { openGrowth, openQueue, recordsOf, STREAM, seedsFor } from "./queue-parts.ts";

const never = new AbortController().signal;

async function setup(maxLength?: number) {
  const url = new URL(await freshRedis());
  const proxy = await startTcpProxy(Number(url.port));
  onTestFinished(() => proxy.close());
  url.port = String(proxy.port);
  const redis = open(url.href, { commandTimeoutMs: 5_000 });
  const breaker = createBreaker({
    ...{ failureThreshold: 3, resetTimeoutMs: 3_600_000, halfOpenMaxCalls: 1, clock: systemClock },
    probe: () => redis.command("ping").then(() => undefined),
  });
  onTestFinished(() => breaker.close());
  const bare = openQueue(redis, openGrowth(), maxLength);
  return { queue: guardQueue(bare, breaker), bare, breaker, proxy, redis };
}

const add = (queue: Queue, first: number, last: number) =>
  queue.append({ records: recordsOf("p", first, last), seeds: seedsFor("p") });

/** Each call, as a caller would make it. */
const calls: Readonly<Record<Exclude<keyof Queue, "traffic">, (queue: Queue) => Promise<unknown>>> = {
  append: (queue) => add(queue, 9, 9),
  raise: (queue) => queue.raise(new Map([["p", 3]])),
  find: (queue) => queue.find([{ producer: "p", sequence: 1 }]),
  sequences: (queue) => queue.sequences("p"),
  lastSequence: (queue) => queue.lastSequence("p"),
  drained: (queue) => queue.drained(never),
  condition: (queue) => queue.condition(),
};
const names = Object.keys(calls) as (keyof typeof calls)[];

describe("a queue behind a breaker", () => {
  it("answers as the queue does while Redis is well", async () => {
    const { queue, redis, breaker } = await setup();
    expect(await add(queue, 1, 3)).toEqual(["queued", "queued", "queued"]);
    expect(await queue.sequences("p")).toEqual([1, 2, 3]);
    expect(await queue.lastSequence("p")).toBe(3);
    await queue.raise(new Map([["p", 8]]));
    expect(await queue.lastSequence("p")).toBe(8);
    const [leaf, none] = await queue.find([
      { producer: "p", sequence: 2 },
      { producer: "p", sequence: 7 },
    ]);
    expect(Buffer.from(leaf ?? []).equals(recordsOf("p", 2, 2)[0]?.leaf ?? Buffer.of(1))).toBe(true);
    expect(none).toBeUndefined();
    expect(await queue.condition()).toMatchObject({ unarchived: 3 });
    expect(queue.traffic).toEqual({ appended: 3, awaited: false });
    await redis.command("del", STREAM);
    await queue.drained(never);
    expect([breaker.state, breaker.totalFailures]).toEqual(["closed", 0]);
  });

  it("may be full as often as it likes: it is there, and the breaker stays closed", async () => {
    const { queue, breaker } = await setup(2);
    await add(queue, 1, 2);
    for (let call = 0; call < 10; call++) await expect(add(queue, 3, 3)).rejects.toThrow(QueueFullError);
    expect([breaker.state, breaker.totalFailures]).toEqual(["closed", 0]);
    expect(await queue.lastSequence("p")).toBe(2);
  });

  it("that is full counts as an answer between two failures", async () => {
    const { queue, bare, breaker, proxy } = await setup(2);
    await add(queue, 1, 2);
    for (let round = 0; round < 3; round++) {
      proxy.cut();
      for (let call = 0; call < 2; call++) await expect(queue.condition()).rejects.toThrow(UnavailableError);
      proxy.restore();
      await until(() => bare.condition(), { what: "Redis to answer again" });
      await expect(add(queue, 3, 3)).rejects.toThrow(QueueFullError);
      expect(breaker.consecutiveFailures).toBe(0);
    }
    expect(breaker.state).toBe("closed");
  });

  it.each(names)("opens it when %s finds Redis away, and then refuses at once", async (name) => {
    const { queue, breaker, proxy } = await setup();
    await queue.condition();
    proxy.cut();
    for (let call = 0; call < 3; call++) {
      const error: unknown = await calls[name](queue).catch((error: unknown) => error);
      expect(error).toBeInstanceOf(UnavailableError);
      expect(error).not.toBeInstanceOf(BreakerOpenError);
    }
    expect(breaker.state).toBe("open");
    for (const other of names) await expect(calls[other](queue)).rejects.toThrow(BreakerOpenError);
  });

  it("is not blamed for who gives up waiting until it is empty", async () => {
    const { queue, breaker } = await setup();
    await add(queue, 1, 1);
    for (let call = 0; call < 5; call++) {
      const abort = new AbortController();
      const waiting = queue.drained(abort.signal);
      const reason = new UnavailableError("SERVER_DRAINING", "gone");
      abort.abort(reason);
      await expect(waiting).rejects.toBe(reason);
    }
    expect([breaker.state, breaker.totalFailures]).toEqual(["closed", 0]);
  });
});

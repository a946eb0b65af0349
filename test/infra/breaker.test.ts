import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Breaker } from "../../src/infra/breaker.ts";
import {
  BreakerOpenError,
  type BreakerOptions,
  type CircuitBreaker,
  createBreaker,
} from "../../src/infra/circuit-breaker.ts";
import { systemClock } from "../../src/infra/clock.ts";
import { UnavailableError } from "../../src/infra/failure.ts";
import { createRedis } from "../../src/infra/redis.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

const away = new UnavailableError("REDIS_UNAVAILABLE", "away");

/** Time that stands still until told to move. */
function createTime() {
  let now = 0;
  let due: { at: number; run: () => void }[] = [];
  return {
    clock: { now: () => now, monotonic: () => now },
    timer: (run: () => void, delayMs: number) => {
      const entry = { at: now + delayMs, run };
      due.push(entry);
      return () => {
        due = due.filter((other) => other !== entry);
      };
    },
    advance: (ms: number) => {
      now += ms;
      const ready = due.filter((entry) => entry.at <= now);
      due = due.filter((entry) => entry.at > now);
      for (const entry of ready) entry.run();
    },
    waiting: () => due.length,
  };
}

function setup(overrides: Partial<BreakerOptions> = {}) {
  const time = createTime();
  const part = { healthy: true, probes: 0 };
  const breaker = createBreaker({
    failureThreshold: 5,
    resetTimeoutMs: 30_000,
    halfOpenMaxCalls: 3,
    probe: async () => {
      part.probes += 1;
      if (!part.healthy) throw away;
    },
    clock: time.clock,
    timer: time.timer,
    ...overrides,
  });
  const states: Breaker["state"][] = [];
  breaker.onStateChange((state) => states.push(state));
  return { breaker, time, part, states };
}

async function fail(breaker: Breaker, times = 1): Promise<void> {
  for (let i = 0; i < times; i++) await breaker.execute(() => Promise.reject(away)).catch(() => {});
}

describe("a breaker", () => {
  it("opens at the threshold and then rejects without calling", async () => {
    const { breaker, states } = setup();
    await fail(breaker, 4);
    expect(breaker.state).toBe("closed");
    await fail(breaker);
    expect(breaker.state).toBe("open");
    let called = false;
    const refused = breaker.execute(async () => {
      called = true;
    });
    await expect(refused).rejects.toBeInstanceOf(BreakerOpenError);
    expect(called).toBe(false);
    expect(states).toEqual(["open"]);
    expect(breaker).toMatchObject({
      consecutiveFailures: 5,
      totalFailures: 5,
      lastError: { message: "away", time: 0 },
    });
  });

  it("starts counting anew after a success, and after an answer that is an error of another kind", async () => {
    const { breaker } = setup();
    await fail(breaker, 4);
    expect(await breaker.execute(async () => "value")).toBe("value");
    await fail(breaker, 4);
    await expect(breaker.execute(() => Promise.reject(new Error("WRONGTYPE")))).rejects.toThrow("WRONGTYPE");
    await fail(breaker, 4);
    expect(breaker.state).toBe("closed");
    expect(breaker.totalFailures).toBe(12);
  });

  it("tries the part in the background, heals in order, and only then closes", async () => {
    const { breaker, time, part, states } = setup();
    const order: string[] = [];
    for (const name of ["first", "second"]) {
      breaker.beforeClose(async () => {
        await Promise.resolve();
        order.push(`${name} while ${breaker.state} after ${part.probes} probes`);
      });
    }
    await fail(breaker, 5);
    time.advance(29_999);
    expect(breaker.state).toBe("open");
    time.advance(1);
    expect(breaker.state).toBe("half_open");
    await expect(breaker.execute(async () => {})).rejects.toBeInstanceOf(BreakerOpenError);
    await breaker.forceTrial();
    expect(order).toEqual(["first while half_open after 3 probes", "second while half_open after 3 probes"]);
    expect(states).toEqual(["open", "half_open", "closed"]);
    expect(breaker.consecutiveFailures).toBe(0);
    expect(await breaker.execute(async () => 1)).toBe(1);
  });

  it("opens again for the whole timeout when a probe or a healing step fails", async () => {
    const { breaker, time, part } = setup();
    let heals = false;
    breaker.beforeClose(async () => {
      if (!heals) throw new Error("could not heal");
    });
    await fail(breaker, 5);
    part.healthy = false;
    time.advance(30_000);
    await breaker.forceTrial();
    expect(breaker.state).toBe("open");
    expect(part.probes).toBe(1);

    part.healthy = true;
    time.advance(30_000);
    await breaker.forceTrial();
    expect(breaker).toMatchObject({ state: "open", lastError: { message: "could not heal" } });

    heals = true;
    time.advance(29_999);
    expect(breaker.state).toBe("open");
    time.advance(1);
    await breaker.forceTrial();
    expect(breaker.state).toBe("closed");
  });

  it("counts failures that arrive together once, and is not flipped by results of calls that began before", async () => {
    const { breaker, time, states } = setup();
    const late = Array.from({ length: 20 }, () => Promise.withResolvers<string>());
    const calls = late.map((call) => breaker.execute(() => call.promise).catch(() => "failed"));
    for (const call of late.slice(0, 10)) call.reject(away);
    await Promise.all(calls.slice(0, 10));
    expect(states).toEqual(["open"]);
    expect(time.waiting()).toBe(1);

    const healing = Promise.withResolvers<void>();
    breaker.beforeClose(() => healing.promise);
    time.advance(30_000);
    late[10]?.reject(away);
    await calls[10];
    expect(breaker.state).toBe("half_open");
    healing.resolve();
    await breaker.forceTrial();
    for (const call of late.slice(11, 19)) call.reject(away);
    late[19]?.resolve("late");
    expect(await Promise.all(calls.slice(11))).toContain("late");
    expect(breaker).toMatchObject({ state: "closed", consecutiveFailures: 0, totalFailures: 19 });
  });

  it("does not let a failing listener stop it", async () => {
    const { breaker } = setup();
    breaker.onStateChange(() => {
      throw new Error("listener");
    });
    await fail(breaker, 5);
    expect(breaker.state).toBe("open");
  });

  it("starts no trial once it is closed for good", async () => {
    const { breaker, time } = setup();
    await fail(breaker, 5);
    breaker.close();
    expect(time.waiting()).toBe(0);
    await breaker.forceTrial();
    expect(breaker.state).toBe("open");
  });
});

/** The rules in a few lines: what the breaker must agree with after any sequence of events. */
interface Model {
  state: "closed" | "open";
  failures: number;
  openFor: number;
}

interface Real {
  readonly breaker: CircuitBreaker;
  readonly advance: (ms: number) => void;
  readonly part: { healthy: boolean };
}

type Step = "succeed" | "fail" | "refuse" | "part dies" | "part heals" | { wait: number };

async function apply(step: Step, model: Model, { breaker, advance, part }: Real): Promise<void> {
  if (typeof step === "object") {
    advance(step.wait);
    model.openFor += step.wait;
    // Waits for the trial that time has begun, and begins none.
    if (breaker.state === "half_open") await breaker.forceTrial();
    if (model.state === "open" && model.openFor >= 1_000) {
      if (part.healthy) Object.assign(model, { state: "closed", failures: 0 });
      else Object.assign(model, { openFor: 0, failures: model.failures + 1 });
    }
    return;
  }
  if (step === "part dies" || step === "part heals") {
    part.healthy = step === "part heals";
    return;
  }
  let ran = false;
  const error = step === "fail" ? away : new Error("refused");
  await breaker
    .execute(async () => {
      ran = true;
      if (step !== "succeed") throw error;
    })
    .catch(() => {});
  expect(ran).toBe(model.state === "closed");
  if (model.state === "open") return;
  model.failures = step === "fail" ? model.failures + 1 : 0;
  if (model.failures >= 3) Object.assign(model, { state: "open", openFor: 0 });
}

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Step>("fail") },
  fc.constantFrom<Step>("succeed", "refuse", "part dies", "part heals"),
  fc.constantFrom(1, 500, 999, 1_000, 1_500).map((wait) => ({ wait })),
);

/** Runs random histories on a breaker and on the model, which opens at 3 failures for 1000 ms. */
async function compare(options: Partial<BreakerOptions>, numRuns = 300): Promise<void> {
  const property = fc.asyncProperty(fc.array(anyStep, { maxLength: 60 }), async (steps) => {
    const { breaker, time, part } = setup(options);
    const model: Model = { state: "closed", failures: 0, openFor: 0 };
    for (const step of steps) {
      await apply(step, model, { breaker, advance: time.advance, part });
      expect([breaker.state, breaker.consecutiveFailures]).toEqual([model.state, model.failures]);
    }
  });
  await fc.assert(property, { numRuns });
}

describe("any sequence of events", () => {
  it("leaves the breaker in the state that the model is in", () =>
    compare({ failureThreshold: 3, resetTimeoutMs: 1_000 }));

  it.each([
    ["opens too late", { failureThreshold: 4, resetTimeoutMs: 1_000 }],
    ["stays open too long", { failureThreshold: 3, resetTimeoutMs: 1_001 }],
    ["counts what is no failure", { failureThreshold: 3, resetTimeoutMs: 1_000, isFailure: () => true }],
    ["closes without a trial", { failureThreshold: 3, resetTimeoutMs: 1_000, halfOpenMaxCalls: 0 }],
  ])("shows a breaker that %s", async (_, planted) => {
    // A search that may end early, so that luck has no part in it.
    await expect(compare(planted, 10_000)).rejects.toThrow("Property failed");
  });
});

it("lets nothing wait for a frozen Redis after the threshold, and closes once it thaws", async () => {
  await using server = await startRedis();
  const redis = createRedis({
    mode: "single",
    nodes: [{ host: "127.0.0.1", port: server.port }],
    commandTimeoutMs: 200,
    connectTimeoutMs: 200,
  });
  const breaker = createBreaker({
    failureThreshold: 5,
    resetTimeoutMs: 100,
    halfOpenMaxCalls: 3,
    probe: async () => {
      await redis.ping();
    },
    clock: systemClock,
  });
  await breaker.execute(() => redis.ping());
  server.pause();
  await until(
    async () => {
      await breaker.execute(() => redis.ping()).catch(() => {});
      return breaker.state === "open";
    },
    { what: "the breaker to open" },
  );
  // Each of these has its answer before the loop turns: none waits for a timer, a socket or another process.
  for (let call = 0; call < 100; call++) {
    const answer = breaker.execute(() => redis.ping()).catch((error: unknown) => error);
    const first = await Promise.race([answer, new Promise((resolve) => setImmediate(resolve, "waited"))]);
    expect(first).toBeInstanceOf(UnavailableError);
  }
  server.resume();
  await until(() => breaker.state === "closed", { what: "the breaker to close" });
  await breaker.execute(() => redis.ping());
  breaker.close();
  await redis.close();
});

import { describe, expect, it } from "vitest";
import type { Alert } from "../../src/health/alerts.ts";
import type { BreakerPosition, Component, Finding } from "../../src/health/component.ts";
import { createHealth, type Health } from "../../src/health/health.ts";
import { until } from "../support/until.ts";

/** A component that is as well as the test says. */
function part(name: Component["name"]) {
  const part = {
    name,
    kind: `some ${name}`,
    whenUnwell: `what ${name} does is done otherwise`,
    checks: 0,
    answer: async (): Promise<Finding | undefined> => undefined,
    position: "closed" as BreakerPosition,
    check: () => {
      part.checks += 1;
      return part.answer();
    },
    breaker: () => part.position,
  };
  return part;
}

const hour = 3_600_000;

function setUp(timing: { recheckIntervalMs?: number; suspicionIntervalMs?: number } = {}) {
  const time = { now: 1_000_000 };
  const [sql, redis, backplane] = [part("sql"), part("redis"), part("backplane")];
  const numbers = { l1HitRate: 0.9, l2HitRate: 0.5, fallbackRate: 0, unhealedChanges: 0 };
  const audit = {
    ...{ tiers: ["sqlite"], queuedRecords: 0, lagMs: undefined, journalOnlyRecords: 0 },
    ...{ quarantinedRecords: 0, archiving: false },
  };
  const seen = { strangers: [] as string[], redisFailures: 0 };
  const raised: Alert[] = [];
  const health = createHealth({
    components: [sql, redis, backplane, { name: "journal", kind: "", whenUnwell: "" }],
    cacheHealth: () => numbers,
    auditHealth: () => audit,
    redisFailures: () => seen.redisFailures,
    instances: () => ({ all: ["me", ...seen.strangers], strangers: seen.strangers }),
    checkIntervalMs: hour,
    checkTimeoutMs: 50,
    recheckIntervalMs: hour,
    ...timing,
    sinks: [(alert) => raised.push(alert)],
    clock: { now: () => time.now, monotonic: () => performance.now() },
  });
  return { health, sql, redis, backplane, numbers, audit, seen, raised, time };
}

const fails = (message: string) => async () => {
  throw new Error(message);
};
const stateOf = (health: Health, name: string) => health.snapshot().components.find((it) => it.name === name)?.state;
const activeAlerts = (health: Health) =>
  health
    .snapshot()
    .alerts.filter(({ active }) => active)
    .map(({ name }) => name);

describe("the overall state", () => {
  it("is healthy when every part is, and parts that are not there do not count", async () => {
    const { health } = setUp();
    await health.checkNow();
    expect(health.snapshot()).toMatchObject({ state: "healthy", alerts: [], instances: ["me"] });
    expect(health.snapshot().components.map(({ name, state }) => [name, state])).toEqual([
      ["backplane", "healthy"],
      ["journal", "not_configured"],
      ["redis", "healthy"],
      ["sql", "healthy"],
    ]);
  });

  it("is degraded without Redis or without the backplane, since calls are answered otherwise", async () => {
    for (const name of ["redis", "backplane"] as const) {
      const parts = setUp();
      parts[name].answer = fails("gone");
      await parts.health.checkNow();
      expect(parts.health.snapshot().state).toBe("degraded");
      expect(stateOf(parts.health, name)).toBe("unhealthy");
    }
  });

  it("is unhealthy without SQL, since calls fail", async () => {
    const { health, sql } = setUp();
    sql.answer = fails("disk full");
    await health.checkNow();
    expect(health.snapshot().state).toBe("unhealthy");
    expect(activeAlerts(health)).toEqual(["SYSTEM_UNHEALTHY"]);
    expect(health.snapshot().alerts[0]?.message).toContain("sql: disk full");
  });

  it("is degraded before the first check rather than promised to be well", () => {
    const { health } = setUp();
    expect(health.snapshot().state).toBe("degraded");
  });
});

describe("a component", () => {
  it("says what is the matter and what that means, and remembers its last error when it is well again", async () => {
    const { health, redis, time } = setUp();
    redis.answer = fails("connection refused by redis://:hunter2@cache");
    await health.checkNow();
    const unwell = health.snapshot().components.find(({ name }) => name === "redis");
    expect(unwell?.message).toMatch(/connection refused.*done otherwise/);
    expect(JSON.stringify(health.snapshot())).not.toContain("hunter2");

    redis.answer = async () => undefined;
    time.now += 5000;
    await health.checkNow();
    expect(health.snapshot().components.find(({ name }) => name === "redis")).toMatchObject({
      state: "healthy",
      message: "",
      checkTime: time.now,
      lastError: { time: time.now - 5000 },
    });
  });

  it("is as its breaker is, whatever the last check said", async () => {
    const { health, redis } = setUp();
    await health.checkNow();
    redis.position = "open";
    expect(stateOf(health, "redis")).toBe("unhealthy");
    redis.position = "half_open";
    expect(stateOf(health, "redis")).toBe("degraded");
  });

  it("that does not answer in time is unwell, and is not asked again before it has", async () => {
    const { health, sql } = setUp();
    let answer: () => void = () => {};
    sql.answer = () =>
      new Promise((resolve) => {
        answer = () => resolve(undefined);
      });
    await health.checkNow();
    expect(stateOf(health, "sql")).toBe("unhealthy");
    expect(health.snapshot().components.find(({ name }) => name === "sql")?.message).toContain(
      "no answer within 50 ms",
    );
    await health.checkNow();
    expect(sql.checks).toBe(1);
    answer();
    await until(() => stateOf(health, "sql") === "healthy", { what: "the late answer" });
    sql.answer = async () => undefined;
    await health.checkNow();
    expect(sql.checks).toBe(2);
  });

  it("may answer and still be degraded", async () => {
    const { health, sql } = setUp();
    sql.answer = async () => ({ degraded: "half the truth" });
    await health.checkNow();
    expect(health.snapshot()).toMatchObject({ state: "degraded" });
    expect(stateOf(health, "sql")).toBe("degraded");
  });

  it("tells of Redis only what the last check found", async () => {
    const { health, redis } = setUp();
    const numbers = { version: "7", connectedClients: 1, usedMemoryBytes: 2, maxMemoryBytes: 0, uptimeSeconds: 3 };
    redis.answer = async () => ({ redis: numbers });
    await health.checkNow();
    expect(health.snapshot().redis).toEqual(numbers);
    redis.answer = fails("gone");
    await health.checkNow();
    expect(health.snapshot().redis).toBeUndefined();
  });
});

describe("alerts", () => {
  it.each([
    [5, false],
    [6, true],
  ])("of Redis after %i failures in a row: %s", async (failures, expected) => {
    const { health, seen } = setUp();
    seen.redisFailures = failures;
    await health.checkNow();
    expect(activeAlerts(health).includes("REDIS_MULTIPLE_FAILURES")).toBe(expected);
  });

  it("count failed checks with the failures of calls", async () => {
    const { health, seen, redis } = setUp();
    seen.redisFailures = 5;
    redis.answer = fails("gone");
    await health.checkNow();
    expect(activeAlerts(health)).toContain("REDIS_MULTIPLE_FAILURES");
  });

  it.each([
    [0.5, false],
    [0.51, true],
  ])("of fallbacks at a rate of %f: %s", async (rate, expected) => {
    const { health, numbers } = setUp();
    numbers.fallbackRate = rate;
    await health.checkNow();
    expect(activeAlerts(health).includes("HIGH_CACHE_FALLBACK_USAGE")).toBe(expected);
  });

  it("tell of audit records that are on one disk alone, until they are not", async () => {
    const { health, audit } = setUp();
    audit.journalOnlyRecords = 3;
    await health.checkNow();
    expect(health.snapshot().alerts).toMatchObject([{ name: "AUDIT_FILE_BACKUP_ACTIVE", active: true }]);
    expect(health.snapshot().alerts[0]?.message).toContain("3 audit records");
    audit.journalOnlyRecords = 0;
    await health.checkNow();
    expect(activeAlerts(health)).toEqual([]);
  });

  it("of a shared Redis name the others and what to do", async () => {
    const { health, seen } = setUp();
    seen.strangers = ["other"];
    await health.checkNow();
    expect(health.snapshot().alerts).toMatchObject([{ name: "LOCAL_TRUTH_SHARED", active: true }]);
    expect(health.snapshot().alerts[0]?.message).toMatch(/other.*DATABASE_URL/);
  });

  it("reach the sinks once when raised and once when resolved, and can be raised again", async () => {
    const { health, numbers, raised, time } = setUp();
    for (const rate of [0.6, 0.7, 0.1, 0.1, 0.9]) {
      numbers.fallbackRate = rate;
      time.now += 1000;
      await health.checkNow();
    }
    expect(raised.map(({ active, raiseTime, resolveTime }) => [active, raiseTime, resolveTime])).toEqual([
      [true, 1_001_000, undefined],
      [false, 1_001_000, 1_003_000],
      [true, 1_005_000, undefined],
    ]);
  });

  it("of Redis is over when its breaker is closed again, not with the first call that went well", async () => {
    const { health, seen, redis, raised } = setUp();
    seen.redisFailures = 7;
    redis.position = "open";
    await health.checkNow();
    for (const position of ["open", "half_open"] as const) {
      Object.assign(seen, { redisFailures: 0 });
      redis.position = position;
      await health.checkNow();
      expect(activeAlerts(health)).toContain("REDIS_MULTIPLE_FAILURES");
    }
    redis.position = "closed";
    await health.checkNow();
    expect(activeAlerts(health)).not.toContain("REDIS_MULTIPLE_FAILURES");
    expect(raised.map(({ message }) => message)).toEqual([
      "Redis failed 7 times in a row (alert above 5)",
      "Redis answers and is in use again; before: Redis failed 7 times in a row (alert above 5)",
    ]);
  });

  it("are listed active ones first, and resolved ones for an hour", async () => {
    const { health, numbers, seen, time } = setUp();
    numbers.fallbackRate = 1;
    await health.checkNow();
    numbers.fallbackRate = 0;
    seen.strangers = ["other"];
    time.now += 1000;
    await health.checkNow();
    expect(health.snapshot().alerts.map(({ name }) => name)).toEqual([
      "LOCAL_TRUTH_SHARED",
      "HIGH_CACHE_FALLBACK_USAGE",
    ]);
    time.now += 3_600_000;
    expect(health.snapshot().alerts.map(({ name }) => name)).toEqual(["LOCAL_TRUTH_SHARED"]);
  });
});

describe("changes", () => {
  it("are told once for each, and not for a check that found nothing new", async () => {
    const { health, redis } = setUp();
    await health.checkNow();
    let told = 0;
    const forget = health.onChange(() => {
      told += 1;
    });
    await health.checkNow();
    expect(told).toBe(0);
    redis.answer = fails("gone");
    await health.checkNow();
    expect(told).toBe(1);
    forget();
    redis.answer = async () => undefined;
    await health.checkNow();
    expect(told).toBe(1);
  });

  it("that come by themselves are seen at once and followed by a check", async () => {
    const { health, redis } = setUp();
    await health.checkNow();
    let told = 0;
    health.onChange(() => {
      told += 1;
    });
    const before = redis.checks;
    redis.position = "open";
    health.changed();
    expect(told).toBe(1);
    await until(() => redis.checks > before, { what: "the check" });
  });

  it("during a check lead to another one after it", async () => {
    const { health, redis } = setUp();
    const running = health.checkNow();
    health.changed();
    health.changed();
    await running;
    await until(() => redis.checks === 2, { what: "the second check" });
    await health.checkNow();
    expect(redis.checks).toBeLessThanOrEqual(3);
  });

  it("for the worse are followed by checks until all is well", async () => {
    const { health, sql } = setUp({ recheckIntervalMs: 10 });
    sql.answer = fails("gone");
    await health.checkNow();
    const before = sql.checks;
    await until(() => sql.checks > before + 2, { what: "more checks" });
    sql.answer = async () => undefined;
    await until(() => health.snapshot().state === "healthy", { what: "the recovery" });
    health.close();
  });

  it("that calls run into lead to a check, and a thousand of them to one only", async () => {
    const { health, sql } = setUp({ suspicionIntervalMs: 10 });
    await health.checkNow();
    const before = sql.checks;
    sql.answer = fails("gone");
    for (let call = 0; call < 1000; call += 1) health.suspect();
    await until(() => health.snapshot().state === "unhealthy", { what: "the loss to be noticed" });
    expect(sql.checks).toBe(before + 1);
    health.close();
  });

  it("that calls run into during a check that passes lead to another one after it", async () => {
    const { health, sql } = setUp({ suspicionIntervalMs: 10 });
    const running = health.checkNow();
    sql.answer = fails("gone");
    health.suspect();
    await running;
    expect(health.snapshot().state).toBe("healthy");
    await until(() => health.snapshot().state === "unhealthy", { what: "the loss to be noticed" });
    health.close();
  });

  it("are nobody's news any more once it is closed", async () => {
    const { health, sql, raised } = setUp();
    await health.checkNow();
    health.close();
    sql.answer = fails("closed");
    const before = sql.checks;
    health.changed();
    await health.checkNow();
    expect(sql.checks).toBe(before);
    expect(raised).toEqual([]);
  });
});

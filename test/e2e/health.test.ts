import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Client, credentials } from "@grpc/grpc-js";
import { describe, expect, it } from "vitest";
import { CacheService } from "../../src/gen/holdfast/v1/cache_pb.js";
import {
  BreakerState,
  type ComponentHealth,
  type HealthReport,
  HealthService,
  HealthState,
} from "../../src/gen/holdfast/v1/health_pb.js";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { startHoldfast } from "../support/holdfast-process.ts";
import { startPostgres } from "../support/postgres-server.ts";
import { startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";

const quick = { HEALTH_CHECK_INTERVAL: "100ms", CIRCUIT_BREAKER_RESET_TIMEOUT: "200ms" };

function clientOf(grpcAddress: string) {
  return createClient(HealthService, createGrpcTransport({ baseUrl: `http://${grpcAddress}` }));
}

/** How a Get of a key that nobody has fails. */
async function failureOf(grpcAddress: string): Promise<ConnectError | undefined> {
  const client = createClient(CacheService, createGrpcTransport({ baseUrl: `http://${grpcAddress}` }));
  return await client.get({ key: "any" }).then(
    () => undefined,
    (error: unknown) => ConnectError.from(error),
  );
}

/** What grpc.health.v1 says of the server as a whole. */
async function servingOf(grpcAddress: string): Promise<string> {
  const client = new Client(grpcAddress, credentials.createInsecure());
  try {
    const reply = await new Promise<Buffer>((resolve, reject) => {
      const bytes = (it: Buffer) => it;
      client.makeUnaryRequest("/grpc.health.v1.Health/Check", bytes, bytes, Buffer.alloc(0), (error, answer) => {
        if (answer === undefined) reject(error);
        else resolve(answer);
      });
    });
    // HealthCheckResponse has one field, an enum.
    return ["UNKNOWN", "SERVING", "NOT_SERVING"][reply[1] ?? 0] ?? "UNKNOWN";
  } finally {
    client.close();
  }
}

function component(report: HealthReport | undefined, name: string): ComponentHealth {
  const found = report?.components.find((it) => it.name === name);
  if (!found) throw new Error(`the report has no ${name}`);
  return found;
}

describe("the health of a server whose Redis", () => {
  it.each([
    ["is killed and started again", "kill", "restart"],
    ["is frozen and thawed", "pause", "resume"],
  ] as const)("%s follows it, without a call having to wait", async (_, harm, heal) => {
    await using redis = await startRedis();
    await using server = await startHoldfast({ ...quick, REDIS_URL: redis.url });
    const client = clientOf(server.grpcAddress);
    const stateOf = async () => (await client.report({})).report;
    const well = await until(
      async () => {
        const report = await stateOf();
        if (report?.state !== HealthState.HEALTHY) throw new Error(HealthState[report?.state ?? 0]);
        return report;
      },
      { what: "health at the start" },
    );
    expect(component(well, "redis")).toMatchObject({ kind: "redis", breaker: BreakerState.CLOSED, message: "" });
    expect(component(well, "backplane")).toMatchObject({ kind: "redis pub/sub", state: HealthState.HEALTHY });
    expect(component(well, "journal")).toMatchObject({ kind: "file", state: HealthState.HEALTHY });
    expect(well.audit).toMatchObject({ tiers: ["journal", "redis", "sqlite"], journalOnlyRecords: 0n });
    expect(well.redis?.version).toMatch(/^\d+\./);
    expect(well.redis?.connectedClients).toBeGreaterThan(0);
    expect((await fetch(`${server.httpUrl}/health/redis`)).status).toBe(200);

    await redis[harm]();
    const unwell = await until(
      async () => {
        const report = await stateOf();
        if (!report?.alerts.some(({ name, active }) => name === "REDIS_MULTIPLE_FAILURES" && active))
          throw new Error("no alert");
        return report;
      },
      { what: "the failure to be noticed" },
    );
    expect(unwell.state).toBe(HealthState.DEGRADED);
    expect(unwell.redis).toBeUndefined();
    const redisThen = component(unwell, "redis");
    expect(redisThen.state).toBe(HealthState.UNHEALTHY);
    expect(redisThen.lastError).not.toBe("");
    expect(redisThen.message).toContain("SQL answers in its place");
    if (redisThen.breaker !== BreakerState.CLOSED) expect(unwell.audit?.tiers).toEqual(["sqlite"]);
    expect((await fetch(`${server.httpUrl}/health/redis`)).status).toBe(503);
    expect((await fetch(`${server.httpUrl}/health`)).status).toBe(200);
    expect((await fetch(`${server.httpUrl}/readyz`)).status).toBe(200);

    await redis[heal]();
    const again = await until(
      async () => {
        const report = await stateOf();
        if (report?.state !== HealthState.HEALTHY || report.alerts.some(({ active }) => active))
          throw new Error("not yet");
        return report;
      },
      { what: "the recovery" },
    );
    const alert = again.alerts.find(({ name }) => name === "REDIS_MULTIPLE_FAILURES");
    expect(alert?.resolveTime).toBeDefined();
    expect(component(again, "redis").lastErrorTime).toBeDefined();
    const alertLines = server
      .output()
      .split("\n")
      .filter((line) => line.includes('"alert":"REDIS_MULTIPLE_FAILURES"'));
    expect(alertLines.length).toBeGreaterThanOrEqual(2);
  });
});

describe("the health of a server whose Postgres", () => {
  it("is killed is UNHEALTHY with a 503, and HEALTHY when it is back", async () => {
    await using postgres = await startPostgres();
    await using server = await startHoldfast({ ...quick, DATABASE_URL: await postgres.createDatabase() });
    const statusOf = async () => (await fetch(`${server.httpUrl}/health`)).status;
    expect(await statusOf()).toBe(200);
    await postgres.kill();
    await until(async () => (await statusOf()) === 503, { what: "the loss to be noticed" });
    const body = await (await fetch(`${server.httpUrl}/health`)).text();
    expect(body).toContain("SYSTEM_UNHEALTHY");
    expect(body).not.toMatch(/postgres:\/\/[^"]*:[^*"]*@/);
    await postgres.restart();
    await until(async () => (await statusOf()) === 200, { what: "the recovery" });
  });

  it.each([
    ["alone is killed is not ready for calls until it is back", false],
    ["is killed while its Redis is there stays ready: what is cached is served", true],
  ])("%s", async (_, withRedis) => {
    await using postgres = await startPostgres();
    await using server = await startHoldfast({
      ...quick,
      DATABASE_URL: await postgres.createDatabase(),
      ...(withRedis && { REDIS_URL: await freshRedis() }),
    });
    const statusOf = async (page: string) => (await fetch(`${server.httpUrl}/${page}`)).status;
    const serving = () => servingOf(server.grpcAddress);
    expect([await statusOf("readyz"), await serving()]).toEqual([200, "SERVING"]);
    await postgres.kill();
    await until(async () => (await statusOf("health")) === 503, { what: "the loss to be noticed" });
    const expected = withRedis ? [200, "SERVING"] : [503, "NOT_SERVING"];
    expect([await statusOf("readyz"), await serving()]).toEqual(expected);
    expect(await statusOf("healthz")).toBe(200);
    await postgres.restart();
    await until(async () => (await statusOf("health")) === 200, { what: "the recovery" });
    expect([await statusOf("readyz"), await serving()]).toEqual([200, "SERVING"]);
  });

  it("is frozen is noticed by the calls that fail, and its return soon, however rare the checks", async () => {
    await using postgres = await startPostgres();
    await using server = await startHoldfast({
      DATABASE_URL: await postgres.createDatabase(),
      HEALTH_CHECK_INTERVAL: "1h",
      DATABASE_STATEMENT_TIMEOUT: "500ms",
      DATABASE_CONNECT_TIMEOUT: "500ms",
    });
    const statusOf = async () => (await fetch(`${server.httpUrl}/health`)).status;
    expect(await statusOf()).toBe(200);
    postgres.pause();
    const calls: unknown[] = [];
    const isNoticed = async () => {
      if ((await statusOf()) === 503) return true;
      calls.push((await failureOf(server.grpcAddress))?.code);
      return false;
    };
    // By itself the backplane would notice, too, but only after ten seconds.
    await until(isNoticed, { what: "the calls that fail to be noticed", timeoutMs: 9_000 });
    expect(new Set(calls)).toEqual(new Set([Code.Unavailable]));
    // Where it is and what it is called is for the log, not for callers and not for an open page.
    const { host, pathname } = new URL(server.env.DATABASE_URL ?? "");
    const shown =
      (await (await fetch(`${server.httpUrl}/health`)).text()) + String(await failureOf(server.grpcAddress));
    expect(shown).toContain("Postgres is not usable");
    expect(shown).not.toContain(host);
    expect(shown).not.toContain(pathname.slice(1));
    expect(server.output()).toContain(`Postgres at ${host}${pathname}`);
    postgres.resume();
    await until(async () => (await statusOf()) === 200, { what: "the recovery" });
  });

  it("is well is told what it stands on", async () => {
    await using server = await startHoldfast({ DATABASE_URL: await freshDatabase() });
    const { report } = await clientOf(server.grpcAddress).report({});
    expect(report).toMatchObject({ topology: "sql-only", instances: [report?.instanceId] });
    expect(component(report, "redis").state).toBe(HealthState.NOT_CONFIGURED);
    expect(component(report, "sql").kind).toBe("postgres");
    expect((await fetch(`${server.httpUrl}/health/redis`)).status).not.toBe(503);
  });
});

describe("Watch", () => {
  it("reports at once, then when something changes, long before the interval is over", async () => {
    await using redis = await startRedis();
    await using server = await startHoldfast({ ...quick, REDIS_URL: redis.url });
    const client = clientOf(server.grpcAddress);
    const abort = new AbortController();
    const states: HealthState[] = [];
    const watching = (async () => {
      for await (const { report } of client.watch({ interval: { seconds: 3600n } }, { signal: abort.signal })) {
        if (report && report.state !== states.at(-1)) states.push(report.state);
      }
    })().catch((error: unknown) => error);
    await until(() => states.at(-1) === HealthState.HEALTHY, { what: "health" });
    await redis.kill();
    await until(() => states.at(-1) === HealthState.DEGRADED, { what: "the loss" });
    await redis.restart();
    await until(() => states.at(-1) === HealthState.HEALTHY, { what: "the recovery" });
    abort.abort();
    expect(ConnectError.from(await watching).code).toBe(Code.Canceled);
  });

  it("reports at every interval when nothing changes", async () => {
    await using server = await startHoldfast();
    let count = 0;
    for await (const _ of clientOf(server.grpcAddress).watch({ interval: { seconds: 1n } })) if (++count === 4) break;
    expect(count).toBe(4);
  });

  it.each([
    ["none at all", { seconds: 0n }],
    ["too short", { seconds: 0n, nanos: 999_999_999 }],
    ["negative", { seconds: -5n }],
    ["too long", { seconds: 3601n }],
    ["absurd", { seconds: 2n ** 60n }],
  ])("refuses an interval that is %s", async (_, interval) => {
    await using server = await startHoldfast();
    const failure = await clientOf(server.grpcAddress).watch({ interval })[Symbol.asyncIterator]().next().catch(String);
    expect(failure).toContain("interval: must be from 1 second to 1 hour");
  });
});

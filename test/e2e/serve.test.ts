import { renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { afterAll, describe, expect, it } from "vitest";
import { HealthService } from "../../src/gen/holdfast/v1/health_pb.js";
import { startChild } from "../support/child.ts";
import { freePort } from "../support/free-port.ts";
import { freshDatabase, freshRedis } from "../support/fresh.ts";
import { grpcurlPath } from "../support/grpc-tools.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { scratchDirectory } from "../support/scratch.ts";
import { serverEntry } from "../support/server-entry.ts";
import { startTcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { holdfast, runCommand } from "./command.ts";

const scratch = scratchDirectory("serve");
afterAll(() => scratch.remove());
const cwd = scratch.path;

/** The log lines among what a process wrote. */
function logLines(output: string): Record<string, unknown>[] {
  return output.split("\n").flatMap((line) => (line.startsWith("{") ? [JSON.parse(line)] : []));
}

describe("a start", () => {
  it("needs nothing and says in one line where it serves", async () => {
    await using server = await startHoldfast();
    const [serving] = logLines(server.output()).filter(({ msg }) => msg === "serving");
    expect(serving).toMatchObject({ topology: "embedded", version: expect.stringMatching(/^\d+\.\d+\.\d+/) });
    const behind = { host: "127.0.0.1", tls: "off", keys: "off", sql: "sqlite", redis: "off" };
    expect(serving).toMatchObject({ ...behind, dataDir: server.env.HOLDFAST_DATA_DIR });
    expect(logLines(server.output()).filter(({ level }) => level === "warn")).toEqual([]);
    expect(`127.0.0.1:${serving?.grpcPort}`).toBe(server.grpcAddress);
    expect((await fetch(`${server.httpUrl}/readyz`)).status).toBe(200);
    expect(server.output()).not.toContain("Three things");
  });

  it("warns when it is open to the network, and of variables that are nearly settings", async () => {
    const env = { HOLDFAST_HOST: "0.0.0.0", HOLDFAST_INSECURE: "true", HOLDFAST_BANNER: "true", CACHE_TTTL: "60" };
    await using server = await startHoldfast(env);
    await until(() => server.output().includes("# 3. TypeScript"), { what: "the banner" });
    const warnings = logLines(server.output()).filter(({ level }) => level === "warn");
    expect(warnings.map(({ msg }) => msg)).toEqual([
      "CACHE_TTTL is not a setting, and nothing reads it; did you mean CACHE_TTL?",
      expect.stringMatching(/^HOLDFAST_INSECURE: 0\.0\.0\.0 is open to the network without TLS and API keys/),
    ]);
    expect(server.output()).toContain(
      `TLS off, API keys off, SQL sqlite in ${server.env.HOLDFAST_DATA_DIR}, Redis off`,
    );
  });

  it("names every mistake of the configuration and exits with 1", async () => {
    const env = {
      HOLDFAST_GRPC_PORT: "x",
      CACHE_TTL: "soon",
      HOLDFAST_HOST: "0.0.0.0",
      DATABASE_URL: "postgres://u:hunter2@h:x/d",
    };
    const { code, stderr, stdout } = await holdfast([], { cwd, env });
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toContain("4 mistakes");
    for (const name of Object.keys(env)) expect(stderr).toContain(`${name}: is `);
    expect(stderr).not.toContain("hunter2");
  });

  it("is refused on a data directory that another process uses, and that one goes on", async () => {
    await using server = await startHoldfast();
    const env = { ...server.env, HOLDFAST_GRPC_PORT: "0", HOLDFAST_HTTP_PORT: "0" };
    const { code, stdout, stderr } = await holdfast([], { cwd, env });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^holdfast: the data directory .*\n$/);
    expect(stderr).toContain(`in use by process ${server.pid}`);
    expect(stderr).toContain("HOLDFAST_DATA_DIR");
    expect(stdout).not.toContain("stack");
    expect((await fetch(`${server.httpUrl}/readyz`)).status).toBe(200);
  });

  it.each(["HOLDFAST_GRPC_PORT", "HOLDFAST_HTTP_PORT"])("says so when %s is taken, and exits with 1", async (name) => {
    await using server = await startHoldfast();
    const port = server.env[name] ?? "";
    const env = { HOLDFAST_GRPC_PORT: "0", HOLDFAST_HTTP_PORT: "0", [name]: port };
    const { code, stdout, stderr } = await holdfast([], { cwd, env });
    expect(code).toBe(1);
    const plane = name === "HOLDFAST_GRPC_PORT" ? "gRPC" : "HTTP";
    const why = `cannot listen on 127.0.0.1:${port} for ${plane}: another process listens there (EADDRINUSE); see ${name}`;
    expect(stderr).toBe(`holdfast: ${why}\n`);
    expect(logLines(stdout)).toContainEqual(expect.objectContaining({ level: "error", msg: `cannot start: ${why}` }));
    expect(stdout).not.toContain("stack");
  });

  it("does not wait for a Redis that is away", async () => {
    await using server = await startHoldfast({ REDIS_URL: `redis://127.0.0.1:${await freePort()}` });
    expect((await fetch(`${server.httpUrl}/readyz`)).status).toBe(200);
    expect((await fetch(`${server.httpUrl}/health/redis`)).status).toBe(503);
  });

  it("says once, and in words, that it waits for Postgres", async () => {
    let attempts = 0;
    const fields = "SFATAL\0C57P03\0Mthe database system is starting up\0\0";
    const refusal = Buffer.concat([Buffer.from("E"), Buffer.from([0, 0, 0, fields.length + 4]), Buffer.from(fields)]);
    const port = await freePort();
    const postgres = createServer((socket) => {
      attempts++;
      socket.on("error", () => undefined).once("data", () => socket.end(refusal));
    }).listen(port, "127.0.0.1");
    const { PATH } = process.env;
    const env = { PATH, DATABASE_URL: `postgres://u:hunter2@127.0.0.1:${port}/d`, HOLDFAST_DATA_DIR: cwd };
    const waiting = await startChild({
      command: process.execPath,
      args: [serverEntry()],
      cwd,
      env,
      isReady: (line) => line.includes("does not answer yet"),
    });
    await until(() => attempts >= 4, { what: "some more attempts" });
    const warnings = logLines(waiting.output()).filter(({ level }) => level === "warn");
    expect(warnings).toHaveLength(1);
    expect(warnings[0]?.msg).toContain(`Postgres at 127.0.0.1:${port}/d: the database system is starting up`);
    expect(waiting.output()).not.toMatch(/hunter2|stack/);
    await waiting.stop("SIGTERM");
    postgres.close();
  });

  it("waits for a Postgres that comes later, and stops when told to meanwhile", async () => {
    await using database = await proxied(await freshDatabase());
    database.proxy.cut();
    const interrupted = await startChild({
      command: process.execPath,
      args: [serverEntry()],
      cwd,
      env: { PATH: process.env.PATH, DATABASE_URL: database.url, HOLDFAST_GRPC_PORT: "0", HOLDFAST_HTTP_PORT: "0" },
      isReady: (line) => line.includes("does not answer yet"),
    });
    await interrupted.stop("SIGTERM");
    expect(interrupted.exited()).toBe("exit code 0");
    const starting = startHoldfast({ DATABASE_URL: database.url });
    database.proxy.restore();
    await using server = await starting;
    expect(logLines(server.output()).at(-1)).toMatchObject({ msg: "serving", topology: "sql-only" });
  });
});

describe("a stop", () => {
  it("ends streams with UNAVAILABLE and exits with 0", async () => {
    await using server = await startHoldfast();
    const client = createClient(HealthService, createGrpcTransport({ baseUrl: `http://${server.grpcAddress}` }));
    const stream = client.watch({})[Symbol.asyncIterator]();
    await stream.next();
    const end = (async () => {
      for (;;) if ((await stream.next()).done) return undefined;
    })().catch((error: unknown) => error);
    await server.stop();
    expect(server.exited()).toBe("exit code 0");
    const error = await end;
    expect(error).toBeInstanceOf(ConnectError);
    expect(ConnectError.from(error).code).toBe(Code.Unavailable);
    expect(logLines(server.output()).map(({ msg }) => msg)).toEqual(expect.arrayContaining(["draining", "stopped"]));
  });

  it("does not wait for callers that wait for another's lease: they are answered as if their time had run out", async () => {
    await using server = await startHoldfast({ HOLDFAST_DRAIN_TIMEOUT: "10m" });
    const get = async () => {
      const response = await fetch(`${server.httpUrl}/holdfast.v1.CacheService/Get`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ key: "cold", leaseTtl: "600s" }),
      });
      return response.json();
    };
    expect(await get()).toHaveProperty("lease");
    const waiter = get();
    const metrics = async () => (await fetch(`${server.httpUrl}/metrics`)).text();
    await until(async () => /^holdfast_cache_lease_waiters 1$/m.test(await metrics()), { what: "the waiter" });
    await server.stop();
    const answer = await waiter;
    expect(answer).toMatchObject({ outcome: "CACHE_OUTCOME_MISS" });
    expect(answer).not.toHaveProperty("lease");
    expect(server.exited()).toBe("exit code 0");
    const lines = logLines(server.output());
    expect(lines).toContainEqual(expect.objectContaining({ calls: 1, msg: "waiting for calls under way" }));
    expect(lines.at(-1)).toMatchObject({ msg: "stopped" });
  });

  it("is at once when told twice, whatever is still under way", async () => {
    await using database = await proxied(await freshDatabase());
    const env = { DATABASE_URL: database.url, DATABASE_STATEMENT_TIMEOUT: "1h", HEALTH_CHECK_INTERVAL: "100ms" };
    await using server = await startHoldfast(env);
    // A check that is never answered: closing the database would wait for it.
    database.proxy.freeze();
    await reportOf(server, "a check to hang", ({ state }) => state === "HEALTH_STATE_UNHEALTHY");
    process.kill(server.pid, "SIGTERM");
    await until(() => server.output().includes("draining"), { what: "the first to be heard" });
    expect(server.exited()).toBeUndefined();
    process.kill(server.pid, "SIGTERM");
    await until(() => server.exited() !== undefined, { what: "the end" });
    expect(server.exited()).toBe("exit code 143");
  });

  it("is not what SIGHUP asks for", async () => {
    await using server = await startHoldfast();
    process.kill(server.pid, "SIGHUP");
    expect((await fetch(`${server.httpUrl}/readyz`)).status).toBe(200);
    expect(server.exited()).toBeUndefined();
  });
});

describe("API keys", () => {
  it("made, revoked and reread while the server runs, decide who may call", async () => {
    const file = join(cwd, "keys.yaml");
    const create = await holdfast(["keys", "create", "--name", "ops", "--scopes", "health:read", "--file", file], {
      cwd,
    });
    const [key = ""] = create.stdout.split("\n");
    await using server = await startHoldfast({ HOLDFAST_API_KEYS_FILE: file });
    const call = async (bearer: string) => {
      const response = await fetch(`${server.httpUrl}/holdfast.v1.HealthService/Report`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${bearer}` },
        body: "{}",
      });
      return response.status;
    };
    expect(await call(key)).toBe(200);
    expect(await call("hf_x_y")).toBe(401);

    const id = key.split("_")[1] ?? "";
    const client = createClient(HealthService, createGrpcTransport({ baseUrl: `http://${server.grpcAddress}` }));
    const headers = { authorization: `Bearer ${key}` };
    const watching = client.watch({ interval: { seconds: 3600n } }, { headers })[Symbol.asyncIterator]();
    await watching.next();
    await holdfast(["keys", "revoke", id, "--file", file], { cwd });
    const cut = ConnectError.from(await watching.next().catch((error: unknown) => error));
    expect(cut.code).toBe(Code.Unauthenticated);
    // The last key is gone: nobody may call now, least of all everybody.
    await until(async () => (await call(key)) === 401, { what: "the revoked key to be refused" });

    const other = await holdfast(["keys", "create", "--name", "dev", "--scopes", "*", "--file", file], { cwd });
    process.kill(server.pid, "SIGHUP");
    const [next = ""] = other.stdout.split("\n");
    await until(async () => (await call(next)) === 200, { what: "the new key to be let in" });

    // At once: a server that looks while it is written would see an empty file, in which nobody may call.
    writeFileSync(join(cwd, "broken.yaml"), "keys: [{id: broken");
    renameSync(join(cwd, "broken.yaml"), file);
    process.kill(server.pid, "SIGHUP");
    await until(() => server.output().includes("API keys not read again"), { what: "the broken file to be noticed" });
    expect(await call(next)).toBe(200);
    expect(server.output()).not.toContain(key);
    expect(server.output()).not.toContain(next);
  });
});

describe("commands", () => {
  it("print the settings in force", async () => {
    const file = join(cwd, "holdfast.yaml");
    writeFileSync(file, "server: {grpc_port: 9}\nredis: {url: 'redis://:hunter2@h'}\n");
    const { code, stdout } = await holdfast(["config"], { cwd, env: { CACHE_TTL: "60" } });
    expect(code).toBe(0);
    expect(stdout).toContain("grpc_port: 9 # holdfast.yaml (HOLDFAST_GRPC_PORT)");
    expect(stdout).toContain("ttl: 1m # CACHE_TTL");
    expect(stdout).toContain("topology: single");
    expect(stdout).not.toContain("hunter2");
    const json = await holdfast(["config", "--json"], { cwd: scratchDirectory("empty").path });
    expect(JSON.parse(json.stdout)).toMatchObject({ topology: "embedded", file: null });
  });

  it("tell the version, and the help", async () => {
    expect((await holdfast(["version"], { cwd })).stdout).toMatch(/^\d+\.\d+\.\d+\S*\n$/);
    const { stdout } = await holdfast(["version"], { cwd });
    for (const flag of ["--version", "-v"]) expect((await holdfast([flag], { cwd })).stdout).toBe(stdout);
    const help = (await holdfast(["help"], { cwd })).stdout;
    expect(help).toContain("keys create");
    for (const command of ["verify", "config", "import", "serve"]) {
      const { code, stdout } = await holdfast([command, "--help"], { cwd: scratchDirectory("empty").path });
      expect({ code, stdout }).toEqual({ code: 0, stdout: help });
    }
  });

  it.each([[["srve"]], [["config", "--jsn"]], [["keys"]], [["keys", "create", "--scopes", "*"]], [["serve", "now"]]])(
    "that are not understood exit with 2: %j",
    async (args) => {
      const { code, stderr } = await holdfast(args, { cwd: scratchDirectory("empty").path });
      expect(code).toBe(2);
      expect(stderr).toContain("holdfast help");
    },
  );
});

describe("two instances on one Redis, each with a SQLite of its own", () => {
  it("report DEGRADED until one is gone, and not because one was started again", async () => {
    const redis = await freshRedis();
    await using one = await startHoldfast({ REDIS_URL: redis, HOLDFAST_INSTANCE_ID: "one" });
    await reportOf(one, "the first to be healthy", ({ state }) => state === "HEALTH_STATE_HEALTHY");
    const two = await startHoldfast({ REDIS_URL: redis, HOLDFAST_INSTANCE_ID: "two" });
    for (const server of [one, two]) {
      const seen = await reportOf(
        server,
        "the shared Redis to be noticed",
        (found) => found.state === "HEALTH_STATE_DEGRADED" && activeAlerts(found).length > 0,
      );
      expect(seen.instances).toEqual(["one", "two"]);
      expect(activeAlerts(seen)).toEqual(["LOCAL_TRUTH_SHARED"]);
      expect(seen.components.find(({ name }) => name === "sql")?.message).toMatch(/SQLite.*(one|two).*DATABASE_URL/);
      expect((await fetch(`${server.httpUrl}/health`)).status).toBe(200);
    }
    await two.stop();
    const after = await reportOf(one, "the other to be forgotten", (found) => found.state === "HEALTH_STATE_HEALTHY");
    expect(after.instances).toEqual(["one"]);
    expect(after.alerts).toMatchObject([
      { name: "LOCAL_TRUTH_SHARED", active: false, resolveTime: expect.any(String) },
    ]);

    // Killed, its heartbeat lives on for a while; on the same data directory that is no stranger.
    await one.kill();
    await one.restart();
    await reportOf(one, "the restarted to be healthy", ({ state }) => state === "HEALTH_STATE_HEALTHY");
    expect((await report(one)).alerts).toEqual([]);
  });

  it("are fine where they share a Postgres", async () => {
    const env = { REDIS_URL: await freshRedis(), DATABASE_URL: await freshDatabase() };
    await using one = await startHoldfast({ ...env, HOLDFAST_INSTANCE_ID: "one" });
    await using two = await startHoldfast({ ...env, HOLDFAST_INSTANCE_ID: "two" });
    for (const server of [one, two]) {
      const seen = await reportOf(server, "both to be seen", (found) => found.instances.length === 2);
      expect(seen).toMatchObject({ instances: ["one", "two"], topology: "cluster", alerts: [] });
    }
  });
});

describe("the banner", () => {
  it.skipIf(grpcurlPath() === undefined)("offers three things to try, and each works as it is pasted", async () => {
    await using server = await startHoldfast({ HOLDFAST_BANNER: "true" });
    await until(() => server.output().includes("\nEOF\n"), { what: "the banner" });
    const tries = server
      .output()
      .split(/^# \d\. .*\n/m)
      .slice(1);
    expect(tries).toHaveLength(3);
    const env = { PATH: `${grpcurlPath()?.replace(/\/[^/]*$/, "")}:${process.env.PATH}` };
    const [grpcurl, curl, typescript] = await inOrder(tries, (command) => runCommand("bash", ["-c", command], { env }));
    expect(grpcurl).toMatchObject({ code: 0, stdout: expect.stringContaining("SET_OUTCOME_STORED") });
    expect(curl).toMatchObject({ code: 0, stdout: expect.stringContaining('"hello"') });
    expect(typescript).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^hello from TypeScript version \d+n\n$/),
    });
    const example = await runCommand(process.execPath, ["examples/cache.ts"], {
      env: { HOLDFAST_URL: `http://${server.grpcAddress}` },
    });
    expect(example).toMatchObject({ code: 0, stdout: expect.stringMatching(/^hello from TypeScript/) });
  });
});

/** The database behind a proxy that can be cut and frozen. */
async function proxied(databaseUrl: string) {
  const url = new URL(databaseUrl);
  const proxy = await startTcpProxy(Number(url.port));
  url.hostname = "127.0.0.1";
  url.port = String(proxy.port);
  return { proxy, url: url.href, [Symbol.asyncDispose]: () => proxy.close() };
}

interface Report {
  readonly state: string;
  readonly topology: string;
  readonly instances: readonly string[];
  readonly components: readonly { readonly name: string; readonly state: string; readonly message: string }[];
  readonly alerts: readonly { readonly name: string; readonly active: boolean }[];
}

type Server = Pick<HoldfastProcess, "httpUrl">;

async function report({ httpUrl }: Server): Promise<Report> {
  const response = await fetch(`${httpUrl}/health`);
  // The shape is the contract's: what is compared with it below would not match another.
  return JSON.parse(await response.text());
}

/** The first report that is as wanted. */
function reportOf(server: Server, what: string, wanted: (report: Report) => boolean): Promise<Report> {
  return until(
    async () => {
      const found = await report(server);
      if (!wanted(found)) throw new Error(JSON.stringify(found));
      return found;
    },
    { what },
  );
}

function activeAlerts({ alerts }: Report): string[] {
  return alerts.filter(({ active }) => active).map(({ name }) => name);
}

async function inOrder<T, R>(items: readonly T[], run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (const item of items) results.push(await run(item));
  return results;
}

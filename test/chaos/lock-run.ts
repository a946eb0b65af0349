import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { LockService } from "../../src/gen/holdfast/v1/lock_pb.js";
import { type Child, startChild } from "../support/child.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { createRandom } from "../support/load-child.ts";
import { createLockClient } from "../support/lock-client.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { type SkewedClock, skewedClock } from "../support/skewed-clock.ts";
import { startTcpProxy, type TcpProxy } from "../support/tcp-proxy.ts";
import { until } from "../support/until.ts";
import { checkLocks, type LockVerdict } from "./lock-checker.ts";
import type { LockClientOptions } from "./lock-client-process.ts";
import { grantsOf, type LockHistory, lastWillOf, type Said } from "./lock-history.ts";
import { monotonicMs, openResource } from "./lock-resource.ts";

export type ChaosAuthority = "sqlite" | "postgres" | "redis" | "redlock";

export type LockFaultKind =
  | "a client killed"
  | "a client frozen"
  | "an instance killed"
  | "an instance frozen"
  | "a clock set"
  | "Redis frozen"
  | "Redis restarted empty"
  | "an instance cut off from Redis";

export interface LockChaosOptions {
  readonly authority: ChaosAuthority;
  readonly seed: number;
  /** One after the other. Default: those that can befall this authority. */
  readonly faults?: readonly LockFaultKind[];
  /** How many of the eight workers of a client take locks with streams. Default: 3. */
  readonly holders?: number;
  /** Where the server's code is. Default: here. */
  readonly root?: string;
  /** Whether the resource compares tokens. Default: it does. */
  readonly isFenced?: boolean;
}

export interface LockChaosReport {
  readonly verdict: LockVerdict;
  readonly history: LockHistory;
  /** How many grants were kept by streams. */
  readonly kept: number;
  /** What calls failed with, and how often. */
  readonly failed: Readonly<Record<string, number>>;
  /** What clients ended with that nobody had killed, and what servers call their own mistake. */
  readonly problems: readonly string[];
}

const TTL_MS = 600;
const CALM_MS = 250;
/** Longer than any lease. */
const FROZEN_MS = 1_500;
/** By so much the clocks of the instances are ahead, or behind. */
const SKEWS_MS = [7_000, -7_000];
const LOCKS = ["jobs/a", "jobs/b", "jobs/c"];
const OF_ALL: readonly LockFaultKind[] = [
  "a client killed",
  "an instance frozen",
  "a client frozen",
  "an instance killed",
  // Last: an SQLite that starts with another clock than before ends leases by that.
  "a clock set",
];
const OF_REDIS: readonly LockFaultKind[] = ["Redis frozen", "Redis restarted empty", "an instance cut off from Redis"];

interface Backend {
  /** Of each instance. */
  readonly envs: readonly Readonly<Record<string, string>>[];
  /** The Redis that decides about locks, or several. */
  readonly masters: readonly RedisServer[];
  /** By which the last of the instances reaches them. */
  readonly ways: readonly TcpProxy[];
}

/**
 * Clients take locks and write under their protection while they, the instances and Redis are killed and frozen; then the
 * account.
 */
export async function runLockChaos(options: LockChaosOptions): Promise<LockChaosReport> {
  const { authority, seed, root, isFenced, holders = 3 } = options;
  await using parts = new AsyncDisposableStack();
  const { envs, masters, ways } = await backendOf(authority, parts);
  const clocks = envs.map(() => parts.use(skewedClock()));
  for (const [at, clock] of clocks.entries()) clock.set(SKEWS_MS[at] ?? 0);
  const servers = await Promise.all(envs.map((env, at) => startHoldfast({ ...env, ...clocks[at]?.env }, root)));
  for (const server of servers) parts.use(server);
  await Promise.all(servers.map(decides));
  const resource = parts.use(await openResource(isFenced));
  const clients = parts.use(startClients({ servers, port: resource.port, seed, holders }));
  await clients.add();
  await clients.add();
  const lossesMs: number[] = [];
  const defects: string[] = [];
  const random = createRandom(seed);
  const grants = () => grantsOf(clients.said()).length;
  const goesOn = async (after: string) => {
    const before = grants();
    const isGranting = () => {
      if (grants() > before + 12) return true;
      throw new Error(clients.lastWords().join("; "));
    };
    await until(isGranting, { what: `locks to be granted after: ${after}` });
  };
  let last = "the start";
  for (const fault of options.faults ?? [...OF_ALL, ...(masters.length > 0 ? OF_REDIS : [])]) {
    await goesOn(last);
    last = fault;
    await delay(CALM_MS);
    // An instance that starts again begins its log anew.
    defects.push(...servers.flatMap(defectsOf));
    await inflict(fault, { servers, clients, clocks, masters, ways, lossesMs, victim: random(6) });
  }
  await goesOn(last);
  await clients.stop();
  const said = clients.said();
  const history = { grants: grantsOf(said), writes: resource.writes, lossesMs };
  const failed: Record<string, number> = {};
  for (const one of said) if (one.said === "failed") failed[one.why] = (failed[one.why] ?? 0) + 1;
  const problems = [...clients.problems(), ...new Set([...defects, ...servers.flatMap(defectsOf)])];
  const kept = said.filter((one) => one.said === "granted" && one.isKept).length;
  return { verdict: checkLocks(history), history, kept, failed, problems };
}

async function backendOf(authority: ChaosAuthority, parts: AsyncDisposableStack): Promise<Backend> {
  if (authority === "sqlite") return { envs: [{}], masters: [], ways: [] };
  const DATABASE_URL = await freshDatabase();
  if (authority === "postgres") return { envs: [{ DATABASE_URL }, { DATABASE_URL }], masters: [], ways: [] };
  const starting = Array.from({ length: authority === "redis" ? 1 : 3 }, () => startRedis());
  const masters = await Promise.all(starting);
  for (const master of masters) parts.use(master);
  const ways = await Promise.all(masters.map(({ port }) => startTcpProxy(port)));
  for (const way of ways) parts.use(way);
  const envs = [masters, ways].map((servers) => {
    const urls = servers.map(({ port }) => `redis://127.0.0.1:${port}`).join(",");
    const own = authority === "redis" ? { REDIS_URL: urls } : { LOCK_AUTHORITY: "redlock", LOCK_REDLOCK_URLS: urls };
    const impatient = { REDIS_COMMAND_TIMEOUT: "500ms", CIRCUIT_BREAKER_RESET_TIMEOUT: "200ms" };
    return { DATABASE_URL, ...own, ...impatient };
  });
  return { envs, masters, ways };
}

/** What a server says of calls that nobody can have made wrong. */
export function defectsOf(server: HoldfastProcess): readonly string[] {
  const lines = server.output().split("\n");
  return lines.filter((line) => line.includes('"code":"INTERNAL"')).slice(0, 2);
}

/** Until it decides about locks. */
export async function decides({ grpcAddress }: HoldfastProcess): Promise<void> {
  using client = createLockClient(grpcAddress);
  await until(() => client.call(LockService.method.get, { name: "ready" }), { what: "locks to be decided" });
}

export interface Clients extends AsyncDisposable {
  add(): Promise<void>;
  /** One of those that run. */
  pick(victim: number): Child;
  kill(victim: number): Promise<void>;
  said(): Said[];
  /** What each of them said last, for people. */
  lastWords(): string[];
  problems(): string[];
  stop(): Promise<void>;
}

interface ClientsOptions extends Pick<LockClientOptions, "port" | "seed" | "holders"> {
  readonly servers: readonly HoldfastProcess[];
}

export function startClients(of: ClientsOptions): Clients {
  const children: Child[] = [];
  const linesOf = (child: Child) => child.output().split("\n").slice(0, -1);
  const running = () => children.filter((child) => child.exited() === undefined);
  const problems: string[] = [];
  const diedAtMs = new Map<Child, number>();
  const saidBy = (child: Child) =>
    linesOf(child).flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as Said] : []));

  async function kill(child: Child): Promise<void> {
    diedAtMs.set(child, monotonicMs());
    await child.kill();
  }

  function pick(victim: number): Child {
    const all = running();
    const child = all[victim % all.length];
    if (child === undefined) throw new Error("no client runs");
    return child;
  }

  async function stop(): Promise<void> {
    for (const child of children) {
      if (child.exited() !== undefined && child.exited() !== "SIGKILL")
        problems.push(`a client ended: ${child.output().slice(-500)}`);
    }
    await Promise.all(running().map(kill));
  }

  return {
    async add() {
      const name = `client${children.length}`;
      const options: LockClientOptions = {
        ...{
          name,
          addresses: of.servers.map(({ grpcAddress }) => grpcAddress),
          locks: LOCKS,
          workers: 8,
          holders: of.holders,
          ttlMs: TTL_MS,
        },
        ...{ seed: of.seed + 100 * children.length, port: of.port },
      };
      const path = join(import.meta.dirname, "lock-client-process.ts");
      const args = [path, JSON.stringify(options)];
      children.push(await startChild({ command: process.execPath, args, isReady: (line) => line === "ready" }));
    },
    async kill(victim) {
      await kill(pick(victim));
    },
    pick,
    said: () =>
      children.flatMap((child) => {
        const said = saidBy(child);
        const diedMs = diedAtMs.get(child);
        return diedMs === undefined ? said : [...said, ...lastWillOf(said, diedMs)];
      }),
    lastWords: () => children.map((child) => `${child.exited() ?? "runs"}: ${linesOf(child).slice(-2).join(" ")}`),
    problems: () => problems,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

interface Scene {
  readonly servers: readonly HoldfastProcess[];
  readonly clients: Clients;
  readonly clocks: readonly SkewedClock[];
  readonly masters: readonly RedisServer[];
  readonly ways: readonly TcpProxy[];
  readonly lossesMs: number[];
  readonly victim: number;
}

async function inflict(
  fault: LockFaultKind,
  { servers, clients, clocks, masters, ways, lossesMs, victim }: Scene,
): Promise<void> {
  const server = servers[victim % servers.length];
  if (server === undefined) throw new Error("there is no server");
  const redis = masters[victim % masters.length];
  switch (fault) {
    case "a client killed":
      await clients.kill(victim);
      await clients.add();
      return;
    case "a client frozen":
      await frozen(clients.pick(victim));
      return;
    case "an instance killed":
      await server.kill();
      await server.restart();
      await decides(server);
      return;
    case "an instance frozen":
      await frozen(server);
      return;
    case "a clock set":
      for (const [at, clock] of clocks.entries()) clock.set(-2 * (SKEWS_MS[at] ?? 0));
      await delay(FROZEN_MS);
      return;
    case "Redis frozen":
      if (redis) await frozen(redis);
      return;
    case "Redis restarted empty":
      if (redis === undefined) return;
      await redis.kill();
      // One of several: a majority still knows.
      if (masters.length === 1) lossesMs.push(monotonicMs());
      redis.forget();
      await redis.restart();
      return;
    case "an instance cut off from Redis":
      for (const way of ways) way.cut();
      await delay(FROZEN_MS);
      for (const way of ways) way.restore();
      return;
  }
}

async function frozen(it: { pause(): void; resume(): void }): Promise<void> {
  it.pause();
  await delay(FROZEN_MS);
  it.resume();
}

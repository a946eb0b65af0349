import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { LockService } from "../../src/gen/holdfast/v1/lock_pb.js";
import { type Child, startChild } from "../support/child.ts";
import { freshDatabase } from "../support/fresh.ts";
import { type HoldfastProcess, startHoldfast } from "../support/holdfast-process.ts";
import { createRandom } from "../support/load-child.ts";
import { createLockClient } from "../support/lock-client.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import { checkLocks, type LockVerdict } from "./lock-checker.ts";
import type { LockClientOptions } from "./lock-client-process.ts";
import { grantsOf, type LockHistory, type Said } from "./lock-history.ts";
import { monotonicMs, openResource } from "./lock-resource.ts";

export type ChaosAuthority = "sqlite" | "postgres" | "redis" | "redlock";

export type LockFaultKind =
  | "a client killed"
  | "a client frozen"
  | "an instance killed"
  | "an instance frozen"
  | "Redis frozen"
  | "Redis restarted empty";

export interface LockChaosOptions {
  readonly authority: ChaosAuthority;
  readonly seed: number;
  /** One after the other. Default: those that can befall this authority. */
  readonly faults?: readonly LockFaultKind[];
  /** Where the server's code is. Default: here. */
  readonly root?: string;
  /** Whether the resource compares tokens. Default: it does. */
  readonly isFenced?: boolean;
}

export interface LockChaosReport {
  readonly verdict: LockVerdict;
  readonly history: LockHistory;
  /** What calls failed with, and how often. */
  readonly failed: Readonly<Record<string, number>>;
  /** What clients ended with that nobody had killed, and what servers call their own mistake. */
  readonly problems: readonly string[];
}

const TTL_MS = 600;
const CALM_MS = 250;
/** Longer than any lease. */
const FROZEN_MS = 1_100;
const LOCKS = ["jobs/a", "jobs/b", "jobs/c"];
const OF_ALL: readonly LockFaultKind[] = [
  "a client killed",
  "an instance frozen",
  "a client frozen",
  "an instance killed",
];
const OF_REDIS: readonly LockFaultKind[] = ["Redis frozen", "Redis restarted empty"];

interface Backend {
  readonly env: Readonly<Record<string, string>>;
  /** The Redis that decides about locks, or several. */
  readonly masters: readonly RedisServer[];
}

/**
 * Clients take locks and write under their protection while they, the instances and Redis are killed and frozen; then the
 * account.
 */
export async function runLockChaos(options: LockChaosOptions): Promise<LockChaosReport> {
  const { authority, seed, root, isFenced } = options;
  await using parts = new AsyncDisposableStack();
  const { env, masters } = await backendOf(authority, parts);
  const starting = Array.from({ length: authority === "sqlite" ? 1 : 2 }, () => startHoldfast(env, root));
  const servers = await Promise.all(starting);
  for (const server of servers) parts.use(server);
  await Promise.all(servers.map(decides));
  const resource = parts.use(await openResource(isFenced));
  const clients = parts.use(startClients({ servers, port: resource.port, seed }));
  await clients.add();
  await clients.add();
  const lossesMs: number[] = [];
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
    await inflict(fault, { servers, clients, masters, lossesMs, victim: random(6) });
  }
  await goesOn(last);
  await clients.stop();
  const said = clients.said();
  const history = { grants: grantsOf(said), writes: resource.writes, lossesMs };
  const failed: Record<string, number> = {};
  for (const one of said) if (one.said === "failed") failed[one.why] = (failed[one.why] ?? 0) + 1;
  const problems = [...clients.problems(), ...servers.flatMap(defectsOf)];
  return { verdict: checkLocks(history), history, failed, problems };
}

async function backendOf(authority: ChaosAuthority, parts: AsyncDisposableStack): Promise<Backend> {
  if (authority === "sqlite") return { env: {}, masters: [] };
  const DATABASE_URL = await freshDatabase();
  if (authority === "postgres") return { env: { DATABASE_URL }, masters: [] };
  const starting = Array.from({ length: authority === "redis" ? 1 : 3 }, () => startRedis());
  const masters = await Promise.all(starting);
  for (const master of masters) parts.use(master);
  const urls = masters.map(({ url }) => url).join(",");
  const own = authority === "redis" ? { REDIS_URL: urls } : { LOCK_AUTHORITY: "redlock", LOCK_REDLOCK_URLS: urls };
  const impatient = { REDIS_COMMAND_TIMEOUT: "500ms", CIRCUIT_BREAKER_RESET_TIMEOUT: "200ms" };
  return { env: { DATABASE_URL, ...own, ...impatient }, masters };
}

/** What a server says of calls that nobody can have made wrong. */
function defectsOf(server: HoldfastProcess): readonly string[] {
  const lines = server.output().split("\n");
  return lines.filter((line) => line.includes('"code":"INTERNAL"')).slice(0, 2);
}

/** Until it decides about locks. */
async function decides({ grpcAddress }: HoldfastProcess): Promise<void> {
  using client = createLockClient(grpcAddress);
  await until(() => client.call(LockService.method.get, { name: "ready" }), { what: "locks to be decided" });
}

interface Clients extends AsyncDisposable {
  add(): Promise<void>;
  /** One of those that run. */
  pick(victim: number): Child;
  said(): Said[];
  /** What each of them said last, for people. */
  lastWords(): string[];
  problems(): string[];
  stop(): Promise<void>;
}

function startClients(of: { servers: readonly HoldfastProcess[]; port: number; seed: number }): Clients {
  const children: Child[] = [];
  const linesOf = (child: Child) => child.output().split("\n").slice(0, -1);
  const running = () => children.filter((child) => child.exited() === undefined);
  const problems: string[] = [];

  async function stop(): Promise<void> {
    for (const child of children) {
      if (child.exited() !== undefined && child.exited() !== "SIGKILL")
        problems.push(`a client ended: ${child.output().slice(-500)}`);
    }
    await Promise.all(running().map((child) => child.kill()));
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
          ttlMs: TTL_MS,
        },
        ...{ seed: of.seed + 100 * children.length, port: of.port },
      };
      const path = join(import.meta.dirname, "lock-client-process.ts");
      const args = [path, JSON.stringify(options)];
      children.push(await startChild({ command: process.execPath, args, isReady: (line) => line === "ready" }));
    },
    pick(victim) {
      const all = running();
      const child = all[victim % all.length];
      if (child === undefined) throw new Error("no client runs");
      return child;
    },
    said: () =>
      children.flatMap((child) =>
        linesOf(child).flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as Said] : [])),
      ),
    lastWords: () => children.map((child) => `${child.exited() ?? "runs"}: ${linesOf(child).slice(-2).join(" ")}`),
    problems: () => problems,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

interface Scene {
  readonly servers: readonly HoldfastProcess[];
  readonly clients: Clients;
  readonly masters: readonly RedisServer[];
  readonly lossesMs: number[];
  readonly victim: number;
}

async function inflict(fault: LockFaultKind, { servers, clients, masters, lossesMs, victim }: Scene): Promise<void> {
  const server = servers[victim % servers.length];
  if (server === undefined) throw new Error("there is no server");
  const redis = masters[victim % masters.length];
  switch (fault) {
    case "a client killed":
      await clients.pick(victim).kill();
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
  }
}

async function frozen(it: { pause(): void; resume(): void }): Promise<void> {
  it.pause();
  await delay(FROZEN_MS);
  it.resume();
}
